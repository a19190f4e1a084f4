"""Nothing goes by the clock that a wrong clock could make go wrong: the order of runs, and what the trash frees."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from ckptrules.changes import clock
from ckptrules.changes.clock import LastRun, Now
from ckptrules.engine.measures import NS
from tests.conftest import Project
from tests.support import crash
from tests.support.tables import every_row
from tests.support.undisturbed import trained

DAY = 86_400
HERE = "one/checkpoints"
YEARS_2098 = 4_039_372_800  # 2098-01-01
LEAPS = {"72 years ahead": YEARS_2098, "to 1970": 5, "9 days ahead": None, "9 days back": None}


def at(project: Project, seconds: float, *words: str) -> str:
    """Run a command at another time than it is; only this process believes that."""
    real, real_ns = time.time, time.time_ns
    shift = seconds - real()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + shift)
        patch.setattr(time, "time_ns", lambda: real_ns() + int(shift * NS))
        ended = crash.run(project.folder, *words)
    assert ended.code == 0, ended.output
    return ended.output


def when(case: str) -> float:
    shift = {"9 days ahead": 9 * DAY, "9 days back": -9 * DAY}.get(case)
    return float(LEAPS[case] or 0) if shift is None else time.time() + shift


def trash(project: Project) -> list[str]:
    return [path.name for path in (project.outputs / ".ckptrules/trash").rglob("*.trashed")]


@pytest.mark.whole
@pytest.mark.parametrize("case", LEAPS)
def test_a_clock_that_leapt_frees_nothing_and_says_so(project: Project, case: str) -> None:
    project.make({f"{HERE}/epoch={n}-step={n}.ckpt": 9 for n in (1, 2, 12)})
    project.doit("migrate", "delete_old=1")
    out = at(project, when(case), "migrate")
    assert len(trash(project)) == 2
    told = "nothing in the trash is freed by its age; what is there waits anew from now."
    assert (told in out) == ("ahead" in case)
    for moment in (when(case) + 60, when(case) + 3600, time.time()):  # the wrong clock again, and then the right one
        at(project, moment, "migrate")
        at(project, moment, "purge", "older_than=1d")
        assert len(trash(project)) == 2
    project.doit("undo")
    assert len(project.names("one")) == 3


@pytest.mark.parametrize("case", LEAPS)
def test_what_was_deleted_by_a_wrong_clock_waits_by_the_right_one(project: Project, case: str) -> None:
    project.make({f"{HERE}/epoch={n}-step={n}.ckpt": 9 for n in (1, 12)})
    at(project, when(case), "migrate", "delete_old=1")
    project.doit("migrate")
    project.doit("migrate")
    assert len(trash(project)) == 1
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() + 7 * DAY))
    assert day in project.doit("trash")


@pytest.mark.whole
@pytest.mark.parametrize("case", LEAPS)
def test_the_order_of_runs_is_that_in_which_they_had_the_lock(project: Project, case: str) -> None:
    project.make({f"{HERE}/epoch={n}-step={n}.ckpt": 9 for n in (1, 12)})
    start = project.tree()
    project.doit("migrate")
    renamed = project.tree()
    at(project, when(case), "migrate", "delete_old=1")
    deleted = project.tree()
    project.make({f"{HERE}/epoch=20-step=20.ckpt": 9})
    saved = project.tree()
    project.doit("migrate")
    shown = [line.split()[4:6] for line in project.doit("history").splitlines()[1:]]
    assert shown == [["migrate", "1"], ["migrate", "delete_old=1"], ["migrate", "2"]]
    project.doit("undo")
    assert project.tree() == saved
    for tree in (renamed, start):
        project.doit("undo")
        assert {path: text for path, text in project.tree().items() if "=20" not in path} == tree
    assert deleted != renamed


def test_numbers_go_on_where_the_note_of_the_last_run_is_gone(project: Project) -> None:
    for n in range(3):
        project.make({f"{HERE}/epoch={n}-step={n}.ckpt": 9})
        project.doit("migrate")
        shutil.rmtree(project.outputs / ".ckptrules" / "lock.last_run", ignore_errors=True)
        (project.outputs / ".ckptrules" / "lock.last_run").unlink()
    journals = sorted((project.outputs / ".ckptrules/journal").iterdir())
    assert [json.loads(path.read_text().splitlines()[0])["number"] for path in journals] == [1, 2, 3]


NOW = Now(1_000 * DAY * NS, 1_000 * DAY * NS, "a", 50 * DAY * NS)
LAST = LastRun(7, 990 * DAY * NS, "a", 40 * DAY * NS)
CLOCKS = {
    "no run before": (None, NOW, ""),
    "ten days later": (LAST, NOW, ""),
    "a minute back": (LAST, NOW._replace(wall_ns=990 * DAY * NS - 60 * NS, files_ns=990 * DAY * NS, up_ns=40 * DAY * NS), ""),
    "a day back": (LAST, NOW._replace(wall_ns=989 * DAY * NS, files_ns=989 * DAY * NS), "was set back by 24 hours"),
    "too much for the time that the machine is up": (LAST, NOW._replace(up_ns=41 * DAY * NS), "has moved on by 10 days"),
    "too little for it": (LAST, NOW._replace(up_ns=60 * DAY * NS), "was set back by 10 days"),
    "another start": (LAST, NOW._replace(boot="b", up_ns=1), ""),
    "another start, years later": (LAST._replace(wall_ns=DAY * NS), NOW._replace(boot="b"), "has moved on by 999 days"),
    "a system that tells no start": (LAST._replace(boot=""), NOW._replace(boot="", up_ns=0), ""),
    "another clock than that of the files": (LAST, NOW._replace(files_ns=900 * DAY * NS), "differs from that of the file"),
}  # fmt: skip


@every_row("case", CLOCKS)
def test_when_a_clock_is_believed(case: str) -> None:
    last, now, fact = CLOCKS[case]
    assert clock.leap(last, now).startswith(fact)
    assert bool(clock.leap(last, now)) == bool(fact)
    this = clock.begin(last, 3, now, ["run"])
    assert this.number == (4 if last is None else 8)
    assert clock.read(clock.write(this)) == this
    assert (clock.waits_since(this, "run", 5.0) == now.wall_ns / NS) == bool(fact)
    assert clock.waits_since(this, "a later run", 5.0) == 5.0


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"number": "x", "waited": []}', '{"waited": 7}', "[" * 100_000])
def test_a_note_that_is_none_is_not_believed(text: str) -> None:
    assert clock.read(text) is None


# --- a copy of the tree ----------------------------------------------------------------------------------------------


def copied(project: Project) -> None:
    """Replace the tree by a copy of it, as a new disk would hold it: times kept, other inodes."""
    os.rename(project.outputs, project.folder / "before")
    shutil.copytree(project.folder / "before", project.outputs, symlinks=True)
    for folder, _, names in os.walk(project.folder / "before", topdown=False):
        there = Path(str(folder).replace(str(project.folder / "before"), str(project.outputs), 1))
        for name in (*names, "."):
            status = os.lstat(os.path.join(folder, name))
            os.utime(there / name, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


@pytest.mark.parametrize(
    "command", ["fix_state", "migrate leave_links=1 fix_state=1", "migrate delete_old=1", "restore"]
)
def test_what_was_done_can_be_taken_back_in_a_copy_of_the_tree(project: Project, command: str) -> None:
    folder = trained(project)
    (folder / "latest").write_text(f"{min(os.listdir(folder))}\n")
    project.make({f"{HERE}/epoch={n}-step={n}.ckpt/0.pt": n for n in (1, 12)})
    start = project.tree()
    if command == "restore":
        project.doit("backup", "mode=copy")
        (made,) = (path.name for path in project.folder.glob("outputs_backup_*"))
        (folder / "latest").write_text("damaged")
        start, command = project.tree(), f"restore backup={made} force=1"
    elif command == "fix_state":
        project.doit("migrate")
    project.doit(*command.split())
    copied(project)
    assert "Problem" not in project.doit("undo", "dry_run=1")
    project.doit("undo")
    if command == "fix_state":
        project.doit("undo")
    assert project.tree() == start


def test_what_was_changed_in_a_copy_of_the_tree_stays(project: Project) -> None:
    folder = trained(project)
    project.doit("migrate")
    project.doit("fix_state")
    copied(project)
    for path in folder.iterdir():
        status = path.stat()
        content = bytearray(path.read_bytes())
        content[200] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = project.tree()
    assert "has changed since it was looked at" in project.doit("undo", check=1)
    assert project.tree() == before
