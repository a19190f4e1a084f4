"""R4: the numbers in names against those inside."""

from __future__ import annotations

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry
from ckptrules.engine.names.comparing import Compared, NumbersInside, compare, first_middle_last, in_words, misleading
from ckptrules.engine.ruleset import Reason
from tests.support.tables import every_row

NONE: NumbersInside = {"epoch": None, "step": None}
IGNITE: NumbersInside = {**NONE, "iterations": 8, "epochs": 2}


@every_row(
    ("rows", "compared"),
    [
        ([], Compared()),
        ([({"step": "0500"}, {"step": 500})], Compared(1, 1, 0)),
        ([({"step": "499"}, {"epoch": 3, "step": 500})], Compared(1, 0, 1)),
        ([({"step": "500", "epoch": "2"}, {"epoch": 3, "step": 500})], Compared(1, 0, 0)),
        ([({"number": "500"}, {"step": 500}), ({"step": "1"}, NONE), ({}, {"step": 1})], Compared()),
        ([({"number": "8"}, IGNITE), ({"number": "2"}, IGNITE), ({"number": "9"}, IGNITE)], Compared(2, 2, 0)),
        ([({"step": "8"}, IGNITE)], Compared()),
        ([({"step": "1"}, {"step": 1}), ({"step": "2"}, {"step": 9})], Compared(2, 1, 0)),
    ],
)
def test_names_are_compared_where_both_tell_a_number(
    rows: list[tuple[dict[str, str], NumbersInside]], compared: Compared
) -> None:
    assert compare(rows) == compared


@every_row(
    ("fields", "inside", "text"),
    [
        ({"epoch": "3"}, {"epoch": 3, "step": 40}, "epoch 3, step 40, as its name says"),
        ({"epoch": "3"}, {"epoch": 4, "step": None}, "epoch 4, one higher than its name says"),
        ({"epoch": "3"}, {"epoch": 9, "step": None}, "epoch 9, NOT as its name says"),
        ({"number": "3"}, {"epoch": 9, "step": None}, "epoch 9"),
        ({"number": "2"}, IGNITE, "iterations 8, epochs 2, as its name says"),
        ({"number": "3"}, IGNITE, "iterations 8, epochs 2"),
        ({"epoch": "3"}, NONE, ""),
        ({"epoch": "3"}, {}, ""),
    ],
)
def test_what_stands_inside_is_said_in_words(fields: dict[str, str], inside: NumbersInside, text: str) -> None:
    assert in_words(fields, inside) == text


@every_row(
    ("steps", "told"),
    [
        ({1: 1, 2: 2, 3: 3}, ""),
        ({1: 2, 2: 3, 3: 4}, ""),
        ({1: 101, 2: 102}, ""),  # all by as much: their order is right
        ({1: 2, 2: 3, 3: 3}, ""),  # Lightning before 1.6
        ({1: 1, 2: 9, 3: 3}, "c2 says step 2 and holds 9"),
        ({1: 1, 2: 2, 9: 3}, "c9 says step 9 and holds 3"),
        ({1: 9}, ""),  # nothing to compare it with
        ({}, ""),
    ],
)
def test_a_name_misleads_where_others_differ_otherwise_from_what_is_inside(steps: dict[int, int], told: str) -> None:
    checkpoints = [Checkpoint(Entry(f"c{n}", "file", 1, 0), {"step": str(n)}, "", Reason("")) for n in (1, 2, 3, 9)]
    assert misleading(checkpoints, {f"c{n}": {"epoch": None, "step": step} for n, step in steps.items()}) == told


def test_three_of_many_are_opened() -> None:
    assert [first_middle_last(range(count)) for count in (0, 1, 2, 3, 9)] == [[], [0], [0, 1], [0, 1, 2], [0, 4, 8]]
