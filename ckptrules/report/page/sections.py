"""Computes all that the page shows from the data of a run, in the order of the page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ckptrules.engine.measures import NS, count_of, human_size, human_time
from ckptrules.engine.what_if import FLOOR
from ckptrules.report.page.verdict import (
    Data,
    assurances,
    experiments_of,
    kicker,
    needing,
    runs_of,
    undecided_in,
    verdict,
    words,
)

MOST_NEEDS = 100  # problems in the page itself
MOST_OPEN = 8  # problems that are shown before a click on "more"
MOST_EXPERIMENTS = 1000
MOST_CHANGES = 1000
THIN = "\u202f"  # a narrow no-break space
SECTIONS = {
    "needs-you": ("needs", "Needs you"),
    "space": ("space", "Space"),
    "experiments": ("experiments", "Experiments"),
    "checkpoints": ("has_rows", "Checkpoints"),
    "changes": ("changes", "Changes"),
    "what-if": ("what_if", "What if"),
    "history": ("history", "History"),
    "rules": ("rules", "Rules"),
}


def thousands(number: int) -> str:
    """Format a number with narrow no-break spaces."""
    return f"{number:,}".replace(",", THIN)


def sections(data: Data) -> dict[str, Any]:
    """Return the values for the template of the page."""
    verifies = data["command"] == "verify"
    experiments = [] if verifies else [one for one in experiments_of(data) if one.get("checkpoints")]
    places = {id(one): index for index, one in enumerate(experiments_of(data))}
    order = sorted(experiments, key=lambda one: (-total_of(one), one["directory"]))
    biggest = total_of(order[0]) if order else 0
    needs = [*needing(experiments_of(data))]
    sentence = verdict(data, len(needs))
    page = {
        "title": f"{''.join(text for text, _ in sentence)} {data['host']}",
        "kicker": kicker(data),
        "verdict": sentence,
        "assurances": [*assurances(data, experiments)],
        "does_it": data.get("does_it"),
        "does_it_label": "To do it:"
        if (data.get("summary") or {}).get("deleted")
        else "To rename, and delete nothing:",
        "words": words(data),
        "needs": needs[:MOST_NEEDS],
        "most_open": MOST_OPEN,
        "more_needs": max(len(needs) - MOST_NEEDS, 0),
        "space": space(data),
        "experiments": [
            {"index": places[id(one)], **experiment_row(data, one, biggest)} for one in order[:MOST_EXPERIMENTS]
        ],
        "other_experiments": others(order[MOST_EXPERIMENTS:]),
        "has_rows": any(one.get("checkpoints") for one in experiments_of(data)),
        "states": [("all", "all"), *words(data).items()],
        "changes": [] if experiments else [*changes(experiments_of(data))][:MOST_CHANGES],
        "what_if": [*what_ifs(data)],
        "history": [history_row(run) for run in runs_of(data)],
        "deleted": deleted(runs_of(data)),
        "rules": [rule_row(line) for line in (data.get("rules") or {}).get("lines", ())],
        "foot": f"Drawn by ckptrules {data.get('version', '')} from the JSON of '{data['command']}' (schema version "
        f"{data['schema_version']}), which stands in this file.",
    }
    return page | {"sections": [(anchor, name) for anchor, (key, name) in SECTIONS.items() if page[key]]}


def total_of(experiment: Data) -> int:
    """Add up the bytes of an experiment's checkpoints."""
    return sum(row["bytes"] for row in experiment.get("checkpoints", ()))


def bytes_of(experiment: Data, state: str) -> int:
    """Add up the bytes of an experiment's checkpoints in one state."""
    return sum(row["bytes"] for row in experiment["checkpoints"] if row["state"] == state)


def changes(experiments: Iterable[Data]) -> Iterator[dict[str, Any]]:
    """Yield a row for each action, for commands whose data have no checkpoints."""
    for one in experiments:
        for action in one.get("actions", ()):
            yield {
                "experiment": one["experiment"],
                "what": action["action"],
                "name": action["name"],
                "to": action["to"] or "",
                "bytes": action["bytes"],
                "why": "; ".join(reason["text"] for reason in action["reasons"]),
            }


def stacked(parts: Iterable[tuple[str, int]], whole: int) -> list[dict[str, Any]]:
    """Return the parts of a bar, each with its begin and its share in percent of ``whole``."""
    found, at = [], 0.0
    for kind, size in parts:
        share = 100 * size / whole if whole else 0.0
        found.append({"kind": kind, "at": at, "share": share})
        at += share
    return found


def space(data: Data) -> dict[str, Any] | None:
    """Return the bar of the whole tree: protected, kept, what goes, what needs a person, the trash."""
    given = data.get("space")
    if not given:
        return None
    if not data["dry_run"]:  # what went is in the trash, or freed
        given = {**given, "goes": 0}
    until = f"until {given['trash_until']}" if given["trash_until"] else ""
    names = {
        "protected": "protected",
        "kept": "kept",
        "goes": words(data)["goes"],
        "undecided": "needs you",
        "trash": "in the trash",
    }
    known = [(kind, given[kind]) for kind in names if given[kind]]
    whole = sum(size for _, size in known)
    if not whole:
        return None
    parts = [
        {**part, "name": names[kind], "note": until if kind == "trash" else "", "bytes": size}
        for part, (kind, size) in zip(stacked(known, whole), known, strict=True)
    ]
    label = ", ".join(f"{part['name']} {human_size(part['bytes'])}" for part in parts)
    if given["same_twice"]:
        twice = {"name": "the same bytes twice", "note": "one copy would do", "bytes": given["same_twice"]}
        parts.append({"kind": "same", "at": 0, "share": 0, **twice})
    return {"parts": parts, "label": label, "disk": disk(given)}


def disk(given: Data) -> str:
    """Say what is free on the disk now, and will be when what goes has left the trash."""
    if given["disk_free"] is None:
        return ""
    goes, trash = given["goes"] or 0, given["trash"] or 0
    of = f" of {human_size(given['disk_total'])}" if given["disk_total"] else ""
    free = human_size(given["disk_free"])
    after = human_size(given["disk_free"] + goes + trash)
    then = f"; {after} when {'what goes has left the trash' if goes else 'the trash is empty'}" if goes + trash else ""
    return f"The disk has {free}{of} free{then}."


def experiment_row(data: Data, one: Data, biggest: int) -> dict[str, Any]:
    """Return the row of an experiment; its bar has the scale of the ``biggest`` experiment."""
    stays, goes, undecided = (bytes_of(one, state) for state in ("stays", "goes", "undecided"))
    notes = [one["policy"]] if one["policy"] else []
    return {
        "name": one["experiment"],
        "stays": stays,
        "goes": goes,
        "needs": bool(one["problems"] or undecided),
        "parts": stacked([("stays", stays), ("undecided", undecided), ("goes", goes)], biggest),
        "label": f"{human_size(stays)} {words(data)['stays']}, {human_size(goes)} {words(data)['goes']}",
        "about": about(one, data["started_ns"]),
        "notes": [
            f"{note['text']} ({note['rule']})" if note["rule"] else note["text"] for note in (*notes, *one["notes"])
        ],
    }


def about(one: Data, now: int) -> str:
    """Say how many checkpoints an experiment has, its highest number, its best value, and how old the newest is."""
    rows = one["checkpoints"]
    parts = [count_of(len(rows), "checkpoint")]
    numbers = [row["fields"].get(one["number"]) for row in rows]
    if numbers := [
        number for number in numbers if isinstance(number, int)
    ]:  # a name may have "final" in place of a number
        parts.append(f"{one['number']} {thousands(max(numbers))}")
    name, mode = ((one["metric"] or {}).get(key, "") for key in ("name", "mode"))
    values = [row["metrics"].get(name) for row in rows if row["best"]]
    if values := [value for value in values if value is not None]:  # a link may call one the best whose metric is NaN
        parts.append(f"best {name} {max(values) if mode == 'max' else min(values):.6g}")
    newest = max((row["time_ns"] for row in rows if row["time_ns"] is not None), default=None)
    if newest is not None:
        parts.append(f"{human_time((now - newest) // NS)} old")
    if sound := sum(row["verified"] == "whole" for row in rows):
        parts.append(f"{sound} verified")
    if cut := sum(not row["whole"] for row in rows):
        parts.append(f"{cut} unfinished")
    return " · ".join(parts)


def others(experiments: Sequence[Data]) -> str:
    """Sum up the experiments that have no row of their own."""
    if not experiments:
        return ""
    stays, goes = (human_size(sum(bytes_of(one, state) for one in experiments)) for state in ("stays", "goes"))
    many = count_of(len(experiments), "smaller experiment")
    return f"And {many}: {stays} stay, {goes} go. Their checkpoints stand below."


def what_ifs(data: Data) -> Iterator[dict[str, Any]]:
    """Yield a row for each other option; their bars have the scale of all bytes."""
    rows = data.get("what_if", ())
    whole = data["summary"]["bytes_kept"] + data["summary"]["bytes_deleted"] + undecided_in(data) if rows else 0
    for row in rows:
        name = f"policy {row['policy']}" if row["keep_last"] is None else f"keep_last: {row['keep_last']}"
        yield {
            **row,
            "name": f"as asked, {name}" if row["current"] else name,
            "bytes": row["bytes_deleted"],
            "parts": stacked([("goes", row["bytes_deleted"])], whole),
            "label": f"{human_size(row['bytes_deleted'])} would go",
        }


def history_row(run: Data) -> dict[str, Any]:
    """Return the row of an earlier run."""
    until = f"; can be undone until {run['undo_until']}" if run["undo"] and run["undo_until"] else ""
    return {**run, "when": run["when"] or "", "state": f"{run['state']}{until}"}


def deleted(runs: Sequence[Data]) -> dict[str, Any] | None:
    """Return the curve of deleted bytes, added up over the runs, as a path in a picture of 1000 by 120."""
    shown = [run for run in reversed(runs) if run["bytes_deleted"] and not run["taken_back"] and run["when"]]
    if len(shown) < 2:  # noqa: PLR2004 - one step is no curve
        return None
    first, last = shown[0]["started_ns"], shown[-1]["started_ns"]
    total = sum(run["bytes_deleted"] for run in shown)
    line, sofar = "M0 118", 0
    for run in shown:
        x = 20 + 960 * (run["started_ns"] - first) / ((last - first) or 1)
        sofar += run["bytes_deleted"]
        line += f"H{x:.1f}V{118 - 112 * sofar / total:.1f}"
    line += "H1000"
    days = (shown[0]["when"][:10], shown[-1]["when"][:10])
    label = f"{human_size(total)} deleted by {count_of(len(shown), 'run')} from {days[0]} to {days[1]}"
    return {"line": line, "area": f"{line}V120H0Z", "total": total, "first": days[0], "last": days[1], "label": label}


def rule_row(line: Data) -> dict[str, Any]:
    """Return the row of a line of the rules."""
    of = f"{line['policy']}: " if line["policy"] else ""
    return {
        "text": f"{of}{line['key']}: {line['value']}",
        "place": line["rule"] or "",
        "keeps": line["keeps"],
        "alone": line["alone"],
        "bytes_alone": line["bytes_alone"],
        "idle": not line["keeps"] and line["key"] != FLOOR,  # the floor keeps only what no other line does
    }
