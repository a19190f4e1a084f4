"""The first rules for a tree, made of what was seen in it."""

from __future__ import annotations

import pytest

from ckptrules.engine.names.comparing import Compared
from ckptrules.engine.names.starting import (
    Numbers,
    Seen,
    best_by,
    by_pattern,
    chosen_packs,
    experiments_of,
    numbers_of,
    policy_lines,
    policy_name,
    retention_text,
    rounded,
)
from tests.support.tables import every_row


def seen(directory: str, *packs: str, sure: bool = True, numbers: tuple[Numbers, ...] = ()) -> Seen:
    return Seen(directory, packs, sure, "", len(numbers), 0, numbers)


def steps(count: int, every: int, *metrics: str) -> tuple[Numbers, ...]:
    return tuple(Numbers(None, every * place, frozenset(metrics)) for place in range(1, count + 1))


@pytest.mark.parametrize(
    ("every", "chosen"),
    [
        ([seen("a", "lightning")], ["lightning"]),
        ([seen("a", "fairseq", "ignite", sure=False)], []),
        ([seen("a", "fairseq"), seen("b", "fairseq", "ignite", sure=False)], ["fairseq", "ignite"]),
        ([seen("a", "orbax"), seen("b", "fairseq", "ignite", sure=False)], ["orbax"]),
        (
            [seen("a", "x"), seen("b", "y", "z", sure=False), seen("c", "x", "y", sure=False)],
            ["x", "y", "z"],
        ),
    ],
)
def test_no_pack_decides_alone_where_another_disagrees(every: list[Seen], chosen: list[str]) -> None:
    assert chosen_packs(every) == chosen


@pytest.mark.parametrize(
    ("paths", "prefix", "layout"),
    [
        (["sft", "dpo"], "", {"*": 2}),
        (["a/checkpoints", "b/checkpoints", "c/x"], "", {"*/checkpoints": 2, "*/*": 1}),
        (["out"], "out", {"out": 1}),
        (["out", "out/a", "out/b"], "out", {"out": 1, "out/*": 2}),
        (["a/weights", "b"], "", {"*": 1, "*/weights": 1}),
        (["run[1]", "run[1]/a"], "run[1]", {"run[[]1]": 1, "run[[]1]/*": 1}),
    ],
)
def test_each_directory_is_covered_by_its_narrowest_pattern(
    paths: list[str], prefix: str, layout: dict[str, int]
) -> None:
    found = by_pattern([seen(path) for path in paths], prefix)
    assert {pattern: len(several) for pattern, several in found.items()} == layout
    assert list(found) == list(layout)


@every_row(
    ("told", "metric"),
    [
        ([{"val_loss"}, {"val_loss", "train_loss"}], "val_loss"),
        ([{"train_loss", "eval_acc"}], "eval_acc"),
        ([{"val/box_loss", "train/box_loss", "metrics/mAP50(B)"}], "metrics/mAP50(B)"),
        ([{"loss", "train_loss", "val_cer"}], "val_cer"),
        ([{"loss", "train_acc"}], "loss"),
        ([{"train_acc"}], "train_acc"),
        ([{"val_loss"}, set()], ""),  # a policy keeps what tells no metric: it would keep all of these
        ([{"lr"}], ""),
        ([{"acc_drop", "loss_scale"}], ""),
        ([{"acc_drop", "train_acc"}], "train_acc"),
        ([], ""),
    ],
)
def test_the_metric_is_one_that_all_tell_and_whose_better_end_is_known(told: list[set[str]], metric: str) -> None:
    assert best_by(seen("a", "p", numbers=tuple(Numbers(1, None, frozenset(one)) for one in told)))[0] == metric


@pytest.mark.parametrize(
    ("pack", "metrics", "said", "best"),
    [
        ("ignite", ["neg_val_loss"], ("", ""), ("neg_val_loss", "max")),
        ("ignite", ["val_loss", "neg_val_loss"], ("", ""), ("val_loss", "min")),
        ("ignite", ["negentropy"], ("", ""), ("", "")),
        ("lightning", ["neg_val_loss"], ("", ""), ("", "")),
        ("huggingface", ["eval_loss", "eval_accuracy"], ("", ""), ("eval_loss", "min")),
        ("huggingface", ["eval_loss", "eval_accuracy"], ("eval_accuracy", "max"), ("eval_accuracy", "max")),
        ("huggingface", ["eval_loss"], ("eval_accuracy", "max"), ("eval_loss", "min")),
    ],
)
def test_what_the_framework_itself_calls_the_best_counts_first(
    pack: str, metrics: list[str], said: tuple[str, str], best: tuple[str, str]
) -> None:
    assert best_by(seen("a", pack, numbers=steps(3, 10, *metrics))._replace(best_by=said)) == best


@pytest.mark.parametrize(("value", "round_one"), [(1, 1), (9, 5), (10, 10), (49, 20), (1999, 1000), (5000, 5000)])
def test_rounded(value: int, round_one: int) -> None:
    assert rounded(value) == round_one


@pytest.mark.parametrize(
    ("numbers", "lines"),
    [
        (steps(20, 500), ["keep_last: 2"]),
        (steps(21, 500), ["keep_last: 2", "keep_every_steps: {every: 1000, nearest: true}"]),
        ((*steps(30, 500), Numbers(None, None, frozenset())), ["keep_last: 2"]),
        (
            tuple(Numbers(place, None, frozenset()) for place in range(100)),
            ["keep_last: 2", "keep_every_epochs: {every: 5, nearest: true}"],
        ),
    ],
)
def test_some_are_kept_for_good_where_there_are_many(numbers: tuple[Numbers, ...], lines: list[str]) -> None:
    assert list(policy_lines("", "", [seen("a", "p", numbers=numbers)])) == lines


@pytest.mark.parametrize(
    ("names", "every", "patterns"),
    [
        ({"a/x", "a/y"}, {"a/x", "a/y", "b"}, ["a/*"]),
        ({"a/x"}, {"a/x", "a/y"}, ["a/x"]),
        ({"a", "b"}, {"a", "b", "c"}, ["a", "b"]),
        ({"a", "a/x"}, {"a", "a/x"}, ["a", "a/x"]),
        ({"a*", "b"}, {"a*", "ab", "b"}, ["a[*]", "b"]),
        ({"lr=[1]/x"}, {"lr=[1]/x", "b"}, ["lr=[[]1]/*"]),
        ({"a\n", "b"}, {"a\n", "b"}, ["b"]),
    ],
)
def test_a_policy_is_for_no_other_experiments(names: set[str], every: set[str], patterns: list[str]) -> None:
    assert experiments_of(names, every) == patterns


def test_one_kind_is_the_default_and_several_are_told_apart() -> None:
    one, two = seen("a", "p", numbers=steps(3, 10, "val_loss")), seen("b", "q", numbers=steps(3, 10))
    text, keeps = retention_text([one], {"a": "a"})
    assert "  default:\n    keep_last: 2\n    keep_best: {metric: 'val_loss', mode: min, count: 1}\n" in text
    assert (keeps, "experiments:" in text) == ("the newest 2 of each run, the best 1 by val_loss", False)
    text, _ = retention_text([one, two], {"a": "a", "b": "b"})
    assert "\n  - {match: 'b', policy: newest}\n" in text


@pytest.mark.parametrize(
    ("metrics", "many", "name"),
    [
        (("val_loss",), 10, "best_val_loss"),
        (("metrics/mAP50(B)",), 10, "best_metrics_mAP50_B"),
        ((), 10, "newest"),
        ((), 21, "newest_and_some"),
        (("val_loss",), 21, "best_val_loss_and_some"),
    ],
)
def test_a_policy_is_named_by_what_it_keeps(metrics: tuple[str, ...], many: int, name: str) -> None:
    """Lightning went by a policy that was called ``mmengine_1``, as that had been seen first."""
    lines = policy_lines(metrics[0] if metrics else "", "max", [seen("a", "p", numbers=steps(many, 10, *metrics))])
    assert policy_name(lines, ()) == name
    assert policy_name(lines, (name, f"{name}_2")) == f"{name}_3"


@pytest.mark.parametrize("reverse", [False, True])
def test_the_default_of_several_kinds_is_the_one_that_keeps_most(*, reverse: bool) -> None:
    """A new experiment went by ``keep_last: 2`` alone: the best by ``val_loss``, as all others keep it, went."""
    every = [seen("a", "p", numbers=steps(3, 10, "val_loss")), seen("b", "q", numbers=steps(3, 10))]
    text, _ = retention_text(sorted(every, reverse=reverse), {"a": "a", "b": "b"})
    assert "  default:\n    keep_last: 2\n    keep_best: {metric: 'val_loss', mode: min, count: 1}\n  newest:\n" in text


@pytest.mark.parametrize(
    ("fields", "metrics", "numbers"),
    [
        ({"epoch": "3", "step": None, "val_loss": "0.1"}, [], Numbers(3, None, frozenset({"val_loss"}))),
        ({"metric": "acc", "value": "0.9", "epoch": "1"}, ["loss"], Numbers(1, None, frozenset({"acc", "loss"}))),
        ({"metric": "loss", "value": "-0.9"}, [], Numbers(None, None, frozenset())),
        ({"metric": "reward", "value": "-9.5"}, [], Numbers(None, None, frozenset({"reward"}))),
        ({"metric": "acc", "value": None}, [], Numbers(None, None, frozenset())),
        ({"run": "unet", "epoch": "2"}, [], Numbers(2, None, frozenset())),
    ],
)
def test_what_a_checkpoint_tells(fields: dict[str, str | None], metrics: list[str], numbers: Numbers) -> None:
    assert numbers_of(fields, metrics) == numbers


@pytest.mark.parametrize(
    ("compared", "agrees", "text"),
    [
        (Compared(), True, ""),
        (Compared(3, 3, 0), True, "3 of 3 numbers agree with those inside"),
        (Compared(3, 0, 3), True, "3 of 3 numbers inside are one higher"),
        (Compared(3, 2, 1), False, "2 of 3 numbers agree with those inside"),
    ],
)
def test_what_comparing_comes_to(compared: Compared, agrees: bool, text: str) -> None:  # noqa: FBT001 - a table
    assert (compared.agrees, compared.text) == (agrees, text)
