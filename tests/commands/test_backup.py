"""Backups: the real doit on real files, and every step of them failing or being the last one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from ckptrules import stopping
from ckptrules.changes.journal import Journal
from ckptrules.changes.transaction import JournalledTree
from ckptrules.commands import backups as command
from ckptrules.engine.actions import Problem
from ckptrules.engine.entries import Item
from ckptrules.engine.state_folder import STATE
from ckptrules.storage import copying, moving, reading, streams, unfinished
from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import RUN_ID
from ckptrules.vault import backing_up, restoring, space
from ckptrules.vault import backups as vault_backups
from ckptrules.vault.backing_up import Order, make_backup
from ckptrules.vault.backups import FoundBackup, check_backups, hidden_path
from ckptrules.vault.manifest import Manifest, ManifestError, from_json, to_json, unsafe_path
from ckptrules.vault.restoring import plan_restore
from ckptrules.workers import side_by_side
from ckptrules.workers.pieces import Each
from tests.conftest import Project, default, run_program
from tests.support import crash
from tests.support.disturbing import Fault
from tests.support.dying import let_workers, vanish
from tests.support.tables import every

NAME = re.compile(r"outputs_backup_\d{8}_\d{6}")
OLD_NS = 1_600_000_000_123_456_789
ONLY_OURS = "    hint: only what 'doit backup' made can be taken; 'doit backups' lists them\n"
FORCE = "      hint: force=1 brings back the backup's; what is here goes to the trash\n"
LINK_WARNING = (
    "Hard links protect from deletion only: a program that writes into a file in place changes the backup too.\n"
)


@pytest.fixture
def tree(project: Project) -> Iterator[Project]:
    """Make a tree with everything that a file system can hold and that a backup takes."""
    project.make(
        {
            "ocr/checkpoints/epoch_9_step_90.ckpt": 4000,
            "ocr/checkpoints/last.ckpt": 4,
            "ocr/checkpoints/with spaces & ümläut.ckpt": 1,
            "ocr/checkpoints/two\nlines\x1b[31m.ckpt": 2,
            "ocr/checkpoints/no text \udcff.ckpt": 3,
            "ocr/checkpoints/-rf": 4,
            "ocr/checkpoints/empty.ckpt": 0,
            "ocr/checkpoints/dir.ckpt/mp_rank_00.pt": 2500,
            "ocr/checkpoints/link.ckpt": "-> last.ckpt",
            "ocr/checkpoints/dangling.ckpt": "-> gone.ckpt",
            "ocr/hparams.yaml": 7,
            "lr=0.1/checkpoints/epoch_1_step_2.ckpt": 5,
            "deep/er/state.json": 2,
            "linked dir": "-> ocr",
            "notes.txt": 22,
        }
    )
    (project.outputs / "nothing here").mkdir()
    (project.outputs / "ocr/checkpoints/last.ckpt").chmod(0o444)
    (project.outputs / "deep/er").chmod(0o555)
    for number, path in enumerate(["ocr/checkpoints/last.ckpt", "ocr/checkpoints", "ocr", "nothing here", "deep/er"]):
        os.utime(project.outputs / path, ns=(OLD_NS, OLD_NS + number))
    os.utime(project.outputs / "ocr/checkpoints/link.ckpt", ns=(OLD_NS, OLD_NS + 9), follow_symlinks=False)
    yield project
    for folder, _, _ in os.walk(project.folder):
        os.chmod(folder, 0o755)


def below(folder: Path) -> Iterator[Path]:
    """Go through everything below a folder but our state."""
    for place, directories, files in os.walk(folder):
        if Path(place) == folder and STATE in directories:
            directories.remove(STATE)
        yield from (Path(place, name) for name in (*directories, *files))


def snapshot(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Read everything below a folder but our state: kind, permissions, time, content."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in below(folder):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def contents(folder: Path) -> dict[str, object]:
    return {path: seen[2] for path, seen in snapshot(folder).items()}


def backups(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def back_up(project: Project, *words: str) -> Path:
    """Make a backup and return its path."""
    before = set(backups(project.folder))
    project.doit("backup", *words)
    return (set(backups(project.folder)) - before).pop()


def said(project: Project, *words: str, check: int = 0) -> str:
    """Run doit and return what it printed, with NAME for the name of a backup."""
    return NAME.sub("NAME", project.doit(*words, check=check))


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / STATE / "manifest.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


# --- making ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "copy", "link"])
def test_a_backup_is_a_true_copy(tree: Project, mode: str) -> None:
    journal = tree.outputs / ".ckptrules/journal/20200101T000000Z-7.7.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text('{"line": "run"}\n')
    before = snapshot(tree.outputs)
    made = back_up(tree, f"mode={mode}")
    assert snapshot(made) == before == snapshot(tree.outputs)
    assert os.listdir(made / STATE) == ["manifest.json"]
    assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE(tree.outputs.stat().st_mode)
    assert hidden(tree.folder) == []


def test_nothing_in_a_backup_is_renamed_or_deleted(tree: Project) -> None:
    """With `outputs_dir: .`, as init wrote it, the backup was an experiment like others: both lost the same files."""
    made = back_up(tree)
    before = snapshot(made)
    rules = tree.folder / "rules/naming.yaml"
    rules.write_text(
        "outputs_dir: .\n" + rules.read_text().replace("layout: [", "layout: ['*/*/checkpoints', '**/checkpoints', ")
    )
    out = tree.doit("plan", "delete_old=1")
    assert f"Not followed: {made.name} is a backup.\n" in out
    assert made.name not in out.replace(f"Not followed: {made.name}", "")
    refused = tree.doit("migrate", "delete_old=1", f"outputs_dir={made.name}", check=3)
    assert refused.startswith(
        f"ERROR: outputs_dir '{made.name}': is a backup: nothing in it is changed\n    hint: name "
    )
    inner = f"outputs_dir={made.name}/{next(one.name for one in made.iterdir() if one.is_dir() and one.name != STATE)}"
    lies = f"lies in a backup, '{made}': nothing in it is changed"
    assert lies in tree.doit("migrate", "delete_old=1", inner, check=3)
    tree.doit("migrate", "delete_old=1")
    assert snapshot(made) == before


def test_nothing_is_brought_into_our_state(tree: Project) -> None:
    (tree.outputs / STATE / "trash").mkdir(parents=True)
    for words in (("migrate", "delete_old=1"), ("purge",), ("backup",)):
        refused = tree.doit(*words, f"outputs_dir=outputs/{STATE}/trash", check=3)
        assert f"outputs_dir 'outputs/{STATE}/trash': is in the state of ckptrules: nothing in it is changed" in refused


def test_no_command_with_copies_writes_into_a_backup(tree: Project) -> None:
    """A restore replaced its files, a backup left a lock in it: it was damaged, and could not be dropped."""
    made = back_up(tree)
    other = made.rename(tree.folder / "old")
    made = back_up(tree)
    for folder in (made, other):
        shutil.copytree(folder, tree.folder / f"before {folder.name}", symlinks=True)
    for words in (("restore", "backup=old", "force=1"), ("backup",), ("drop_backup", "backup=old")):
        for more in ((), ("dry_run=1",)):
            refused = tree.doit(*words, *more, f"outputs_dir={made.name}", check=3)
            assert refused.startswith(f"ERROR: outputs_dir '{made.name}': is a backup: nothing in it is changed\n")
    for folder in (made, other):
        assert snapshot(folder) == snapshot(tree.folder / f"before {folder.name}")


def test_nothing_goes_in_a_backup_that_got_another_name(project: Project) -> None:
    """With `outputs_dir: .` it was an experiment like others, and lost the same files; init wrote that."""
    project.make({f"one/checkpoints/epoch={n}-step={n}.ckpt": n for n in (1, 2, 3)})
    made = back_up(project, "mode=copy").rename(project.folder / "before")
    rules, kept = project.folder / "rules", project.folder / "kept"
    rules.rename(kept)
    assert "before" not in run_program("ckptrules", "init", folder=project.folder, environment=default())[1]
    shutil.rmtree(rules)
    kept.rename(rules)
    naming = rules / "naming.yaml"
    naming.write_text("outputs_dir: .\n" + naming.read_text().replace("layout: [", "layout: ['**/checkpoints', "))
    out = project.doit("migrate", "delete_old=1", "keep_last=1")
    assert "lies in 'before', which is a backup by its .ckptrules/manifest.json: nothing goes" in out
    assert "deleted     2  3 B" in out
    assert len(project.names("one")) == 1
    assert len(os.listdir(made / "one/checkpoints")) == 3
    (made / STATE / "manifest.json").unlink()
    assert "to delete   2  3 B" in project.doit("plan", "delete_old=1", "keep_last=1")
    assert "deleted     2  3 B" in project.doit("migrate", "delete_old=1", "keep_last=1")


def test_the_manifest_tells_size_time_permissions_and_checksum_of_every_file(tree: Project) -> None:
    assert said(tree, "backup", "mode=copy") == "Backup made: NAME (copy): 15 files, 6.55 KB\n"
    (made,) = backups(tree.folder)
    data = json.loads((made / STATE / "manifest.json").read_text())
    created = datetime.fromisoformat(data.pop("created"))
    assert timedelta(0) <= datetime.now().astimezone() - created < timedelta(minutes=5)
    assert made.name == f"outputs_backup_{created:%Y%m%d_%H%M%S}"
    items = {item["path"]: item for item in data.pop("items")}
    assert data == {
        "schema_version": 2,
        "source": str(tree.outputs),
        "mode": "copy",
        "complete": True,
        "experiments": ["lr=0.1", "ocr"],
        "missing": [],
    }
    assert items.keys() == snapshot(tree.outputs).keys()
    for path, (mode, mtime_ns, content) in snapshot(tree.outputs).items():
        assert (items[path]["mode"], items[path]["mtime_ns"]) == (stat.S_IMODE(mode), mtime_ns)
        if isinstance(content, bytes):
            assert (items[path]["size"], items[path]["checksum"]) == (
                len(content),
                f"blake3:{blake3(content).hexdigest()}",
            )
    assert items["ocr/checkpoints/link.ckpt"]["link"] == "last.ckpt"


def test_links_that_lead_out_are_named_as_what_they_lead_to_is_not_in_the_backup(project: Project) -> None:
    """An experiment that was moved to another disk looks as if it were in the backup."""
    project.make(
        {"a/checkpoints/x.ckpt": 5, "a/checkpoints/last.ckpt": "-> x.ckpt", "a/whole": "-> ../b", "b/y.ckpt": 5}
    )
    (project.outputs / "b").rename(project.folder / "b")
    (project.outputs / "b").symlink_to(project.folder / "b")
    (project.outputs / "a/absolute").symlink_to(project.outputs / "a/checkpoints")
    note = "Note: 2 links lead elsewhere; what they lead to is not in it: a/whole, b\n"
    assert project.doit("backup", "dry_run=1").endswith(note)
    assert project.doit("backup").endswith(note)


def test_hard_links_are_a_mode_of_their_own_with_a_warning(tree: Project) -> None:
    assert said(tree, "backup", "mode=link") == f"Backup made: NAME (link): 15 files, 6.55 KB\n{LINK_WARNING}"
    (made,) = backups(tree.folder)
    assert (made / "notes.txt").samefile(tree.outputs / "notes.txt")
    with (tree.outputs / "notes.txt").open("r+b") as file:
        file.write(b"0")
    out = said(tree, "backups", "verify=1", check=1)
    assert out.endswith("damaged: 1 file\nIn NAME:\n  ! Problem: notes.txt has another checksum\n")


def test_clones_need_no_space_and_fall_back_to_copies(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.make({"a/checkpoints/x.ckpt": 5000, "a/checkpoints/y.ckpt": 10})

    def clone(origin: int, directory: int, name: str) -> None:
        if os.fstat(origin).st_size == 10:
            raise OSError(errno.EXDEV, "")
        copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        os.write(copy, os.pread(origin, 9999, 0))
        os.close(copy)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "needs more")

    monkeypatch.setattr(copying, "_cloner", lambda: clone)
    monkeypatch.setattr(backing_up, "check_space", no_space)
    manifest, problems = make_backup(order(project, tmp_path / "b"), here)
    assert (manifest.mode, problems) == ("clone and copy", [])
    assert snapshot(tmp_path / "b") == snapshot(project.outputs)
    with pytest.raises(OSError, match="needs more"):
        make_backup(order(project, tmp_path / "c")._replace(mode="copy"), here)


def test_only_the_experiments_asked_for_are_taken_and_the_whole_of_each(tree: Project) -> None:
    tree.make({"ocr2/x": 1})
    made = back_up(tree, "experiments=o*")
    whole = snapshot(tree.outputs)
    assert snapshot(made) == {path: seen for path, seen in whole.items() if f"{path}/".startswith("ocr/")}
    out = tree.doit("backup", "experiments=oct*", check=3)
    assert out == "ERROR: command line: no experiment 'oct*'\n    hint: did you mean experiments=ocr?\n"


def test_an_experiment_may_lie_deeper_and_its_parents_come_along(project: Project) -> None:
    project.make({f"team/run{n}/{name}": 1 for n in (1, 2) for name in ("checkpoints/a.ckpt", "config.yaml")})
    (project.outputs / "team").chmod(0o750)
    rules = project.folder / "rules" / "naming.yaml"
    rules.write_text(rules.read_text().replace("['*/checkpoints']", "['*/*/checkpoints']"))
    made = back_up(project, "experiments=*/run1")
    assert sorted(snapshot(made)) == [
        "team", "team/run1", "team/run1/checkpoints", "team/run1/checkpoints/a.ckpt", "team/run1/config.yaml",
    ]  # fmt: skip
    assert stat.S_IMODE((made / "team").stat().st_mode) == 0o750


def test_another_folder_can_take_the_backups(tree: Project) -> None:
    (tree.folder / "else where").mkdir()
    out = said(tree, "backup", "--to", "else where", "--mode=copy")
    assert out == "Backup made: else where/NAME (copy): 15 files, 6.55 KB\n"
    assert said(tree, "backups", "to=else where").endswith("complete\n")


def test_a_dry_run_of_a_backup_changes_nothing(tree: Project) -> None:
    assert said(tree, "backup", "dry_run=1") == "Would back up to: NAME (auto): 15 files, 6.55 KB\n"
    assert sorted(os.listdir(tree.folder)) == ["dodo.py", "outputs", "rules"]
    assert not (tree.outputs / STATE).exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            "to=nowhere",
            "command line: to=nowhere: No such file or directory\n    hint: the folder for the backups must",
        ),
        ("to=dodo.py", "command line: to=dodo.py: Not a directory\n    hint: the folder for the backups must"),
        ("to=outputs/ocr", "command line: 'outputs/ocr' is inside outputs_dir 'outputs'\n    hint: name another"),
        ("to=way_in", "command line: 'way_in' is inside outputs_dir 'outputs'\n    hint: name another folder"),
        ("mode=hard", "command line: mode=hard: must be one of auto, copy, link\n"),
        ("outputs_dir=gone", "outputs_dir 'gone': No such file or directory\n    hint: name the folder of the exp"),
        ("force=1", "command line: option 'force' is not for 'backup'\n    hint: it is for: refs, restore\n"),
        (
            "json=x",
            "command line: option 'json' is not for 'backup'\n    hint: it is for: after, drop_links, explain, fix_state, history, migrate, packs, page, plan, undo, verify\n",
        ),
    ],
)
def test_a_place_where_no_backup_can_be_made_is_refused(tree: Project, words: str, error: str) -> None:
    (tree.folder / "way_in").symlink_to("outputs/ocr/checkpoints")
    before = os.listdir(tree.folder)
    assert tree.doit("backup", words, check=3).startswith(f"ERROR: {error}")
    assert os.listdir(tree.folder) == before
    assert not (tree.outputs / STATE).exists()


def test_a_name_that_is_taken_stays_as_it_is(tree: Project) -> None:
    now = datetime.now().astimezone()
    taken = [tree.folder / vault_backups.backup_name("outputs", now + timedelta(seconds=n)) for n in range(60)]
    for path in taken:
        path.mkdir()
    out = said(tree, "backup", check=3)
    assert out.startswith(
        "ERROR: command line: 'NAME' is there already\n    hint: names of backups change every second"
    )
    assert all(os.listdir(path) == [] for path in taken)


@pytest.mark.on_disk
def test_hard_links_to_another_file_system_are_refused(tree: Project) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tree.outputs.stat().st_dev:
        pytest.skip("no other file system to try it on")
    out = tree.doit("backup", "mode=link", f"to={elsewhere}", check=3)
    assert f"mode=link: '{elsewhere}' is on another file system than 'outputs'\n    hint: hard links do not" in out


def test_outputs_with_a_dot_before_their_name_are_backed_up_as_others(project: Project) -> None:
    """It said 'File exists': the backup had its name while it was made, too."""
    project.make({"a/checkpoints/x.ckpt": 7})
    project.outputs.rename(project.folder / ".runs")
    project.doit("backup", "outputs_dir=.runs")
    (made,) = project.folder.glob(".runs_backup_*")
    assert project.doit("backups", "outputs_dir=.runs", "verify=1").endswith("  verified\n")
    shutil.rmtree(project.folder / ".runs/a")
    project.doit("restore", f"backup={made.name}", "outputs_dir=.runs")
    assert (project.folder / ".runs/a/checkpoints/x.ckpt").stat().st_size == 7
    project.doit("drop_backup", f"backup={made.name}", "outputs_dir=.runs")
    assert not made.exists()


def test_what_is_no_file_is_told_and_left_out(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 7})
    os.mkfifo(project.outputs / "a" / "pipe")
    problem = "  ! Problem: a/pipe is neither a file nor a directory nor a link: left out\n"
    preview = said(project, "backup", "mode=copy", "dry_run=1", check=1)
    assert preview.startswith(f"Would back up to: NAME (copy): 1 file, 7 B\n{problem}")
    assert said(project, "backup", "mode=copy", check=1) == f"Backup made: NAME (copy): 1 file, 7 B\n{problem}"
    assert project.doit("backups").endswith("complete, 1 left out when it was made\n")


def test_nothing_is_migrated_on_top_of_a_backup_that_failed(project: Project) -> None:
    project.make({"a/checkpoints/epoch_20_step_3.ckpt": 7})
    os.mkfifo(project.outputs / "pipe")
    assert "\nmigrate:a: not done, as this failed: backup\n" in said(project, "-n", "2", "migrate", "backup", check=1)
    assert project.names("a") == ["epoch_20_step_3.ckpt"]
    shutil.rmtree(backups(project.folder)[0])
    assert "\nmigrate:a: not done, as this failed: backup\n" in said(project, "backup", "migrate", check=1)
    (project.outputs / "pipe").unlink()
    shutil.rmtree(backups(project.folder)[0])
    project.doit("-n", "2", "migrate:a", "backup")
    assert project.names("a") == ["epoch-20_step-000003.ckpt"]
    assert (backups(project.folder)[0] / "a/checkpoints/epoch_20_step_3.ckpt").exists()


def test_a_backup_that_would_not_fit_is_not_begun(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 20_000})
    project.begin_dodo(
        "import os\nreally = os.statvfs\n"
        "def statvfs(path):\n"
        "    return os.statvfs_result([4 if field == 4 else it for field, it in enumerate(really(path))])  # f_bavail\n"
        "os.statvfs = statvfs\n"
    )
    pattern = r"Problem: backup 'NAME': needs \S+ .B in /.*, but only \S+ .B are free\n    hint: make room, or name another .*\n"
    for words in (("mode=copy",), ("mode=copy", "dry_run=1")):
        assert re.fullmatch(pattern, said(project, "backup", *words, check=1))
        assert (backups(project.folder), hidden(project.folder)) == ([], [])


def test_a_backup_that_fills_the_disk_is_told_with_what_helps(project: Project) -> None:
    small(project)
    project.begin_dodo(
        "import errno\nfrom ckptrules.storage import copying\n"
        "def full(*_, **__):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "copying.copy_file = full\n"
    )
    fact = "Problem: backup 'NAME': a/checkpoints/x.ckpt: No space left on device\n"
    hint = "    hint: make room, or name another folder with to=DIR\n"
    assert said(project, "backup", "mode=copy", check=1) == fact + hint
    assert (backups(project.folder), hidden(project.folder)) == ([], [])


# --- in this process: every step fails, or is the last one -----------------------------------------------------------

STEPS = "fchmod fsync link mkdir makedirs open replace symlink utime write".split()


def order(project: Project, path: Path, mode: str = "auto") -> Order:
    return Order(str(project.outputs), str(path), mode, ("a",), whole=True, created="now")


def filled(project: Project, files: int) -> Project:
    project.make({f"a/checkpoints/{number:02}.ckpt": 1000 + number for number in range(files)})
    (project.outputs / "a/link").symlink_to("checkpoints")
    return project


@contextlib.contextmanager
def bar(_: int) -> Iterator[reading.Progress]:
    yield lambda _: None


def shown_by(bar: reading.Bar, each: Callable[..., Any] = side_by_side.each) -> Each:
    """Have work on files done by ``each``, with a bar that a test looks at."""

    @contextlib.contextmanager
    def shown(work: Any, files: Sequence[Any], *, room: float = inf) -> Iterator[Iterator[Any]]:
        with (
            bar(sum(file.size for file in files)) as progress,
            contextlib.closing(each(work, files, progress, room=room)) as answers,
        ):
            yield answers

    return shown


here = shown_by(bar)


def check(made: Path, manifest: Manifest, each: Each = here) -> tuple[Problem, ...]:
    """Check one backup."""
    (damage,) = check_backups(str(made.parent), [FoundBackup(made.name, manifest)], each)
    return damage


def before_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> list[int]:
    """Do something before one of the steps that change the disk; the list says how many are left until it."""
    left = [number]
    opened = os.open

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            reads = function is opened and not args[1] & os.O_CREAT
            left[0] -= not reads
            if left[0] == 0 and not reads:
                act()
            return function(*args, **more)

        return step

    for name in STEPS:
        monkeypatch.setattr(os, name, watched(getattr(os, name)))
    monkeypatch.setattr(moving, "rename", watched(moving.rename))
    return left


def fail() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def small(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 5000, "a/checkpoints/last.ckpt": "-> x.ckpt", "b/y": 3})


def test_whatever_step_fails_a_backup_is_whole_or_not_there(project: Project, tmp_path: Path) -> None:
    small(project)
    for number in range(1, 1000):
        made = tmp_path / f"made{number}"
        with pytest.MonkeyPatch.context() as patch:
            left = before_step(patch, number, fail)
            try:
                manifest, problems = make_backup(order(project, made), here)
            except OSError:
                if made.exists():  # only to see its name on the disk is what failed
                    assert contents(made) == contents(project.outputs)
                assert hidden(tmp_path) == [], number
                continue
        assert (contents(made), problems) == (contents(project.outputs), [])
        assert check(made, manifest) == ()
        if left[0] > 0:
            assert number > 20
            return
    pytest.fail("it never came to its end")


def test_at_whatever_step_it_is_killed_a_backup_is_whole_or_hidden(project: Project, tmp_path: Path) -> None:
    """What a kill leaves is what is there before the next step."""
    small(project)
    made = tmp_path / "made"
    for number in range(1, 1000):

        def look() -> None:
            if made.exists():
                manifest = vault_backups.read_backup(str(made))[0]
                assert manifest.complete
                assert check(made, manifest) == ()
            elif os.path.exists(hidden_path(str(made)) + f"/{STATE}/manifest.json"):
                (held,) = (
                    h for h in vault_backups.find_backups(str(tmp_path), str(project.outputs)) if h.name[0] == "."
                )
                assert held.manifest
                assert vault_backups.foreign_names(hidden_path(str(made)), held.manifest) == []

        with pytest.MonkeyPatch.context() as patch:
            left = before_step(patch, number, look)
            make_backup(order(project, made), here)
        shutil.rmtree(made)
        if left[0] > 0:
            assert number > 20
            return
    pytest.fail("it never came to its end")


def test_a_file_that_changes_or_goes_while_it_is_copied_is_told(project: Project, tmp_path: Path) -> None:
    project.make({f"a/checkpoints/{name}.ckpt": 100 for name in "xyz"})
    folder = project.outputs / "a/checkpoints"

    @contextlib.contextmanager
    def disturbing(_: int) -> Iterator[reading.Progress]:
        def progress(_: int) -> None:
            (folder / "y.ckpt").unlink(missing_ok=True)
            with (folder / "x.ckpt").open("a") as file:
                file.write("more")

        yield progress

    made = tmp_path / "made"
    manifest, problems = make_backup(order(project, made), shown_by(disturbing))
    assert [(problem.names, problem.text) for problem in problems] == [
        (("a/checkpoints/x.ckpt",), "changed while it was copied"),
        (("a/checkpoints/y.ckpt",), "cannot be read: No such file or directory; left out"),
    ]
    assert manifest.missing == ("a/checkpoints/y.ckpt",)
    assert [(item.size, item.changed) for item in manifest.items[2:]] == [(100, True), (100, False)]
    assert check(made, manifest) == ()
    shutil.rmtree(project.outputs / "a")
    out = project.doit("restore", f"backup={made}")
    assert "Brought back: a/checkpoints/x.ckpt (it changed while it was backed up)\n" in out


def test_half_a_file_is_not_kept(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.make({"a/checkpoints/x.ckpt": 100})

    def failing(file: int, _: int) -> Iterator[bytes]:
        yield os.read(file, 50)
        raise reading.SourceError(errno.EIO, "Input/output error")

    monkeypatch.setattr(streams, "chunks", failing)
    _, problems = make_backup(order(project, tmp_path / "made"), here)
    assert [problem.text for problem in problems] == ["cannot be read: Input/output error; left out"]
    assert list(contents(tmp_path / "made")) == ["a", "a/checkpoints"]


def test_what_is_linked_is_what_is_noted_also_if_it_is_replaced_just_before(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest told of the file before, so that the backup was damaged from the beginning."""
    project.make({"a/checkpoints/x.ckpt": 100})
    new = tmp_path / "new"
    new.write_bytes(b"y" * 300)
    new.chmod(0o640)
    link = os.link

    def linked(*given: Any, **more: Any) -> None:
        new.replace(project.outputs / "a/checkpoints/x.ckpt")
        link(*given, **more)

    monkeypatch.setattr(os, "link", linked)
    manifest, problems = make_backup(order(project, tmp_path / "made", "link"), here)
    assert (problems, check(tmp_path / "made", manifest)) == ([], ())
    assert [(item.size, item.mode) for item in manifest.items if item.kind == "file"] == [(300, 0o640)]


def test_every_byte_is_on_the_disk_before_a_backup_has_its_name(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(project)
    synced: set[int] = set()
    sync, name = os.fsync, moving.rename

    def watched(file: int) -> None:
        assert synced or (tmp_path / ".made.partial").stat().st_mode & 0o077 == 0
        synced.add(os.fstat(file).st_ino)
        sync(file)

    def rename(directory: int, old: str, new: str, to: int | None = None) -> None:
        if new == "made":
            partial = tmp_path / ".made.partial"
            found = [partial, *(path for path in partial.rglob("*") if not path.is_symlink())]
            assert not [path.name for path in found if path.stat().st_ino not in synced]
        name(directory, old, new, to)
        renamed.append(new)

    renamed: list[str] = []
    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(unfinished, "rename", rename)
    make_backup(order(project, tmp_path / "made"), here)
    assert renamed[-1] == "made"


def test_what_a_killed_backup_leaves_is_listed_and_can_be_dropped_but_not_restored(project: Project) -> None:
    small(project)
    made = back_up(project)
    partial = project.folder / f".{made.name}.partial"
    made.rename(partial)
    change_manifest(
        partial, lambda data: (data.update(complete=False), [row.pop("checksum", 0) for row in data["items"]])
    )
    assert said(project, "backups").endswith("?     ?  incomplete: interrupted, or still at work\n")
    assert said(project, "backups", "verify=1") == said(project, "backups")
    out = said(project, "restore", f"backup={partial.name}", check=3)
    assert (
        "backup '.NAME.partial': was interrupted before it was whole\n    hint: 'doit drop_backup backup=.NAME.partial' removes it"
        in out
    )
    (partial / "a" / "mine.ckpt").write_text("put there since")
    out = said(project, "drop_backup", f"backup={partial.name}", check=3)
    assert "backup '.NAME.partial': holds what is not of the backup: a/mine.ckpt\n" in out
    (partial / "a" / "mine.ckpt").unlink()
    assert said(project, "drop_backup", f"backup={partial.name}") == "Dropped: .NAME.partial (incomplete)\n"
    assert hidden(project.folder) == []


# --- restoring -------------------------------------------------------------------------------------------------------


def test_everything_comes_back_after_the_whole_folder_is_lost(tree: Project) -> None:
    owner = os.geteuid() or 1234
    tree.outputs.chmod(0o700)  # nobody else may list it afterwards either
    os.chown(tree.outputs, owner, -1)
    before = snapshot(tree.outputs)
    made = back_up(tree, "mode=copy")
    shutil.rmtree(tree.outputs)
    preview = tree.doit("restore", f"backup={made.name}", "dry_run=1")
    assert not tree.outputs.exists()
    out = tree.doit("restore", f"backup={made.name}/")
    assert (stat.S_IMODE(tree.outputs.stat().st_mode), tree.outputs.stat().st_uid) == (0o700, owner)
    assert preview.count("Would bring back: ") == out.count("Brought back: ") == len(before)
    assert "  ✓ Brought back: ocr/checkpoints/two\\nlines\\x1b[31m.ckpt\n" in out
    assert out.endswith(
        "  ✓ Brought back: nothing here/\n"
        "  ✓ Brought back: ocr/\n"
        + out[out.index("  ✓ Brought back: ocr/checkpoints/\n") : out.index("Summary")]
        + "Summary\n  brought back  15  6.55 KB\n  replaced       0\n  identical      0\n  problems       0\n"
    )
    assert snapshot(tree.outputs) == before
    out = tree.doit("restore", f"backup={made.name}", "verbose=1")
    assert out.count("  · Identical: ") == len(before)
    assert out.endswith("Summary\n  brought back   0\n  replaced       0\n  identical     15\n  problems       0\n")


def test_only_what_is_missing_comes_back_and_nothing_is_overwritten(project: Project) -> None:
    names = ("identical", "same bytes", "missing", "other size", "other bytes", "now a link")
    project.make({f"a/checkpoints/{name}.ckpt": 20 for name in names})
    project.make({"b/checkpoints/x.ckpt": 7, "a/checkpoints/last.ckpt": "-> missing.ckpt"})
    made = back_up(project, "mode=copy")
    folder = project.outputs / "a" / "checkpoints"
    os.utime(folder / "same bytes.ckpt")
    for name in ("missing.ckpt", "now a link.ckpt", "last.ckpt"):
        (folder / name).unlink()
    (folder / "other size.ckpt").write_text("another size")
    (folder / "other bytes.ckpt").write_bytes(b"x" * 20)
    shutil.rmtree(project.outputs / "b")
    (project.outputs / "b").write_text("a file")
    project.make({"a/checkpoints/new": 1, "a/checkpoints/now a link.ckpt": "-> x", "a/checkpoints/last.ckpt": "-> y"})
    before = snapshot(project.outputs)
    for words, did in ((("dry_run=1",), "Would bring back"), ((), "Brought back")):
        out = project.doit("restore", f"backup={made.name}", *words, check=1)
        problem = "  ! Problem: a/checkpoints/{} differs from the backup: {}\n" + FORCE
        block = (
            problem.format("last.ckpt", "leads to 'y', not to 'missing.ckpt'")
            + f"  ✓ {did}: a/checkpoints/missing.ckpt\n"
            + problem.format("now a link.ckpt", "is a link, not a file")
            + problem.format("other bytes.ckpt", "has another checksum")
            + problem.format("other size.ckpt", "has 12 bytes, not 20")
            + "  ! Problem: b differs from the backup: is a file, not a directory; nothing below it was brought back\n"
            + FORCE
        )
        assert out.startswith(block + "Summary")
        assert out.endswith("1  20 B\n" + out[-1000:].split("1  20 B\n")[1])
        assert out.endswith("  identical     2\n  problems      5  left untouched, see above\n")
        if words:
            assert snapshot(project.outputs) == before
    after = snapshot(project.outputs)
    assert after.pop("a/checkpoints/missing.ckpt") == snapshot(made)["a/checkpoints/missing.ckpt"]
    assert {**after, "a/checkpoints": before["a/checkpoints"]} == before


def test_force_brings_back_what_differs_and_trashes_what_was_there(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 4, "a/checkpoints/deep/y.ckpt": 4, "top.txt": 4})
    project.make({"a/checkpoints/last.ckpt": "-> x.ckpt"})
    before = snapshot(project.outputs)
    made = back_up(project, "mode=copy")
    (project.outputs / "a/checkpoints/x.ckpt").write_text("damaged")
    (project.outputs / "top.txt").write_text("damaged")
    (project.outputs / "a/checkpoints/last.ckpt").unlink()
    shutil.rmtree(project.outputs / "a/checkpoints/deep")
    project.make({"elsewhere/y.ckpt": 9, "a/checkpoints/last.ckpt": "-> y", "a/checkpoints/deep": "-> ../../elsewhere"})
    elsewhere = (project.outputs / "elsewhere/y.ckpt").read_bytes()
    assert project.doit("restore", f"backup={made.name}", "--force") == (
        "  ⊗ Replaced: a/checkpoints/deep/ (what was here is in the trash)\n"
        "  ✓ Brought back: a/checkpoints/deep/y.ckpt\n"
        "  ⊗ Replaced: a/checkpoints/last.ckpt (what was here is in the trash)\n"
        "  ⊗ Replaced: a/checkpoints/x.ckpt (what was here is in the trash)\n"
        "  ⊗ Replaced: top.txt (what was here is in the trash)\n"
        "Summary\n"
        "  brought back  1  4 B\n"
        "  replaced      3  8 B\n"
        "  identical     0\n"
        "  problems      0\n"
    )
    assert (project.outputs / "elsewhere/y.ckpt").read_bytes() == elsewhere
    shutil.rmtree(project.outputs / "elsewhere")
    after = snapshot(project.outputs)
    assert {**after, "a/checkpoints": None} == {**before, "a/checkpoints": None}
    (trash,) = (project.outputs / STATE / "trash").iterdir()
    assert RUN_ID.fullmatch(trash.name)
    assert contents(trash) == {
        "a": None,
        "a/checkpoints": None,
        "a/checkpoints/deep.trashed": Path("../../elsewhere"),
        "a/checkpoints/last.ckpt.trashed": Path("y"),
        "a/checkpoints/x.ckpt.trashed": b"damaged",
        "top.txt.trashed": b"damaged",
    }


def test_whatever_step_of_a_restore_fails_every_byte_is_there_and_the_next_one_finishes(project: Project) -> None:
    small(project)
    wanted = contents(project.outputs)
    made = str(back_up(project))
    manifest = vault_backups.read_backup(made)[0]
    for number in range(1, 1000):
        shutil.rmtree(project.outputs)
        project.make({"a/checkpoints/x.ckpt": "-> precious"})
        with pytest.MonkeyPatch.context() as patch:
            left = before_step(patch, number, fail)
            with contextlib.suppress(OSError):
                restore(project, made, manifest)
        kept = [path.readlink().name for path in project.outputs.rglob("x.ckpt*") if path.is_symlink()]
        assert kept == ["precious"], number
        assert not any(step.problem for step in restore(project, made, manifest)), number
        assert contents(project.outputs) == wanted, number
        assert os.listdir(project.outputs / STATE / "work") == []
        if left[0] > 0:
            assert number > 20
            return
    pytest.fail("it never came to its end")


def test_what_comes_up_while_a_backup_is_restored_is_not_overwritten(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 7})
    made = str(back_up(project))
    file = project.outputs / "a/checkpoints/x.ckpt"
    file.unlink()

    @contextlib.contextmanager
    def disturbing(_: int) -> Iterator[reading.Progress]:
        yield lambda _: (file.write_text("new"), None)[1]

    manifest = vault_backups.read_backup(made)[0]
    steps = restoring.plan_restore(str(project.outputs), manifest, None, force=True, each=here)
    problems = [step.problem for step in restoring.restore(journalled_tree(project), made, steps, shown_by(disturbing))]
    assert [problem.text for problem in problems if problem] == ["cannot be brought back: File exists"]
    assert file.read_text() == "new"


@pytest.mark.parametrize("command", ["restore", "unarchive"])
def test_what_was_brought_is_taken_back_also_where_the_power_went_before_that_was_on_record(
    project: Project, command: str
) -> None:
    """The folder from which it came is gone by then, and the outcome is not on the disk before the next intent."""
    project.make({"a/checkpoints/x.ckpt": 70})
    (project.folder / "archive").mkdir()
    made = back_up(project)
    project.doit("archive", "experiments=a", "archive_dir=archive", "format=gz", "keep_source=1")
    shutil.rmtree(project.outputs / "a")
    project.doit(command, f"backup={made.name}" if command == "restore" else "archive=archive/a.tar.gz")
    (journal,) = (project.outputs / STATE / "journal").iterdir()
    *lines, last = journal.read_text().splitlines(keepends=True)
    assert '"line": "outcome"' in last
    journal.write_text("".join(lines))
    project.doit("undo")
    assert project.tree() == {}


def journalled_tree(project: Project) -> JournalledTree:
    run, outputs_dir = "20200101T000000Z-1", str(project.outputs)
    return JournalledTree(outputs_dir, Journal(Disk(outputs_dir), run, os.getpid(), {"command": "restore"}))


def restore(project: Project, made: str, manifest: Manifest) -> list[restoring.RestoreStep]:
    steps = restoring.plan_restore(str(project.outputs), manifest, None, force=True, each=here)
    return restoring.restore(journalled_tree(project), made, steps, here)


def test_only_the_experiments_asked_for_come_back(tree: Project) -> None:
    before = contents(tree.outputs)
    made = back_up(tree, "mode=copy")
    shutil.rmtree(tree.outputs)
    assert tree.doit("restore", f"backup={made.name}", "experiments=oc?").startswith("  ✓ Brought back: ocr/\n")
    assert contents(tree.outputs) == {path: seen for path, seen in before.items() if f"{path}/".startswith("ocr/")}
    out = tree.doit("restore", f"backup={made.name}", "experiments=x*", check=3)
    assert out == "ERROR: command line: no experiment 'x*'\n    hint: there are: lr=0.1, ocr\n"


def test_the_hint_at_the_backups_says_where_they_lie(project: Project) -> None:
    project.make({"a/checkpoints/one.ckpt": 30})
    (project.folder / "my backups").mkdir()
    made = project.doit("backup", "to=my backups", "mode=copy").split(" (copy)")[0].removeprefix("Backup made: ")
    (project.folder / made / "a/checkpoints/one.ckpt").write_bytes(b"x" * 30)
    shutil.rmtree(project.outputs / "a")
    out = project.doit("restore", f"backup={made}/", check=1)
    assert "hint: `doit backups to='my backups' verify=1` tells what else is damaged" in out
    assert "damaged: 1 file" in project.doit("backups", "to=my backups", "verify=1", check=1)


def test_a_damaged_file_of_a_backup_is_not_brought_back_and_replaces_nothing(project: Project) -> None:
    project.make({f"a/checkpoints/{name}.ckpt": 30 for name in ("bits", "short", "gone", "link", "fine")})
    made = back_up(project, "mode=copy")
    folder = made / "a" / "checkpoints"
    (folder / "bits.ckpt").write_bytes(b"x" * 30)
    (folder / "short.ckpt").write_bytes(b"w")
    (folder / "gone.ckpt").unlink()
    (folder / "link.ckpt").unlink()
    (folder / "link.ckpt").symlink_to("fine.ckpt")
    shutil.rmtree(project.outputs / "a")
    project.make({"a/checkpoints/bits.ckpt": 5})
    bits = (project.outputs / "a/checkpoints/bits.ckpt").read_bytes()
    hint = "      hint: 'doit backups verify=1' tells what else is damaged; take this one from another backup\n"
    damaged = "is damaged in the backup: its checksum is not that of the manifest"
    assert project.doit("restore", f"backup={made.name}", "force=1", check=1) == (
        f"  ! Problem: a/checkpoints/bits.ckpt {damaged}\n{hint}"
        "  ✓ Brought back: a/checkpoints/fine.ckpt\n"
        f"  ! Problem: a/checkpoints/gone.ckpt cannot be read in the backup: No such file or directory\n{hint}"
        f"  ! Problem: a/checkpoints/link.ckpt cannot be read in the backup: Too many levels of symbolic links\n{hint}"
        f"  ! Problem: a/checkpoints/short.ckpt {damaged}\n{hint}"
        "Summary\n"
        "  brought back  1  30 B\n"
        "  replaced      0\n"
        "  identical     0\n"
        "  problems      4  left untouched, see above\n"
    )
    assert project.names("a") == ["bits.ckpt", "fine.ckpt"]
    assert (project.outputs / "a/checkpoints/bits.ckpt").read_bytes() == bits
    assert os.listdir(project.outputs / STATE / "work") == []
    assert said(project, "backups", "verify=1", check=1) == (
        f"name{'':26}  created              mode  files   size  state\n"
        f"NAME  {created(made)}  copy      5  150 B  damaged: 4 files\n"
        "In NAME:\n"
        "  ! Problem: a/checkpoints/bits.ckpt has another checksum\n"
        "  ! Problem: a/checkpoints/gone.ckpt is missing\n"
        "  ! Problem: a/checkpoints/link.ckpt is a link, not a file\n"
        "  ! Problem: a/checkpoints/short.ckpt has 1 bytes, not 30\n"
    )


def created(made: Path) -> str:
    stamp = datetime.strptime(made.name, "outputs_backup_%Y%m%d_%H%M%S")  # noqa: DTZ007 - the names are in local time
    return f"{stamp:%Y-%m-%d %H:%M:%S}"


def test_neither_backup_nor_outputs_is_entered_through_a_link(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 7})
    made = back_up(project, "mode=copy")
    outside = project.folder / "outside"
    outside.mkdir()
    shutil.rmtree(project.outputs / "a/checkpoints")
    (project.outputs / "a/checkpoints").symlink_to(outside)
    out = project.doit("restore", f"backup={made.name}", check=1)
    assert "a/checkpoints differs from the backup: is a link, not a directory; nothing below it was brought back" in out
    assert os.listdir(outside) == []
    (project.outputs / "a/checkpoints").unlink()
    (made / "a").rename(outside / "a")
    (made / "a").symlink_to(outside / "a")
    out = project.doit("restore", f"backup={made.name}", check=1)
    assert "! Problem: a/checkpoints/x.ckpt cannot be read in the backup: Not a directory\n" in out


# --- what is refused -------------------------------------------------------------------------------------------------


def row(path: str, **more: object) -> dict[str, object]:
    checksum = f"blake3:{blake3(b'weights').hexdigest()}"
    return {"path": path, "kind": "file", "size": 7, "mtime_ns": OLD_NS, "mode": 0o644, "checksum": checksum, **more}


def adding(*rows: dict[str, object]) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["items"].extend(rows)


def setting(**more: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.update(more)


HOSTILE: Mapping[str, tuple[Callable[[dict[str, Any]], object] | str, str]] = {
    "absolute": (adding(row("/etc/evil")), "path '/etc/evil' is absolute"),
    "dots": (adding(row("a/../../evil")), "path 'a/../../evil' leads outside, with '..'"),
    "own folder": (adding(row(".ckptrules/lock")), "path '.ckptrules/lock' leads into .ckptrules"),
    "empty part": (adding(row("a//evil")), "path 'a//evil' is no path"),
    "dot": (adding(row("./evil")), "path './evil' is no path"),
    "nothing": (adding(row("")), "path '' is no path"),
    "zero": (adding(row("a/e\0")), "path 'a/e\\x00' is no path"),
    "surrogate": (adding(row("a/\ud800")), "path 'a/\\ud800' is no path"),
    "through a link": (
        adding(row("l", kind="link", link="/etc", size=0, checksum="", mode=0o777), row("l/evil")),
        "path 'l/evil' does not lie in a directory of the manifest",
    ),
    "twice": (adding(row("a/x.ckpt")), "path 'a/x.ckpt' stands in it twice"),
    "no checksum": (adding(row("a/y", checksum="blake3:0")), "path 'a/y' has no sound checksum"),
    "unnamed": (adding(row("a/y", checksum="0" * 64)), "path 'a/y' has no sound checksum"),
    "unknown": (adding(row("a/y", checksum="md5:" + "0" * 64)), "path 'a/y' has no sound checksum"),
    "of version 1": (adding({**row("a/y", sha256="0" * 64), "checksum": ""}), "path 'a/y' has no checksum"),
    "number": (adding(row("a/y", checksum=1)), "path 'a/y' has no sound checksum"),
    "no link text": (adding(row("a/y", kind="link", size=0)), "path 'a/y' has no sound link"),
    "file with a link": (adding(row("a/y", link="z")), "path 'a/y' has no sound link"),
    "negative": (adding(row("a/y", size=-1)), "path 'a/y' has no sound size"),
    "huge": (adding(row("a/y", mtime_ns=10**30)), "path 'a/y' has no sound mtime_ns"),
    "yes": (adding(row("a/y", mode=True)), "path 'a/y' has no sound mode"),
    "somebody else": (adding(row("a/y", mode=0o4755)), "path 'a/y' has no sound mode"),
    "device": (adding(row("a/y", kind="device")), "path 'a/y' has no sound kind"),
    "list": (adding(row("a/y", kind=[])), "path 'a/y' has no sound kind"),
    "maybe": (adding(row("a/y", changed=1)), "path 'a/y' has no sound changed"),
    "pathless": (adding({}), "item 2 has no path"),
    "no items": (setting(items=7), "has no sound 'items'"),
    "experiments": (setting(experiments=[7]), "has no sound 'experiments'"),
    "created": (setting(created=None), "has no sound 'created'"),
    "newer": (setting(schema_version=3), "has schema_version 3; this version of ckptrules reads 1 and 2"),
    "no version": (lambda data: data.pop("schema_version"), "has no schema_version"),
    "no JSON": ("{", "is not JSON"),
    "deep": ("[" * 100_000, "is not JSON"),
    "digits": ('{"schema_version": ' + "1" * 5000 + "}", "is not JSON"),
    "no object": ("[]", "has no schema_version"),
}


@every([*HOSTILE])
def test_every_lie_of_a_manifest_is_named(case: str) -> None:
    change, fact = HOSTILE[case]
    items = (Item("a", "directory", 0, 0, 0o755), Item("a/x.ckpt", "file", 7, 0, 0o644, checksum="blake3:" + "0" * 64))
    text = to_json(Manifest("", "/outputs", "copy", complete=True, items=items))
    if not isinstance(change, str):
        change(data := json.loads(text))
        change = json.dumps(data)
    with pytest.raises(ManifestError) as error:
        from_json(change)
    assert str(error.value) == fact


@pytest.mark.parametrize("task", ["restore", "drop_backup"])
def test_a_hostile_manifest_is_refused_before_anything_is_touched(project: Project, task: str) -> None:
    project.make({"a/checkpoints/x.ckpt": 7})
    made = back_up(project, "mode=copy")
    shutil.rmtree(project.outputs)
    change_manifest(made, adding(row("../evil")))
    assert said(project, task, f"backup={made.name}", check=3) == (
        "ERROR: command line: backup 'NAME': its .ckptrules/manifest.json: path '../evil' leads outside, with '..'\n"
        + ONLY_OURS
    )
    assert not project.outputs.exists()
    assert made.exists()


@pytest.mark.parametrize("task", ["restore", "drop_backup"])
@pytest.mark.parametrize(
    ("word", "fact"),
    [
        ("verbose=1", "{} needs backup=DIR\n    hint: 'doit backups' lists them\n"),
        ("backup=gone", "backup 'gone': is no directory\n" + ONLY_OURS),
        ("backup=dodo.py", "backup 'dodo.py': is no directory\n" + ONLY_OURS),
        ("backup=way/", "backup 'way': is a link\n" + ONLY_OURS),
        ("backup=rules/", "backup 'rules': carries no manifest of ckptrules\n" + ONLY_OURS),
    ],
)
def test_what_is_no_backup_of_ours_is_refused(project: Project, task: str, word: str, fact: str) -> None:
    (project.folder / "way").symlink_to(back_up(project))
    before = snapshot(project.folder)
    assert project.doit(task, word, check=3) == f"ERROR: command line: {fact.format(task)}"
    assert snapshot(project.folder).keys() == before.keys()


# --- listing, dropping -----------------------------------------------------------------------------------------------


def test_backups_are_listed_oldest_first_as_a_table(tree: Project) -> None:
    assert tree.doit("backups") == "No backup in '.'.\n"
    first = back_up(tree, "mode=copy")
    first = first.rename(tree.folder / "outputs_backup_20200101_000000")
    change_manifest(first, setting(created="2020-01-01T00:00:00+00:00"))
    second = back_up(tree, "mode=link", "experiments=lr*")
    shutil.rmtree(tree.outputs)
    out = said(tree, "backups")
    assert out == (
        f"name{'':26}  created              mode  files     size  state\n"
        "NAME  2020-01-01 00:00:00  copy     15  6.55 KB  complete\n"
        f"NAME  {created(second)}  link      1      5 B  complete\n"
    )
    assert said(tree, "backups", "verify=1") == out.replace("complete", "verified")
    (first / STATE / "manifest.json").write_text("gone bad")
    out = said(tree, "backups", check=1)
    assert re.search(r"^NAME  \?  +\?  +\?  +\?  damaged$", out, re.MULTILINE)
    assert out.endswith("  ! Problem: NAME: its .ckptrules/manifest.json: is not JSON\n")
    assert tree.doit("backups", "to=nowhere", check=1) == "Problem: 'nowhere': No such file or directory\n"


def test_a_backup_can_be_dropped_even_where_it_may_not_be_written_to(tree: Project) -> None:
    made = back_up(tree, "mode=link")
    before = snapshot(tree.outputs)
    told = "NAME (15 files, 6.55 KB); hard links free nothing while the originals are there\n"
    assert said(tree, "drop_backup", f"backup={made.name}", "dry_run=1") == f"Would drop: {told}"
    assert backups(tree.folder) == [made]
    assert said(tree, "drop_backup", f"backup={made.name}") == f"Dropped: {told}"
    assert (backups(tree.folder), hidden(tree.folder)) == ([], [])
    assert snapshot(tree.outputs) == before


def test_a_backup_that_is_half_dropped_is_still_known_as_ours(project: Project) -> None:
    small(project)
    made = back_up(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rmdir", lambda *_, **__: fail())
        with pytest.raises(OSError, match="No space"):
            unfinished.remove_backup(str(made), hidden_path(str(made)))
    (left,) = hidden(project.folder)
    assert said(project, "backups").endswith("incomplete: interrupted, or still at work\n")
    project.doit("drop_backup", f"backup={left}")
    assert hidden(project.folder) == []


def test_what_comes_into_a_backup_while_its_drop_waits_for_the_lock_is_not_dropped(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 7})
    made = back_up(project)
    project.begin_dodo(
        "from ckptrules.run import locking\ntake = locking.take_lock\n"
        f"def take_lock(*given):\n    open('{made.name}/mine.ckpt', 'w').close()\n    take(*given)\n"
        "locking.take_lock = take_lock\n"
    )
    assert "holds what is not of the backup: mine.ckpt" in project.doit("drop_backup", f"backup={made.name}", check=3)
    assert (made / "mine.ckpt").exists()


def test_a_backup_that_has_become_more_than_a_backup_is_not_dropped(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 7})
    made = back_up(project)
    (made / "a" / "mine.ckpt").write_text("trained on in the backup")
    (made / STATE / "trash").mkdir()
    assert said(project, "drop_backup", f"backup={made.name}", check=3) == (
        "ERROR: command line: backup 'NAME': holds what is not of the backup: a/mine.ckpt, .ckptrules/trash\n"
        "    hint: move it away; it would be lost with the backup\n"
    )
    (made / "a" / "mine.ckpt").unlink()
    (made / STATE / "trash").rmdir()
    shutil.rmtree(project.outputs)
    made.rename(project.outputs)
    assert project.doit("drop_backup", "backup=outputs", check=3) == (
        "ERROR: command line: backup 'outputs': is outputs_dir itself, or inside it, or around it\n"
        "    hint: a backup that has become outputs is no backup any more\n"
    )
    assert (project.outputs / "a/checkpoints/x.ckpt").exists()
    assert project.doit("backups") == "No backup in '.'.\n"


# --- the command line, the lock, the terminal ------------------------------------------------------------------------


def test_a_manifest_that_a_failing_disk_does_not_give_hides_no_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good"):
        make_backup(order(project, project.folder / name), here)
    real = reading.open_file

    @contextlib.contextmanager
    def failing(root: str, path: str) -> Iterator[int]:
        with real(root, path) as file, open(os.devnull, "wb") as unread:
            yield unread.fileno() if root.endswith("/bad") else file

    monkeypatch.setattr(reading, "open_file", failing)
    bad, good = vault_backups.find_backups(str(project.folder), str(project.outputs))
    assert (bad.name, bad.damage[0].text) == ("bad", "its .ckptrules/manifest.json cannot be read: Bad file descriptor")
    assert (good.name, good.damage) == ("good", ())


def test_what_changes_something_needs_the_lock_and_a_list_does_not(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 7})
    made = back_up(project)
    with (project.outputs / STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("process 1 on host, since noon")
        lock.flush()
        made = made.rename(project.folder / "old")
        for words in (("backup",), ("restore", "backup=old"), ("drop_backup", "backup=old")):
            out = project.doit(*words, check=3)
            assert out.startswith("ERROR: another run is at work in 'outputs': process 1 on host, since noon\n")
            project.doit(*words, "dry_run=1")
        project.doit("backups", "verify=1")
    assert (made / "a/checkpoints/x.ckpt").exists()


def test_doit_can_list_and_explain_the_tasks_without_doing_them(project: Project) -> None:
    for words in (("list", "--all"), ("help", "drop_backup"), ("list", "backup"), ("clean", "restore")):
        assert "ERROR" not in project.doit(*words)
    assert "--backup" in project.doit("help", "restore")
    assert "--backup" not in project.doit("help", "migrate")
    assert os.listdir(project.outputs) == []
    assert os.listdir(project.folder)
    assert backups(project.folder) == []


@pytest.mark.whole
def test_a_terminal_sees_how_far_it_is(project: Project) -> None:
    project.make({"a/checkpoints/x.ckpt": 4_000_000})
    with (project.folder / "dodo.py").open("a") as dodo:
        dodo.write("from ckptrules.run import progress\nprogress.SHOW_AFTER = 0\n")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    command = [sys.executable, "-m", "doit", "backup", "mode=copy"]
    process = subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 10_000):
            shown += piece
    os.close(ours)
    output, _ = process.communicate()
    assert process.returncode == 0
    assert re.search(rb"0%\|.*0\.00/4\.00M", shown)
    assert NAME.sub("NAME", output.decode()) == "Backup made: NAME (copy): 1 file, 4 MB\n"


# --- decisions -------------------------------------------------------------------------------------------------------


def test_a_backup_is_named_after_what_it_is_of_and_lies_beside_it() -> None:
    now = datetime(2025, 10, 15, 9, 5, 1)  # noqa: DTZ001 - names are in local time
    assert vault_backups.backup_name("outputs", now) == "outputs_backup_20251015_090501"
    assert vault_backups.backup_name("/data/runs/", now) == "runs_backup_20251015_090501"
    places = {"outputs": ".", "/data/runs/": "/data", "../x/outputs": "../x", ".": ".."}
    assert {path: vault_backups.backups_folder(path, None) for path in places} == places
    assert vault_backups.backups_folder("outputs", "/mnt") == "/mnt"


def test_experiments_are_taken_once_and_own_what_is_below_them() -> None:
    assert vault_backups.paths_of(["b", "a", "a/inner", "a/."]) == ("a", "a/inner", "b")
    cases = {"team": True, "team/run": True, "team/run/x": True, "team/runs": False, "te": False, "other": False}
    assert {path: vault_backups.belongs(path, ["team/run"]) for path in cases} == cases


def test_space_is_counted_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "block", lambda _: 4096)
    file, folder = Item("a", "file", 4097, 0, 0o644), Item("d", "directory", 0, 0, 0o755)
    assert space.needed([file], str(tmp_path)) == 8192
    assert space.needed([file, file, folder], str(tmp_path)) == 2 * 8192 + 4096


PATHS = st.text(st.characters(codec=None, exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(PATHS | st.sampled_from(["\udcff", "a b"]), st.binary(), max_size=5))
def test_a_manifest_that_is_written_is_read_back(contents: dict[str, bytes]) -> None:
    items = [
        Item(path, "file", len(content), -1, 0o755, checksum=f"blake3:{blake3(content).hexdigest()}")
        for path, content in contents.items()
        if not unsafe_path(path)
    ]
    written = Manifest("now", "/outputs", "copy", complete=True, items=tuple(items), missing=("\udcfe",))
    assert from_json(to_json(written)) == written


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_breaks_the_reader_of_manifests(text: str) -> None:
    with pytest.raises(ManifestError):
        from_json(text)


@given(st.text())
def test_a_safe_path_stays_below_the_folder(path: str) -> None:
    if not unsafe_path(path):
        assert os.path.normpath(os.path.join("/folder", path)).startswith("/folder/")


def test_a_stopped_check_tells_what_it_has_found(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was damaged in the backups that had been checked was not told."""

    def check(*given: Any) -> Iterator[tuple[Problem, ...]]:
        for found in check_backups(*given):
            yield found
            os.kill(os.getpid(), signal.SIGINT)

    project.make({"a/checkpoints/one.ckpt": 3})
    made = back_up(project)
    folder = project.folder / "held"
    for name in "abc":
        shutil.copytree(made, folder / name)
    (folder / "a/a/checkpoints/one.ckpt").write_bytes(b"bad")
    monkeypatch.setattr(command, "check_backups", check)
    ended = crash.run(project.folder, "backups", "to=held", "verify=1")
    assert ended.code == stopping.EXIT_CODE
    assert [line.split()[0] + " " + line.split("  ")[-1] for line in ended.output.splitlines()[1:4]] == [
        "a damaged: 1 file",
        "b complete",
        "c complete",
    ]
    assert "Problem: a/checkpoints/one.ckpt" in ended.output
    assert "\nNot finished, still to be checked: b, c\n" in ended.output


def test_a_bar_expects_what_is_read_alone(project: Project, tmp_path: Path) -> None:
    """It expected what an unfinished backup holds, and, for a restore, all that is there already."""
    expected: list[int] = []

    def shown(total: int) -> contextlib.AbstractContextManager[reading.Progress]:
        expected.append(total)
        return bar(total)

    small(project)
    manifest, _ = make_backup(order(project, tmp_path / "made"), here)
    held = [
        FoundBackup("made", manifest),
        FoundBackup(".other.partial", manifest._replace(complete=False)),
        FoundBackup("bad", None),
    ]
    session: Any = SimpleNamespace(each=shown_by(shown))
    assert [(at, one.damage, one.checked) for at, one in command.checked(session, str(tmp_path), held)] == [
        (0, (), True)
    ]
    os.utime(project.outputs / "b/y", (1, 1))
    plan_restore(str(project.outputs), manifest, None, force=False, each=shown_by(shown))
    assert expected == [5003, 3]


@pytest.mark.whole
def test_a_stopped_backup_or_restore_leaves_nothing_half_done(project: Project) -> None:
    project.make({"a/checkpoints/one.ckpt": 3, "a/checkpoints/two.ckpt": 4, "b/checkpoints/one.ckpt": 5})
    start, modes = project.tree(), {path: seen[0] for path, seen in snapshot(project.outputs).items()}
    stops = 0

    for at in range(1, 12):
        folder = project.folder / f"backups {at}"
        folder.mkdir()
        ended = crash.run_in_turn(project.folder, "backup", f"to={folder}", fault=Fault(at, "SIGINT"))
        assert ended.code == 130, ended
        whole = "Backup made" in ended.output
        listed = crash.run_in_turn(project.folder, "backups", f"to={folder}", "verify=1")
        assert (listed.code, "verified" in listed.output) == (0, whole), (ended, listed)
        stops += not whole
    assert stops
    made = back_up(project)
    stops, told = 0, set[str]()
    shutil.rmtree(project.outputs)
    project.outputs.mkdir()
    changes = crash.run_in_turn(project.folder, "restore", f"backup={made}").changes
    for at in range(1, changes + 1):
        shutil.rmtree(project.outputs)
        project.outputs.mkdir()
        ended = crash.run_in_turn(project.folder, "restore", f"backup={made}", fault=Fault(at, "SIGINT"))
        assert ended.code in (0, 130), ended
        stops += "Not finished" in ended.output
        told |= {line.rpartition("  ")[2] for line in project.doit("history").splitlines()[1:]}
        assert crash.run_in_turn(project.folder, "restore", f"backup={made}").code == 0
        assert project.tree() == start
        assert {path: seen[0] for path, seen in snapshot(project.outputs).items()} == modes
    assert stops
    assert "stopped: 2 done" in told
    assert all(state.startswith(("stopped: ", "done")) for state in told), told


def test_where_no_worker_is_left_what_is_there_and_what_goes_on_is_told(project: Project) -> None:
    """Only the error was told; to Ctrl-C it said how to remove what was not there any more."""
    project.make({f"a/checkpoints/epoch={n}-step={n}.ckpt": 20 for n in range(3)})
    dodo = (project.folder / "dodo.py").read_text()
    ends = "ERROR: executor=dask:x: the scheduler is gone\n    hint: start it\n"
    let_workers(vanish, "", project.folder / "dodo.py")
    told = project.doit("backup", check=2)
    assert re.fullmatch(rf"Not finished: backup '[^']+'\. Nothing of it is left\.\n{re.escape(ends)}", told)
    assert [name for name in os.listdir(project.folder) if "backup" in name] == []
    (project.folder / "dodo.py").write_text(dodo)
    project.doit("backup")
    (made,) = project.folder.glob("outputs_backup*")
    shutil.rmtree(project.outputs / "a")
    let_workers(vanish, "", project.folder / "dodo.py")
    assert project.doit("restore", f"backup={made.name}", check=2) == (
        f"Not finished: what was brought back so far is whole; the same command goes on.\n{ends}"
    )
    (project.folder / "dodo.py").write_text(dodo)
    project.doit("restore", f"backup={made.name}")
    assert len(os.listdir(project.outputs / "a/checkpoints")) == 3
