"""Show how far the long work of a call is: one bar, in bytes, for all threads and workers."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TextIO

from ckptrules.stopping import heed, stopped
from ckptrules.workers.pieces import Answer, Sized

if TYPE_CHECKING:
    from tqdm import tqdm

MUCH, LONG = 10**9, 1.0  # bytes and seconds: the rate of a smaller run does not predict the next one
SHOW_AFTER = 0.5  # seconds; shorter work needs no bar


class Amount(NamedTuple):
    """An amount of work, in bytes, and in directories if the work goes by directories.

    Args:
        total: the bytes of all work that has begun.
        reported: what workers have reported; too little if a pipe was full, too much if a worker died and its file is
            read again.
        settled: the bytes of all that has ended.
        known: the number of directories whose bytes are in ``total``.
        directories: the number of all directories.
    """

    total: int = 0
    reported: int = 0
    settled: int = 0
    known: int = 0
    directories: int = 0

    def __add__(self, other: Amount) -> Amount:  # type: ignore[override]
        return Amount(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def done(self) -> int:
        """The bytes that are done."""
        return min(self.total, max(self.reported, self.settled))

    @property
    def expected(self) -> int:
        """The bytes of all work, if the directories to come are like those that are known."""
        return self.total * max(self.known, self.directories) // self.known if self.known else self.total

    @property
    def where(self) -> str:
        """How many of several directories are known, for the terminal."""
        return f"{self.known} of {self.directories}" if self.directories > 1 else ""


class Bar:
    """Counts what all threads and workers have done, and draws it in one line while they are at work.

    Args:
        screen: the terminal, if there is one.
        clock: returns seconds.
    """

    def __init__(self, screen: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.amount = Amount()
        self.passed = 0  # bytes that were really read or written, as far as they were reported
        self.seconds = 0.0  # from the beginning of the first work to the last report
        self._screen, self._clock = screen, clock
        self._began: float | None = None
        self._lock, self._at_work = threading.RLock(), 0
        self._drawn: tqdm[NoReturn] | None = None
        self._visible = False

    @property
    def moved_much(self) -> bool:
        """Whether so much was done that its rate predicts the next run."""
        return self.passed >= MUCH and self.seconds >= LONG

    def expect(self, directories: int) -> None:
        """Add directories in which work is to come."""
        self.amount += Amount(directories=directories)

    def know(self, done: int = 0, passed: int = 0) -> None:
        """Count one more directory as known, with bytes that are done already, and those that were read for it."""
        self._add(Amount(done, done, done, known=1), passed=passed)

    @contextlib.contextmanager
    def work(self, total: int) -> Iterator[Shown]:
        """Begin work of ``total`` bytes, and yield their counter; at the end, the total becomes what was counted.

        Raises:
            StoppedError: Ctrl-C or SIGTERM came.
        """
        work = Shown(self._add)
        self._add(Amount(total), at_work=1)
        try:
            yield work
        finally:
            if stopped():
                self.close()  # the rest will not be done, so the line must not jump to its end
            done = work.settled or work.reported
            self._add(Amount(done - total, settled=done - work.settled), at_work=-1)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else is printed."""
        with self._lock:
            if self._drawn and self._visible:
                self._drawn.clear()
            yield
            if self._drawn and self._visible:
                self._drawn.refresh()

    def say(self, text: str) -> None:
        """Write a line on the error stream, above the bar."""
        with self.aside():
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar for good."""
        with self._lock:
            if self._drawn:
                self._drawn.close()
            self._screen, self._drawn = None, None

    def _add(self, more: Amount, at_work: int = 0, passed: int = 0) -> None:
        with self._lock:
            self.passed += passed
            now = self._clock()
            self._began = now if self._began is None else self._began
            self.seconds = now - self._began
            self._at_work += at_work
            amount = self.amount + more
            self.amount = amount if self._at_work else amount._replace(reported=amount.settled)
            self._draw()

    def _draw(self) -> None:
        amount = self.amount
        if self._screen and amount.total:
            self._drawn = self._drawn or line_on(self._screen, amount.expected)
            self._drawn.total = amount.expected
            self._drawn.set_description_str(amount.where, refresh=False)
            self._visible |= bool(self._drawn.update(amount.done - self._drawn.n))
        if self._visible and self._drawn and not self._at_work and amount.known >= amount.directories:
            self._drawn.clear()
            self._visible = False


class Shown:
    """Counts the bytes of one piece of work, for a bar."""

    def __init__(self, add: Callable[..., None]) -> None:
        self._add = add
        self.reported = self.settled = 0

    def __call__(self, count: int) -> None:
        """Count the bytes done since the last call.

        Raises:
            StoppedError: Ctrl-C or SIGTERM came.
        """
        heed()
        self.reported += count
        self._add(Amount(reported=count), passed=count)

    def settling(self, files: Iterable[Sized], answers: Iterable[Answer]) -> Iterator[Answer]:
        """Yield the answers, and count all bytes of each file as done, whatever was reported before."""
        for file, answer in zip(files, answers, strict=True):
            self.settled += file.size
            self._add(Amount(settled=file.size))
            yield answer


def terminal() -> TextIO | None:
    """Return the terminal, if there is one. It is not `sys.stderr`, which doit replaces while a task runs."""
    return sys.__stderr__ if sys.__stderr__ and sys.__stderr__.isatty() else None


def line_on(screen: TextIO, total: int) -> tqdm[NoReturn]:
    """Return the bar as a line of a terminal."""
    from tqdm import tqdm  # not above: only where there is something to show

    class Line(tqdm):  # type: ignore[misc] # it has no types
        monitor_interval = 0  # no thread: each report draws the bar

    return Line(
        total=total,
        unit="B",
        unit_scale=True,
        file=screen,
        leave=False,
        delay=SHOW_AFTER,
        dynamic_ncols=True,
        miniters=0,
        smoothing=0.1,
    )


@contextlib.contextmanager
def stoppable(total: int) -> Iterator[Shown]:
    """Show work that has no session; only in the main process, as the bars of several would share one line.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    from multiprocessing import parent_process

    bar = Bar(None if parent_process() else terminal())
    with contextlib.closing(bar), bar.work(total) as work:
        yield work
