"""Leftovers on real files: they go when they are old, are no checkpoints in any number, and come back."""

from __future__ import annotations

import json
import os

import pytest

from tests.conftest import Project
from tests.support.clock import days_later

pytestmark = pytest.mark.whole

HERE = "exp/checkpoints"
KEPT = "epoch-12_step-000120.ckpt"
GOES = "epoch-01_step-000010.ckpt"
LONG_AGO = 1_500_000_000


def make(project: Project, rules: str, *names: str, when: float = LONG_AGO) -> None:
    (project.folder / "rules" / "mine.yaml").write_text(rules)
    project.make({f"{HERE}/{name}": 1000 for name in (KEPT, GOES, *names)})
    for folder, _, files in os.walk(project.outputs, topdown=False):
        for name in (*files, "."):
            os.utime(os.path.join(folder, name), (when, when))


def test_old_leftovers_go_apart_from_checkpoints_and_come_back(project: Project) -> None:
    rules = "leftovers: {match: ['*.tmp', 'tmp-*'], after: 7d}\nmax_delete: {count: 1}\n"
    make(project, rules, "a.tmp", "b.tmp", "tmp-checkpoint-5/model.pt")
    start = project.tree()
    foreseen = project.doit("plan", "delete_old=1", "json=plan.json")
    assert "to delete   1  and 3 leftovers, 4 KB to the trash\n" in foreseen
    out = project.doit("migrate", "delete_old=1", "json=done.json")
    assert "  ⊗ Deleted: tmp-checkpoint-5 (leftover, " in out
    told = [json.loads((project.folder / f"{name}.json").read_text()) for name in ("plan", "done")]
    assert told[0]["summary"] == told[1]["summary"]
    numbers = {key: told[1]["summary"][key] for key in ("deleted", "leftovers", "bytes_deleted", "kept")}
    assert numbers == {"deleted": 1, "leftovers": 3, "bytes_deleted": 4000, "kept": 1}
    assert {row["name"] for row in told[1]["experiments"][0]["actions"] if row["action"] == "sweep"} == {
        "a.tmp", "b.tmp", "tmp-checkpoint-5",
    }  # fmt: skip
    assert project.names("exp") == [KEPT]
    assert "up to date" in project.doit("migrate", "delete_old=1")
    project.doit("undo")
    assert project.tree() == start


def test_without_delete_old_a_leftover_is_skipped(project: Project) -> None:
    make(project, "leftovers: {match: '*.tmp', after: 7d}\n", "a.tmp")
    out = project.doit("migrate", "verbose=1")
    assert "Skipped: a.tmp (leftover, goes after 7d, rules/mine.yaml:1)\n" in out
    assert project.names("exp") == ["a.tmp", GOES, KEPT]


def test_what_was_remembered_as_up_to_date_is_looked_at_when_a_leftover_gets_old(project: Project) -> None:
    make(project, "leftovers: {match: '*.tmp', after: 7d}\nretention: {mine: {keep_every_epochs: 1}}\n", "a.tmp")
    os.utime(project.outputs / HERE / "a.tmp")
    for days, said in (
        (0, "processed   1"),
        (6, "Nothing to do: 1 experiment is up to date"),
        (8, "Deleted: a.tmp (leftover, 8d old, goes after 7d)"),
    ):
        told = project.doit("migrate", "delete_old=1", "policy=mine", env=days_later(days, project.folder))
        assert said in told


def test_a_leftover_that_is_remembered_as_young_is_seen_when_its_time_is_another(project: Project) -> None:
    make(project, "leftovers: {match: '*.tmp', after: 9d}\nretention: {mine: {keep_every_epochs: 1}}\n", "1.tmp")
    os.utime(project.outputs / HERE / "1.tmp")
    for said in ("processed   1", "Nothing to do: 1 experiment is up to date"):
        assert said in project.doit("migrate", "delete_old=1", "policy=mine")
    os.utime(project.outputs / HERE / "1.tmp", (LONG_AGO, LONG_AGO))
    assert "Deleted: 1.tmp" in project.doit("migrate", "delete_old=1", "policy=mine")


def test_a_leftover_that_is_open_for_writing_stays(project: Project) -> None:
    make(project, "leftovers: {match: ['*.tmp', 'tmp-*'], after: 7d}\n", "a.tmp", "tmp-x/model.pt")
    with (project.outputs / HERE / "a.tmp").open("ab"), (project.outputs / HERE / "tmp-x/model.pt").open("ab"):
        out = project.doit("migrate", "delete_old=1", "verbose=1")
    assert "Skipped: a.tmp (leftover, but it is in use: is open for writing" in out
    assert project.names("exp") == ["a.tmp", KEPT, "tmp-x"]


def test_a_directory_in_which_other_checkpoints_lie_is_no_leftover(project: Project) -> None:
    rules = (project.folder / "rules" / "naming.yaml").read_text()
    layout = "layout: ['*', '*/*/checkpoints']"
    (project.folder / "rules" / "naming.yaml").write_text(rules.replace("layout: ['*/checkpoints']", layout))
    make(project, "leftovers: {match: ['check*', 'tmp-*'], after: 7d}\n")
    project.make({f"exp/{path}": 9 for path in ("tmp-run/checkpoints/last.ckpt", "tmp-x/model.pt")})
    for path in ("tmp-run/checkpoints/last.ckpt", "tmp-x/model.pt"):
        os.utime(project.outputs / "exp" / path, (LONG_AGO, LONG_AGO))
    out = project.doit("migrate", "delete_old=1", "verbose=1")
    assert "Skipped: tmp-run (leftover, but a directory of checkpoints is in it, rules/mine.yaml:1)\n" in out
    assert sorted(path.name for path in (project.outputs / "exp").iterdir()) == ["tmp-run"]


def test_an_undo_of_an_undo_lets_a_leftover_go_again_as_what_it_is(project: Project) -> None:
    make(project, "leftovers: {match: '*.tmp', after: 7d}\n", "a.tmp")
    project.doit("migrate", "delete_old=1")
    project.doit("undo", "json=undo.json")
    back = json.loads((project.folder / "undo.json").read_text())
    assert back["summary"]["restored"] == 2
    project.doit("undo", f"run={back['run']}", "json=undo.json")
    summary = json.loads((project.folder / "undo.json").read_text())["summary"]
    assert (summary["deleted"], summary["leftovers"]) == (1, 1)
    assert project.names("exp") == [KEPT]


def test_an_empty_directory_goes_and_comes_back(project: Project) -> None:
    make(project, "leftovers: {match: 'tmp-*', after: 7d}\n")
    (project.outputs / HERE / "tmp-empty" / "inner").mkdir(parents=True)
    for path in ("tmp-empty/inner", "tmp-empty"):
        os.utime(project.outputs / HERE / path, (LONG_AGO, LONG_AGO))
    assert "Deleted: tmp-empty (leftover, " in project.doit("migrate", "delete_old=1")
    project.doit("undo")
    assert (project.outputs / HERE / "tmp-empty" / "inner").is_dir()


def test_where_nothing_waits_in_the_trash_a_leftover_does_not_either(project: Project) -> None:
    make(project, "leftovers: {match: '*.tmp', after: 7d}\n", "a.tmp")
    rules = project.folder / "rules" / "retention.yaml"
    rules.write_text(rules.read_text().replace("trash_days: 7", "trash_days: 0"))
    assert "and 1 leftover, 2 KB freed at once (trash_days: 0)\n" in project.doit("migrate", "delete_old=1")
    assert "a.tmp" not in project.doit("trash")
