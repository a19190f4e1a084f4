"""`keep_every_epochs` and `keep_every_steps`: multiples of a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from ckptrules.engine.judging import Around, Judged, Line, Opinion, no, yes
from ckptrules.engine.shapes import Number
from ckptrules.engine.values import Checkpoint


def keep_every(field: Literal["epoch", "step"]) -> Callable[[int, Sequence[Checkpoint], Around], Judged]:
    """Make the line that keeps multiples of a number (of 10: epoch 0, 10, 20 and so on)."""

    def say(count: int, reached: int | None) -> Opinion:
        if reached is None:
            return yes(f"no {field} in its name")
        if reached % count:
            return no(f"{field} {reached} is no multiple of {count}")
        return yes(f"{field} {reached} is a multiple of {count}")

    return lambda count, checkpoints, _: {c.entry.name: say(count, getattr(c, field)) for c in checkpoints}


_EPOCHS = Number("Keep the epochs that are a multiple of this.", 1)
_STEPS = Number("Keep the steps that are a multiple of this.", 1)
LINES = (
    Line("keep_every_epochs", _EPOCHS, keep_every("epoch"), keeps_all=1),
    Line("keep_every_steps", _STEPS, keep_every("step"), keeps_all=1),
)
