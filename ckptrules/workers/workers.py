"""Where the work of one session is done: here, by threads or processes that share it, or on other machines."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from ckptrules import stopping
from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import SMALL, Answer, File, Lost, Work, spread, weight
from ckptrules.workers.rate import Limiter
from ckptrules.workers.where import NONE, read_executor

if TYPE_CHECKING:  # what only a large tree needs is imported for it
    from ckptrules.workers.dask import Dask
    from ckptrules.workers.pool import Pool


class Workers:
    """Does work for doit: here, or, where doit has made threads that wait for it, shared by processes.

    ``executor`` is what the user has chosen, if anything; ``limiter`` holds all of them back, if there is one.
    ``folders`` are those that workers of other machines must see as this one does, ``needed`` the modules that
    processes of this machine need.

    Args:
        locks: descriptors by folder; a lock is held until the last process at work is gone.
        asked: for how many processes the user asked (``-n``), or 0.
        say: writes a line for the user, on whom workers have come or gone.
    """

    def __init__(self, locks: Mapping[str, int], *, asked: int = 0, say: Callable[[str], object] = print) -> None:
        self.executor: str | None = None
        self.folders: tuple[str, ...] = ()
        self.needed: tuple[str, ...] = ()
        self.limiter: Limiter | None = None
        self._locks, self._asked, self._once = locks, asked, threading.Lock()
        self.say = say
        self._pool: Pool | Dask | None = None

    def limit(self, rate: int) -> None:
        """Let no more than so many bytes a second pass, of all workers together."""
        from multiprocessing import RawValue

        self.limiter = Limiter(rate, RawValue("d", 0))

    def held(self, progress: Progress) -> Progress:
        """Return what does as ``progress``, and waits where that is asked for: for work that is done here."""
        return self.limiter.held(progress) if self.limiter else progress

    def pay(self, count: int) -> None:
        """Wait for what was done without progress, where that is asked for; a wish to stop ends the waiting."""
        with contextlib.suppress(stopping.StoppedError):
            self.held(lambda _: stopping.heed())(count)

    def do(self, work: Callable[..., Answer], *values: Any) -> Answer | Lost:
        """Do a piece of work somewhere, and return what comes of it.

        Raises:
            KilledError: the process that did it, or another, was killed, or there are no workers.
            StoppedError: it is wished that all ends.
        """
        return work(*values) if is_alone() else self._shared().do(work, *values)

    def each(
        self, work: Work[File, Answer], files: Sequence[File], progress: Progress, *, room: float = inf
    ) -> Generator[Answer | Lost, None, None]:
        """Yield what comes of many files, as `pieces.Each`. ``progress`` is told the bytes that are done.

        Raises:
            Exception: as of `pieces.Each`; likewise one that ``progress`` raised.
        """
        if self.executor == NONE or (not self.executor and is_alone()) or weight(files) < SMALL:
            from ckptrules.workers.side_by_side import each

            return each(work, files, self.held(progress), room=room)
        return spread(self._shared(), work, files, progress, room=room)

    def prepare(self) -> None:
        """Have processes of this machine read what they need, as long as nobody is ready to begin any."""
        from ckptrules.workers.pool import start_server

        with contextlib.suppress(OSError):  # who begins them learns of it
            start_server(self.needed)

    def begin(self) -> None:
        """Have the processes that the user asked for start, while tasks are made."""
        self._shared()

    def end(self, *, killed: bool) -> None:
        """End the other processes, if there are any; ``killed`` says that one was killed."""
        if self._pool:
            self._pool.end(killed=killed)

    def _shared(self) -> Pool | Dask:
        with self._once:
            if self._pool is None:
                self._pool = self._made()
            return self._pool

    def _made(self) -> Pool | Dask:
        if self.executor and (cluster := read_executor(self.executor)):
            from ckptrules.workers.dask import Dask

            rate = self.limiter.rate if self.limiter else None
            return Dask(cluster, self.executor, self.folders, self.say, rate)
        from ckptrules.workers.pool import Pool

        chosen = bool(self._asked or self.executor)
        slots = self._asked or cores()
        return Pool([*self._locks.values()], slots, asked=chosen, limiter=self.limiter, needed=self.needed)


def is_alone() -> bool:
    """Say whether doit has made no threads: all is done one after the other, in the thread that asks."""
    return threading.current_thread() is threading.main_thread()


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
