"""Whatever reads or removes for long can be stopped at any step; the next run ends what was begun."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ckptrules import stopping
from ckptrules.engine.entries import Entry
from ckptrules.outputs import evidence
from ckptrules.stopping import StoppedError
from ckptrules.storage import trash, unfinished
from ckptrules.storage.posix import Disk
from ckptrules.vault.backups import hidden_path, read_backup
from tests.commands.test_fix_state import real
from tests.conftest import Project
from tests.support import crash
from tests.support.killing import kills

STOPPED, REFUSED = 130, 3
STEPS = 12  # of each command, at which it is stopped
SIZE = 2_500_000  # three chunks


class Work(NamedTuple):
    """A command, what must be there before, and what is compared after it."""

    command: tuple[str, ...]
    prepare: Callable[[Project], object]
    fewest: int  # times that it asks whether to stop


def trees(project: Project) -> None:
    project.make({f"{name}/checkpoints/epoch={n}-step={n}.ckpt": SIZE for name in "ab" for n in (1, 2)})


def packed(project: Project) -> None:
    trees(project)
    (project.folder / "archive").mkdir()
    project.doit("archive", "experiments=a", "archive_dir=archive", "format=gz")


def backed_up(project: Project) -> None:
    trees(project)
    project.doit("backup", "mode=copy")
    made = next(project.folder.glob("outputs_backup_*"))
    made.rename(project.folder / "held")


def restorable(project: Project) -> None:
    backed_up(project)
    shutil.rmtree(project.outputs / "a")
    (project.outputs / "b/checkpoints/epoch=1-step=1.ckpt").write_bytes(b"x")


def trashed(project: Project) -> None:
    project.make({f"a/checkpoints/epoch={n}-step={n}.ckpt": 10 for n in range(1, 9)})
    project.make({"a/checkpoints/epoch=20-step=20.ckpt": 10})
    project.doit("migrate", "delete_old=1")


def alike(project: Project) -> None:
    project.make({"a/checkpoints/epoch=3-step=30.ckpt": 10})
    folder = project.outputs / "a" / "checkpoints"
    for name in ("epoch=3-step=30.ckpt", "epoch-03_step-000030.ckpt"):
        (folder / name).write_bytes(bytes(4 * SIZE))


def texts(project: Project) -> None:
    project.make({"a/checkpoints/epoch=3-step=30.ckpt": 10})
    project.doit("migrate")
    (project.folder / "scripts").mkdir()
    for n in range(5):
        (project.folder / f"scripts/{n}.py").write_text("a/checkpoints/epoch=3-step=30.ckpt\n")


def renamed(project: Project) -> None:
    real(project)
    project.doit("migrate")


def archive_folder(project: Project) -> None:
    trees(project)
    (project.folder / "archive").mkdir()


def archived(project: Project) -> None:
    archive_folder(project)
    project.doit("archive", "experiments=a", "archive_dir=archive", "format=gz", "keep_source=1")


WORK = {
    "identical files are compared": Work(("migrate",), alike, 8),
    "states are rewritten": Work(("fix_state",), renamed, 100),
    "states are looked into": Work(("fix_state", "dry_run=1"), renamed, 20),
    "an experiment is packed": Work(("archive", "experiments=a", "archive_dir=archive", "format=gz"), archive_folder, 20),
    "an archive is compared": Work(
        ("archive", "experiments=a", "archive_dir=archive", "format=gz"),
        archived,
        20,
    ),
    "an archive is read and unpacked": Work(("unarchive", "archive=archive/a.tar.gz"), packed, 20),
    "a backup is made": Work(("backup", "mode=copy"), trees, 12),
    "a backup is checked": Work(("backups", "verify=1"), backed_up, 12),
    "a backup is restored": Work(("restore", "backup=held", "force=1"), restorable, 9),
    "a backup is removed": Work(("drop_backup", "backup=held"), backed_up, 8),
    "the trash is freed": Work(("purge", "yes=1"), trashed, 5),
    "texts are read": Work(("refs",), texts, 5),
}  # fmt: skip


def asking(monkeypatch: pytest.MonkeyPatch, count: Path, stop_at: int) -> None:
    """Let the wish to stop come when it is asked for the n-th time, and write down how often it was."""
    file = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    really_write = os.write

    def stopped() -> bool:
        really_write(file, b".")
        return os.fstat(file).st_size >= stop_at

    monkeypatch.setattr(stopping, "stopped", stopped)


@pytest.mark.parametrize("work", WORK.values(), ids=list(WORK))
def test_a_command_ends_soon_leaves_nothing_half_done_and_goes_on(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Work
) -> None:
    work.prepare(project)
    kept, count = tmp_path / "kept", tmp_path / "count"
    shutil.copytree(project.folder, kept, symlinks=True)

    def run(stop_at: int) -> crash.Ended:
        with monkeypatch.context() as patch:
            asking(patch, count, stop_at)
            shutil.rmtree(project.folder)
            shutil.copytree(kept, project.folder, symlinks=True)
            return crash.run(project.folder, *work.command)

    assert run(10**9).code in (0, 1)
    asked, after = count.stat().st_size, project.tree()
    assert asked >= work.fewest
    for at in range(1, asked, max(1, asked // STEPS)):
        ended = run(at)
        assert ended.code in (STOPPED, 0), (at, ended.output)
        assert "Traceback" not in ended.output
        assert count.stat().st_size - at < 20  # it does not go on for long
        staged = project.outputs / ".ckptrules" / "work"
        assert not staged.exists() or os.listdir(staged) == [], at
        again = crash.run_in_turn(project.folder, *work.command)
        gone = "is there already" in again.output or "needs backup=" in again.output or "'held'" in again.output
        gone |= again.code == REFUSED and project.tree() == after  # the wish came when all was done
        assert again.code in (0, 1) or gone, (at, again.output)
        if not gone:
            assert project.tree() == after, at


# --- what is left, exactly -------------------------------------------------------------------------------------------


def stopping_at(number: int) -> Callable[[int], None]:
    calls = []

    def progress(size: int) -> None:
        calls.append(size)
        if len(calls) > number:
            raise StoppedError

    return progress


def test_a_backup_whose_removal_is_stopped_is_still_known_as_one(project: Project) -> None:
    backed_up(project)
    place = str(project.folder / "held")
    names = sum(len(folders) + len(files) for _, folders, files in os.walk(place))
    for number in range(names - 2):
        (project.folder / "again").mkdir()
        path = shutil.copytree(place, project.folder / "again" / "held", symlinks=True)
        with pytest.raises(StoppedError):
            unfinished.remove_backup(str(path), hidden_path(str(path)), stopping_at(number))
        assert read_backup(hidden_path(str(path)))[0].complete
        unfinished.remove_backup(hidden_path(str(path)), hidden_path(str(path)))
        os.rmdir(project.folder / "again")


def test_the_trash_is_freed_item_by_item(project: Project) -> None:
    trashed(project)
    (run,) = os.listdir(project.outputs / ".ckptrules/trash")
    answers = iter([False] * 5 + [True] * 9)
    emptied = trash.empty_trash(Disk(str(project.outputs)), [run], lambda: next(answers))
    assert emptied.freed.items < 8
    assert {str(error.strerror) for error in emptied.left.values()} == {"the run was stopped"}
    assert trash.empty_trash(Disk(str(project.outputs)), [run]).left == {}


def test_two_large_files_are_not_compared_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(bytes(SIZE))
    directory = os.open(tmp_path, os.O_RDONLY)
    entries = {name: Entry(name, "file", SIZE, 0) for name in "ab"}
    assert len(evidence.same_content(directory, "ab", entries)) == 2
    monkeypatch.setattr(stopping, "_run", [stopping.ASKED, 0])
    with pytest.raises(StoppedError):
        evidence.same_content(directory, "ab", entries)
    os.close(directory)


def test_wherever_a_run_is_killed_history_says_so_and_how_far_it_came(project: Project, tmp_path: Path) -> None:
    """Between two directories no journal is torn, and a run that had done half of its work was called done."""
    project.make({f"{name}/checkpoints/epoch={epoch}-step=8.ckpt": 9 for name in "abc" for epoch in (1, 12)})
    shutil.copytree(project.folder, whole := tmp_path / "whole", symlinks=True)
    killed = kills(Project(whole), ["migrate", "delete_old=1"])
    assert crash.run_in_turn(whole, "history").output.splitlines()[1].endswith("  done")
    told = set[str]()
    for number, at in enumerate(killed):
        shutil.copytree(project.folder, folder := tmp_path / f"at {number}", symlinks=True)
        assert crash.run_in_turn(folder, "migrate", "delete_old=1", fault=at).code == -signal.SIGKILL
        begun = [row.rpartition("  ")[2] for row in history(folder)]
        if begun == ["done"]:  # it had nothing left to do but to give its lock back
            assert Project(folder).tree() == Project(whole).tree()
            continue
        assert all(state.startswith("interrupted: ") for state in begun), (at, begun)
        assert crash.run_in_turn(folder, "migrate", "delete_old=1").code == 0
        *later, first = [row.rpartition("  ")[2] for row in history(folder)]
        assert later in ([], ["done"])
        assert not begun or first.startswith(("stopped: ", "nothing done")), (at, first)
        told.update(begun, [first])
    assert {"interrupted: 1 of 2 done", "interrupted: 2 done", "interrupted: 4 done", "stopped: 4 done"} <= told


def history(folder: Path) -> list[str]:
    """Return the runs, the newest first, a line each."""
    return crash.run_in_turn(folder, "history").output.splitlines()[1:]
