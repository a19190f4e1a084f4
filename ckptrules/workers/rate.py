"""Holds work back to so many bytes a second, for all that share one moment: threads, or processes of one machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Protocol

from ckptrules.storage.reading import Progress

CREDIT = 1.0  # seconds: what was not used of them is made up for, since a disk stalls and goes on
STEP = 0.1  # seconds between two looks at the wish to stop


class Moment(Protocol):
    """A time that can be set, of `time.monotonic`: all processes of a machine have the same."""

    value: float


class Limiter:
    """Lets so many bytes pass a second. It can be sent to a process that is started, if its moment can.

    Two that take in the same microsecond may count as one: nobody holds a lock, since who holds it may be killed.

    Args:
        rate: bytes a second.
        paid: up to when all that has passed is paid for; 0 as long as nothing has.
        clock: in seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        rate: float,
        paid: Moment | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.rate = rate
        self._paid: Moment = SimpleNamespace(value=0.0) if paid is None else paid  # one of ctypes is false at 0
        self._clock, self._sleep = clock, sleep

    def take(self, count: int, progress: Progress) -> None:
        """Wait until so many bytes more, which are done, are paid for; meanwhile call ``progress`` with 0.

        Raises:
            Exception: one that ``progress`` raised.
        """
        now, paid = self._clock(), self._paid.value
        until = (max(paid, now - CREDIT) if paid else now) + count / self.rate
        self._paid.value = until
        while (left := until - self._clock()) > 0:
            progress(0)
            self._sleep(min(left, STEP))

    def held(self, progress: Progress) -> Progress:
        """Return progress that waits after each call until what was done is paid for."""

        def step(count: int) -> None:
            progress(count)
            self.take(count, progress)

        return step
