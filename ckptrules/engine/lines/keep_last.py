"""`keep_last`: the newest."""

from __future__ import annotations

from collections.abc import Sequence

from ckptrules.engine.judging import Around, Judged, Line, Opinion, both_ranks, kept_by, no, place_of, yes
from ckptrules.engine.shapes import Number
from ckptrules.engine.values import Checkpoint

BOTH_ENDS = "file times disagree with epoch and step, as where two runs share a directory: the newest by either stays"


def keep_last(count: int, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
    """Keep the newest by epoch and step and, where file times disagree, the newest by these as well."""
    field = "epoch" if any(checkpoint.epoch is not None for checkpoint in checkpoints) else "step"
    by_order, by_time = both_ranks([c for c in checkpoints if getattr(c, field) is not None], around.now_ns)

    def say(name: str) -> Opinion:
        if name not in by_order:
            return yes(f"no {field} in its name")
        if by_order[name] <= count:
            return yes(f"newest {place_of(by_order[name], count)}")
        if by_time[name] <= count:
            return yes(f"newest {place_of(by_time[name], count)} by file time", note=BOTH_ENDS)
        return no(f"not of the newest {count}", min(by_order[name], by_time[name]))

    return {checkpoint.entry.name: say(checkpoint.entry.name) for checkpoint in checkpoints}


SHAPE = Number("Keep so many of the newest, by epoch and step.", 1)
LINES = (Line("keep_last", SHAPE, keep_last, by_files=True, ranked=kept_by),)
