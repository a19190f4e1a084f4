"""`keep_every_epochs` and `keep_every_steps`: keep multiples of a number, or the checkpoints nearest to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.policy.judging import Around, Judged, Line, Opinion, kept_by, no, no_numbers, yes
from ckptrules.engine.ruleset import Every
from ckptrules.engine.shapes import TRUTH, Choice, Either, Keys, Number

Field = Literal["epoch", "step"]


def keep_every(field: Field) -> Callable[[Every, Sequence[Checkpoint], Around], Judged]:
    """Make the line that keeps multiples of a number (of 10: epoch 0, 10, 20 and so on), moved by the offset.

    With ``nearest``, each checkpoint belongs to its nearest multiple (halfway: to the upper one). One whose nearest
    multiple is 0 or below the offset belongs to none. The closest of each multiple is kept, of equally close ones the
    later; checkpoints of one epoch and step are kept together.
    """

    def judge(every: Every, checkpoints: Sequence[Checkpoint], _: Around) -> Judged:
        values = {c.entry.name: value for c in checkpoints if (value := getattr(c, field)) is not None}
        without = {c.entry.name: yes(f"no {field} in its name") for c in checkpoints if c.entry.name not in values}
        if every.nearest:
            return {**without, **_nearest(field, every, [c for c in checkpoints if c.entry.name in values])}
        return {**without, **{name: _multiple(field, every, value) for name, value in values.items()}}

    return judge


def _multiple(field: Field, every: Every, value: int) -> Opinion:
    is_one = value >= every.offset and (value - every.offset) % every.every == 0
    if every.offset:
        why = f"{field} {value} is {'one' if is_one else 'none'} of {_row(every)}"
    else:
        why = f"{field} {value} is {'a' if is_one else 'no'} multiple of {every.every}"
    return yes(why) if is_one else no(why)


def _nearest(field: Field, every: Every, checkpoints: Sequence[Checkpoint]) -> Judged:
    closest: dict[int, Checkpoint] = {}
    for checkpoint in sorted(checkpoints, key=lambda c: c.entry.name):  # of equal ones, a message names the first
        multiple = multiple_of(every, getattr(checkpoint, field))
        best = closest.setdefault(multiple, checkpoint)
        if _rank(checkpoint, field, multiple) > _rank(best, field, multiple):
            closest[multiple] = checkpoint

    def opinion_on(checkpoint: Checkpoint) -> Opinion:
        value = getattr(checkpoint, field)
        multiple = multiple_of(every, value)
        if multiple <= 0:
            return no(f"{field} {value} belongs to none of {_row(every)}")
        best = closest[multiple]
        if _rank(checkpoint, field, multiple) == _rank(best, field, multiple):
            return yes(f"{field} {value} is nearest to {multiple}")
        return no(f"{field} {value} is not the nearest to {multiple}: {best.entry.name} is")

    return {checkpoint.entry.name: opinion_on(checkpoint) for checkpoint in checkpoints}


def multiple_of(every: Every, value: int) -> int:
    """Return the nearest multiple of a number, moved by the offset; 0 or less where it belongs to none."""
    nth = (2 * (value - every.offset) + every.every) // (2 * every.every)
    return every.offset + nth * every.every if nth >= 0 else 0


def _rank(checkpoint: Checkpoint, field: Field, multiple: int) -> tuple[int, int, int]:
    """Return a rank that is higher for a checkpoint closer to the multiple, and for the later of equally close ones."""
    return (-abs(getattr(checkpoint, field) - multiple), *checkpoint.age_order[:2])


def _row(every: Every) -> str:
    """Write the first multiples: ``500, 1500, …``."""
    first = every.offset or every.every * every.nearest
    return f"{first}, {first + every.every}, …"


def _all_or_none(field: Field, every: Every, checkpoints: Sequence[Checkpoint], *, keeps_all: bool) -> str:
    """Return why the line keeps all, or which line would keep some."""
    if keeps_all:
        return no_numbers([field], checkpoints) or ""
    if every.nearest:
        return f": none comes near {every.offset or every.every}"
    last = max(getattr(checkpoint, field) for checkpoint in checkpoints)
    others = (Every(every.every, last % every.every), every._replace(nearest=True))
    return f": {others[0]} would keep {field} {last}, {others[1]} what is nearest to each"


def read(data: Any) -> Every:
    """Read the value of the key, a number or a mapping."""
    return Every(data) if isinstance(data, int) else Every(**data)


def line(field: Field) -> Line:
    """Return the line for epochs, or for steps."""
    number = Number(f"Keep the {field}s that are a multiple of this.", 1)
    record = Keys(
        f"Keep the {field}s that are a multiple of a number, moved by an offset, or what is nearest to these.",
        {
            "every": number,
            "offset": Number(f"Count from this {field}.", 0),
            "nearest": Choice("true keeps the checkpoint nearest to each multiple (not to 0).", TRUTH),
        },
        ("every",),
    )
    return Line(
        f"keep_every_{field}s",
        Either((number, record)),
        keep_every(field),
        read,
        keeps_all=Every(1),
        all_or_none=lambda every, found, keeps_all: _all_or_none(field, every, found, keeps_all=keeps_all),
        ranked=lambda every, *rest: kept_by(every, *rest) if every.nearest else (),
    )


LINES = (line("epoch"), line("step"))
