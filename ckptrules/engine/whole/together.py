"""Find runs whose files are written together, save by save: they are one training, whatever they are called. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from itertools import pairwise

from ckptrules.engine.checkpoints import Checkpoint

Run = tuple[tuple[str, ...], str]  # its words, and whether its names tell an epoch or only a step
Order = tuple[int, int, int]  # of a save: `order_of`, and the time in its names where both are missing
Saves = Mapping[Order, Sequence[Checkpoint]]
SAVES = 2  # that two runs must have in common; one if that is all that is left of them
RECENT = 8  # saves of each run that are looked at
APART = 10  # times as long as a save takes, at least, is the time to the next one
NOW_AND_THEN = frozenset("best last latest final".split())  # what is saved beside others, but not each time


def joined(runs: Mapping[Run, Saves]) -> list[tuple[dict[Order, list[Checkpoint]], set[Order]]]:
    """Return the saves of each training: of one run, or of all runs whose files are written together.

    With each come the orders of the saves that show it. The files of two runs are written together if those with
    equal numbers were written one after the other, in a small part of the time between two saves. Runs that train side
    by side keep no such time. In a copy in which all times are equal, nothing shows it.
    """
    recent = {run: {order: saves[order] for order in nlargest(RECENT, saves)} for run, saves in runs.items()}
    into = {run: run for run in runs}
    showing: dict[Run, set[Order]] = defaultdict(set)
    for one, other in _neighbours(recent):
        old, new = into[other], into[one]
        if old != new and (together := _together(recent[one], recent[other])):
            into |= {run: new for run, to in into.items() if to == old}
            showing[new] |= showing[old].union(together)
    trainings: dict[Run, dict[Order, list[Checkpoint]]] = {run: {} for run in into.values()}
    for run, saves in runs.items():
        for order, files in saves.items():
            trainings[into[run]].setdefault(order, []).extend(files)
    return [(saves, showing[run]) for run, saves in trainings.items()]


def _neighbours(runs: Mapping[Run, Saves]) -> list[tuple[Run, Run]]:
    """Return each two runs of which files with equal numbers were written one after the other."""
    rows = sorted(
        (run[1], one.entry.mtime_ns, order, run)
        for run, saves in runs.items()
        if NOW_AND_THEN.isdisjoint(run[0])
        for order, files in saves.items()
        for one in files
    )
    pairs = ((a[-1], b[-1]) for a, b in pairwise(rows) if a[0] == b[0] and a[2] == b[2] and a[-1] != b[-1])
    return [*dict.fromkeys(pairs)]


def _together(one: Saves, other: Saves) -> list[Order]:
    """Return the last saves that two runs share if enough of them took a small part of the time around them."""
    spans = {order: _span([*one.get(order, ()), *other.get(order, ())]) for order in {*one, *other}}
    common = sorted(one.keys() & other.keys())[-SAVES - 1 :]  # the last one may have taken long, as on a full disk
    gaps = defaultdict[tuple[int, int], list[int]](list)
    for earlier, later in pairwise(sorted(spans.values())):
        gaps[earlier].append(later[0] - earlier[1])
        gaps[later].append(later[0] - earlier[1])
    quick = [order for order in common if _took(spans[order]) * APART < min(gaps[spans[order]], default=0)]
    return quick[-SAVES:] if len(quick) >= min(SAVES, len(common)) else []


def _took(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _span(files: Iterable[Checkpoint]) -> tuple[int, int]:
    times = [one.entry.mtime_ns for one in files]
    return min(times), max(times)
