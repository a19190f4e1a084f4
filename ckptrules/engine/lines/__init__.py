"""The lines that a policy may have, one file each: a row here is all that a new one needs."""

from __future__ import annotations

from collections.abc import Mapping

from ckptrules.engine.judging import Line
from ckptrules.engine.lines import keep, keep_best, keep_every, keep_last, keep_within, max_total_size, min_epoch

LINES: Mapping[str, Line] = {
    line.key: line
    for line in (
        keep.LINE,
        min_epoch.LINE,
        keep_last.LINE,
        keep_every.EPOCHS,
        keep_every.STEPS,
        keep_best.LINE,
        keep_within.LINE,
        max_total_size.LINE,
    )
}
