"""What a JSON file tells beyond its plan: the command that does it, the runs before, the trash."""

from __future__ import annotations

import json
import os
import shlex
import time
from typing import Any

import pytest

from ckptrules.run.records import zoned
from tests.conftest import Project
from tests.support import nobody

HERE = "exp/checkpoints"
TREE = {f"{HERE}/epoch={epoch}-step={epoch}.ckpt": 100 for epoch in (1, 2, 11, 12)}
LONG_AGO = 1_600_000_000
DAY = 86400


def make(project: Project, experiment: str = "exp") -> None:
    project.make({path.replace("exp/", f"{experiment}/", 1): size for path, size in TREE.items()})
    for folder, _, files in os.walk(project.outputs):
        for name in files:
            os.utime(os.path.join(folder, name), (LONG_AGO, LONG_AGO))


def told(project: Project, *arguments: str, check: int = 0) -> dict[str, Any]:
    project.doit(*arguments, f"json={project.folder / 'told.json'}", check=check)
    found: dict[str, Any] = json.loads((project.folder / "told.json").read_text())
    return found


@pytest.mark.parametrize(
    ("command", "does_it"),
    [
        ("plan", "doit migrate"),
        ("plan delete_old=1 verbose=1 settle=0", "doit migrate delete_old=1 settle=0"),
        ("migrate dry_run=1 delete_old=1", "doit migrate delete_old=1"),
        (
            "plan delete_old=1 keep_min_epoch=2 policy=best_and_last",
            "doit migrate delete_old=1 policy=best_and_last keep_min_epoch=2",
        ),
        ("page keep_last=1", "doit migrate delete_old=1 keep_last=1"),
        ("plan:exp plan:it*", "doit migrate:exp 'migrate:it*'"),
        ("plan experiments='*s $(touch x)'", "doit migrate experiments='*s $(touch x)'"),
    ],
)
def test_the_command_that_does_it_does_what_was_shown(project: Project, command: str, does_it: str) -> None:
    for experiment in ("exp", "it's $(touch x)"):
        make(project, experiment)
    plan = told(project, *shlex.split(command))
    assert plan["does_it"].startswith(does_it)
    program, *words = shlex.split(plan["does_it"])
    assert (program, plan["summary"]["renamed"] > 0) == ("doit", True)
    done = told(project, *words)
    assert done["does_it"] is None
    assert done["summary"] == plan["summary"]
    assert told(project, *shlex.split(command))["does_it"] is None


def test_no_command_does_what_would_be_refused(project: Project) -> None:
    make(project)
    plan = told(project, "plan", "delete_old=1", "max_delete=1", check=1)
    assert (plan["does_it"], bool(plan["refused"])) == (None, True)


def test_the_past_is_told_the_newest_first_with_what_can_be_taken_back(project: Project) -> None:
    make(project)
    assert told(project, "plan")["history"] == []
    first = told(project, "migrate", "delete_old=1")
    (row,) = first["history"]
    assert (row["run"], row["deleted"], row["renamed"], row["bytes_deleted"]) == (first["run"], 2, 2, 200)
    assert (row["taken_back"], row["undo"], row["state"]) == (False, f"doit undo run={first['run']}", "done")
    days = time.mktime(time.strptime(row["undo_until"][:19], "%Y-%m-%d %H:%M:%S")) - first["started_ns"] / 1e9
    assert round(days / DAY, 2) == 7
    assert row["undo_until"] == first["space"]["trash_until"]
    assert first["space"]["trash"] == 200
    undo = told(project, "undo", "dry_run=1")
    assert (undo["does_it"], undo["takes_back"]) == (f"doit undo run={first['run']}", first["run"])
    assert {undo["space"][key] for key in ("protected", "kept", "goes", "undecided")} == {None}
    second = told(project, "undo")
    assert [row["run"] for row in second["history"]] == [second["run"], first["run"]]
    rows = told(project, "history")["runs"]
    assert [(row["taken_back"], row["undo_until"], bool(row["undo"])) for row in rows] == [
        (False, None, True),
        (True, None, False),
    ]
    assert rows == told(project, "plan")["history"]


def test_what_was_freed_at_once_has_no_end(project: Project) -> None:
    make(project)
    (project.folder / "rules/retention.yaml").write_text("trash_days: 0\nretention: {default: {min_epoch: 10}}\n")
    done = told(project, "migrate", "delete_old=1")
    assert (done["space"]["trash"], done["space"]["trash_until"], done["history"][0]["undo_until"]) == (0, None, None)


def test_where_a_journal_is_damaged_the_past_is_not_told(project: Project) -> None:
    make(project)
    told(project, "migrate")
    (journal,) = (project.outputs / ".ckptrules/journal").iterdir()
    journal.write_text("damaged\n")
    assert told(project, "plan")["history"] == []


def test_a_time_has_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert zoned(0) == "1970-01-01 05:30:00 +0530"
        assert zoned(10**30) is None
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_tracker_in_the_folder_above_says_which_one_is_the_best(project: Project) -> None:
    """The plan kept it, and its row said that nothing calls it the best."""
    make(project)
    (project.outputs / "exp/best_checkpoint.txt").write_text("checkpoints/epoch=11-step=11.ckpt\n")
    for words in ("plan", "plan delete_old=1"):
        rows = told(project, *words.split())["experiments"][0]["checkpoints"]
        assert [row["name"] for row in rows if row["best"]] == ["epoch=11-step=11.ckpt"]


def test_a_trash_that_cannot_be_read_is_not_known() -> None:
    """The run ended with a traceback, after all was done."""
    with nobody.project() as project:
        project.make(TREE)
        trash = project.outputs / ".ckptrules/trash"
        trash.mkdir(parents=True)
        nobody.give(project.folder)
        trash.chmod(0)
        ended = nobody.run(project.folder, "plan", "json=told.json")
        assert (ended.code, "Traceback" in ended.output) == (0, False)
        space = json.loads((project.folder / "told.json").read_text())["space"]
        assert (space["trash"], space["trash_until"], space["disk_free"] > 0) == (None, None, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("plan", "Would rename"),
        ("explain name=epoch*", "named by"),
        ("history", "No run has changed anything yet.\n"),
        ("packs names=names", "1 name, 1 known\n"),
    ],
)
def test_what_cannot_be_written_is_told_below_all_the_rest(project: Project, words: str, told: str) -> None:
    """Nothing else was told, though a command had looked at everything."""
    make(project)
    (project.folder / "names").write_text("epoch-1.pt\n")
    name = f"{'x' * 300}.json"
    out = project.doit(*words.split(), f"json={name}", check=1)
    assert told in out
    assert out.endswith(f"{name} cannot be written: File name too long\n")
