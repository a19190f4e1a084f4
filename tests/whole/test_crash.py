"""Killed, refused or stopped at every single change of the disk: nothing is lost, the next run finishes, undo goes back."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ckptrules import stopping
from tests.conftest import ROOT, Project
from tests.support import crash
from tests.support.crash import Ended, Fault

EARLY = "epoch_epoch_02_step_step_000176_20251009_011245.ckpt"
DOUBLED = "epoch_epoch_22_step_step_001932_20251009_015037.ckpt"
TREE: dict[str, int | str] = {
    f"ocr/checkpoints/{DOUBLED}": 300,
    f"ocr/checkpoints/{EARLY}": 200,
    "ocr/checkpoints/epoch=3-step=40.ckpt": 210,
    "ocr/checkpoints/last.ckpt": f"-> {DOUBLED}",
    f"ocr/checkpoints/{DOUBLED[:-5]}.metadata.json": 20,
    f"ocr/checkpoints/{EARLY[:-5]}.config.json": 21,
    "ocr/checkpoints/epoch=25-step=9.ckpt": 120,
    "ocr/checkpoints/epoch_25_step_9.ckpt": 121,
    "ocr/checkpoints/epoch-26_step-000010.ckpt": 122,  # loses the name that it has
    "ocr/checkpoints/epoch_26_step_10.ckpt": 123,
    "links/best.ckpt": f"-> ../ocr/checkpoints/{DOUBLED}",
    "sharded/checkpoints/epoch=30-step=500.ckpt/0.pt": 10,
    "sharded/checkpoints/epoch=30-step=500.ckpt/1.pt": 11,
    "sharded/checkpoints/epoch=1-step=5.ckpt/0.pt": 12,
    "sharded/checkpoints/last": "-> epoch=30-step=500.ckpt/1.pt",
}
COMMAND = ("migrate", "delete_old=1", "on_conflict=keep_largest")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EXDEV, errno.EMFILE)


def contents(project: Project) -> Counter[str]:
    """Count the contents of the files that are no notes of ours."""
    ours = tuple(f".ckptrules/{name}" for name in ("journal/", "doit.db", "lock", "proved"))
    return Counter(
        text for path, text in project.tree(state=True).items() if not path.startswith(ours) and text[:2] != "->"
    )


def trash(project: Project) -> Counter[str]:
    return Counter(text for path, text in project.tree(state=True).items() if path.startswith(".ckptrules/trash/"))


class Undisturbed(NamedTuple):
    """A project, and what a run makes of it when nothing goes wrong."""

    project: Project
    kept: Path
    changes: int
    start: dict[str, str]
    final: dict[str, str]
    trash: Counter[str]
    everything: Counter[str]
    run: Callable[..., Ended]

    def begin(self) -> None:
        """Put the outputs folder back to how it was."""
        shutil.rmtree(self.project.outputs)
        shutil.copytree(self.kept, self.project.outputs, symlinks=True)

    def holds_all(self) -> bool:
        """Say whether nothing is lost; on an old system, a file may have both of its names for a moment."""
        return set(contents(self.project)) == set(self.everything)

    def links(self) -> set[str]:
        return {path for path, text in self.project.tree().items() if text.startswith("->")}


on_old_systems_too = pytest.mark.parametrize("undisturbed", [False, True], ids=["", "old system"], indirect=True)


@pytest.fixture
def undisturbed(project: Project, tmp_path: Path, request: pytest.FixtureRequest) -> Undisturbed:
    project.make(TREE)
    kept = tmp_path / "kept"
    shutil.copytree(project.outputs, kept, symlinks=True)
    start, everything = project.tree(), contents(project)
    run = functools.partial(crash.run, project.folder, old_system=getattr(request, "param", False))
    ended = run(*COMMAND)
    assert (ended.code, "Traceback" in ended.output) == (0, False), ended.output
    assert ended.changes > len(TREE)
    return Undisturbed(project, kept, ended.changes, start, project.tree(), trash(project), everything, run)


@on_old_systems_too
@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_any_change(undisturbed: Undisturbed, how: str) -> None:
    project = undisturbed.project
    for at in range(1, undisturbed.changes + 1):
        undisturbed.begin()
        links = undisturbed.links()
        ended = undisturbed.run(*COMMAND, fault=Fault(at, how))
        assert ended.code == -signal.SIGKILL, (at, ended)
        assert undisturbed.holds_all(), at
        assert links == undisturbed.links(), at
        ended = undisturbed.run(*COMMAND)
        assert ended.code == 0, (at, ended.output)
        assert project.tree() == undisturbed.final, (at, ended.output)
        assert trash(project) == undisturbed.trash, at
        for _ in range(2):  # what the killed run did, and what the next one did
            ended = undisturbed.run("undo")
            assert ended.code == 0, (at, ended.output)
        assert project.tree() == undisturbed.start, at


@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_at_any_change_and_taken_back_at_once(undisturbed: Undisturbed, how: str) -> None:
    for at in range(1, undisturbed.changes + 1):
        undisturbed.begin()
        undisturbed.run(*COMMAND, fault=Fault(at, how))
        ended = undisturbed.run("undo")
        assert ended.code == 0, (at, ended.output)
        assert undisturbed.project.tree() == undisturbed.start, (at, ended.output)


@on_old_systems_too
def test_an_undo_killed_at_any_change(undisturbed: Undisturbed) -> None:
    changes = undisturbed.run("undo").changes
    assert undisturbed.project.tree() == undisturbed.start
    for at in range(1, changes + 1):
        undisturbed.begin()
        undisturbed.run(*COMMAND)
        ended = undisturbed.run("undo", fault=Fault(at, "before"))
        assert ended.code == -signal.SIGKILL, (at, ended)
        assert undisturbed.holds_all(), at
        ended = undisturbed.run("undo")
        assert ended.code == 0, (at, ended.output)
        assert undisturbed.project.tree() == undisturbed.start, (at, ended.output)


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_refused_at_any_change(undisturbed: Undisturbed, error: int) -> None:
    project = undisturbed.project
    for at in range(1, undisturbed.changes + 1):
        undisturbed.begin()
        ended = undisturbed.run(*COMMAND, fault=Fault(at, error))
        assert ended.code in (0, 1, 3), (at, ended.output)
        assert "Traceback" not in ended.output, (at, ended.output)
        assert undisturbed.holds_all(), (at, ended.output)
        ended = undisturbed.run(*COMMAND)
        assert ended.code == 0, (at, ended.output)
        assert project.tree() == undisturbed.final, (at, ended.output)
        assert trash(project) == undisturbed.trash, at
        for _ in range(2 if error == errno.EIO else 0):  # the way back does not depend on which error it was
            ended = undisturbed.run("undo")
            assert ended.code == 0, (at, ended.output)
        assert error != errno.EIO or project.tree() == undisturbed.start, at


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_any_change(undisturbed: Undisturbed, number: int) -> None:
    project = undisturbed.project
    stopped_early = 0
    for at in range(1, undisturbed.changes + 1):
        undisturbed.begin()
        ended = undisturbed.run(*COMMAND, at_change=lambda n, at=at: os.kill(os.getpid(), number) if n == at else None)
        if ended.code == -number:  # not yet at work: the signal ends the process, as it ends any
            assert project.tree() == undisturbed.start
            continue
        assert ended.code == stopping.EXIT_CODE, (at, ended)
        assert ended.output.endswith("Stopped: no change is half done. Run again to go on.\n")
        assert undisturbed.holds_all(), at
        stopped_early += project.tree() != undisturbed.final
        assert undisturbed.run("history").output.count("interrupted") == 0, at
        ended = undisturbed.run(*COMMAND)
        assert (ended.code, "Recovered" in ended.output) == (0, False), (at, ended.output)
        assert project.tree() == undisturbed.final, (at, ended.output)
    assert stopped_early > 5


class Training(NamedTuple):
    """A project with a pointer file and real checkpoints, and what comes of it when nothing goes wrong."""

    project: Project
    kept: Path
    changes: int
    start: dict[str, str]
    final: dict[str, str]
    run: Callable[..., Ended]

    def finish_and_take_back(self, at: int) -> None:
        """Run again after a fault, and then undo all: each must come to what it comes to undisturbed."""
        ended = self.run(*IN_TRAINING)
        assert ended.code == 0, (at, ended.output)
        assert self.project.tree() == self.final, (at, ended.output)
        while "There is nothing to take back" not in (ended := self.run("undo")).output:
            assert ended.code == 0, (at, ended.output)
        assert self.project.tree() == self.start, at


def trained(project: Project) -> Path:
    """Put a few checkpoints of a real training into a project, and return their folder."""
    folder = project.outputs / "lightning_default" / "checkpoints"
    shutil.copytree(ROOT / "tests/real/outputs/lightning_default/checkpoints", folder)
    for name in sorted(os.listdir(folder))[2:-1]:
        os.unlink(folder / name)
    return folder


IN_TRAINING = ("migrate", "leave_links=1", "fix_state=1")


@pytest.fixture
def training(project: Project, tmp_path: Path, request: pytest.FixtureRequest) -> Training:
    folder = trained(project)
    (folder / "latest").write_text("".join(f"{name}\n" for name in sorted(os.listdir(folder))))
    kept = tmp_path / "kept"
    shutil.copytree(project.outputs, kept, symlinks=True)
    start = project.tree()
    run = functools.partial(crash.run, project.folder, old_system=getattr(request, "param", False))
    ended = run(*IN_TRAINING)
    assert ended.code == 0, ended.output
    assert all(word in ended.output for word in ("Repointed", "State fixed", "a link stays")), ended.output
    return Training(project, kept, ended.changes, start, project.tree(), run)


@pytest.mark.parametrize("training", [False, True], ids=["", "old system"], indirect=True)
@pytest.mark.parametrize("how", ["before", "after"])
def test_killed_while_links_pointers_and_states_are_made(training: Training, how: str) -> None:
    project = training.project
    originals = {text for path, text in training.start.items() if path.endswith(".ckpt")}
    for at in range(1, training.changes + 1):
        shutil.rmtree(project.outputs)
        shutil.copytree(training.kept, project.outputs, symlinks=True)
        ended = training.run(*IN_TRAINING, fault=Fault(at, how))
        assert ended.code == -signal.SIGKILL, (at, ended)
        assert originals <= set(contents(project)), at
        training.finish_and_take_back(at)
