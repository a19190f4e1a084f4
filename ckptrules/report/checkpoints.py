"""Pure: one checkpoint directory, and what becomes of it → a row for each of its checkpoints, and what else stays."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from ckptrules.engine.actions import Kept, Plan
from ckptrules.engine.checkpoints import Checkpoint, Evidence, numbers_told
from ckptrules.engine.entries import Entry, HardLinks, Listing, in_part_folder
from ckptrules.engine.lines.keep_best import as_float, goodness, metric_of
from ckptrules.engine.measures import taken
from ckptrules.engine.metrics import metrics_of, mode_of
from ckptrules.engine.naming import CHECKPOINTS, reader
from ckptrules.engine.ruleset import Policy, PolicyLine, Reason, RuleSet
from ckptrules.engine.sorting import HOLDING, Sorted, by_heads, is_protected_text, name_of, sort_entries, with_metrics
from ckptrules.report.text import Several, Tally

LAST = ("last", "latest")  # what a protected name says that is the newest
State = Literal["stays", "goes", "undecided"]


class Before(NamedTuple):
    """What is known of a directory before anything in it is changed.

    ``evidence`` has the metrics of all checkpoints and what each pointer file names. ``policy`` is that of the
    experiment, also where nothing is to be deleted. ``unwhole`` are names that checkpoints go by, ``verified`` are
    names of files, ``best`` are those that facts call the best.
    """

    listing: Listing
    rules: RuleSet
    evidence: Evidence
    policy: Policy | None = None
    unwhole: frozenset[str] = frozenset()
    verified: frozenset[str] = frozenset()
    best: frozenset[str] = frozenset()


class Row(NamedTuple):
    """A checkpoint, and what becomes of it.

    ``names`` are all its files: the one that it goes by, its other parts, the sidecars that share its fate. ``becomes``
    is its new name, if it gets one. ``is_best`` and ``is_last`` say that it is that by a number, or that something
    which is called so leads to it.
    """

    checkpoint: Checkpoint
    kind: str
    pack: str
    state: State
    becomes: str
    names: tuple[str, ...]
    size: int
    links: tuple[HardLinks, ...]
    reasons: tuple[Reason, ...]
    saves: tuple[PolicyLine, ...]
    metrics: Mapping[str, str]
    is_pinned: bool
    is_whole: bool
    verified: Literal["whole", "broken"] | None
    is_best: bool = False
    is_last: bool = False

    @property
    def name(self) -> str:
        """The name that it goes by, before anything was changed."""
        return self.checkpoint.entry.name


class Room(NamedTuple):
    """Bytes of one directory that its plan does not add up, each with the files that have several names among them.

    ``same_twice`` are those of contents that are there more than once, as far as contents were compared.
    """

    protected: int = 0
    shields: tuple[HardLinks, ...] = ()
    undecided: int = 0
    open: tuple[HardLinks, ...] = ()
    same_twice: int | None = None


class Told(NamedTuple):
    """What is told of one directory beside its plan; ``stays`` are names that stay and are of no checkpoint.

    ``metric`` decides which one is the best, with ``min`` or ``max``; ``number`` is what most of them count by.
    """

    rows: tuple[Row, ...] = ()
    stays: tuple[Kept, ...] = ()
    metric: tuple[str, str] | None = None
    number: str = ""
    room: Room = Room()


def told_of(seen: Before, plan: Plan) -> Told:
    """Say of each checkpoint what becomes of it by a plan, or became of it in a run; those of a series by age."""
    found = sort_entries(seen.rules, seen.listing)
    seen = seen._replace(evidence=by_heads(seen.evidence, found))
    known = {name for one in found.every for name in one.names}
    every = sorted((with_metrics(one, seen.evidence) for one in (*found.every, *_unsound(seen, known))), key=_place)
    metric = _metric(seen.policy, every)
    rows = list(_rows(seen, found, plan, every, metric))
    best, last = {*_best(seen, found, rows, metric)}, {*_last(found, seen, rows)}
    names = {name for row in rows for name in row.names}
    return Told(
        tuple(row._replace(is_best=row.name in best, is_last=row.name in last) for row in rows),
        tuple(row for row in plan.kept if row.name not in names),
        metric,
        _number(every),
        _room(seen, rows),
    )


def _rows(
    seen: Before, found: Sorted, plan: Plan, every: Iterable[Checkpoint], metric: tuple[str, str] | None
) -> Iterator[Row]:
    actions = {action.name: action for action in plan.actions if action.kind in ("rename", "trash")}
    kept = {row.name: row for row in plan.kept}
    told = kept.keys() | {name for action in actions.values() for name, _ in action.with_it}
    entries = {entry.name: entry for entry in seen.listing.entries}
    evidence, read, why = seen.evidence, reader(seen.rules, len(entries)), _why(plan)
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
            names = tuple(each for each in (*one.names, *own) if each not in told)
        yield Row(
            one,
            "protected" if name in shields else name_of(one.entry, read).claim.kind,
            pack.name if (pack := seen.rules.pack_of(one.named_by)) else "",
            "goes" if action and action.kind == "trash" else "stays" if action or row else "undecided",
            action.to if action and action.to != name else "",
            names,
            sum(entries[each].size for each in names),
            _links(entries[each] for each in names),
            action.reasons if action else row.reasons if row else held,
            action.saves if action else (),
            _metrics(one, metric),
            not evidence.pins.keys().isdisjoint(names),
            name not in seen.unwhole and not one.flaw,
            _verified(one, seen),
        )


def _why(plan: Plan) -> dict[str, tuple[Reason, ...]]:
    """Return what the problems say of each name that they are about, that of the directory among them."""
    found: dict[str, tuple[Reason, ...]] = {}
    for problem in plan.problems:
        for name in problem.names:
            found[name] = (*found.get(name, ()), Reason(problem.text))
    return found


def _unsound(seen: Before, known: Collection[str]) -> Iterator[Checkpoint]:
    """Yield what the rules take for a checkpoint, and is none as it is: empty, claimed twice, without a usable name."""
    read = reader(seen.rules, len(seen.listing.entries))
    for entry in seen.listing.entries:
        if entry.kind in HOLDING and entry.name not in known:
            said = name_of(entry, read).claim
            if said.kind in (*CHECKPOINTS, "protected", "ambiguous") and not is_protected_text(entry, said):
                yield Checkpoint(entry, said.fields, entry.name, said.reason, flaw="is not sound")


def _verified(one: Checkpoint, seen: Before) -> Literal["whole", "broken"] | None:
    if not seen.evidence.broken.keys().isdisjoint(one.names):
        return "broken"
    return "whole" if seen.verified.issuperset(one.names) else None


def _place(one: Checkpoint) -> tuple[bool, str, tuple[int, int, int, str]]:
    """Sort by run and number, the older first; behind them what tells no number."""
    run, kind = one.series
    return not kind, run, one.age_order


def _room(seen: Before, rows: Iterable[Row]) -> Room:
    shields = [row for row in rows if row.kind == "protected" and row.state == "stays"]
    undecided = [row for row in rows if row.state == "undecided"]
    same: dict[int, list[Entry]] = defaultdict(list)
    for entry in seen.listing.entries:
        if (number := seen.evidence.same.get(entry.name)) is not None:
            same[number].append(entry)
    twice = [taken(sum(one.size for one in alike), _links(alike)) - alike[0].size for alike in same.values()]
    return Room(
        sum(row.size for row in shields),
        tuple(link for row in shields for link in row.links),
        sum(row.size for row in undecided),
        tuple(link for row in undecided for link in row.links),
        sum(twice) if twice else None,
    )


def _links(entries: Iterable[Entry]) -> tuple[HardLinks, ...]:
    return tuple(link for entry in entries for link in entry.shared)


def space_of(total: Tally, several: Iterable[Several], rooms: Sequence[Room]) -> dict[str, int | None]:
    """Add up what becomes of the bytes of a tree; a file with several names counts once, where it stays first.

    Args:
        total: the sums of the run, by file.
        several: the files with several names that stay or go, of each directory.
        rooms: of each directory that was looked at.
    """
    protected = taken(sum(room.protected for room in rooms), [link for room in rooms for link in room.shields])
    disputed = [link for room in rooms for link in room.open]
    staying = {link[:3] for one in several for link in one.kept}
    also_stay = sum(size for _, _, size in staying.intersection(link[:3] for link in disputed))
    twice = [room.same_twice for room in rooms if room.same_twice is not None]
    return {
        "protected": protected,
        "kept": total.bytes_kept - protected,
        "goes": total.bytes_deleted,
        "undecided": taken(sum(room.undecided for room in rooms), disputed) - also_stay,
        "same_twice": sum(twice) if twice else None,
    }


# --- what stands out --------------------------------------------------------------------------------------------------


def _metrics(one: Checkpoint, asked: tuple[str, str] | None = None) -> dict[str, str]:
    """Return what is told of a checkpoint by its sidecars, by facts and by its name, and the metric asked for."""
    told = {**one.metrics, **dict(metrics_of(one))}
    if asked and (text := metric_of(one, asked[0])) is not None:
        told[asked[0]] = text
    return told


def _metric(policy: Policy | None, every: Iterable[Checkpoint]) -> tuple[str, str] | None:
    """Return what decides which one is the best: by the policy, else what most of them tell and is known by name."""
    for line in policy.lines if policy else ():
        if line.key == "keep_best":
            return line.value.metric, line.value.mode
    told = Counter(key for one in every for key in _metrics(one) if mode_of(key))
    best = min(told, key=lambda key: (-told[key], "val" not in key.lower(), key), default="")
    return (best, mode_of(best)) if best else None


def _number(every: Iterable[Checkpoint]) -> str:
    told = Counter(kind for one in every for kind in numbers_told(one.fields))
    return max(("step", "epoch", "number"), key=lambda kind: told[kind]) if told else ""  # of equal ones the first


def _best(seen: Before, found: Sorted, rows: Sequence[Row], metric: tuple[str, str] | None) -> Iterator[str]:
    """Yield the best by the metric, of those that are whole; and what is called so."""
    heads = found.heads
    yield from (heads.get(name, name) for name in seen.best)
    yield from (name for leader, name in _leads(found, seen) if "best" in leader.lower())
    values = [goodness(row.metrics.get(metric[0]), metric[1]) if metric and row.is_whole else None for row in rows]
    rated = [(value, n) for n, value in enumerate(values) if value is not None and math.isfinite(value)]
    yield from [rows[max(rated)[1]].name] if rated else []


def _last(found: Sorted, seen: Before, rows: Iterable[Row]) -> Iterator[str]:
    """Yield what is led to, and the newest of each series that is whole."""
    shields = {one.entry.name for one in found.protected}
    for leader, name in _leads(found, seen):
        word = leader.lower()
        if "best" not in word and (leader not in shields or any(last in word for last in LAST)):
            yield name
    whole = (row.checkpoint for row in rows if row.is_whole and row.checkpoint.series[1])
    yield from {one.series: one.entry.name for one in sorted(whole, key=lambda one: one.age_order)}.values()


def _leads(found: Sorted, seen: Before) -> Iterator[tuple[str, str]]:
    """Yield what leads to a checkpoint, and the name that this goes by; a protected name leads to itself."""
    heads = found.heads
    words = ("best", *LAST)  # else what stands elsewhere needs it, and does not say what it is
    outside = [link.entry for link in seen.evidence.links if any(word in link.entry.name.lower() for word in words)]
    links = [*found.links, *outside]
    named = [(link.name, link.sibling) for link in links if link.sibling]
    named += [(pointer, one.name) for pointer, said in seen.evidence.pointers.items() for one in said]
    yield from ((in_part_folder(leader)[1], heads.get(name, name)) for leader, name in named)
    yield from ((one.entry.name, one.entry.name) for one in found.protected)


def finite(text: str) -> float | None:
    """Read a metric as JSON can have it, which knows neither NaN nor infinity."""
    value = as_float(text)
    return value if value is not None and math.isfinite(value) else None
