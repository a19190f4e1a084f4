"""What the version 53e9581 left goes on: its runs are undone, its trash is purged, its copies brought back.

``tests/support/make_from_53e9581.py`` has made the project with that version itself. Only ``dodo.py`` is today's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from fnmatch import fnmatch

import pytest

from tests.conftest import ROOT, Project

PROJECT = ROOT / "tests/cases/from_53e9581/project.tar.gz"
FREED = "freed/checkpoints/epoch=1-step=1.ckpt"
STATES = [
    ("migrate delete_old=1", "interrupted: 3 of 5 done"),
    ("archive archive_dir=archives experiments=shelf_zst", "done"),
    ("archive archive_dir=archives experiments=shelf_gz format=gz", "done"),
    ("refs apply=1 force=1", "not taken back: texts"),
    ("fix_state", "done"),
    ("drop_links", "done"),
    ("migrate delete_old=1", "done"),
    ("migrate on_conflict=keep_newest leave_links=1", "done"),
    ("migrate delete_old=1", "done"),
    ("purge", "done"),
    ("migrate delete_old=1", "trash freed"),
]


@pytest.fixture
def old(project: Project) -> Project:
    """Return the project as that version left it, with the tasks of today."""
    shutil.rmtree(project.folder)
    with tarfile.open(PROJECT) as archive:
        archive.extraction_filter = lambda member, _: member  # an argument of that kind is younger than Python 3.11.2
        archive.extractall(project.folder)
    shutil.copy(ROOT / "dodo.py", project.folder)
    return project


def in_place(project: Project) -> None:
    """Let the journal of ``fix_state`` name the inodes that the files have here, as it does where they were never moved.

    That version tells the two states of a checkpoint apart by inode, size and time; the last two are the same here.
    """
    for journal in project.outputs.glob(".ckptrules/journal/*.jsonl"):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        for step in (step for line in lines for _, _, steps in line.get("units", ()) for step in steps):
            if step[0] == "exchange":
                _, folder, name, trash, trashed, marks, _ = step
                now = [project.outputs / trash / trashed, project.outputs / folder / name]  # they changed their places
                inodes = [path.stat().st_ino for path in now]
                step[5] = " ".join(
                    re.sub(r"^\d+", str(ino), mark) for ino, mark in zip(inodes, marks.split(" "), strict=True)
                )
        journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def trees(project: Project) -> list[tuple[str, dict[str, str]]]:
    """Return each run that changed something, with what lay below outputs before it."""
    return [(run, tree) for run, tree in json.loads((project.folder / "trees.json").read_text())]


def states(project: Project) -> list[tuple[str, str]]:
    """Return command and state of each run, as history has them, the newest first."""
    heading, *rows = project.doit("history").splitlines()
    command, renamed, state = (heading.index(f" {word}") + 1 for word in ("command", "renamed", "state"))
    return [(row[command:renamed].strip(), row[state:].strip()) for row in rows]


def in_experiment(tree: dict[str, str], experiment: str) -> dict[str, str]:
    return {path: content for path, content in tree.items() if fnmatch(path, f"{experiment}/*")}


def test_history_shows_its_runs(old: Project) -> None:
    before = old.tree(state=True)
    assert states(old) == STATES
    assert old.tree(state=True) == before


def test_each_of_its_runs_is_taken_back(old: Project) -> None:
    """But for the rewritten texts: what tells of them lies where others may write, and is believed no more."""
    in_place(old)
    text = (old.folder / "scripts/evaluate.py").read_text()
    undone = [(run, tree) for run, tree in reversed(trees(old)) if not run.startswith(("refs", "purge"))]
    for run, tree in undone[:-1]:
        out = old.doit("undo")
        assert "Taken back: run " in out, (run, out)
        assert old.tree() == tree, run
    out = old.doit("undo")
    assert "Gone for good: 1 checkpoint of this run; its space was freed." in out
    assert old.tree() == {path: content for path, content in undone[-1][1].items() if path != FREED}
    assert "There is nothing to take back." in old.doit("undo")
    assert (old.folder / "scripts/evaluate.py").read_text() == text


def test_a_state_that_cannot_be_told_from_the_other_one_stays(old: Project) -> None:
    """In a copy of the tree, where all inodes are others."""
    (run,) = (line.split()[0] for line in old.doit("history").splitlines() if " fix_state " in line)
    before = in_experiment(old.tree(), "ocr")
    assert "cannot get its old state back: has changed since" in old.doit("undo", f"run={run}", check=1)
    assert in_experiment(old.tree(), "ocr") == before


@pytest.mark.parametrize("command", [["migrate:killed", "delete_old=1"], ["purge", "yes=1"], ["undo"], ["fix_state"]])
def test_its_run_that_was_killed_is_finished_first(old: Project, command: Sequence[str]) -> None:
    """It was killed when a checkpoint had its new name and the sidecar had not."""
    assert "epoch=20-step=20.metadata.json" in old.names("killed")
    assert "epoch-20_step-000020.ckpt" in old.names("killed")
    out = old.doit(*command, check=0)
    assert "was interrupted" in out.splitlines()[0]
    names = old.names("killed")
    if command == ["undo"]:
        assert old.tree() == trees(old)[-1][1]
    else:
        assert {"epoch-20_step-000020.ckpt", "epoch-20_step-000020.metadata.json"} <= {*names}
        assert not [name for name in names if name.startswith(("epoch=1-", "epoch=2-", "epoch=20-"))]
        assert ("epoch-21_step-000021.ckpt" in names) == (command[0] == "migrate:killed")


def test_its_trash_is_listed_and_purged(old: Project) -> None:
    listed = old.doit("trash")
    assert "No journal" not in listed
    rows, _, told = listed.partition(" items, ")
    names = [line.split()[2] for line in rows.splitlines()[1:-1]]
    assert told.splitlines()[1].startswith("'doit undo")
    assert {"epoch_09_step_000090.ckpt", "epoch=3-step=8.ckpt", "shelf_gz", "shelf_zst"} <= {*names}
    assert f"Freed: {len(names)} items from the trash" in old.doit("purge", "yes=1")
    assert old.doit("trash") == "The trash is empty.\n"
    assert dict(states(old))["archive archive_dir=archives experiments=shelf_zst"] == "trash freed"
    assert old.tree().keys() & {"shelf_gz/notes.txt", FREED} == set()


def test_its_files_are_verified_anew(old: Project) -> None:
    """Its memory of what it verified is not believed, as today's check finds more; it does no harm."""
    plan = ("plan:paper", "delete_old=1", "verified=1")
    assert "no checkpoint that stays is verified" in old.doit(*plan, check=1)
    assert re.search(r"\n  read now +2  2.5 KB\n", old.doit("verify:paper"))
    assert re.search(r"\n  read now +0", old.doit("verify:paper"))
    assert "Would delete: epoch-02_step-000020.ckpt (epoch < 10)" in old.doit(*plan)


def test_its_backup_is_checked_and_brings_back(old: Project) -> None:
    (backup,) = os.listdir(old.folder / "saved")
    assert old.doit("backups", "to=saved", "verify=1").splitlines()[1].endswith("  verified")
    before = in_experiment(old.tree(), "paper")
    (old.outputs / "paper/checkpoints/epoch-40_step-000400.ckpt").unlink()
    (old.outputs / "paper/checkpoints/epoch-02_step-000020.ckpt").write_bytes(b"damaged")
    old.doit("restore", f"backup=saved/{backup}", check=1)
    old.doit("restore", f"backup=saved/{backup}", "force=1")
    assert in_experiment(old.tree(), "paper") == before
    (old.folder / "saved" / backup / "paper/checkpoints/epoch-40_step-000400.ckpt").chmod(0o600)
    with (old.folder / "saved" / backup / "paper/checkpoints/epoch-40_step-000400.ckpt").open("r+b") as file:
        file.write(b"another")
    out = old.doit("backups", "to=saved", "verify=1", check=1)
    assert "! Problem: paper/checkpoints/epoch-40_step-000400.ckpt has another checksum\n" in out
    old.doit("drop_backup", f"backup=saved/{backup}")
    assert os.listdir(old.folder / "saved") == []


@pytest.mark.parametrize("name", ["shelf_gz.tar.gz", "shelf_zst.tar.zst"])
def test_its_archives_are_brought_back(old: Project, name: str) -> None:
    experiment = name.partition(".")[0]
    assert in_experiment(old.tree(), experiment) == {}
    assert "Brought back: " in old.doit("unarchive", f"archive=archives/{name}")
    before = next(tree for run, tree in trees(old) if f"experiments={experiment} " in f"{run} ")
    assert in_experiment(old.tree(), experiment) == in_experiment(before, experiment)


def test_its_database_and_its_rules_do_no_harm(old: Project) -> None:
    assert "All rules hold.\n" in old.doit("check")
    before = in_experiment(old.tree(), "[!k]*")
    old.doit("migrate", "experiments=[!k]*")
    assert in_experiment(old.tree(), "[!k]*") == before
    assert "Nothing to do: 4 experiments are up to date." in old.doit("migrate", "experiments=[!ks]*")
