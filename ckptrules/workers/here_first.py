"""Work that is done here until others have started: what soon ends starts none."""

from __future__ import annotations

import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from ckptrules import stopping
from ckptrules.workers.pieces import Answer, Lost

DEAF = (*stopping.SIGNALS, signal.SIGPIPE)  # the last would end this process where a worker has gone that is written to
Others = TypeVar("Others")


class HereFirst(ABC, Generic[Others]):
    """Does pieces of work, each wholly in one process: one after the other in this one, until others have started.

    Args:
        patience: seconds that a run is alone at work; nothing is done here where that is None.
    """

    def __init__(self, patience: float | None) -> None:
        self._until = time.monotonic() + (patience or 0)
        self._here = None if patience is None else ThreadPoolExecutor(1)
        self._starter, self._once = ThreadPoolExecutor(1), threading.Lock()
        self._start: Future[Others] | None = None

    def do(self, work: Callable[..., Answer], *values: Any) -> Answer | Lost:
        """Do a piece of work somewhere, and return what comes of it.

        Raises:
            KilledError: the process that did it, or another, was killed, or no others can be had.
        """
        if self._here:
            turn = self._here.submit(work, *values)
            wait([turn], max(0, self._until - time.monotonic()))
            if not turn.done():
                either: tuple[Future[Any], ...] = (turn, self._others())
                wait(either, return_when=FIRST_COMPLETED)
            if not turn.cancel():
                return turn.result()
        return self._there(work, values)

    def _others(self) -> Future[Others]:
        with self._once:
            if self._start is None:
                self._start = self._starter.submit(self._start_others)
            return self._start

    @abstractmethod
    def _start_others(self) -> Others:
        """Start the others, and return what hands work to them."""

    @abstractmethod
    def _there(self, work: Callable[..., Answer], values: Sequence[Any]) -> Answer | Lost:
        """Have a piece of work done by them."""
