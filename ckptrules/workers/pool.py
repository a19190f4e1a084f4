"""Shares the work with other processes of this machine. Only values are sent to them and back."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import Pipe, active_children, forkserver, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from ckptrules import stopping
from ckptrules.outputs.in_use import ignore_lease_breaks
from ckptrules.stopping import KilledError
from ckptrules.storage import believing
from ckptrules.workers.here_first import BLOCKED, HereFirst
from ckptrules.workers.pieces import Answer, File, Lost, Work, do_piece
from ckptrules.workers.rate import Limiter

PATIENCE = 0.15  # seconds of work before other processes are started: as long as the start of the first one takes
KILLED = 1  # seconds to wait for a killed process, which may hang in a system call
MOST = 61  # processes; doit's -n says how many of them have work at once
PRELOADED = [__name__, "ckptrules.run.working"]  # the fork server imports these once for all processes
COUNT = struct.Struct("q")  # a report of bytes done; so short a message is sent wholly or not at all


class _Worker(ForkServerProcess):
    """A process that ignores SIGTERM, as only the main process says when to stop (`_begin`)."""

    def terminate(self) -> None:
        """Kill it: where one has died, `ProcessPoolExecutor` ends all others so, and waits for them."""
        self.kill()


class _Context(ForkServerContext):
    """Starts workers by a fork server."""

    Process = _Worker


class Pool(HereFirst[Executor]):
    """Does each piece of work in one process of this machine. It is a `pieces.Backend`, too.

    Args:
        locks: descriptors of locks that the other processes hold as well.
        slots: how many pieces of files are at work at once.
        asked: the user asked for processes, so they start now, and this one does no work.
        limiter: holds back the processes that read or write files.
        needed: the modules that they need besides `PRELOADED`.
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
        self._reports, self._sender = Pipe(duplex=False)  # of bytes done
        os.set_blocking(self._sender.fileno(), False)  # where it is full, a report is lost, and no process waits
        if asked:
            self._others()

    def begin(self, work: Work[File, Answer], files: Sequence[File]) -> Future[list[Answer | Lost]]:
        """As `pieces.Backend`. If a process has died, start all anew: the others may wait for the dead one."""
        start = self._others()
        try:
            return _submit(start.result(), _piece, work, files)
        except BrokenExecutor:
            with self._once:
                if self._start is start:
                    self._start = None
                    for left in active_children():
                        left.kill()
                        left.join(KILLED)  # its locks are free then
            return _submit(self._others().result(), _piece, work, files)

    def done(self) -> int:
        """As `pieces.Backend`."""
        count = 0
        while self._reports.poll():
            count += COUNT.unpack(self._reports.recv_bytes())[0]
        return count

    def end(self, *, killed: bool) -> None:
        """End the other processes. If one was ``killed``, the others may hang, and are killed, too."""
        for worker in active_children() if killed else ():
            worker.kill()
        if self._start:
            self._start.result().shutdown(cancel_futures=True)

    def _do_elsewhere(self, work: Callable[..., Answer], values: Sequence[Any]) -> Answer | Lost:
        try:
            return _submit(self._others().result(), work, *values).result()
        except BrokenExecutor:
            raise KilledError from None

    def _start_others(self) -> Executor:
        # SIGPIPE ends a run whose output nobody reads; a dead fork server must not end it
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        try:
            return self._start_processes()
        except (OSError, EOFError, RuntimeError):  # no room for a socket, process or thread: work here
            return self._here or ThreadPoolExecutor(1)

    def _start_processes(self) -> Executor:
        """Start the fork server, and at once as many processes as will be at work: none dies while one starts."""
        forkserver.set_forkserver_preload([*PRELOADED, *self._needed])
        context = _Context()
        run = context.RawArray("d", 2)
        stopping.share(run)
        held = [Connection(os.dup(lock)) for lock in self._locks]  # a `Connection` can be sent, a descriptor cannot
        values = (run, held, self._sender, frozenset(believing.NO_MODES), self._limiter)
        with quiet_resource_tracker():
            resource_tracker.ensure_running()
            pool = ProcessPoolExecutor(MOST, context, _begin, values)
            # Only the main process handles these; what starts now inherits that. Last, as the tracker unblocks them
            before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
            try:
                forkserver.ensure_running()
                first, *_ = [pool.submit(os.getpid) for _ in range(self.slots)]
                first.result()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pool


def _submit(executor: Executor, work: Callable[..., Answer], *values: Any) -> Future[Answer]:
    """Hand over work. If a process has just died, the start of another may fail with an error of the system."""
    try:
        return executor.submit(work, *values)
    except OSError as error:
        raise BrokenExecutor(str(error)) from error


@contextlib.contextmanager
def quiet_resource_tracker() -> Iterator[None]:
    """Let Python's resource tracker start so that it prints no warning if this process is killed, by `| head` say."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


_pipe: Connection | None = None  # of a worker process: for its reports
_limiter: Limiter | None = None  # of a worker process


def _begin(
    run: Any, locks: Sequence[Connection], pipe: Connection, no_modes: frozenset[int], limiter: Limiter | None
) -> None:
    """Prepare a new process. It ignores signals, and stops when the main process says so."""
    global _pipe, _limiter  # all that lasts between two pieces of work
    _pipe, _limiter = pipe, limiter
    for number in stopping.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    stopping.share(run)
    ignore_lease_breaks()
    believing.NO_MODES.update(no_modes)
    gc.freeze()  # imported modules live to the end, so the collector need not look at them
    threading.Thread(target=_end_with_main, args=(locks,), daemon=True).start()


def _piece(work: Work[File, Answer], files: Sequence[File]) -> list[Answer | Lost]:
    return do_piece(work, files, _limiter.limited(_report) if _limiter else _report)


def _report(count: int) -> None:
    stopping.heed()
    if count and _pipe:
        with contextlib.suppress(BlockingIOError):
            _pipe.send_bytes(COUNT.pack(count))


def _end_with_main(locks: Sequence[Connection]) -> None:  # noqa: ARG001 - held until this process is gone
    main = parent_process()
    if main:
        main.join()
    os._exit(stopping.EXIT_CODE)
