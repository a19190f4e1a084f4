"""What single lines say of checkpoints that no rule of the repository would find: any numbers, any times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ckptrules.engine.judging import Around, Judged, Others
from ckptrules.engine.lines import LINES
from ckptrules.engine.values import Checkpoint, Entry, Reason


def made(name: str, time: int = 0, **fields: object) -> Checkpoint:
    told = {field: str(value) for field, value in fields.items()}
    return Checkpoint(Entry(name, "file", 1, time), told, name, Reason(""))


def judged(key: str, value: Any, checkpoints: Sequence[Checkpoint]) -> Judged:
    return LINES[key].judge(value, checkpoints, Around(0, Others(0)))


@pytest.mark.parametrize(
    ("checkpoints", "kept"),
    [
        ([made("a", number=2), made("b", number=10), made("c", number=9)], {"b": "newest 1 of 1 (0 left)"}),
        (
            [made("a", number=10), made("b", number=10), made("c", number=9)],
            dict.fromkeys("ab", "newest 1 of 1 (0 left), with 1 more of number 10"),
        ),
        ([made("a", step=5), made("b", number=9)], {"a": "newest 1 of 1 (0 left)", "b": "no step in its name"}),
        ([made("a", step=5, number=1), made("b", step=4, number=9)], {"a": "newest 1 of 1 (0 left)"}),
        ([made("a", epoch=1, number=9), made("b", number=3)], {"a": "newest 1 of 1 (0 left)", "b": "no epoch in its name"}),
        ([made("a"), made("b", run="x")], dict.fromkeys("ab", "no step in its name")),
    ],
)  # fmt: skip
def test_a_number_of_unknown_unit_counts_where_neither_epoch_nor_step_is_told(
    checkpoints: list[Checkpoint], kept: dict[str, str]
) -> None:
    said = judged("keep_last", 1, checkpoints)
    assert {name: one.why for name, one in said.items() if one.keeps} == kept
