"""Policies with the real doit: which one an experiment has, limits for a run, ages, and strategy 2 of the protocol."""

from __future__ import annotations

import json
import os
import time
import unicodedata

import pytest

from tests.conftest import Project
from tests.support.clock import days_later

pytestmark = pytest.mark.whole

OLD, MIDDLE, NEW = (f"epoch-{epoch:02}_step-{epoch * 100:06}.ckpt" for epoch in (1, 5, 12))
ALL = [OLD, MIDDLE, NEW]


def add_rules(project: Project, text: str) -> None:
    (project.folder / "rules" / "mine.yaml").write_text(text)


def make(project: Project, *experiments: str) -> None:
    project.make({f"{experiment}/checkpoints/{name}": 1000 for experiment in experiments for name in ALL})


def test_only_best_and_last_remain_and_where_there_is_neither_the_newest(project: Project) -> None:
    make(project, "with", "without")
    project.make({"with/checkpoints/best-hmean-0.8756.ckpt": 10, "with/checkpoints/last.ckpt": 10})
    out = project.doit("migrate", "delete_old=1", "policy=best_and_last")
    assert f"  ⊗ Deleted: {NEW} (not protected)\n" in out
    assert project.names("with") == ["best-hmean-0.8756.ckpt", "last.ckpt"]
    assert project.names("without") == [NEW]
    assert "2 experiments are up to date" in project.doit("migrate", "delete_old=1", "policy=best_and_last")


def test_an_experiment_has_the_policy_of_the_first_pattern_that_fits(project: Project) -> None:
    make(project, "paper_1", "debug_1", "other")
    add_rules(
        project,
        "experiments:\n  - {match: 'paper_*', policy: keep_all}\n  - {match: 'debug_*', policy: best_and_last}\n",
    )
    out = project.doit("migrate", "delete_old=1", "keep_min_epoch=5", "verbose=1", "json=result.json")
    assert "  * By: policy 'keep_all', for experiments 'paper_*', rules/mine.yaml:2\n" in out
    assert "  * By: policy 'default', rules/retention.yaml:6\n" in out
    assert project.names("paper_1") == ALL
    assert project.names("debug_1") == project.names("other") == [MIDDLE, NEW]
    result = json.loads((project.folder / "result.json").read_text())
    assert [experiment["policy"]["rule"] for experiment in result["experiments"]] == [
        "rules/mine.yaml:3", "rules/retention.yaml:6", "rules/mine.yaml:2",
    ]  # fmt: skip


def test_a_pattern_fits_an_experiment_in_any_form_of_unicode(project: Project) -> None:
    make(project, unicodedata.normalize("NFD", "größe_1"))
    add_rules(project, "experiments:\n  - {match: 'größe_*', policy: keep_all}\n")
    assert "to delete   0" in project.doit("plan", "delete_old=1")


def test_what_deletes_nothing_without_delete_old_is_told(project: Project) -> None:
    project.make({f"exp/checkpoints/epoch-{n}_step-000003.ckpt": 3 for n in (10, 11, 12)})
    told = "Nothing is deleted by {} alone: only delete_old=1 deletes.\n"
    assert told.format("keep_last=1") in project.doit("plan", "keep_last=1")
    assert told.format("keep_min_epoch=12 and verified=1") in project.doit("migrate", "keep_min_epoch=12", "verified=1")
    assert "alone" not in project.doit("plan", "keep_last=1", "delete_old=1") + project.doit("plan")


def test_a_policy_asked_for_does_not_go_before_that_of_an_experiment_and_that_is_said(project: Project) -> None:
    make(project, "paper_1", "other")
    add_rules(project, "experiments:\n  - {match: 'paper_*', policy: keep_all}\n")
    out = project.doit("migrate", "delete_old=1", "policy=best_and_last")
    assert (
        "policy=best_and_last has no effect in 1 experiment: 'experiments' in the rules gives another policy.\n" in out
    )
    assert (project.names("paper_1"), project.names("other")) == (ALL, [NEW])


def test_keep_last_lets_nothing_more_go_by_the_policy_of_an_experiment(project: Project) -> None:
    make(project, "paper_1", "other")
    add_rules(project, "retention: {two: {keep_last: 2}}\nexperiments:\n  - {match: 'paper_*', policy: two}\n")
    out = project.doit("migrate", "delete_old=1", "keep_last=1")
    told = "keep_last=1 lets nothing more go in 1 experiment: 'experiments' in the rules gives another policy.\n"
    assert told in out
    assert (project.names("paper_1"), project.names("other")) == (ALL[-2:], [NEW])
    out = project.doit("plan", "delete_old=1", "keep_last=1", "policy=two")
    assert "keep_last=1" not in out.split("Summary")[1]
    for selected in ("plan:other", "plan experiments=other"):
        assert "lets nothing" not in project.doit(*selected.split(), "delete_old=1", "keep_last=1")


@pytest.mark.parametrize("policy", ["keep_last: 2", "keep: protected"])
def test_what_keep_last_asks_for_stays_by_the_policy_of_an_experiment_too(project: Project, policy: str) -> None:
    make(project, "paper_1", "other")
    add_rules(project, f"retention: {{own: {{{policy}}}}}\nexperiments:\n  - {{match: 'paper_*', policy: own}}\n")
    project.doit("migrate", "delete_old=1", "keep_last=3")
    assert (project.names("paper_1"), project.names("other")) == (ALL, ALL)


def test_a_run_that_would_delete_too_much_is_refused_as_a_whole(project: Project) -> None:
    make(project, "one", "two")
    add_rules(project, "max_delete: {count: 3, percent: 90}\n")
    before = project.tree()
    out = project.doit("migrate", "delete_old=1", check=3)
    fact = "4 of 6 checkpoints would go, 1 more than max_delete allows (count: 3)"
    hint = "look at 'doit plan delete_old=1'; max_delete=4 allows this run, and without delete_old=1 it only renames"
    assert out == f"ERROR: rules/mine.yaml:1:1: {fact}\n    hint: {hint}\n"
    assert project.tree() == before
    plan = project.doit("plan", "delete_old=1", "json=plan.json", check=1)
    assert plan.count("Would delete") == 4
    assert f"Nothing would be deleted: {fact}.\n    hint: {hint}\n" in plan
    assert json.loads((project.folder / "plan.json").read_text())["refused"] == fact
    project.doit("migrate")
    project.doit("migrate:one", "delete_old=1")
    assert project.names("one") == [NEW]
    project.doit("migrate", "delete_old=1", "max_delete=4")
    assert project.names("two") == [NEW]


def test_a_limit_in_percent_counts_what_the_run_looks_at(project: Project) -> None:
    make(project, "one")
    out = project.doit("migrate", "delete_old=1", "max_delete=50%", check=3)
    assert out.startswith(
        "ERROR: command line: 2 of 3 checkpoints would go, 1 more than max_delete allows (percent: 50)\n"
    )
    project.doit("migrate", "--delete-old", "--max-delete", "67%")
    assert project.names("one") == [NEW]


def test_a_limit_in_percent_counts_no_sidecars(project: Project) -> None:
    make(project, "one")
    project.make({f"one/checkpoints/{name.removesuffix('.ckpt')}.metadata.json": 10 for name in ALL})
    out = project.doit("migrate", "delete_old=1", "max_delete=50%", check=3)
    assert "2 of 3 checkpoints would go, 1 more than max_delete allows (percent: 50)" in out


def test_a_limit_in_percent_counts_nothing_that_is_not_whole(project: Project) -> None:
    make(project, "one")
    torn = [f"epoch-{epoch:02}_step-{epoch * 100:06}" for epoch in range(20, 30)]
    project.make({f"one/checkpoints/{name}{end}": 10 for name in torn for end in (".ckpt", "-unfinished")})
    out = project.doit("migrate", "delete_old=1", "max_delete=50%", check=3)
    assert "2 of 3 checkpoints would go, 1 more than max_delete allows (percent: 50)" in out


def test_a_limit_that_is_none_is_refused(project: Project) -> None:
    for value in ("0", "101%", "-1", "many", "0%"):
        assert project.doit("migrate", f"max_delete={value}", check=3) == (
            f"ERROR: command line: max_delete={value}: must be a number of checkpoints, 1 or more, "
            "or a percentage such as 20%\n"
        )


def test_an_experiment_is_looked_at_again_when_a_file_gets_too_old(project: Project) -> None:
    make(project, "one")
    add_rules(project, "retention:\n  young:\n    keep_within: 30d\n")
    folder = project.outputs / "one" / "checkpoints"
    for name, days in zip(ALL, (29.5, 2, 1), strict=True):
        os.utime(folder / name, (time.time() - days * 86_400, time.time() - days * 86_400))

    def migrate(day: int) -> str:
        return project.doit("migrate", "delete_old=1", "policy=young", env=days_later(day, project.folder))

    migrate(0)
    assert project.names("one") == ALL
    assert migrate(0) == "Nothing to do: 1 experiment is up to date.\n"
    assert f"Deleted: {OLD} (30d old, not within 30d)" in migrate(1)
    assert project.names("one") == [MIDDLE, NEW]
    assert migrate(1) == "Nothing to do: 1 experiment is up to date.\n"


def test_the_best_is_found_by_what_sidecars_tell(project: Project) -> None:
    make(project, "one")
    for name, text in zip(
        ALL, ('{"hmean": 0.9}', '{"metrics": {"hmean": 0.5}}', '{"metrics": {"hmean": 0.8}}'), strict=True
    ):
        file = project.outputs / "one" / "checkpoints" / name.replace(".ckpt", ".metadata.json")
        file.write_text(text)
    add_rules(project, "retention:\n  best:\n    keep_best: {metric: hmean, mode: max, count: 1}\n")
    out = project.doit("migrate", "delete_old=1", "policy=best", "verbose=1")
    assert f"Deleted: {MIDDLE} (hmean 0.5 is not of the best 1, rules/mine.yaml:3)" in out
    assert "hmean 0.9 is best 1 of 1" in out
    assert "keep_at_least: 1 (nothing newer remains)" in out
    assert [name for name in project.names("one") if name.endswith(".ckpt")] == [OLD, NEW]


def test_two_runs_in_one_directory_are_noticed_and_both_ends_stay(project: Project) -> None:
    make(project, "one")
    add_rules(project, "retention:\n  newest:\n    keep_last: 1\n")
    project.make({"one/checkpoints/epoch-02_step-000200.ckpt": 1})
    os.utime(project.outputs / "one/checkpoints/epoch-02_step-000200.ckpt", (4_000_000_000, 4_000_000_000))
    out = project.doit("migrate", "delete_old=1", "verbose=1", "policy=newest")
    said = "file times disagree with epoch and step, as where two runs share a directory: the newest by either stays"
    assert f"  * Note: {said}, rules/mine.yaml:3\n" in out
    assert project.names("one") == ["epoch-02_step-000200.ckpt", NEW]
