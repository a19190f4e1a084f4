"""The processes of this machine: a killed one costs no more than its file, and what they read is told as it is read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from multiprocessing import active_children
from pathlib import Path
from typing import NoReturn

import pytest

from ckptrules.stopping import KilledError
from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import SMALL, Lost
from ckptrules.workers.pool import PRELOADED, Pool
from ckptrules.workers.where import NONE, PROCESSES
from ckptrules.workers.workers import Workers
from tests.support.dask_work import File, work

pytestmark = pytest.mark.whole


@pytest.fixture
def workers() -> Iterator[Workers]:
    found = Workers({}, asked=2)
    found.executor = PROCESSES
    yield found
    found.end(killed=False)


def test_files_are_worked_on_by_processes_and_all_bytes_are_told(workers: Workers) -> None:
    told: list[int] = []
    pids = list(workers.each(work, [File("a")] * 6, told.append))
    assert os.getpid() not in pids
    assert sum(told) == 6 * SMALL


def test_a_killed_process_costs_no_more_than_the_file_that_killed_it(workers: Workers, tmp_path: Path) -> None:
    files = [File("a"), File("kills", str(tmp_path)), File("b"), File("c")]
    answers = list(workers.each(work, files, lambda _: None))
    assert [isinstance(answer, Lost) for answer in answers] == [False, True, False, False]
    assert list(workers.each(work, files[:1], lambda _: None)) != []  # and they go on


def test_where_one_process_has_died_the_others_end_at_once_although_they_ignore_sigterm() -> None:
    """From Python 3.12 on, an executor waits for them, and takes no more work meanwhile: a run hung for ever."""
    before = active_children()
    pool = Pool((), 2, asked=True)
    pids = set[object]()
    while len(pids) < 2:  # both have begun
        pids.update(*(turn.result() for turn in [pool.begin(work, [File("a")]) for _ in range(2)]))
    first, *others = set(active_children()).difference(before)
    first.kill()
    for other in others:
        other.join(60)
    assert [other.is_alive() for other in others] == [False] * len(others)
    pool.end(killed=True)


class Kills:
    """What kills the process that receives it; it is more than a pipe holds, so it is being sent meanwhile."""

    size = 0

    def __reduce__(self) -> tuple[object, ...]:
        return _kill, (bytes(4 << 20),)


def _nothing(_: Kills, __: Progress) -> None:
    pass


def _kill(_: bytes) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still there")


def _all_die() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as a run does
    pool = Pool([], 2, asked=True)
    turns = [pool.begin(_nothing, [Kills()]) for _ in range(8)]
    assert [isinstance(turn.exception(), BrokenExecutor) for turn in turns] == [True] * 8
    pool.end(killed=True)


def test_work_that_is_sent_to_processes_that_die_does_not_end_the_run() -> None:
    code = f"from {__name__} import _all_die; _all_die()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


class Breaks(Executor):
    """One whose processes have just died, which is seen only where it begins another for what is handed to it."""

    def submit(self, *_: object, **__: object) -> NoReturn:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class Broken(Pool):
    """A pool with one that breaks."""

    def _start_others(self) -> Executor:
        return Breaks()


def test_a_process_that_cannot_begin_where_others_have_died_has_died_too() -> None:
    """The user got a traceback: so the executor of Python fails where one dies while it begins another."""
    pool = Broken([], 2, asked=True)
    with pytest.raises(KilledError):
        pool.do(os.getpid)
    with pytest.raises(BrokenExecutor):
        pool.begin(work, [File("a")])
    pool.end(killed=True)


def test_all_processes_begin_before_one_can_die(workers: Workers) -> None:
    """Python's fork server wrote a traceback where one died while another began."""
    before = {child.pid for child in active_children()}
    ThreadPoolExecutor(1).submit(workers.do, os.getpid).result()
    assert len({child.pid for child in active_children()} - before) == 2


@pytest.mark.parametrize("executor", [NONE, None])
def test_here_nothing_is_started(executor: str | None) -> None:
    workers = Workers({})
    workers.executor = executor
    assert set(workers.each(work, [File("a")] * 3, lambda _: None)) == {os.getpid()}


def test_what_is_little_is_done_here(workers: Workers) -> None:
    assert list(workers.each(work, [File("a", size=1)], lambda _: None)) == [os.getpid()]


def test_progress_that_nobody_takes_keeps_no_process_waiting() -> None:
    pool = Pool([], 1, asked=True)
    try:
        assert pool.begin(many, [File("a")]).result() == [20_000]
    finally:
        pool.end(killed=False)


def many(_: File, progress: Progress) -> int:
    for _number in range(20_000):
        progress(1)
    return 20_000


def test_processes_that_start_early_end_with_a_run_that_is_refused() -> None:
    """Who has a pipe of theirs holds it open until the last is gone."""
    begun = "workers = Workers({}, asked=2); workers.executor = 'processes'; workers.begin(); sys.exit(3)"
    code = f"import sys; from ckptrules.workers.workers import Workers; {begun}"
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout, refused.stderr) == (3, "", "")


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_where_no_process_can_be_started_the_work_is_done_here(tmp_path: Path, seconds: float) -> None:
    """Memory may be short. A run ended without a word, as if nobody read its output: it had told a dead one of work."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nsleep {seconds}\n")
    program.chmod(0o700)
    code = f"""
import multiprocessing.spawn, os, signal
from ckptrules.workers.workers import Workers
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
multiprocessing.spawn.set_executable({str(program)!r})
workers = Workers({{}}, asked=2)
workers.executor = "processes"
workers.begin()
print(workers.do(os.getpid) == os.getpid())
workers.end(killed=False)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended


def test_a_process_at_work_needs_no_doit() -> None:
    """The options of a command come with the file that declares them."""
    commands = "archive backup backups migrate plan restore unarchive undo verify".split()
    needed = ", ".join([*PRELOADED, *(f"ckptrules.commands.{name}" for name in commands)])
    code = f"import sys, {needed}; print(*(name for name in sys.modules if name.partition('.')[0] == 'doit'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
