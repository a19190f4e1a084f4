"""The processes of this machine that share the work. What goes to another and comes back from it are values."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import Pipe, active_children, forkserver, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from ckptrules import stopping
from ckptrules.outputs.in_use import ignore_lease_breaks
from ckptrules.stopping import KilledError
from ckptrules.storage import believing
from ckptrules.workers.here_first import DEAF, HereFirst
from ckptrules.workers.pieces import Answer, File, Lost, Work, do_piece
from ckptrules.workers.rate import Limiter

PATIENCE = 0.15  # seconds that a run is alone at work: as long as the first process takes to start
KILLED = 1  # seconds that one who was killed is waited for; it may hang in a call of the system
MOST = 61  # processes; doit's -n says how many of them have work at once
PRELOADED = [__name__, "ckptrules.run.working"]  # read once, by the fork server
COUNT = struct.Struct("q")  # bytes done, as a process tells them; so short a message is sent wholly or not at all


class Pool(HereFirst[Executor]):
    """Does work, each piece wholly in one process of this machine. It is a `pieces.Place`, too.

    Args:
        locks: descriptors that the other processes hold as well.
        slots: how many pieces of files are at work at once.
        asked: the user asked for processes: they start now, and nothing is done here.
        limiter: holds back what reads or writes files.
        needed: the modules that they need besides.
    """

    deaths = (BrokenExecutor, CancelledError)

    def __init__(
        self,
        locks: Sequence[int],
        slots: int,
        *,
        asked: bool,
        limiter: Limiter | None = None,
        needed: Sequence[str] = (),
    ) -> None:
        super().__init__(None if asked else PATIENCE)
        self.slots = slots
        self._locks, self._limiter, self._needed = locks, limiter, needed
        self._told = _Told()
        if asked:
            self._others()

    def begin(self, work: Work[File, Answer], files: Sequence[File]) -> Future[list[Answer | Lost]]:
        """As `pieces.Place`. Where a process has died, others take the place of all: some may wait for the dead one."""
        start = self._others()
        try:
            return _submit(start.result(), _piece, work, files)
        except BrokenExecutor:
            with self._once:
                if self._start is start:
                    self._start = None
                    for left in active_children():
                        left.kill()
                        left.join(KILLED)  # what it has locked is free then
            return _submit(self._others().result(), _piece, work, files)

    def done(self) -> int:
        """As `pieces.Place`."""
        return self._told.taken()

    def end(self, *, killed: bool) -> None:
        """End the other processes. Those that are left where one was ``killed`` heed no signal but the same."""
        for worker in active_children() if killed else ():
            worker.kill()
        if self._start:
            self._start.result().shutdown(cancel_futures=True)

    def _there(self, work: Callable[..., Answer], values: Sequence[Any]) -> Answer | Lost:
        try:
            return _submit(self._others().result(), work, *values).result()
        except BrokenExecutor:
            raise KilledError from None

    def _start_others(self) -> Executor:
        # In this thread, a fork server that dies at once is an error like others, and no reader of the output that went
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        try:
            return _start(self.slots, self._locks, self._told.end, self._limiter, self._needed)
        except (OSError, EOFError, RuntimeError):  # no room for a socket, process or thread: less speed, no less safety
            return self._here or ThreadPoolExecutor(1)


class _Told:
    """What the processes tell of their progress, through a pipe. A full one loses counts, and keeps nobody waiting."""

    def __init__(self) -> None:
        self._start, self.end = Pipe(duplex=False)
        os.set_blocking(self.end.fileno(), False)

    def taken(self) -> int:
        """Return the bytes told since the last call."""
        count = 0
        while self._start.poll():
            count += COUNT.unpack(self._start.recv_bytes())[0]
        return count


def _submit(executor: Executor, work: Callable[..., Answer], *values: Any) -> Future[Answer]:
    """Hand over work. Where a process has just died, the start of one more can fail with an error of the system."""
    try:
        return executor.submit(work, *values)
    except OSError as error:
        raise BrokenExecutor(str(error)) from error


def _start(
    slots: int, locks: Sequence[int], told: Connection, limiter: Limiter | None, needed: Sequence[str]
) -> Executor:
    """Start a fork server, if none has been, and as many processes as will be at work: none dies while one starts."""
    start_server(needed)
    context = get_context("forkserver")
    run = context.RawArray("d", 2)
    stopping.share(run)
    held = [Connection(os.dup(lock)) for lock in locks]  # a descriptor in the form in which it can be sent
    with no_word_of_semaphores():
        pool = ProcessPoolExecutor(MOST, context, _begin, (run, held, told, frozenset(believing.NO_MODES), limiter))
        with _signals_blocked():
            first, *_ = [pool.submit(os.getpid) for _ in range(slots)]
            first.result()
    return pool


def start_server(needed: Sequence[str]) -> None:
    """Start the fork server, unless it runs: it reads these modules once for all processes.

    Raises:
        OSError: there is no room for its socket.
    """
    forkserver.set_forkserver_preload([*PRELOADED, *needed])
    with no_word_of_semaphores():
        resource_tracker.ensure_running()
        with _signals_blocked():  # not before: the tracker unblocks them
            forkserver.ensure_running()


@contextlib.contextmanager
def no_word_of_semaphores() -> Iterator[None]:
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
    """Block what is for the main thread, though the system sends it to all: what is begun now inherits that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, DEAF)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_pipe: Connection | None = None  # of a process at work: it tells through it how many bytes are done
_limiter: Limiter | None = None  # of a process at work


def _begin(
    run: Any, locks: Sequence[Connection], pipe: Connection, no_modes: frozenset[int], limiter: Limiter | None
) -> None:
    """Begin a process; it hears of the wish to stop from the main process only."""
    global _pipe, _limiter  # a process at work has nothing else that lasts
    _pipe, _limiter = pipe, limiter
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    stopping.share(run)
    ignore_lease_breaks()
    believing.NO_MODES.update(no_modes)
    gc.freeze()  # what was read by now lives to the end: it is not searched for garbage
    threading.Thread(target=_end_with_main, args=(locks,), daemon=True).start()


def _piece(work: Work[File, Answer], files: Sequence[File]) -> list[Answer | Lost]:
    return do_piece(work, files, _limiter.held(_tell) if _limiter else _tell)


def _tell(count: int) -> None:
    stopping.heed()
    if count and _pipe:
        with contextlib.suppress(BlockingIOError):
            _pipe.send_bytes(COUNT.pack(count))


def _end_with_main(locks: Sequence[Connection]) -> None:  # noqa: ARG001 - held until this process is gone
    main = parent_process()
    if main:
        main.join()
    os._exit(stopping.EXIT_CODE)
