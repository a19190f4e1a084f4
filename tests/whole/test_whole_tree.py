"""The budget of a whole tree, and the best across experiments: real trees, hard links, selections, processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry
from ckptrules.engine.policy.judging import Around, Others
from ckptrules.engine.policy.lines import LINES
from ckptrules.engine.ruleset import Best, Budget, Bytes, Location, Reason
from tests.conftest import Project

pytestmark = pytest.mark.whole

SIZE = 1000


def ckpt(epoch: int, hmean: str = "") -> str:
    return f"epoch-{epoch:02}_step-{epoch:06}{hmean and f'_hmean-{hmean}'}.ckpt"


def make(project: Project, rules: str, tree: dict[str, list[str]]) -> None:
    """Make checkpoints of 1 KB each, the first of the first experiment the oldest."""
    (project.folder / "rules" / "mine.yaml").write_text(rules)
    paths = [f"{experiment}/checkpoints/{name}" for experiment, names in tree.items() for name in names]
    project.make(dict.fromkeys(paths, SIZE))
    for number, path in enumerate(paths):
        os.utime(project.outputs / path, (1_600_000_000 + number, 1_600_000_000 + number))


def run(project: Project, *arguments: str) -> dict[str, Any]:
    """Run a command with ``delete_old=1 policy=mine``, and return what it wrote as JSON and printed."""
    out = project.doit(*arguments, "delete_old=1", "policy=mine", "json=run.json")
    return {**json.loads((project.folder / "run.json").read_text()), "out": out}


def gone(told: dict[str, Any]) -> set[str]:
    return {
        f"{one['experiment']}/{act['name']}"
        for one in told["experiments"]
        for act in one.get("actions", ())
        if act["action"] == "trash"
    }


BUDGET = "budget: {{total: {}}}\nretention: {{mine: {{keep: protected}}}}\n"


def test_the_oldest_of_the_tree_go_until_it_fits_and_the_preview_is_the_run(project: Project) -> None:
    make(project, BUDGET.format("4KB"), {"a": [ckpt(1), ckpt(2), ckpt(3)], "b": [ckpt(1), ckpt(2), ckpt(3)]})
    start = project.tree()
    foreseen, done = run(project, "plan"), run(project, "migrate")
    assert gone(foreseen) == gone(done) == {f"a/{ckpt(1)}", f"a/{ckpt(2)}"}
    assert foreseen["summary"] == done["summary"]
    for told in (foreseen, done):
        assert "The budget of 4KB keeps 4 KB of 6 KB in all experiments. The trash is not counted.\n" in told["out"]
    assert "processed   2  experiments\n" in run(project, "migrate")["out"]
    project.doit("undo")
    assert project.tree() == start


def test_a_run_that_may_go_on_is_told_by_name_where_a_budget_leaves_it_alone(project: Project) -> None:
    """It stayed, and nothing said why."""
    for path in (project.folder / "rules").glob("*.yaml"):
        path.unlink()
    make(project, f"packs: [composer]\nlayout: ['*']\n{BUDGET.format('1KB')}", {})
    project.make({f"live/ep{n}-ba{n}-rank0.pt": SIZE for n in range(3)})
    told = run(project, "plan")
    assert gone(told) == set()
    assert "\nlive is left alone: its newest file changed " in told["out"]
    for path in (project.outputs / "live").iterdir():
        os.utime(path, (1_600_000_000, 1_600_000_000))
    told = run(project, "plan")
    assert len(gone(told)) == 2
    assert "is left alone" not in told["out"]


def test_a_run_that_found_nothing_to_do_plans_afresh_when_another_experiment_grows(project: Project) -> None:
    make(project, BUDGET.format("3KB"), {"a": [ckpt(1), ckpt(2)], "b": [ckpt(1)]})
    assert gone(run(project, "migrate")) == set()
    project.make({f"b/checkpoints/{ckpt(2)}": SIZE})
    assert gone(run(project, "migrate")) == {f"a/{ckpt(1)}"}


def test_a_file_with_names_in_several_experiments_counts_once(project: Project) -> None:
    make(project, BUDGET.format("4KB"), {"a": [ckpt(1), ckpt(2), ckpt(3)], "b": [ckpt(2), ckpt(9)]})
    for name in (ckpt(1), "last.ckpt"):
        os.link(project.outputs / "a/checkpoints" / ckpt(1), project.outputs / "b/checkpoints" / name)
    assert gone(run(project, "plan")) == {f"a/{ckpt(2)}"}


def test_a_selection_goes_by_the_whole_tree_and_acts_on_what_is_selected(project: Project) -> None:
    make(project, BUDGET.format("3KB"), {"a": [ckpt(1), ckpt(2), ckpt(3)], "b": [ckpt(1), ckpt(2), ckpt(3)]})
    for words in (["plan:b"], ["plan", "experiments=b"]):
        told = run(project, *words)
        assert gone(told) == {f"b/{ckpt(1)}"}
        assert "keeps 3 KB of 6 KB in all experiments" in told["out"]
    assert gone(run(project, "migrate:b")) == {f"b/{ckpt(1)}"}
    assert len(project.names("a")) == 3
    assert gone(run(project, "migrate")) == {f"a/{ckpt(1)}", f"a/{ckpt(2)}"}


def test_what_must_stay_is_told_where_it_is_too_much(project: Project) -> None:
    make(project, BUDGET.format("1500B"), {"a": [ckpt(1), ckpt(2)], "b": [ckpt(1), "last.ckpt"]})
    told = run(project, "migrate")
    assert "What must stay takes 2 KB, more than the budget of 1500B: of 4 KB in all experiments" in told["out"]
    assert gone(told) == {f"a/{ckpt(1)}", f"b/{ckpt(1)}"}


def test_max_delete_goes_by_what_the_budget_lets_go(project: Project) -> None:
    rules = BUDGET.format("3KB") + "max_delete: {count: 1}\n"
    make(project, rules, {"a": [ckpt(1), ckpt(2), ckpt(3)], "b": [ckpt(1), ckpt(2)]})
    out = project.doit("migrate", "delete_old=1", "policy=mine", check=3)
    assert "2 of 5 checkpoints would go, 1 more than max_delete allows" in out


def test_explain_and_usage_go_by_the_tree(project: Project) -> None:
    make(project, BUDGET.format("3KB"), {"a": [ckpt(1), ckpt(2)], "b": [ckpt(1), ckpt(2)]})
    out = project.doit("explain", f"name={ckpt(1)}", "policy=mine")
    assert "does not fit in the budget of 3KB beside 2 KB that must stay: 2 of 2 by age" in out
    assert "to save it   budget: {total: 4KB}" in out
    assert "fits in the budget of 3KB (0 B left): 1 of 2 by age" in out
    rows = [line.split() for line in project.doit("usage", "policy=mine").splitlines()]
    assert [row[-4:-2] for row in rows if row and row[0] == "all"] == [["1", "KB"]]


def test_processes_that_share_the_tree_are_told_their_part(project: Project) -> None:
    tree = {f"run{number:02}": [ckpt(1, f"0.{number}1"), ckpt(2, f"0.{number}2")] for number in range(30)}
    rules = (
        "budget: {total: 45KB, order: [{metric: hmean, mode: max}]}\n"
        "retention: {mine: {keep_best: {metric: hmean, mode: max, count: 3, across: 'run*'}}}\n"
    )
    make(project, rules, tree)
    alone, shared = gone(run(project, "plan")), gone(run(project, "-n", "3", "migrate"))
    assert alone == shared
    assert len(alone) == 15


def test_the_best_across_experiments_stay(project: Project) -> None:
    tree = {
        "sweep_1": [ckpt(1, "0.9"), ckpt(2, "0.8"), ckpt(3, "0.1")],
        "sweep_2": [ckpt(1, "0.5"), ckpt(2, "0.7"), ckpt(3, "0.2")],
        "other": [ckpt(1, "0.1"), ckpt(2, "0.2")],
    }
    rules = "retention: {mine: {keep_best: {metric: hmean, mode: max, count: 2, across: 'sweep_*'}}}\n"
    make(project, rules, tree)
    told = run(project, "plan:sweep_2")
    assert gone(told) == {f"sweep_2/{ckpt(1, '0.5')}", f"sweep_2/{ckpt(2, '0.7')}"}
    assert "hmean 0.7 is not of the best 2 across 'sweep_*'" in told["out"]
    told = run(project, "migrate")
    assert gone(told) == {f"sweep_2/{ckpt(1, '0.5')}", f"sweep_2/{ckpt(2, '0.7')}"}
    assert project.names("sweep_1") == tree["sweep_1"]
    assert project.names("other") == tree["other"]
    assert "processed   3  experiments\n" in run(project, "migrate")["out"]


def test_the_best_of_another_experiment_that_is_in_use_or_unfinished_makes_none_go(project: Project) -> None:
    tree = {"sweep_1": [ckpt(1, "0.9"), ckpt(9, "0.1")], "sweep_2": [ckpt(1, "0.5"), ckpt(9, "0.1")]}
    rules = "retention: {mine: {keep_best: {metric: hmean, mode: max, count: 1, across: 'sweep_*'}}}\n"
    make(project, rules, tree)
    with (project.outputs / "sweep_1/checkpoints" / ckpt(1, "0.9")).open("ab"):
        assert gone(run(project, "plan")) == set()
    marker = project.outputs / "sweep_1/checkpoints" / ckpt(1, "0.9").replace(".ckpt", "-unfinished")
    marker.touch()
    assert gone(run(project, "plan")) == set()
    marker.unlink()
    assert gone(run(project, "plan")) == {f"sweep_2/{ckpt(1, '0.5')}"}


@pytest.mark.parametrize("budget", ["", "budget: {total: 2500B}\n"])
def test_what_another_policy_or_the_budget_lets_go_is_no_best_across(project: Project, budget: str) -> None:
    """Neither the best nor the second stayed: one cost the other, and went by the policy of its own experiment."""
    rules = budget + (
        "retention:\n  mine: {keep_best: {metric: hmean, mode: max, count: 1, across: '*'}}\n  small: {keep_last: 1}\n"
        "experiments: [{match: 's*', policy: small}]\n"
    )
    make(project, rules, {"s": [ckpt(1, "0.9"), ckpt(2, "0.1")], "x": [ckpt(1, "0.8"), ckpt(2, "0.2"), ckpt(3, "0.1")]})
    assert gone(run(project, "plan")) == {f"s/{ckpt(1, '0.9')}", f"x/{ckpt(2, '0.2')}"}


def test_a_selection_goes_by_what_the_policies_of_the_others_let_go(project: Project) -> None:
    rules = (
        "budget: {total: 4KB}\nretention:\n  mine: {keep: protected}\n"
        "  sweep: {keep_best: {metric: hmean, mode: max, count: 1, across: 's*'}}\n"
        "experiments: [{match: 's*', policy: sweep}]\n"
    )
    tree = {"s1": [ckpt(1, "0.1"), ckpt(2, "0.1")], "s2": [ckpt(1, "0.1"), ckpt(2, "0.9")], "b": [ckpt(1), ckpt(2)]}
    make(project, rules, tree)
    for words in (["plan:b"], ["plan", "experiments=b"]):
        assert gone(run(project, *words)) == set()  # as that of s1 and of s2 go, which are older
    assert gone(run(project, "plan")) == {f"s1/{ckpt(1, '0.1')}", f"s2/{ckpt(1, '0.1')}"}


def test_what_is_not_verified_stays_whatever_the_budget_says(project: Project) -> None:
    make(project, BUDGET.format("2KB"), {"a": [ckpt(1), ckpt(2)], "b": [ckpt(1), ckpt(2)]})
    out = project.doit("plan", "delete_old=1", "policy=mine", "verified=1", check=1)
    assert "Would delete" not in out
    assert "(1 could go): no checkpoint that stays is verified" in out


@pytest.mark.parametrize(
    ("key", "value"),
    [("budget", Budget(Bytes(1, "1B"))), ("keep_best", Best("hmean", "max", 1, "*"))],
)
def test_what_the_tree_was_not_asked_about_stays(key: str, value: object) -> None:
    late = Checkpoint(Entry("late", "file", 9, 0), {"hmean": "0"}, "late", Reason("", Location("", 1, 1)))
    assert LINES[key].judge(value, [late], Around(0, Others()))["late"].keeps


def test_a_directory_that_cannot_be_read_makes_none_go(project: Project) -> None:
    make(project, BUDGET.format("3KB"), {"a": [ckpt(1), ckpt(2)], "b": [ckpt(1), ckpt(2)]})
    project.begin_dodo(
        "from ckptrules.run import deciding\nreally = deciding.read_directory\n"
        "def refuse(directory, found):\n"
        "    if found.experiment == 'b': raise PermissionError(13, 'Permission denied')\n"
        "    return really(directory, found)\n"
        "deciding.read_directory = refuse\n"
    )
    out = project.doit("plan", "delete_old=1", "policy=mine", check=1)
    assert "Would delete" not in out
    assert Path(project.outputs / "b/checkpoints" / ckpt(1)).exists()
