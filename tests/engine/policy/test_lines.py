"""What single lines say of checkpoints that no rule of the repository would find: any numbers, any times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry
from ckptrules.engine.policy.judging import Around, Judged, Others
from ckptrules.engine.policy.lines import LINES
from ckptrules.engine.ruleset import Best, Budget, Bytes, Every, Reason
from ckptrules.rules.load import load_rules
from tests.support.tables import every_row


def made(name: str, time: int = 0, **fields: object) -> Checkpoint:
    told = {field: str(value) for field, value in fields.items()}
    return Checkpoint(Entry(name, "file", 1, time), told, name, Reason(""))


def judged(key: str, value: Any, checkpoints: Sequence[Checkpoint]) -> Judged:
    return LINES[key].judge(value, checkpoints, Around(0, Others()))


@every_row(
    ("every", "steps", "kept"),
    [
        (Every(10_000, nearest=True), range(4999, 90_000, 5000), range(9999, 90_000, 10_000)),  # detectron2
        (Every(10_000, offset=9999), range(4999, 90_000, 5000), range(9999, 90_000, 10_000)),
        (Every(10_000), range(4999, 90_000, 5000), ()),
        (Every(5000, nearest=True), range(4999, 90_000, 5000), range(4999, 90_000, 5000)),
        (Every(100, nearest=True), (0, 1, 49), ()),  # nearest to 0, which is none
        (Every(100, nearest=True), (50,), (50,)),  # a half belongs to the upper one
        (Every(100, nearest=True), (149, 150), (149, 150)),
        (Every(100, nearest=True), (90, 110), (110,)),  # of equally close ones the later
        (Every(100, nearest=True), (90, 109, 111), (109,)),
        (Every(100, 30, nearest=True), (0, 29, 31, 79, 80, 129, 179), (31, 129)),
        (Every(100, 30, nearest=True), (30, 80, 180), (30, 80, 180)),
        (Every(100, 250, nearest=True), (100, 199, 200, 240, 300), (240, 300)),  # the first is 250
        (Every(100, 250), (50, 150, 250, 350, 400), (250, 350)),
        (Every(1, nearest=True), (0, 1, 2), (1, 2)),
        (Every(3, nearest=True), (1, 2, 4, 5, 7), (4, 7)),
        (Every(10**17, nearest=True), (10**17 - 1, 10**17 + 2, 15 * 10**16), (10**17 - 1, 15 * 10**16)),
    ],
)
def test_each_belongs_to_the_nearest_multiple_and_the_closest_stays(
    every: Every, steps: Sequence[int], kept: Sequence[int]
) -> None:
    for field in ("epoch", "step"):
        said = judged(f"keep_every_{field}s", every, [made(str(n), **{field: n}) for n in steps])
        assert [name for name, one in said.items() if one.keeps] == list(map(str, kept))


@given(st.integers(1, 12), st.integers(0, 30), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), unique=True))
def test_the_nearest_are_those_that_a_search_through_all_multiples_finds(
    every: int, offset: int, found: list[tuple[int, int]]
) -> None:
    targets = range(offset - every, 100, every)
    by_target: dict[int, list[tuple[int, int]]] = {}
    for epoch, step in found:
        target = min(targets, key=lambda one: (abs(one - epoch), -one))
        if epoch < targets[0]:
            target = targets[0]
        by_target.setdefault(target, []).append((epoch, step))
    kept = {
        min(ones, key=lambda one: (abs(one[0] - target), -one[0], -one[1]))
        for target, ones in by_target.items()
        if target > 0 and target >= offset
    }
    checkpoints = [made(f"{epoch} {step}", epoch=epoch, step=step) for epoch, step in found]
    said = judged("keep_every_epochs", Every(every, offset, nearest=True), checkpoints)
    assert {name for name, one in said.items() if one.keeps} == {f"{epoch} {step}" for epoch, step in kept}


def test_what_no_number_tells_apart_is_not_torn_apart_by_the_nearest() -> None:
    found = [made("a", epoch=9, step=1), made("b", epoch=9, step=1, hmean=0.5), made("c", epoch=8), made("d", loss=1)]
    said = judged("keep_every_epochs", Every(10, nearest=True), found)
    assert {name: one.why for name, one in said.items()} == {
        "a": "epoch 9 is nearest to 10",
        "b": "epoch 9 is nearest to 10",
        "c": "epoch 8 is not the nearest to 10: a is",
        "d": "no epoch in its name",
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Every(10), "10"),
        (Every(10, 3), "{every: 10, offset: 3}"),
        (Every(10, nearest=True), "{every: 10, nearest: true}"),
        (Every(10, 3, nearest=True), "{every: 10, offset: 3, nearest: true}"),
    ],
)
def test_a_number_to_keep_every_so_many_of_is_written_as_in_a_rule_file(value: Every, written: str) -> None:
    assert str(value) == written


@every_row("metric", ["val/loss", "top1, avg", "SNR [dB]", "it's", "a: b", "acc@1", "-x", "'x'"])
def test_a_metric_is_written_so_that_a_rule_file_reads_it_again(metric: str) -> None:
    """What would save a checkpoint was told as `{metric: top1, avg, …}`, which no rule file may hold."""
    best = Best(metric, "max", 3, "it's a*")
    budget = Budget(Bytes(5, "5B"), ((metric, "max"),))
    text = f"layout: ['*']\nsidecars: [.json]\nbudget: {budget}\nretention: {{p: {{keep_best: {best}}}}}\nformats:\n"
    rules = load_rules({"a.yaml": rf"{text}- {{id: a, match: '(?P<step>\d+)', examples: {{'1': {{step: 1}}}}}}"})
    assert [line.value for line in rules.policies["p"].lines] == [best]
    assert rules.budget is not None
    assert rules.budget.value == budget


@pytest.mark.parametrize(
    ("checkpoints", "kept"),
    [
        ([made("a", number=2), made("b", number=10), made("c", number=9)], {"b": "newest 1 of 1"}),
        (
            [made("a", number=10), made("b", number=10), made("c", number=9)],
            dict.fromkeys("ab", "newest 1 of 1, with 1 more of number 10"),
        ),
        ([made("a", step=5), made("b", number=9)], {"a": "newest 1 of 1", "b": "no step in its name"}),
        ([made("a", step=5, number=1), made("b", step=4, number=9)], {"a": "newest 1 of 1"}),
        ([made("a", epoch=1, number=9), made("b", number=3)], {"a": "newest 1 of 1", "b": "no epoch in its name"}),
        ([made("a"), made("b", run="x")], dict.fromkeys("ab", "no step in its name")),
    ],
)  # fmt: skip
def test_a_number_of_unknown_unit_counts_where_neither_epoch_nor_step_is_told(
    checkpoints: list[Checkpoint], kept: dict[str, str]
) -> None:
    said = judged("keep_last", 1, checkpoints)
    assert {name: one.why for name, one in said.items() if one.keeps} == kept


def test_files_of_one_save_stay_together_by_their_file_times_too() -> None:
    """The optimizer of a second run in the directory was written last, and stayed alone."""
    saves = [("1", 10), ("2", 20), ("3", 30), ("1-v1", 40), ("2-v1", 50)]
    files = [made(name + part, time + len(part), step=name[0]) for name, time in saves for part in ("", "-opt")]
    said = judged("keep_last", 1, files)
    assert {name: one.why for name, one in said.items() if one.keeps} == {
        **dict.fromkeys(("3", "3-opt"), "newest 1 of 1, with 1 more of step 3"),
        **dict.fromkeys(("2-v1", "2-v1-opt"), "newest 1 of 1 by file time, with 1 more of step 2"),
    }
