"""`min_epoch` and `min_step`: keep what has reached a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.policy.judging import Around, Judged, Line, Opinion, no, no_numbers, yes
from ckptrules.engine.shapes import Number


def minimum(field: Literal["epoch", "step"]) -> Callable[[int, Sequence[Checkpoint], Around], Judged]:
    """Make the line that keeps what has reached a number; a name without one is kept, as nobody knows its age."""

    def opinion_on(limit: int, reached: int | None) -> Opinion:
        if reached is None:
            return yes(f"no {field} in its name")
        return yes(f"{field} >= {limit}") if reached >= limit else no(f"{field} < {limit}", reached)

    return lambda limit, checkpoints, _: {c.entry.name: opinion_on(limit, getattr(c, field)) for c in checkpoints}


def line(field: Literal["epoch", "step"]) -> Line:
    """Return the line for epochs, or for steps."""
    return Line(
        f"min_{field}",
        Number(f"Keep every checkpoint of this {field} or later.", 0),
        minimum(field),
        keeps_all=0,
        all_or_none=lambda _, found, keeps_all: no_numbers([field], found) if keeps_all else None,
    )


LINES = (line("epoch"), line("step"))
