"""`min_epoch`: an epoch and all later ones."""

from __future__ import annotations

from collections.abc import Sequence

from ckptrules.engine.judging import Around, Judged, Line, Opinion, no, yes
from ckptrules.engine.shapes import Number
from ckptrules.engine.values import Checkpoint


def min_epoch(limit: int, checkpoints: Sequence[Checkpoint], _: Around) -> Judged:
    """Keep what has reached the epoch; a name without an epoch is kept, since nobody knows how old it is."""

    def say(epoch: int | None) -> Opinion:
        if epoch is None:
            return yes("no epoch in its name")
        return yes(f"epoch >= {limit}") if epoch >= limit else no(f"epoch < {limit}", epoch)

    return {checkpoint.entry.name: say(checkpoint.epoch) for checkpoint in checkpoints}


LINES = (Line("min_epoch", Number("Keep every checkpoint of this epoch or later.", 0), min_epoch, keeps_all=0),)
