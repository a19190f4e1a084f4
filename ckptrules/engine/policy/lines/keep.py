"""`keep`: keep everything, or only what is protected."""

from __future__ import annotations

from collections.abc import Sequence

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.policy.judging import Around, Judged, Line, no, yes
from ckptrules.engine.shapes import Choice


def keep(word: str, checkpoints: Sequence[Checkpoint], _: Around) -> Judged:
    """Keep all candidates, or none: protected checkpoints are no candidates."""
    opinion = yes("the policy keeps all") if word == "all" else no("not protected")
    return {checkpoint.entry.name: opinion for checkpoint in checkpoints}


SHAPE = Choice("protected: only what is protected stays; all: everything does.", {w: w for w in ("protected", "all")})
LINES = (Line("keep", SHAPE, keep, keeps_all="all"),)
