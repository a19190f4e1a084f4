"""Writes the head of the page: what goes, what stays, warnings, and what needs a person. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ckptrules.engine.measures import count_of, human_size, visible_lines
from ckptrules.report.style import few

Data = Mapping[str, Any]
Pieces = Sequence[tuple[str, bool]]  # texts, each with whether it is emphasised

MOST_NAMES = 20  # names of one problem
PRECIOUS = {  # said of one, and of several
    "best": ("the best of its experiment", "the best of their experiments"),
    "last": ("the last of its experiment", "the last of their experiments"),
    "pinned": ("pinned", "pinned"),
}
_COMMAND = re.compile(r"'((?:doit|ckptrules) [^'\n]+)'|`((?:doit|ckptrules) [^`\n]+)`")


def experiments_of(data: Data) -> Sequence[Data]:
    """Return the experiments; the data of `history` have none."""
    found: Sequence[Data] = data.get("experiments", ())
    return found


def runs_of(data: Data) -> Sequence[Data]:
    """Return the earlier runs, newest first; the data of other commands than `history` call them history."""
    found: Sequence[Data] = data["runs"] if data["command"] == "history" else data.get("history", ())
    return found


def words(data: Data) -> dict[str, str]:
    """Return the words for the states of checkpoints; after a run, in the past tense."""
    if data["command"] == "verify":
        return {"stays": "sound", "undecided": "not sound"}
    if data["dry_run"]:
        return {"stays": "stays", "goes": "goes", "undecided": "needs you"}
    return {"stays": "stayed", "goes": "went", "undecided": "needs you"}


def kicker(data: Data) -> str:
    """Say what was asked, by whom, where and when."""
    parts = ["Plan" if data["command"] in ("plan", "page") else str(data["command"])]
    if data["dry_run"]:
        parts += ["nothing was changed", *(["with delete_old=1"] if data["options"].get("delete_old") else [])]
    elif data["run"]:
        parts.append(f"run {data['run']}")
    digest = (data.get("rules") or {}).get("naming_digest") or ""
    parts += [f"{data['who']}@{data['host']}", data["when"], *([f"rules {digest[:12]}"] if digest else [])]
    return " · ".join(parts)


def verdict(data: Data, needs: int) -> Pieces:
    """Say in one sentence what goes, what stays, and how much needs a person."""
    start = {"verify": of_verify, "history": of_history}.get(data["command"], of_plan)(data)
    return ended(start, needs, undecided_in(data))


def ended(start: Pieces, needs: int, held: int) -> Pieces:
    """End a sentence with how many problems need a person, and the bytes of the checkpoints that they hold."""
    tail = [(", ", False), (f"{needs} need{'s' if needs == 1 else ''} you", True)] if needs else []
    return [*start, *tail, *([(f" ({human_size(held)})", False)] if needs and held else []), (".", False)]


def undecided_in(data: Data) -> int:
    """Return the bytes of the checkpoints that problems hold; they count neither as kept nor as deleted."""
    rows = (row for one in experiments_of(data) for row in one.get("checkpoints", ()))
    return sum(row["bytes"] for row in rows if row.get("state") == "undecided")


def of_plan(data: Data) -> Pieces:
    """Say what goes and what stays; of a command without checkpoints, such as undo, how many changes it makes."""
    summary, would = data["summary"], data["dry_run"]
    goes, stays, held = summary["bytes_deleted"], summary["bytes_kept"], undecided_in(data)
    many = sum(len(one.get("checkpoints", ())) for one in experiments_of(data))
    if data["command"] in ("undo", "fix_state", "drop_links"):
        done = sum(len(one.get("actions", ())) for one in experiments_of(data))
        return [(count_of(done, "change"), True), (" would be made" if would else " made", False)]
    if not many and not summary["experiments"]:
        return [("No checkpoint was found", True)]
    return of_bytes(goes, stays, held, many, would=would)


def of_bytes(goes: int, stays: int, held: int, many: int, *, would: bool) -> Pieces:
    """Say how many bytes go and stay, of all with those ``held``; if none go, how many checkpoints stay."""
    if not goes:
        stay = "stayed" if not would else "stays" if many == 1 else "stay"
        return [
            (f"Nothing {'would go' if would else 'went'}", True),
            (f": {count_of(many, 'checkpoint')} {stay}, {human_size(stays + held)}", False),
        ]
    return [
        (f"{human_size(goes)} {'would go' if would else 'went'}", True),
        (f" of {human_size(goes + stays + held)}; ", False),
        (f"{human_size(stays)} {'stays' if would else 'stayed'}", True),
    ]


def of_verify(data: Data) -> Pieces:
    """Say how many checkpoints are sound."""
    summary = data["summary"]
    if unread := summary.get("to_read"):
        return [
            (f"{count_of(unread, 'checkpoint')} to read", True),
            (f": {human_size(summary['bytes_to_read'])}", False),
        ]
    broken = summary["checkpoints"] - summary["verified"]
    if broken:
        start = f"{broken} of {summary['checkpoints']} {'is' if broken == 1 else 'are'} not sound"
    else:
        start = count_of(summary["checkpoints"], "checkpoint is", "checkpoints are") + " sound"
    return [(start, True), (f": {human_size(summary['bytes_verified'])} verified", False)]


def of_history(data: Data) -> Pieces:
    """Say how many bytes the runs deleted that were not taken back."""
    size = sum(run["bytes_deleted"] for run in runs_of(data) if not run["taken_back"])
    return [(count_of(len(runs_of(data)), "run"), True), (f", {human_size(size)} deleted and not taken back", False)]


def assurances(data: Data, experiments: Sequence[Data]) -> Iterator[dict[str, str]]:
    """Yield sentences on whether the best, the last or pinned checkpoints go."""
    if data.get("refused"):
        yield _warning(f"'doit migrate' would refuse this run: {data['refused']}")
    going = [row for one in experiments for row in one["checkpoints"] if row["state"] == "goes"]
    if not going:
        return
    go, be = ("go", ("is", "are")) if data["dry_run"] else ("went", ("was", "were"))
    for key, texts in PRECIOUS.items():
        if lost := sum(bool(row[key]) for row in going):
            several = lost > 1
            yield _warning(f"{lost} of the {len(going)} that {go} {be[several]} {texts[several]}.")
    if not any(row[key] for row in going for key in PRECIOUS):
        yield {"kind": "", "text": f"{all_stay(experiments)}; nothing pinned goes."}
    if missed := Counter(metric for one in experiments for metric in others_by(one)):
        bests = [f"the best by {metric} in {count_of(many, 'experiment')}" for metric, many in missed.most_common()]
        yield _warning(f"Not kept: {few(bests)}.")
    losing = [one for one in experiments if any(row["state"] == "goes" for row in one["checkpoints"])]
    if unknown := sum(not has_best(one) for one in losing):
        where = count_of(unknown, "experiment")
        yield _warning(f"No metric is known, and nothing names a best, in {where}: there none is kept.")
    until = (data.get("space") or {}).get("trash_until")
    if not data["dry_run"] and until:
        yield {"kind": "", "text": f"It can come back from the trash until {until}."}


def _warning(text: str) -> dict[str, str]:
    return {"kind": "warns", "text": text}


def has_best(one: Data) -> bool:
    """Say whether a best checkpoint of an experiment is known."""
    return any(row["best"] for row in one["checkpoints"])


def others_by(one: Data) -> Sequence[str]:
    """Return the metrics whose best in an experiment, or in one of its runs, goes without being marked as best."""
    marked = one["metric"] and any(row["best"] and row["state"] == "goes" for row in one["checkpoints"])
    return [metric for metric in one["best_goes"] if not (marked and metric == one["metric"]["name"])]


def best_stays(one: Data) -> bool:
    """Say whether the best of an experiment is known, and stays in each of its runs."""
    return has_best(one) and not (one["metric"] and one["metric"]["name"] in one["best_goes"])


def all_stay(experiments: Sequence[Data]) -> str:
    """Say that the last of each experiment stays, and the best if known; with the metric if the best by others goes."""
    known, many = sum(map(best_stays, experiments)), len(experiments)
    metrics = {one["metric"]["name"] for one in experiments if one["metric"]}
    best = f"best by {' or '.join(sorted(metrics))}" if metrics and any(map(others_by, experiments)) else "best"
    if many == 1:
        return f"The {best} and the last checkpoint stay" if known else "The last checkpoint stays"
    if known in (0, many):
        return f"The {f'{best} and the ' * bool(known)}last of all {many} experiments stay"
    return f"The {best} of {count_of(known, 'experiment')} and the last of all {many} stay"


def needing(experiments: Iterable[Data]) -> Iterator[dict[str, Any]]:
    """Yield what needs a person, with a hint or a draft of a format; names of one draft are one row."""
    drafted: dict[str, list[tuple[Data, str]]] = {}
    for one in experiments:
        for problem in one.get("problems", ()):
            yield need(one, problem["text"], problem["names"], [*pieces(problem["hint"] or "")], None)
        for row in one.get("skipped", ()):
            if row.get("draft"):
                drafted.setdefault(row["draft"], []).append((one, row["name"]))
    for draft, found in drafted.items():
        yield need(found[0][0], "no rule reads this, so it stays", [name for _, name in found], [], draft)


def need(one: Data, text: str, names: Sequence[str], hint: Pieces, draft: str | None) -> dict[str, Any]:
    """Return one row of what needs a person."""
    shown = {"names": names[:MOST_NAMES], "more_names": max(len(names) - MOST_NAMES, 0)}
    return {"where": one["experiment"], "text": text, "hint": hint, "draft": draft and visible_lines(draft), **shown}


def pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Cut a hint into pieces; commands are emphasised."""
    at = 0
    for found in _COMMAND.finditer(text):
        yield text[at : found.start()], False
        yield found[1] or found[2], True
        at = found.end()
    yield text[at:], False
