"""Limits the bytes a second that several threads, or processes of one machine, read or write together."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Protocol

from ckptrules.storage.reading import Progress

CREDIT = 1.0  # seconds without work that may be made up for, as disks stall now and then
STEP = 0.1  # seconds between two checks whether the run is to stop


class Moment(Protocol):
    """A time by `time.monotonic`, which is the same in all processes of a machine; it can be set."""

    value: float


class Limiter:
    """Limits work to so many bytes a second.

    A new process can get one, if ``paid`` lies in shared memory. Two calls of `take` in the same microsecond may count
    as one: there is no lock, as a process that holds it may be killed.

    Args:
        rate: bytes a second.
        paid: the time at which all work so far is within the rate; 0 before any work.
    """

    def __init__(self, rate: float, paid: Moment | None = None) -> None:
        self.rate = rate
        self._paid: Moment = SimpleNamespace(value=0.0) if paid is None else paid  # a ctypes value of 0 is false

    def take(self, count: int, progress: Progress) -> None:
        """Wait until ``count`` more bytes, which are done, are within the rate; meanwhile call ``progress`` with 0.

        Raises:
            Exception: one that ``progress`` raised.
        """
        now, paid = time.monotonic(), self._paid.value
        until = (max(paid, now - CREDIT) if paid else now) + count / self.rate
        self._paid.value = until
        while (left := until - time.monotonic()) > 0:
            progress(0)
            time.sleep(min(left, STEP))

    def limited(self, progress: Progress) -> Progress:
        """Return a `Progress` that calls another, and then waits as `take` does."""

        def step(count: int) -> None:
            progress(count)
            self.take(count, progress)

        return step
