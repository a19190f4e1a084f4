"""Does the work of one session: in this process, in processes of this machine, or in workers of Dask."""

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

if TYPE_CHECKING:  # only large trees need these
    from ckptrules.workers.dask import Dask
    from ckptrules.workers.pool import Pool


class Workers:
    """Does work for doit: in this process, or in others if doit has made threads that wait for them.

    Attributes:
        executor: what the user chose (``executor=``), or None.
        folders: the folders that workers of Dask must see as this process does.
        needed: the modules that processes of this machine need.
        limiter: holds all workers back, if there is one.

    Args:
        locks: descriptors of locks, by folder; each lock is held until the last process is gone.
        asked: the number of processes that the user asked for (``-n``), or 0.
        say: writes a line for the user: which workers have come or gone.
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
        """Limit all workers together to so many bytes a second."""
        from multiprocessing import RawValue

        self.limiter = Limiter(rate, RawValue("d", 0))

    def limited(self, progress: Progress) -> Progress:
        """Return a `Progress` for work in this process that also waits, if there is a limit."""
        return self.limiter.limited(progress) if self.limiter else progress

    def pay(self, count: int) -> None:
        """Wait for ``count`` bytes that were done without progress, if there is a limit, or until the run stops."""
        with contextlib.suppress(stopping.StoppedError):
            self.limited(lambda _: stopping.heed())(count)

    def do(self, work: Callable[..., Answer], *values: Any) -> Answer | Lost:
        """Do a piece of work, here or in another process, and return its answer.

        Raises:
            KilledError: a process was killed, or there are no workers.
            StoppedError: the run is to stop.
        """
        return work(*values) if in_main_thread() else self._shared().do(work, *values)

    def each(
        self, work: Work[File, Answer], files: Sequence[File], progress: Progress, *, room: float = inf
    ) -> Generator[Answer | Lost, None, None]:
        """Yield the answers on many files, as `pieces.Each`.

        Raises:
            Exception: those of `pieces.Each`, and those of ``progress``.
        """
        if self.executor == NONE or (not self.executor and in_main_thread()) or weight(files) < SMALL:
            from ckptrules.workers.side_by_side import each

            return each(work, files, self.limited(progress), room=room)
        return spread(self._shared(), work, files, progress, room=room)

    def begin(self) -> None:
        """Start the processes that the user asked for, while tasks are made."""
        self._shared()

    def end(self, *, killed: bool) -> None:
        """End the other processes, if there are any; ``killed`` says that one of them was killed."""
        if self._pool:
            self._pool.end(killed=killed)

    def _shared(self) -> Pool | Dask:
        with self._once:
            if self._pool is None:
                self._pool = self._make_pool()
            return self._pool

    def _make_pool(self) -> Pool | Dask:
        if self.executor and (cluster := read_executor(self.executor)):
            from ckptrules.workers.dask import Dask

            rate = self.limiter.rate if self.limiter else None
            return Dask(cluster, self.executor, self.folders, self.say, rate)
        from ckptrules.workers.pool import Pool

        asked, slots = bool(self._asked or self.executor), self._asked or cores()
        return Pool([*self._locks.values()], slots, asked=asked, limiter=self.limiter, needed=self.needed)


def in_main_thread() -> bool:
    """Say whether doit has made no threads, so that all work is done one after the other in this one."""
    return threading.current_thread() is threading.main_thread()


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
