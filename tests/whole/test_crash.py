"""Killed, refused or stopped at every single change of the disk: nothing is lost, the next run finishes, undo goes back.

Where several faults leave the same disk, what comes of it is looked at once.
"""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest

from ckptrules import stopping
from tests.conftest import REFUSED, Project
from tests.support.disturbing import Fault
from tests.support.undisturbed import Undisturbed, contents, tracked

pytestmark = pytest.mark.whole
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EXDEV, errno.EMFILE, "lost")
on_old_systems_too = pytest.mark.parametrize("undisturbed", [False, True], ids=["", "old system"], indirect=True)


def undone(undisturbed: Undisturbed) -> Undisturbed:
    """Return what an undo makes of what the command has made."""
    kept = undisturbed.kept.with_name("made")
    undo = Undisturbed(undisturbed.project, kept, ("undo",), old_system=undisturbed.old_system)
    assert undo.final == undisturbed.start
    return undo


@on_old_systems_too
def test_killed_at_any_change(undisturbed: Undisturbed) -> None:
    for at in undisturbed.kills():
        undisturbed.begin()
        ended = undisturbed.run(*undisturbed.command, fault=at)
        assert ended.code == -signal.SIGKILL, (at, ended)
        if undisturbed.leaves_another_disk():
            assert undisturbed.holds_all(), at
            assert undisturbed.has_its_links(), at
            undisturbed.finish_and_take_back(at)


def test_killed_at_any_change_and_taken_back_at_once(undisturbed: Undisturbed) -> None:
    for at in undisturbed.kills():
        undisturbed.begin()
        undisturbed.run(*undisturbed.command, fault=at)
        if undisturbed.leaves_another_disk():
            ended = undisturbed.run("undo")
            assert ended.code == 0, (at, ended.output)
            assert undisturbed.project.tree() == undisturbed.start, (at, ended.output)


@on_old_systems_too
def test_an_undo_killed_at_any_change(undisturbed: Undisturbed) -> None:
    undo = undone(undisturbed)
    for at in undo.kills():
        undo.begin()
        ended = undo.run("undo", fault=at)
        assert ended.code == -signal.SIGKILL, (at, ended)
        if undo.leaves_another_disk():
            assert undo.holds_all(), at
            undo.finish(at)


@pytest.mark.parametrize("errors", [ERRORS[:3], ERRORS[3:]], ids=str)
def test_refused_at_any_change(undisturbed: Undisturbed, errors: tuple[int | str, ...]) -> None:
    for at in [(at, error) for at in undisturbed.instants for error in errors]:
        undisturbed.begin()
        ended = undisturbed.run(*undisturbed.command, fault=Fault(*at))
        assert ended.code in (0, 1, 3), (at, ended.output)
        assert "Traceback" not in ended.output, (at, ended.output)
        if undisturbed.leaves_another_disk():
            assert undisturbed.holds_all(), (at, ended.output)
            undisturbed.finish_and_take_back(at)


def test_refused_from_any_change_on(undisturbed: Undisturbed) -> None:
    """Then what was done of a unit cannot be taken back either: the next run finishes it."""
    for at in undisturbed.instants:
        undisturbed.begin()
        ended = undisturbed.run(*undisturbed.command, fault=Fault(at, errno.EIO, lasts=True))
        assert ended.code in (0, 1, 3), (at, ended.output)
        assert "Traceback" not in ended.output, (at, ended.output)
        assert undisturbed.holds_all(), (at, ended.output)
        if ended.code != REFUSED and undisturbed.leaves_another_disk():
            undisturbed.finish_and_take_back(at)


def test_an_undo_refused_from_any_change_on(undisturbed: Undisturbed) -> None:
    undo = undone(undisturbed)
    for at in undo.instants:
        undo.begin()
        ended = undo.run("undo", fault=Fault(at, errno.EIO, lasts=True))
        assert "Traceback" not in ended.output, (at, ended.output)
        assert undo.holds_all(), (at, ended.output)
        if ended.code != REFUSED and undo.leaves_another_disk():
            undisturbed.take_back(at)


def test_stopped_at_any_change(undisturbed: Undisturbed) -> None:
    stopped_early = 0
    for at, number in [(at, number) for at in undisturbed.instants for number in (signal.SIGINT, signal.SIGTERM)]:
        undisturbed.begin()
        ended = undisturbed.run(*undisturbed.command, fault=Fault(at, number.name))
        if ended.code == -number:  # not yet at work: the signal ends the process, as it ends any
            assert undisturbed.project.tree() == undisturbed.start
            continue
        assert ended.code == stopping.EXIT_CODE, (at, ended)
        is_late = at == undisturbed.instants[-1]  # all is done and told: it gives the lock back
        assert ended.output.endswith("Stopped: no change is half done. Run again to go on.\n") != is_late, (at, ended)
        assert undisturbed.holds_all(), at
        stopped_early += undisturbed.project.tree() != undisturbed.final
        if undisturbed.leaves_another_disk():
            assert undisturbed.run("history").output.count("interrupted") == 0, at
            assert "Recovered" not in undisturbed.finish(at).output
    assert stopped_early > 5


@pytest.mark.parametrize("training", [False, True], ids=["", "old system"], indirect=True)
def test_killed_while_links_pointers_and_states_are_made(training: Undisturbed) -> None:
    originals = {text for path, text in training.start.items() if path.endswith(".ckpt")}
    for at in training.kills():
        training.begin()
        ended = training.run(*training.command, fault=at)
        assert ended.code == -signal.SIGKILL, (at, ended)
        assert originals <= set(contents(training.project)), at
        if training.leaves_another_disk():
            training.finish_and_take_back(at)


def test_killed_while_trackers_follow(project: Project, tmp_path: Path) -> None:
    tracked(project)
    undisturbed = Undisturbed(project, tmp_path / "kept", ("migrate", "delete_old=1"), old_system=False)
    pointer = project.outputs / "ocr/checkpoints/checkpoint"
    for at in undisturbed.kills():
        undisturbed.begin()
        ended = undisturbed.run(*undisturbed.command, fault=at)
        assert ended.code == -signal.SIGKILL, (at, ended)
        assert pointer.read_text() in ('path: "m-200"\n', 'path: "run-000200"\n'), at
        if undisturbed.leaves_another_disk():
            undisturbed.finish_and_take_back(at)
