"""`doit purge` names its folder and what goes, asks on a terminal, and frees what can be freed."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ckptrules.changes.history import read_history
from ckptrules.changes.record import read
from ckptrules.storage import trash
from ckptrules.storage.posix import Disk
from tests.conftest import Project
from tests.support import nobody
from tests.whole.test_real_disks import mount

pytestmark = pytest.mark.whole

OLD = {f"one/checkpoints/epoch={n}-step={n}.ckpt": 100 for n in (1, 2, 12)}
PATIENCE = 60  # seconds
FOLDER = "one/checkpoints/epoch=3-step=3.ckpt/inner/shard.pt"


def deleted(project: Project) -> Path:
    """Delete two files and a folder; return where they wait."""
    project.make({**OLD, FOLDER: 50})
    project.doit("migrate", "delete_old=1")
    (run,) = (project.outputs / ".ckptrules/trash").iterdir()
    return run


def on_terminal(project: Project, answer: str, *words: str, command: str = "purge") -> tuple[int, str]:
    """Run a command with a terminal as its input and output."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project.folder)
        os.execv(sys.executable, [sys.executable, "-m", "doit", command, *words])
    shown, asked = b"", False
    while True:
        if not select.select([terminal], [], [], PATIENCE)[0]:
            os.kill(child, signal.SIGKILL)
            pytest.fail(f"it waits for ever: {shown!r}")
        try:
            chunk = os.read(terminal, 1000)
        except OSError:  # Linux has it so when the other side is closed
            break
        shown += chunk
        if not chunk:
            break
        if not asked and b"[y/N]" in shown:
            asked = True
            os.write(terminal, answer.encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("answer", "words", "freed", "code"),
    [
        ("y\n", (), True, 0),
        ("YES\n", (), True, 0),
        ("n\n", (), False, 0),
        ("\n", (), False, 0),
        ("nonsense\n", (), False, 0),
        ("\x04", (), False, 0),
        ("\x03", (), False, 130),
        ("", ("yes=1",), True, 0),
        ("", ("--yes",), True, 0),
        ("", ("dry_run=1",), False, 0),
    ],
)
def test_it_asks_on_a_terminal(
    project: Project,
    answer: str,
    words: tuple[str, ...],
    freed: bool,  # noqa: FBT001
    code: int,
) -> None:
    run = deleted(project)
    ended, shown = on_terminal(project, answer, *words)
    assert (ended, "[y/N]" in shown) == (code, not words), shown
    assert shown.startswith("Trash: outputs/.ckptrules/trash\n")
    assert f"  {run.name}  " in shown
    assert "3 items" in shown
    assert run.exists() != freed
    assert ("Nothing was freed." in shown or "nothing was freed" in shown) == (not freed and not words)
    assert project.doit("history").count("purge") == int(freed)


@pytest.mark.parametrize(
    ("answer", "words", "dropped", "code"),
    [("y\n", (), True, 0), ("\n", (), False, 0), ("\x03", (), False, 130), ("", ("yes=1",), True, 0)],
)
def test_a_backup_is_not_removed_without_a_question(
    project: Project,
    answer: str,
    words: tuple[str, ...],
    dropped: bool,  # noqa: FBT001
    code: int,
) -> None:
    """It removed the only copy at once, while purge asks before it frees what was deleted."""
    project.make(OLD)
    project.doit("backup")
    (made,) = project.folder.glob("outputs_backup_*")
    ended, shown = on_terminal(project, answer, f"backup={made.name}", *words, command="drop_backup")
    assert (ended, "Remove it for good? [y/N]" in shown) == (code, not words), shown
    assert made.exists() != dropped
    assert ("othing was removed" in shown) == (not dropped)


def test_an_empty_trash_is_no_question(project: Project) -> None:
    assert "[y/N]" not in on_terminal(project, "")[1]


def test_without_a_terminal_it_names_what_goes_and_frees_it(project: Project) -> None:
    run = deleted(project)
    shown = project.doit("purge")
    day = f"{run.name[:4]}-"
    first, row, last = shown.splitlines()
    assert first == "Trash: outputs/.ckptrules/trash"
    assert row.split()[0] == run.name
    assert row.split()[1].startswith(day)
    assert row.split()[2:] == ["3", "items", "250", "B"]
    assert last == "Freed: 3 items from the trash, 250 B"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_it_frees_where_not_even_a_database_can_be_made(project: Project, error: int) -> None:
    """With a quota that is used up, it was refused, and the hint was to purge."""
    project.make({f"one/checkpoints/epoch-{epoch:02}_step-000001.ckpt": 10 for epoch in (1, 20)})
    project.doit("migrate", "delete_old=1")
    (project.outputs / ".ckptrules/doit.db").unlink()
    project.begin_dodo(
        f"from ckptrules.storage import state\ndef make_own(*_):\n    raise OSError({error}, 'no room')\n"
        "state.make_own = make_own\n"
    )
    assert "Freed: 1 item" in project.doit("purge")


@pytest.mark.parametrize("lacks", ["what came of it", "its end"])
def test_it_frees_where_a_run_that_was_killed_cannot_be_recorded(project: Project, lacks: str) -> None:
    """The disk that a run has filled is full for the next one, too: that one must be able to make room."""
    project.make({f"one/checkpoints/epoch-{epoch:02}_step-000001.ckpt": 10 for epoch in (1, 20)})
    project.doit("migrate", "delete_old=1")
    state = project.outputs / ".ckptrules"
    (journal,) = (state / "journal").iterdir()
    if lacks == "its end":
        last = json.loads((state / "lock.last_run").read_text())
        (state / "lock.last_run").write_text(json.dumps({**last, "at_work": journal.name.partition(".")[0]}))
    else:
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    project.begin_dodo(
        "import os\nfrom ckptrules.storage.posix import Disk\nappend = Disk.append\n"
        "def when_there_is_room(disk, path, line, **more):\n"
        "    if os.listdir(f'{disk.root}/.ckptrules/trash'):\n        raise OSError(28, 'no room')\n"
        "    append(disk, path, line, **more)\n"
        "Disk.append = when_there_is_room\n"
    )
    assert "Freed: 1 item" in project.doit("purge", check=int(lacks == "what came of it"))
    assert "Not on record" not in project.doit("purge")


def test_many_runs_are_shown_by_the_oldest_and_the_newest(project: Project) -> None:
    run = deleted(project)
    for day in range(1, 20):
        (run.parent / f"202001{day:02}T000000Z-1").mkdir()
        (run.parent / f"202001{day:02}T000000Z-1/a.ckpt.trashed").touch()
    shown = project.doit("purge", "dry_run=1").splitlines()
    assert shown[1].split()[0] == "20200101T000000Z-1"
    assert "10 runs between them" in shown[6]
    assert shown[-2].split()[0] == run.name


def test_a_run_that_left_nothing_is_not_shown(project: Project) -> None:
    run = deleted(project)
    project.doit("undo")
    assert run.exists()
    assert project.doit("purge") == "Trash: outputs/.ckptrules/trash\nFreed: nothing\n"


def stuck(project: Project) -> Path:
    """Make one item of the trash a mount point, which can be freed by nobody."""
    run = deleted(project)
    inner = run / "one/checkpoints/epoch=3-step=3.ckpt.trashed/inner"
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "tmpfs", str(inner)):
        pytest.skip("needs root, and mounts")
    return inner


def test_what_cannot_be_freed_is_named_with_a_remedy_and_the_rest_is_freed(project: Project) -> None:
    inner = stuck(project)
    try:
        shown = project.doit("purge", check=1)
        item = "outputs/.ckptrules/trash/" + str(inner.parent.relative_to(project.outputs / ".ckptrules/trash"))
        assert (
            f"Problem: {item} cannot be freed: Device or resource busy\n    hint: something is mounted there" in shown
        )
        assert "Freed: 2 items from the trash" in shown
        assert "'doit purge' tries again" in shown
        assert [row.split()[2] for row in project.doit("trash").splitlines()[1:-1]] == ["epoch=3-step=3.ckpt"]
    finally:
        subprocess.run(["umount", inner], check=True)
    assert "Freed: 1 item " in project.doit("purge")
    assert project.doit("trash") == "The trash is empty.\n"


def test_history_and_undo_know_what_is_gone_and_what_is_not(project: Project) -> None:
    inner = stuck(project)
    try:
        (inner.parent / "meta.pt").write_bytes(b"x")
        project.doit("purge", check=1)
    finally:
        subprocess.run(["umount", inner], check=True)
    out = project.doit("undo", "dry_run=1")
    assert "Gone for good: 2 checkpoints of this run; its space was freed." in out
    assert "Would restore: epoch=3-step=3.ckpt" in out
    project.doit("purge")
    assert "Gone for good: 3 checkpoints" in project.doit("undo", f"run={inner.parents[3].name}")


def test_a_later_migrate_is_no_failure_by_what_cannot_be_freed(project: Project) -> None:
    inner = stuck(project)
    run = inner.parents[3]
    older = run.with_name(f"20200101T000000Z-{run.name.partition('-')[2]}")
    subprocess.run(["umount", inner], check=True)
    run.rename(older)
    moved = older / inner.relative_to(run)
    assert mount("-t", "tmpfs", "tmpfs", str(moved))
    try:
        first, second = (project.doit("migrate") for _ in range(2))
        assert "Freed: 2 items" in first
        for shown in (first, second):
            assert "Note: outputs/.ckptrules/trash/20200101T000000Z" in shown
            assert "cannot be freed: Device or resource busy" in shown
        assert len(project.doit("history").splitlines()) == 3  # what frees nothing is no run
    finally:
        subprocess.run(["umount", moved], check=True)
    assert "Freed: 1 item" in project.doit("migrate")


@pytest.mark.parametrize("mode", [0o555, 0o000, 0o500])
def test_our_own_folders_are_no_obstacle_whatever_their_mode(mode: int) -> None:
    """C1: a folder of mode 555 among what an ordinary user had trashed let nothing be freed, for ever."""
    with nobody.project() as project:
        project.make({**OLD, FOLDER: 50})
        nobody.give(project.folder)
        assert nobody.run(project.folder, "migrate", "delete_old=1").code == 0
        (inner,) = project.outputs.glob(".ckptrules/trash/*/one/checkpoints/*/inner")
        inner.chmod(mode)
        inner.parent.chmod(mode)
        ended = nobody.run(project.folder, "purge")
        assert (ended.code, "Freed: 3 items from the trash, " in ended.output) == (0, True), ended.output


@pytest.mark.parametrize("mode", [0o555, 0o700])
def test_a_folder_of_somebody_else_stays_and_the_rest_goes(mode: int) -> None:
    with nobody.project() as project:
        project.make({**OLD, FOLDER: 50})
        nobody.give(project.folder)
        nobody.run(project.folder, "migrate", "delete_old=1")
        (inner,) = project.outputs.glob(".ckptrules/trash/*/one/checkpoints/*/inner")
        os.chown(inner, 0, 0)
        inner.chmod(mode)
        ended = nobody.run(project.folder, "purge")
        assert ended.code == 1
        assert "Freed: 2 items from the trash, 200 B" in ended.output
        assert f"{inner.parent.name} cannot be freed: " in ended.output
        assert f"(rm -r {inner.parent})" in ended.output or "chattr" in ended.output
        for _ in range(2):
            again = nobody.run(project.folder, "migrate")
            assert again.code == 0, again.output


def test_emptying_goes_through_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    item = tmp_path / "out/.ckptrules/trash/20200101T000000Z-1/exp/a.ckpt.trashed"
    item.mkdir(parents=True)
    (item / "link").symlink_to(precious)
    (item.parent / "b.ckpt.trashed").symlink_to(precious)
    (item.parent.parent / "other").symlink_to(precious)
    emptied = trash.empty_trash(Disk(str(tmp_path / "out")), ["20200101T000000Z-1"])
    assert (emptied.freed, emptied.left) == (trash.TrashUse(2, 1), {})
    assert os.listdir(precious) == ["thesis.tex"]


RUN = "20200101T000000Z-1"
MOVE = '["move", "a", "{0}", ".ckptrules/trash/' + RUN + '/a", "{0}.trashed", "", ["file", 1, 1]]'
UNITS = ", ".join(f'["trash", 1, [{MOVE.format(name)}]]' for name in ("x", "y"))
DELETED = (
    '{"journal": 2, "started_ns": 1, "line": "run"}\n'
    f'{{"intent": 1, "experiment": "a", "directory": "a", "units": [{UNITS}], "line": "intent"}}\n'
    '{"outcome": 1, "failed": {}, "freed": [], "line": "outcome"}\n'
)
PLACE = f".ckptrules/trash/{RUN}/a"


@pytest.mark.parametrize(
    ("purges", "gone"),
    [
        ([], 0),
        ([f'{{"runs": ["{RUN}"], "line": "purged"}}'], 2),
        ([f'{{"runs": ["{RUN}"], "left": [], "line": "purged"}}'], 2),
        ([f'{{"runs": ["{RUN}"], "left": ["{PLACE}/x.trashed"], "line": "purged"}}'], 1),
        ([f'{{"runs": ["{RUN}"], "left": ["{PLACE}"], "line": "purged"}}'], 0),
        ([f'{{"runs": ["{RUN}"], "left": ["{PLACE}/x.tra"], "line": "purged"}}'], 2),
        ([f'{{"runs": ["{RUN}"], "left": ["{PLACE}/x.trashed"], "line": "purged"}}', f'{{"runs": ["{RUN}"], "line": "purged"}}'], 2),
    ],
)  # fmt: skip
def test_the_record_of_a_purge_says_what_is_left(purges: list[str], gone: int) -> None:
    texts = {f"{RUN}.1.jsonl": DELETED}
    for number, line in enumerate(purges, 2):
        start = f'{{"journal": 2, "started_ns": {number}, "line": "run"}}'
        texts[f"2020010{number}T000000Z-1.1.jsonl"] = f"{start}\n{line}\n"
    runs = read_history(record for name, text in texts.items() if (record := read(name, text)))
    assert len(runs[0].gone) == gone
