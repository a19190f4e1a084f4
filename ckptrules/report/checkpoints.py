"""Describes the checkpoints of a directory by its plan or run, one row each, and what else stays there. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from ckptrules.engine.actions import Kept, Plan
from ckptrules.engine.checkpoints import Checkpoint, Evidence, numbers_told
from ckptrules.engine.entries import Entry, HardLinks, Listing, in_part_folder
from ckptrules.engine.measures import taken
from ckptrules.engine.names.metrics import metrics_of, mode_of
from ckptrules.engine.names.naming import CHECKPOINTS, reader
from ckptrules.engine.names.sorting import (
    HOLDING,
    Sorted,
    by_heads,
    is_protected_text,
    name_of,
    sort_entries,
    with_metrics,
)
from ckptrules.engine.policy.lines.keep_best import as_float, metric_of
from ckptrules.engine.ruleset import Policy, PolicyLine, Reason, RuleSet
from ckptrules.report.text import SharedFiles, Tally

LAST = ("last", "latest")  # words in protected names of the newest checkpoint
State = Literal["stays", "goes", "undecided"]


class Before(NamedTuple):
    """What is known of a directory before anything in it is changed.

    Attributes:
        evidence: it has the metrics of all checkpoints, and what each pointer file names.
        policy: that of the experiment, even if nothing is to be deleted.
        unwhole: the heads of checkpoints that are not whole.
        verified: names of files that `doit verify` found whole.
        best: names that facts call the best.
    """

    listing: Listing
    rules: RuleSet
    evidence: Evidence
    policy: Policy | None = None
    unwhole: frozenset[str] = frozenset()
    verified: frozenset[str] = frozenset()
    best: frozenset[str] = frozenset()


class Row(NamedTuple):
    """A checkpoint, and what happens to it: ``data`` is its row in the JSON."""

    checkpoint: Checkpoint
    names: tuple[str, ...]  # its head, its other parts, and the sidecars that go or stay with it
    links: tuple[HardLinks, ...]
    data: dict[str, Any]


class Space(NamedTuple):
    """Bytes of one directory that a plan does not add up, and the files with several names among them.

    ``same_twice`` are the bytes of further copies of the same content; None if no contents were compared.
    """

    protected: int = 0
    protected_links: tuple[HardLinks, ...] = ()
    undecided: int = 0
    undecided_links: tuple[HardLinks, ...] = ()
    same_twice: int | None = None


class Details(NamedTuple):
    """What a JSON file has of one directory besides its plan.

    Attributes:
        rows: its checkpoints, as data.
        stays: names that stay and belong to no checkpoint.
        metric: the one that decides which checkpoint is the best, and ``min`` or ``max``.
        number: the kind of number that most names have: step, epoch or number.
        space: sums of bytes.
    """

    rows: tuple[dict[str, Any], ...] = ()
    stays: tuple[Kept, ...] = ()
    metric: tuple[str, str] | None = None
    number: str = ""
    space: Space = Space()


def details_of(before: Before, plan: Plan) -> Details:
    """Describe what happens to each checkpoint by a plan, or happened in a run; those of a series are sorted by age."""
    found = sort_entries(before.rules, before.listing)
    before = before._replace(evidence=by_heads(before.evidence, found))
    known = {name for one in found.every for name in one.names}
    every = sorted((with_metrics(one, before.evidence) for one in (*found.every, *_unsound(before, known))), key=_order)
    metric = _metric(before.policy, every)
    rows = list(_rows(before, found, plan, every, metric))
    best, last = {*_best(before, found, rows, metric)}, {*_last(found, before, rows)}
    for row in rows:
        name = row.checkpoint.entry.name
        row.data.update(best=name in best, last=name in last)
    names = {name for row in rows for name in row.names}
    return Details(
        tuple(row.data for row in rows),
        tuple(row for row in plan.kept if row.name not in names),
        metric,
        _number(every),
        _space(before, rows),
    )


def _rows(
    before: Before, found: Sorted, plan: Plan, every: Iterable[Checkpoint], metric: tuple[str, str] | None
) -> Iterator[Row]:
    actions = {action.name: action for action in plan.actions if action.kind in ("rename", "trash")}
    kept = {row.name: row for row in plan.kept}
    done = kept.keys() | {name for action in actions.values() for name, _ in action.with_it}
    entries = {entry.name: entry for entry in before.listing.entries}
    read, why = reader(before.rules, len(entries)), _why(plan)
    shields = {one.entry.name for one in found.protected}
    for one in every:
        name = one.entry.name
        own = [sidecar.name for sidecar in found.sidecars.get(name, ()) if not sidecar.shared]
        action, row = actions.get(name), kept.get(name)
        held = next((why[each] for each in (*one.names, *own, plan.directory) if each in why), ())
        if action:
            names = action.names
        elif row:
            names = (*one.names, *(sidecar for sidecar in own if sidecar in kept))
        else:
            names = tuple(each for each in (*one.names, *own) if each not in done)
        kind = "protected" if name in shields else name_of(one.entry, read).claim.kind
        data = {
            "name": name,
            "becomes": action.to or None if action and action.to != name else None,
            "state": "goes" if action and action.kind == "trash" else "stays" if action or row else "undecided",
            "bytes": sum(entries[each].size for each in names),
            "files": len(names),
            "time_ns": one.entry.mtime_ns,
            "fields": {**one.fields, **numbers_told(one.fields)},
            "metrics": {key: finite(text) for key, text in _metrics(one, metric).items()},
            "pack": pack.name if (pack := before.rules.pack_of(one.named_by)) else None,
            "kind": kind,
            "protected": kind == "protected",
            "pinned": not before.evidence.pins.keys().isdisjoint(names),
            "best": False,
            "last": False,
            "whole": name not in before.unwhole and not one.flaw,
            "verified": _verified(one, before),
            "parts": list(names[1:]),
            "reasons": [*map(reason_as_data, action.reasons if action else row.reasons if row else held)],
            "saves": [*map(line_as_data, action.saves if action else ())],
        }
        yield Row(one, names, _links(entries[each] for each in names), data)


def _why(plan: Plan) -> dict[str, tuple[Reason, ...]]:
    """Return the problems of each name, which may be that of the directory."""
    found: dict[str, tuple[Reason, ...]] = {}
    for problem in plan.problems:
        for name in problem.names:
            found[name] = (*found.get(name, ()), Reason(problem.text))
    return found


def _unsound(before: Before, known: Collection[str]) -> Iterator[Checkpoint]:
    """Yield entries that rules claim and that are no sound checkpoints: empty, claimed twice, with an unusable name."""
    read = reader(before.rules, len(before.listing.entries))
    for entry in before.listing.entries:
        if entry.kind in HOLDING and entry.name not in known:
            claim = name_of(entry, read).claim
            if claim.kind in (*CHECKPOINTS, "protected", "ambiguous") and not is_protected_text(entry, claim):
                yield Checkpoint(entry, claim.fields, entry.name, claim.reason, flaw="is not sound")


def _verified(one: Checkpoint, before: Before) -> Literal["whole", "broken"] | None:
    if not before.evidence.broken.keys().isdisjoint(one.names):
        return "broken"
    return "whole" if before.verified.issuperset(one.names) else None


def _order(one: Checkpoint) -> tuple[bool, str, tuple[int, int, int, str]]:
    """Sort by run and number, the older first; names without a number come last."""
    run, kind = one.series
    return not kind, run, one.age_order


def _space(before: Before, rows: Iterable[Row]) -> Space:
    shields = [row for row in rows if row.data["protected"] and row.data["state"] == "stays"]
    undecided = [row for row in rows if row.data["state"] == "undecided"]
    same: dict[int, list[Entry]] = defaultdict(list)
    for entry in before.listing.entries:
        if (number := before.evidence.same.get(entry.name)) is not None:
            same[number].append(entry)
    twice = [taken(sum(one.size for one in alike), _links(alike)) - alike[0].size for alike in same.values()]
    return Space(
        sum(row.data["bytes"] for row in shields),
        tuple(link for row in shields for link in row.links),
        sum(row.data["bytes"] for row in undecided),
        tuple(link for row in undecided for link in row.links),
        sum(twice) if twice else None,
    )


def _links(entries: Iterable[Entry]) -> tuple[HardLinks, ...]:
    return tuple(link for entry in entries for link in entry.shared)


def space_of(total: Tally, shared: Iterable[SharedFiles], spaces: Sequence[Space]) -> dict[str, int | None]:
    """Add up the bytes of a tree that stay or go. A file with several names counts once: as staying, if a name stays.

    Args:
        total: the sums of the run, by file.
        shared: the files with several names that stay or go, of each directory.
        spaces: those of each directory that was read.
    """
    protected = taken(
        sum(space.protected for space in spaces), [link for space in spaces for link in space.protected_links]
    )
    disputed = [link for space in spaces for link in space.undecided_links]
    staying = {link[:3] for one in shared for link in one.kept}
    also_stay = sum(size for _, _, size in staying.intersection(link[:3] for link in disputed))
    twice = [space.same_twice for space in spaces if space.same_twice is not None]
    return {
        "protected": protected,
        "kept": total.bytes_kept - protected,
        "goes": total.bytes_deleted,
        "undecided": taken(sum(space.undecided for space in spaces), disputed) - also_stay,
        "same_twice": sum(twice) if twice else None,
    }


# --- what stands out --------------------------------------------------------------------------------------------------


def _metrics(one: Checkpoint, asked: tuple[str, str] | None = None) -> dict[str, str]:
    """Return the metrics of a checkpoint in its sidecars, facts and name, and the one that is ``asked`` for."""
    found = {**one.metrics, **dict(metrics_of(one))}
    if asked and (text := metric_of(one, asked[0])) is not None:
        found[asked[0]] = text
    return found


def _metric(policy: Policy | None, every: Iterable[Checkpoint]) -> tuple[str, str] | None:
    """Return the metric that decides which is the best: that of the policy, else the known one that most have."""
    for line in policy.lines if policy else ():
        if line.key == "keep_best":
            return line.value.metric, line.value.mode
    counts = Counter(key for one in every for key in _metrics(one) if mode_of(key))
    best = min(counts, key=lambda key: (-counts[key], "val" not in key.lower(), key), default="")
    return (best, mode_of(best)) if best else None


def _number(every: Iterable[Checkpoint]) -> str:
    counts = Counter(kind for one in every for kind in numbers_told(one.fields))
    return max(("step", "epoch", "number"), key=lambda kind: counts[kind]) if counts else ""


def _best(before: Before, found: Sorted, rows: Sequence[Row], metric: tuple[str, str] | None) -> Iterator[str]:
    """Yield the best whole checkpoint by the metric, and those that facts or links call the best."""
    heads = found.heads
    yield from (heads.get(name, name) for name in before.best)
    yield from (name for leader, name in _leads(found, before) if "best" in leader.lower())
    name, sign = (metric[0], -1 if metric[1] == "min" else 1) if metric else ("", 1)
    values = [row.data["metrics"].get(name) if row.data["whole"] else None for row in rows]
    rated = [(sign * value, n) for n, value in enumerate(values) if value is not None]
    yield from [rows[max(rated)[1]].checkpoint.entry.name] if rated else []


def _last(found: Sorted, before: Before, rows: Iterable[Row]) -> Iterator[str]:
    """Yield the newest whole checkpoint of each series, and those to which pointers and links to the last lead."""
    shields = {one.entry.name for one in found.protected}
    for leader, name in _leads(found, before):
        word = leader.lower()
        if "best" not in word and (leader not in shields or any(last in word for last in LAST)):
            yield name
    whole = (row.checkpoint for row in rows if row.data["whole"] and row.checkpoint.series[1])
    yield from {one.series: one.entry.name for one in sorted(whole, key=lambda one: one.age_order)}.values()


def _leads(found: Sorted, before: Before) -> Iterator[tuple[str, str]]:
    """Yield the links, pointers and protected names that lead to a checkpoint, each with the head of that."""
    heads = found.heads
    words = ("best", *LAST)  # other links from elsewhere do not say which checkpoint it is
    outside = [link.entry for link in before.evidence.links if any(word in link.entry.name.lower() for word in words)]
    links = [*found.links, *outside]
    named = [(link.name, link.sibling) for link in links if link.sibling]
    named += [(pointer, one.name) for pointer, mentions in before.evidence.pointers.items() for one in mentions]
    yield from ((in_part_folder(leader)[1], heads.get(name, name)) for leader, name in named)
    yield from ((one.entry.name, one.entry.name) for one in found.protected)


def line_as_data(line: PolicyLine) -> dict[str, Any]:
    """Return a line of a policy in the JSON form."""
    return {"key": line.key, "value": str(line.value), "rule": line.place.file_line if line.place else None}


def reason_as_data(reason: Reason) -> dict[str, Any]:
    """Return a reason in the JSON form."""
    return {"text": reason.text, "rule": reason.place.file_line if reason.place else None}


def finite(text: str) -> float | None:
    """Return a metric as a number for JSON; None for NaN and infinity, which JSON does not have."""
    value = as_float(text)
    return value if value is not None and math.isfinite(value) else None
