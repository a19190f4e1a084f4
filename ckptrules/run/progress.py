"""How far the long work of one call is: one bar in bytes for all workers, and the wish to stop them."""

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

MUCH, LONG = 10**9, 1.0  # bytes and seconds: what is less tells nothing of the next run
SHOW_AFTER = 0.5  # seconds; what is done sooner needs no bar


class Amount(NamedTuple):
    """Bytes of the work that has begun, and how many directories there are in all, if the work goes by directories.

    ``told`` is what workers tell as they go, which may be too little (a full pipe) or too much (a worker died, and its
    file is read again); ``settled`` is what has ended. Of ``known`` directories all bytes stand in ``total``.
    """

    total: int = 0
    told: int = 0
    settled: int = 0
    known: int = 0
    directories: int = 0

    def __add__(self, other: Amount) -> Amount:  # type: ignore[override]
        return Amount(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def done(self) -> int:
        """The bytes that are done."""
        return min(self.total, max(self.told, self.settled))

    @property
    def expected(self) -> int:
        """The bytes of all work, if the directories that are not known yet are like those that are."""
        return self.total * max(self.known, self.directories) // self.known if self.known else self.total

    @property
    def where(self) -> str:
        """Which of several directories is the last that is known."""
        return f"{self.known} of {self.directories}" if self.directories > 1 else ""


class Bar:
    """Counts what all threads and workers have done, and draws it in one line while they are at work.

    Args:
        screen: the terminal, if there is one.
        clock: in seconds.
    """

    def __init__(self, screen: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.amount = Amount()
        self.passed = 0  # bytes that were really read or written, as far as somebody told
        self.seconds = 0.0  # from the beginning of the first work to the last news
        self._screen, self._clock = screen, clock
        self._began: float | None = None
        self._lock, self._at_work = threading.RLock(), 0
        self._drawn: tqdm[NoReturn] | None = None
        self._visible = False

    @property
    def moved_much(self) -> bool:
        """Whether so much was done that it tells how fast such work is here."""
        return self.passed >= MUCH and self.seconds >= LONG

    def expect(self, directories: int) -> None:
        """Expect work in so many more directories."""
        self.amount += Amount(directories=directories)

    def know(self, done: int = 0, passed: int = 0) -> None:
        """Take note of one more directory, of the bytes that are done of it already, and of those that passed."""
        self._add(Amount(done, done, done, known=1), passed=passed)

    @contextlib.contextmanager
    def work(self, total: int) -> Iterator[Shown]:
        """Expect work of so many bytes, and give what takes them as they are done; what is done at its end was all.

        Raises:
            StoppedError: Ctrl-C or SIGTERM came.
        """
        work = Shown(self._add)
        self._add(Amount(total), at_work=1)
        try:
            yield work
        finally:
            if stopped():
                self.close()  # what is left is not done: the line would jump to its end
            done = work.settled or work.told
            self._add(Amount(done - total, settled=done - work.settled), at_work=-1)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Let somebody else write on the terminal."""
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
        """Take the bar away for good."""
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
            self.amount = amount if self._at_work else amount._replace(told=amount.settled)
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
    """Takes the bytes of one piece of work that a bar shows."""

    def __init__(self, add: Callable[..., None]) -> None:
        self._add = add
        self.told = self.settled = 0

    def __call__(self, count: int) -> None:
        """Take the bytes done since the last call.

        Raises:
            StoppedError: Ctrl-C or SIGTERM came.
        """
        heed()
        self.told += count
        self._add(Amount(told=count), passed=count)

    def settling(self, files: Iterable[Sized], answers: Iterable[Answer]) -> Iterator[Answer]:
        """Yield the answers on files: the bytes of each are done then, whatever was told of them."""
        for file, answer in zip(files, answers, strict=True):
            self.settled += file.size
            self._add(Amount(settled=file.size))
            yield answer


def terminal() -> TextIO | None:
    """Return the terminal, if there is one; not the stream that doit has a task print to, which it catches."""
    return sys.__stderr__ if sys.__stderr__ and sys.__stderr__.isatty() else None


def line_on(screen: TextIO, total: int) -> tqdm[NoReturn]:
    """Return what draws the bar in a line of a terminal."""
    from tqdm import tqdm  # not above: only where there is something to show

    class Line(tqdm):  # type: ignore[misc] # it has no types
        monitor_interval = 0  # no thread of its own: each look at the progress draws

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
    """Show work that knows no session: in the main process alone, since two would write into one line.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    from multiprocessing import parent_process

    bar = Bar(None if parent_process() else terminal())
    with contextlib.closing(bar), bar.work(total) as work:
        yield work
