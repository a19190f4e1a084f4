"""The work of many directories shared by processes. What goes to another and comes back from it are values."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from ckptrules import stopping
from ckptrules.outputs.evidence import ignore_lease_breaks
from ckptrules.stopping import KilledError
from ckptrules.storage import believing

PATIENCE = 0.3  # seconds that a run is alone at work: as long as the first process takes to start
MOST = 61  # processes; doit's -n says how many of them have work at once
PRELOADED = [__name__, "ckptrules.commands.plan", "ckptrules.run.working"]  # read once, by the fork server
Answer = TypeVar("Answer")


class Sharing:
    """Does work, each piece wholly in one process.

    Until other processes have started, pieces are done here, one after the other; a run that soon ends starts none.

    Args:
        locks: descriptors that the other processes hold as well.
        asked: the user asked for processes (``-n``): nothing is done here.
    """

    def __init__(self, locks: Sequence[int], *, asked: bool) -> None:
        self._locks = locks
        self._until = time.monotonic() + PATIENCE
        self._here = None if asked else ThreadPoolExecutor(1)
        self._starter, self._once = ThreadPoolExecutor(1), threading.Lock()
        self._start: Future[Executor] | None = None

    def do(self, work: Callable[..., Answer], *values: Any) -> Answer:
        """Do a piece of work somewhere, and return what comes of it.

        Raises:
            KilledError: the process that did it, or another, was killed.
        """
        if self._here:
            turn = self._here.submit(work, *values)
            wait([turn], max(0, self._until - time.monotonic()))
            if not turn.done():
                either: tuple[Future[Any], ...] = (turn, self._others())
                wait(either, return_when=FIRST_COMPLETED)
            if not turn.cancel():
                return turn.result()
        try:
            return self._others().result().submit(work, *values).result()
        except BrokenExecutor:
            raise KilledError from None

    def end(self, *, killed: bool) -> None:
        """End the other processes. Those that are left where one was ``killed`` heed no signal but the same."""
        for worker in active_children() if killed else ():
            worker.kill()
        if self._start:
            self._start.result().shutdown()

    def _others(self) -> Future[Executor]:
        with self._once:
            if self._start is None:
                self._start = self._starter.submit(self._begin)
            return self._start

    def _begin(self) -> Executor:
        try:
            return _start(self._locks)
        except (OSError, BrokenExecutor):  # no room for a socket or for shared memory: less speed, and no less safety
            return self._here or ThreadPoolExecutor(1)


def _start(locks: Sequence[int]) -> Executor:
    """Start a fork server and the first process."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    wish = context.RawValue("b", 0)
    stopping.share(wish)
    held = [Connection(os.dup(lock)) for lock in locks]  # a descriptor in the form in which it can be sent
    with _no_word_of_semaphores():
        pool = ProcessPoolExecutor(MOST, context, _begin, (wish, held, frozenset(believing.NO_MODES)))
        with _signals_blocked():  # not before: the tracker that the pool has started unblocks them
            pool.submit(os.getpid).result()
    return pool


@contextlib.contextmanager
def _no_word_of_semaphores() -> Iterator[None]:
    """Let Python's tracker clean up without a word where this process is killed, by `| head` say."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block what means that the run shall stop: a group of processes is sent it as one; the fork server inherits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(wish: Any, locks: Sequence[Connection], no_modes: frozenset[int]) -> None:
    """Begin a process; it hears of the wish to stop from the main process only."""
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    stopping.share(wish)
    ignore_lease_breaks()
    believing.NO_MODES.update(no_modes)
    threading.Thread(target=_end_with_main, args=(locks,), daemon=True).start()


def _end_with_main(locks: Sequence[Connection]) -> None:  # noqa: ARG001 - held until this process is gone
    main = parent_process()
    if main:
        main.join()
    os._exit(stopping.EXIT_CODE)
