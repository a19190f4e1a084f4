"""What would go in many directories is added up over the tree, by each of the other options and without each line."""

from __future__ import annotations

from ckptrules.engine.entries import HardLinks
from ckptrules.engine.ruleset import PolicyLine
from ckptrules.engine.what_if import LineInUse
from ckptrules.report.what_if import Used, Weighed, Weight, lines_as_data, rows_as_data

LAST, LEAST = (LineInUse(None, PolicyLine(key, 1, None)) for key in ("keep_last", "min_epoch"))
NAME = HardLinks(1, 1, 10, 2, 1)  # one of the two names of a file of 10 bytes


def test_a_file_with_names_in_two_directories_goes_with_the_last_of_them() -> None:
    one = Weighed(Weight(2, 30, (NAME,)), (Weight(0, 0), Weight(1, 10, (NAME,))), {})
    other = Weighed(Weight(1, 10, (NAME,)), (Weight(1, 10, (NAME,)), Weight(3, 20, (NAME,))), {})
    rows = rows_as_data([{"policy": "a"}, {"policy": "b"}], [one, other])
    assert rows == [
        {"policy": "a", "bytes_deleted": 0, "deleted": 1},
        {"policy": "b", "bytes_deleted": 20, "deleted": 4},
    ]


def test_without_a_line_all_goes_as_before_where_it_does_not_hold() -> None:
    one = Weighed(Weight(1, 10), (), {LAST: Used(2, Weight(3, 30))})
    other = Weighed(Weight(1, 10, (NAME,)), (), {LEAST: Used(1, Weight(2, 20, (NAME,)))})
    assert [(row["key"], row["keeps"], row["alone"], row["bytes_alone"]) for row in lines_as_data([one, other])] == [
        ("keep_last", 2, 2, 20),
        ("min_epoch", 1, 1, 10),
    ]
