"""Files are copied and checked side by side: what goes wrong with one is told of it, and a stop ends all of them."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptrules.engine.entries import Item
from ckptrules.stopping import StoppedError
from ckptrules.storage import reading, unfinished
from ckptrules.vault import backups
from ckptrules.vault.backing_up import make_backup
from ckptrules.vault.backups import find_backups, hidden_path
from ckptrules.workers import side_by_side
from ckptrules.workers.side_by_side import each
from tests.commands.test_backup import STEPS, check, contents, filled, here, hidden, order, shown_by
from tests.conftest import Project

FILES = 12
ITEMS = [Item(str(number), "file", 1, 0, 0) for number in range(FILES)]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads work on the smallest of trees."""
    monkeypatch.setattr(side_by_side, "SMALL", 0)
    monkeypatch.setattr(side_by_side, "AT_ONCE", 4)


def test_all_are_done_in_order_by_several_threads_that_tell_one_at_a_time() -> None:
    together, told, seen = threading.Barrier(4, timeout=60), 0, set()

    def work(item: Item, progress: reading.Progress) -> str:
        if int(item.path) < 4:
            together.wait()
        seen.add(threading.get_ident())
        progress(1)
        return item.path

    def progress(count: int) -> None:
        nonlocal told
        before = told
        threading.Event().wait(0.001)
        told = before + count

    assert list(each(work, ITEMS, progress)) == [item.path for item in ITEMS]
    assert (len(seen), told) == (4, FILES)


def test_with_no_room_for_what_is_done_nothing_new_is_begun() -> None:
    first, begun = threading.Event(), list[str]()

    def work(item: Item, _: reading.Progress) -> str:
        begun.append(item.path)
        if item.path == "0":
            assert first.wait(60)
        return item.path

    def let_go() -> None:
        while len(begun) < 4:
            threading.Event().wait(0.001)
        threading.Event().wait(0.05)
        seen.append(len(begun))
        first.set()

    seen: list[int] = []
    one = threading.Thread(target=let_go)
    one.start()
    assert list(each(work, ITEMS, lambda _: None, room=2)) == [item.path for item in ITEMS]
    one.join()
    assert seen == [4]


@pytest.mark.parametrize("who", ["work", "progress", "the one who asks"])
def test_the_first_error_ends_all_work(who: str) -> None:
    begun: list[str] = []

    def work(item: Item, progress: reading.Progress) -> str:
        begun.append(item.path)
        if item.path == "2" and who != "the one who asks":
            raise StoppedError if who == "progress" else OSError(errno.ENOSPC, "full")
        while item.path != "0" or who != "the one who asks":  # a large file
            threading.Event().wait(0.001)
            progress(1)
        return item.path

    if who == "the one who asks":
        with contextlib.closing(each(work, ITEMS, lambda _: None)) as done:
            assert next(done) == "0"
    else:
        with pytest.raises((StoppedError, OSError)) as raised:
            list(each(work, ITEMS, lambda _: None))
        assert not isinstance(raised.value, OSError) or raised.value.errno == errno.ENOSPC
    assert threading.active_count() == 1
    assert len(begun) < FILES


def failing_at(patch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> Iterator[int]:
    """Do something before one of the calls that change the disk; the counter tells how many there were."""
    count = itertools.count(1)
    opened = os.open

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if (function is not opened or args[1] & os.O_CREAT) and next(count) == number:
                act()
            return function(*args, **more)

        return call

    for name in (*STEPS, "copy_file_range"):
        patch.setattr(os, name, watched(getattr(os, name)))
    return count


def fail() -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_whatever_call_fails_a_backup_is_whole_or_not_there(project: Project, tmp_path: Path) -> None:
    filled(project, FILES)
    failed = 0
    for number in range(1, 1000):
        made = tmp_path / f"made{number}"
        with pytest.MonkeyPatch.context() as patch:
            count = failing_at(patch, number, fail)
            try:
                manifest, problems = make_backup(order(project, made, "copy"), here)
            except OSError:
                failed += 1
                assert not made.exists() or contents(made) == contents(project.outputs)
                assert hidden(tmp_path) == [], number
                continue
            finally:
                assert threading.active_count() == 1
        assert (contents(made), problems) == (contents(project.outputs), [])
        assert check(made, manifest) == ()
        if next(count) <= number:
            assert failed > 4 * FILES
            return
    pytest.fail("it never came to its end")


def test_what_cannot_be_written_is_named(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(project, FILES)
    really = os.fsync

    def fsync(file: int) -> None:
        if os.fstat(file).st_size == 1007:
            fail()
        really(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"a/checkpoints/07\.ckpt: No space left on device"):
        make_backup(order(project, tmp_path / "made", "copy"), here)


def test_what_cannot_be_read_is_a_problem_of_its_own(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(project, FILES)
    broken = {os.stat(project.outputs / f"a/checkpoints/{number:02}.ckpt").st_ino for number in (3, 7)}
    read, copy = os.read, os.copy_file_range

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: int, *args: Any) -> Any:
            if os.fstat(file).st_ino in broken:
                raise OSError(errno.EIO, "Input/output error")
            return function(file, *args)

        return call

    monkeypatch.setattr(os, "read", failing(read))
    monkeypatch.setattr(os, "copy_file_range", failing(copy))
    manifest, problems = make_backup(order(project, tmp_path / "made", "copy"), here)
    assert [(problem.names, problem.text) for problem in problems] == [
        ((f"a/checkpoints/{number}.ckpt",), "cannot be read: Input/output error; left out") for number in ("03", "07")
    ]
    assert manifest.missing == ("a/checkpoints/03.ckpt", "a/checkpoints/07.ckpt")
    assert check(tmp_path / "made", manifest) == ()
    assert len(contents(tmp_path / "made")) == FILES + 3 - 2


@pytest.mark.whole
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_manifest_of_an_interrupted_backup_is_never_believed(project: Project, tmp_path: Path, end: str) -> None:
    filled(project, FILES)
    made = tmp_path / "made"
    for number in range(1, FILES):

        def ending(count: int, left: itertools.count[int]) -> None:
            if count and next(left) == number:  # noqa: B023 - called in this round only
                if end == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise StoppedError

        @contextlib.contextmanager
        def shown(_: int) -> Iterator[reading.Progress]:
            left = itertools.count(1)
            yield lambda count: ending(count, left)

        if end == "stop":
            with pytest.raises(StoppedError):
                make_backup(order(project, made, "copy"), shown_by(shown))
            assert os.listdir(tmp_path) == [project.folder.name] * (project.folder.parent == tmp_path)
            continue
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                make_backup(order(project, made, "copy"), shown_by(shown))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        (held,) = find_backups(str(tmp_path), str(project.outputs))
        assert held.manifest
        assert (held.name, held.manifest.complete) == (os.path.basename(hidden_path(str(made))), False)
        assert backups.foreign_names(hidden_path(str(made)), held.manifest) == []
        unfinished.remove_backup(hidden_path(str(made)), hidden_path(str(made)))


SYSTEMS: dict[str, Callable[..., Callable[..., int]]] = {
    "copies some bytes at a time": lambda really: lambda a, b, count, *at: really(a, b, min(count, 300), *at),
    "copies nothing": lambda _: lambda *_: 0,
    "cannot": lambda _: lambda *_: fail(),
    "gives up": lambda really: lambda a, b, count, at, to: 0 if at else really(a, b, min(count, 300), at, to),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_copy_is_whole_whatever_the_system_copies(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    filled(project, FILES)
    monkeypatch.setattr(os, "copy_file_range", SYSTEMS[system](os.copy_file_range))
    manifest, problems = make_backup(order(project, tmp_path / "made", "copy"), here)
    assert (contents(tmp_path / "made"), problems) == (contents(project.outputs), [])
    assert check(tmp_path / "made", manifest) == ()


def test_a_copy_that_the_system_has_spoilt_is_found(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(project, FILES)

    def spoils(origin: int, copy: int, count: int, at: int, to: int) -> int:
        return os.pwrite(copy, bytes(len(os.pread(origin, count, at))), to)

    monkeypatch.setattr(os, "copy_file_range", spoils)
    manifest, _ = make_backup(order(project, tmp_path / "made", "copy"), here)
    assert len(check(tmp_path / "made", manifest)) == FILES
