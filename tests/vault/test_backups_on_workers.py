"""Backups by several processes: the same as by one, and whatever dies in the middle, nothing half done is believed."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from ckptrules.engine.state_folder import STATE
from ckptrules.storage import looking, reading, unfinished, writing
from ckptrules.vault import copies, restoring
from ckptrules.vault.backing_up import Order, make_backup
from ckptrules.vault.backups import find_backups, foreign_names, hidden_path, read_backup
from ckptrules.vault.restoring import RestoreStep, plan_restore
from ckptrules.workers import pieces
from ckptrules.workers import workers as workers_module
from ckptrules.workers.pieces import Each
from ckptrules.workers.where import PROCESSES
from ckptrules.workers.workers import Workers
from tests.commands.test_backup import NAME, bar, below, check, contents, filled, here, journalled_tree, order, shown_by
from tests.conftest import Project
from tests.support import crash
from tests.support.dying import break_, die, fill

pytestmark = pytest.mark.whole
BIG = 70 << 20  # bytes; for fewer no process is started
FILES = 9
MANY = 200  # files: some pieces


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setattr(workers_module, "SMALL", 0)
    found = Workers({}, asked=2)
    found.executor = PROCESSES
    yield found
    found.end(killed=False)


@pytest.fixture
def tree(project: Project) -> Project:
    return filled(project, FILES)


@pytest.fixture
def long(tree: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make so many files that they are several pieces, and let the progress of their copies be told often."""
    tree.make({f"b/{number:03}": 10 for number in range(MANY)})
    monkeypatch.setattr(pieces, "TICK", 0.001)
    return tree


def restore(project: Project, made: str, each: Each) -> list[RestoreStep]:
    steps = plan_restore(str(project.outputs), read_backup(made)[0], None, force=True, each=each)
    return restoring.restore(journalled_tree(project), made, steps, each)


# --- the same --------------------------------------------------------------------------------------------------------


def whole(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Read all of a folder but our state: kind, mode, time, attributes, space on the disk, content."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in below(folder):
        status = path.lstat()
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path, follow_symlinks=False)}
        plain = stat.S_ISREG(status.st_mode)
        found[str(path.relative_to(folder))] = (
            *(status.st_mode, status.st_mtime_ns, status.st_nlink if plain else 0, attributes),
            *(status.st_blocks * plain, path.readlink() if path.is_symlink() else plain and path.read_bytes()),
        )
    return found


def everything(project: Project) -> None:
    """Make a tree with all that a copy has to care for."""
    project.make({f"a/checkpoints/epoch={n}-step={n}.ckpt": 5000 + n for n in range(80)})
    project.make({"b/checkpoints/last.ckpt": "-> epoch=1.ckpt", "b/checkpoints/none.ckpt": 0, "b/deep/er/x": 9})
    folder = project.outputs / "b/checkpoints"
    for name, data in (("data first.ckpt", 0), ("hole first.ckpt", BIG - 4096)):
        with (folder / name).open("wb") as file:
            file.truncate(BIG)
            file.seek(data)
            file.write(b"weights" * 500)
    (folder / "second name.ckpt").hardlink_to(folder / "data first.ckpt")
    (project.outputs / "empty").mkdir(mode=0o700)
    (project.outputs / "b/deep/er/x").chmod(0o440)
    with contextlib.suppress(OSError):
        os.setxattr(folder / "none.ckpt", "user.note", b"kept")
    os.mkfifo(project.outputs / "b/pipe")
    for number, path in enumerate(sorted(project.outputs.rglob("*"), reverse=True)):
        os.utime(path, ns=(1, 1_600_000_000_123_456_789 + number), follow_symlinks=False)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_workers_make_check_and_restore_the_same_as_one_process(project: Project, executors: list[str]) -> None:
    everything(project)
    told, trees, manifests = [], [], []
    for executor in executors:
        place = project.folder / executor.partition(":")[0]
        place.mkdir()
        words = (f"to={place}", f"executor={executor}")
        out = [project.doit("backup", "mode=copy", *words, check=1)]
        (made,) = place.iterdir()
        data = json.loads((made / STATE / "manifest.json").read_text())
        del data["created"]
        manifests.append(data)
        trees.append(whole(made))
        (made / "b/checkpoints/none.ckpt").write_bytes(b"damaged")
        out.append(project.doit("backups", "verify=1", *words, check=1))
        kept = project.outputs.rename(project.folder / f"kept {place.name}")
        out.append(project.doit("restore", f"backup={made}", f"executor={executor}", check=1))
        trees.append(whole(project.outputs))
        for path in (
            "a/checkpoints/epoch=1-step=1.ckpt",
            "b/checkpoints/hole first.ckpt",
            "b/checkpoints/data first.ckpt",
        ):
            os.utime(project.outputs / path)
        with (project.outputs / "b/checkpoints/hole first.ckpt").open("r+b") as file:
            file.write(b"other")
        out.append(project.doit("restore", f"backup={made}", f"executor={executor}", "force=1", check=1))
        trees.append(whole(project.outputs))
        shutil.rmtree(project.outputs)
        kept.rename(project.outputs)
        told.append(
            [re.sub(r"\d{4}-\S+ \S+:\d\d", "THEN", NAME.sub("NAME", one.replace(str(place), "PLACE"))) for one in out]
        )
    assert [one == told[0] for one in told] == [True] * len(executors)
    assert "Replaced: b/checkpoints/hole first.ckpt" in told[0][3]
    assert "b/checkpoints/data first.ckpt" not in told[0][3].replace("Identical", "")
    assert [one == manifests[0] for one in manifests] == [True] * len(executors)
    touched = {"a/checkpoints", "b/checkpoints", "b/checkpoints/data first.ckpt", "a/checkpoints/epoch=1-step=1.ckpt"}
    for one, other in zip(trees[:3] * (len(executors) - 1), trees[3:], strict=True):
        assert one.keys() == other.keys()
        assert {path for path in one if one[path] != other[path]} <= touched


# --- what dies -------------------------------------------------------------------------------------------------------


def killing(
    times: list[int], killed: list[int]
) -> Callable[[int], contextlib.AbstractContextManager[reading.Progress]]:
    """Give a progress bar that kills all processes at work when it is told something for the n-th time."""
    count = itertools.count(1)

    def progress(_: int) -> None:
        if next(count) in times:
            for child in active_children():
                killed.append(child.pid or 0)
                child.kill()

    return lambda _: contextlib.nullcontext(progress)


def instead(each: Callable[..., Any], act: Callable[..., Any], number: int) -> Each:
    return shown_by(bar, lambda work, *given, **more: each(partial(act, f"{number:02}.ckpt", work), *given, **more))


@pytest.mark.whole
def test_killed_workers_cost_nothing(long: Project, tmp_path: Path, workers: Workers) -> None:
    made, tree, killed = tmp_path / "made", long, list[int]()
    for times in ([1], [4], [2, 20]):
        manifest, problems = make_backup(order(tree, made, "copy"), shown_by(killing(times, killed), workers.each))
        assert (contents(made), problems) == (contents(tree.outputs), [])
        assert os.listdir(made / STATE) == ["manifest.json"]
        assert check(made, manifest, shown_by(bar, workers.each)) == ()
        shutil.rmtree(tree.outputs)
        tree.outputs.mkdir()
        steps = plan_restore(str(tree.outputs), manifest, None, force=False, each=here)
        done = restoring.restore(
            journalled_tree(tree), str(made), steps, shown_by(killing(times, killed), workers.each)
        )
        assert [step.problem for step in done if step.problem] == []
        assert contents(tree.outputs) == contents(made)
        assert os.listdir(tree.outputs / STATE / "work") == []
        shutil.rmtree(made)
    assert len(killed) >= len(("backup", "restore"))


DIED = "3 workers died of it (BrokenProcessPool)"


@pytest.mark.parametrize(
    ("act", "why"), [(die, DIED), (break_, "the worker failed: RuntimeError: it is broken")], ids=["dies", "fails"]
)
def test_a_file_that_workers_die_of_is_missing_and_told(
    tree: Project, tmp_path: Path, workers: Workers, act: Callable[..., Any], why: str
) -> None:
    made, path = tmp_path / "made", "a/checkpoints/03.ckpt"
    manifest, problems = make_backup(order(tree, made, "copy"), instead(workers.each, act, 3))
    assert [(problem.names, problem.text) for problem in problems] == [((path,), f"was not copied: {why}; left out")]
    assert manifest.missing == (path,)
    assert contents(made) == {name: held for name, held in contents(tree.outputs).items() if name != path}
    assert (os.listdir(made / STATE), foreign_names(str(made), manifest)) == (["manifest.json"], [])
    assert check(made, manifest) == ()
    (damage,) = check(made, manifest, instead(workers.each, act, 5))
    assert (damage.names, damage.text) == (("a/checkpoints/05.ckpt",), f"was not read: {why}")
    shutil.rmtree(tree.outputs)
    tree.outputs.mkdir()
    done = restore(tree, str(made), instead(workers.each, act, 5))
    assert [step.problem and step.problem.text for step in done if step.problem] == [f"was not brought back: {why}"]
    assert set(contents(made)) - set(contents(tree.outputs)) == {"a/checkpoints/05.ckpt"}
    assert os.listdir(tree.outputs / STATE / "work") == []


def test_what_cannot_be_written_by_a_worker_is_named_and_nothing_is_left(
    tree: Project, tmp_path: Path, workers: Workers
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for number in (0, 3, FILES - 1):
        each = instead(workers.each, fill, number)
        with pytest.raises(OSError, match=rf"a/checkpoints/0{number}\.ckpt: No space left on device"):
            make_backup(order(tree, place / "made", "copy"), each)
        assert os.listdir(place) == []


def test_a_worker_goes_on_with_a_backup_that_is_gone_and_leaves_nothing(
    tree: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is cut off from the main process may write for a while: no name of his is one that anybody reads."""
    route = copies.CopyRoute(str(tree.outputs), str(tmp_path), "copies", "copy")
    item = next(item for item in looking.read_tree(str(tree.outputs))[0] if item.path.endswith("03.ckpt"))
    removed = writing.remove

    def remove(directory: int, name: str) -> None:
        copies.stage_copy(route, item)
        removed(directory, name)

    monkeypatch.setattr("ckptrules.storage.unfinished.remove", remove)
    with unfinished.temporary_folder(str(tmp_path), "copies"):
        first, second = copies.stage_copy(route, item), copies.stage_copy(route, item)
        assert isinstance(first, copies.Copied)
        assert isinstance(second, copies.Copied)
        unfinished.place_copy(str(tmp_path), first.path, "placed")
        with pytest.raises(FileExistsError):
            unfinished.place_copy(str(tmp_path), second.path, "placed")
    assert not any(name.startswith("copies") for name in os.listdir(tmp_path))
    assert (tmp_path / "placed").read_bytes() == (tree.outputs / item.path).read_bytes()


def test_where_the_main_process_is_killed_the_manifest_is_not_believed(
    long: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = long
    monkeypatch.setattr(workers_module, "SMALL", 0)
    place = tmp_path / "place"
    place.mkdir()
    made = str(place / "made")
    lock = tmp_path / "lock"
    for number in (1, 2, 4):
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                _be_killed(order(tree, Path(made), "copy"), number, lock)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # had when the last of its processes has ended itself
        (held,) = find_backups(str(place), str(tree.outputs))
        assert held.manifest
        assert (held.name, held.manifest.complete) == (".made.partial", False)
        assert foreign_names(hidden_path(made), held.manifest) == []
        out = tree.doit("restore", f"backup={hidden_path(made)}", check=3)
        assert "was interrupted before it was whole" in out
        tree.doit("drop_backup", f"backup={hidden_path(made)}")
        assert os.listdir(place) == []


def _be_killed(what: Order, number: int, lock: Path) -> None:
    count = itertools.count(1)

    def progress(_: int) -> None:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    file = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    workers = Workers({"place": file}, asked=2)
    workers.executor = PROCESSES
    make_backup(what, shown_by(lambda _: contextlib.nullcontext(progress), workers.each))


def test_ctrl_c_leaves_nothing_half_done(project: Project) -> None:
    project.make({f"a/checkpoints/epoch={n}-step={n}.ckpt": 12_000_000 for n in range(6)})
    start = project.tree()

    def stop(number: int) -> Callable[[int], None]:
        return lambda change: os.kill(os.getpid(), signal.SIGINT) if change == number else None

    stops = 0
    for at in (1, 8, 14, 16, 18, 21):
        folder = project.folder / f"backups {at}"
        folder.mkdir()
        ended = crash.run(project.folder, "backup", f"to={folder}", "executor=processes", at_change=stop(at))
        assert (ended.code, "Traceback" in ended.output) == (130, False), ended
        done = "Backup made" in ended.output
        stops += not done
        assert [NAME.sub("NAME", name) for name in os.listdir(folder)] == ["NAME"] * done, ended
    assert stops
    made = next(iter((project.folder / "backups 1").iterdir()), None)
    if made is None:
        project.doit("backup", f"to={project.folder / 'backups 1'}")
        (made,) = (project.folder / "backups 1").iterdir()
    stops = 0
    for at in (10, 14, 18, 22):
        shutil.rmtree(project.outputs)
        project.outputs.mkdir()
        ended = crash.run(project.folder, "restore", f"backup={made}", "executor=processes", at_change=stop(at))
        assert ended.code in (0, 130), ended
        stops += "Not finished" in ended.output
        work = project.outputs / STATE / "work"
        assert not work.exists() or os.listdir(work) == []
        assert crash.run_in_turn(project.folder, "restore", f"backup={made}").code == 0
        assert project.tree() == start
    assert stops
