"""The power goes: what was written and not waited for is gone, and still nothing is lost."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_refs import NEW, OLD, prepare
from tests.conftest import Project
from tests.support import crash
from tests.support.disturbing import Fault
from tests.support.undisturbed import Undisturbed, contents

pytestmark = pytest.mark.whole


class Disk:
    """What of the files that a run wrote to is on the disk for certain: noted at each ``fsync``, by inode.

    Renames are taken to be on the disk at once and in order; the content of a file, and the name of a new journal, are
    not before they are asked for.
    """

    def __init__(self, notes: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes, self.outputs = notes, outputs
        notes.mkdir()
        self._open, self._write = os.open, os.write
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fsync", functools.partial(self.sync, os.fsync))
        monkeypatch.setattr(os, "fdatasync", functools.partial(self.sync, os.fdatasync))

    def open(self, path: str, flags: int, *args: Any, **kwargs: Any) -> int:
        file = self._open(path, flags, *args, **kwargs)
        if flags & os.O_CREAT:
            self.note(file)
        return file

    def write(self, file: int, data: Any) -> int:
        self.note(file)
        return self._write(file, data)

    def note(self, file: int) -> None:
        status = os.fstat(file)
        note = self.notes / str(status.st_ino)
        if not status.st_size or not note.exists():  # an empty one is new, whatever had its inode before
            note.write_text(str(status.st_size))

    def sync(self, function: Callable[[int], None], file: int) -> None:
        function(file)
        status = os.fstat(file)
        if os.path.isdir(f"/dev/fd/{file}"):
            (self.notes / f"names-{status.st_ino}").write_text(json.dumps(os.listdir(file)))
        else:
            (self.notes / str(status.st_ino)).write_text(str(status.st_size))

    def lose_power(self) -> None:
        """Take away what was not on the disk for certain."""
        journal = self.outputs / ".ckptrules" / "journal"
        if journal.exists():
            names = self.notes / f"names-{journal.stat().st_ino}"
            kept = json.loads(names.read_text()) if names.exists() else []
            for name in set(os.listdir(journal)).difference(kept):
                (journal / name).unlink()
        for folder, _, files in os.walk(self.outputs.parent):
            for path in (Path(folder, name) for name in files):
                note = self.notes / str(path.lstat().st_ino)
                if not path.is_symlink() and note.exists() and int(note.read_text()) < path.stat().st_size:
                    os.truncate(path, int(note.read_text()))

    def begin(self, kept: Path) -> None:
        for place in (self.outputs, self.notes):
            shutil.rmtree(place)
        shutil.copytree(kept, self.outputs, symlinks=True)
        self.notes.mkdir()
        journal = self.outputs / ".ckptrules" / "journal"
        if journal.exists():
            (self.notes / f"names-{journal.stat().st_ino}").write_text(json.dumps(os.listdir(journal)))


@pytest.fixture
def disk(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path / "notes", project.outputs, monkeypatch)


def test_the_power_goes_at_any_change(undisturbed: Undisturbed, disk: Disk) -> None:
    for at in undisturbed.instants:
        disk.begin(undisturbed.kept)
        assert (
            crash.run(undisturbed.project.folder, *undisturbed.command, fault=Fault(at, "after")).code
            == -signal.SIGKILL
        )
        disk.lose_power()
        assert undisturbed.holds_all(), at
        if undisturbed.leaves_another_disk():
            undisturbed.finish_and_take_back(at)


def test_the_power_goes_while_links_pointers_and_states_are_made(training: Undisturbed, disk: Disk) -> None:
    originals = {text for path, text in training.start.items() if path.endswith(".ckpt")}
    for at in training.instants:
        disk.begin(training.kept)
        assert crash.run(training.project.folder, *training.command, fault=Fault(at, "after")).code == -signal.SIGKILL
        disk.lose_power()
        assert originals <= set(contents(training.project)), at
        if training.leaves_another_disk():
            training.finish_and_take_back(at)


def test_the_power_goes_while_references_are_rewritten(project: Project, tmp_path: Path, disk: Disk) -> None:
    prepare(project, "one")
    before, after = (f"load('one/checkpoints/{name}')\n" for name in (OLD, NEW))
    kept, script = tmp_path / "kept", project.folder / "scripts" / "a.py"
    shutil.copytree(project.outputs, kept, symlinks=True)
    script.write_text(before)
    changes = crash.run_in_turn(project.folder, "refs", "apply=1").changes
    for at in range(1, changes + 1):
        disk.begin(kept)
        script.write_text(before)
        crash.run(project.folder, "refs", "apply=1", fault=Fault(at, "after"))
        disk.lose_power()
        assert script.read_text() in (before, after), at
        ended = crash.run_in_turn(project.folder, "refs", "apply=1")
        assert (ended.code, script.read_text()) == (0, after), (at, ended.output)
        for _ in range(2):
            crash.run_in_turn(project.folder, "undo", "experiments=references")
        assert script.read_text() == before, at


def test_the_power_goes_while_an_experiment_is_packed(project: Project, tmp_path: Path, disk: Disk) -> None:
    project.make({"old/checkpoints/epoch=2-step=2.ckpt": 5000, "old/checkpoints/last.ckpt": "-> epoch=2-step=2.ckpt"})
    archive, kept, start = project.folder / "archive", tmp_path / "kept", project.tree()
    archive.mkdir()
    shutil.copytree(project.outputs, kept, symlinks=True)
    command, back = ("archive", "experiments=old", "archive_dir=archive"), ("unarchive", "archive=archive/old.tar.zst")
    changes = crash.run_in_turn(project.folder, *command).changes
    for at in range(1, changes + 1):
        disk.begin(kept)
        shutil.rmtree(archive)
        archive.mkdir()
        crash.run(project.folder, *command, fault=Fault(at, "after"))
        disk.lose_power()
        if project.tree() == start:
            ended = crash.run_in_turn(project.folder, *command)
            assert ended.code == 0, (at, ended.output)
        assert project.tree() == {}, at
        ended = crash.run_in_turn(project.folder, *back)
        assert (ended.code, project.tree()) == (0, start), (at, ended.output)
    packed = tmp_path / "packed"
    crash.run_in_turn(project.folder, *command)
    shutil.copytree(project.outputs, packed, symlinks=True)
    changes = crash.run_in_turn(project.folder, *back).changes
    for at in range(1, changes + 1):
        disk.begin(packed)
        crash.run(project.folder, *back, fault=Fault(at, "after"))
        disk.lose_power()
        if not project.tree():
            ended = crash.run_in_turn(project.folder, *back)
            assert ended.code == 0, (at, ended.output)
        assert project.tree() == start, at
