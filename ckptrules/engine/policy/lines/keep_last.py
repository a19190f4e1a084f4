"""`keep_last`: keep the newest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from ckptrules.engine.checkpoints import NUMBERS, Checkpoint
from ckptrules.engine.policy.judging import (
    Around,
    Judged,
    Line,
    Opinion,
    both_ranks,
    kept_by,
    no,
    no_numbers,
    numbered,
    place_of,
    yes,
)
from ckptrules.engine.shapes import Number

BOTH_ENDS = "file times disagree with epoch and step, as where two runs share a directory: the newest by either stays"
BOTH_TIMES = "file times disagree with the times in the names: the newest by either stays"
FIELDS = (*NUMBERS, "time")


def keep_last(count: int, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
    """Keep the newest by epoch and step and, where file times disagree, the newest by these as well.

    Where no name has a number, the time in the names counts instead. Checkpoints of equal epoch and step have one rank:
    two files of each step are not two steps. By file time, this holds for those written one after the other.
    """
    field = next((field for field in FIELDS if any(getattr(c, field) is not None for c in checkpoints)), "step")
    ranked = [c for c in checkpoints if getattr(c, field) is not None]
    order = {c.entry.name: _order(c) for c in ranked}
    newest = numbered(sorted(ranked, key=lambda c: order[c.entry.name], reverse=True))
    by_order, equals = _tied(newest, order)
    age = both_ranks(ranked, around.now_ns)[1]
    saves = groupby(sorted(ranked, key=lambda c: age[c.entry.name]), key=lambda c: order[c.entry.name])
    by_time, twins = _tied(age, {c.entry.name: (place,) for place, (_, save) in enumerate(saves) for c in save})

    def opinion_on(checkpoint: Checkpoint) -> Opinion:
        name = checkpoint.entry.name
        if name not in by_order:
            return yes(f"no {field} in its name")
        if by_order[name] <= count:
            return yes(f"newest {place_of(by_order[name], count)}{_shared(equals[name], checkpoint)}")
        if by_time[name] <= count:
            place, shared = place_of(by_time[name], count), _shared(twins[name], checkpoint)
            return yes(f"newest {place} by file time{shared}", BOTH_ENDS if field in NUMBERS else BOTH_TIMES)
        return no(f"not of the newest {count}", min(by_order[name], by_time[name]))

    return {checkpoint.entry.name: opinion_on(checkpoint) for checkpoint in checkpoints}


def _order(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return epoch and step; a name with neither, and without a number, gives its time instead of the step."""
    epoch, step = checkpoint.age_order[:2]
    time = checkpoint.time if epoch < 0 and step < 0 else None
    return epoch, step if time is None else time


def _tied(ranks: Mapping[str, int], numbers: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the ranks with equal numbers at one rank (1, 1, 2), and for each name how many have that rank."""
    equals: dict[tuple[int, ...], list[str]] = {}
    for name, own in numbers.items():
        equals.setdefault(own, []).append(name)
    best = {own: min(ranks[one] for one in names) for own, names in equals.items()}
    places = {rank: place for place, rank in enumerate(sorted({*best.values()}), start=1)}
    return {name: places[best[own]] for name, own in numbers.items()}, {n: len(equals[numbers[n]]) for n in numbers}


def _shared(equal: int, checkpoint: Checkpoint) -> str:
    """Write with how many others a checkpoint shares its rank, and which numbers they share."""
    if equal == 1:
        return ""
    numbers = [f"{field} {value}" for field in NUMBERS if (value := getattr(checkpoint, field)) is not None]
    return f", with {equal - 1} more of {' and '.join(numbers) or 'this time'}"


SHAPE = Number("Keep so many of the newest, by epoch and step; equal ones stay together.", 1)
LINES = (
    Line(
        "keep_last",
        SHAPE,
        keep_last,
        by_files=True,
        ranked=kept_by,
        all_or_none=lambda _, checkpoints, __: no_numbers(FIELDS, checkpoints),
    ),
)
