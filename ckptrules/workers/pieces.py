"""Cuts many files into pieces for workers; yields their answers in the order of the files.

If a worker dies, the files that were at work are done again one by one, with no other work beside them. So it shows
which file kills workers, and all others are done.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from ckptrules.stopping import StoppedError
from ckptrules.storage.reading import Progress

if TYPE_CHECKING:  # the import takes 10 ms, and a run with nothing to do needs only the types here
    from concurrent.futures import Future

FILES = 64  # in one piece, at most
BYTES = 4 << 30  # in one piece, at most; so much work is lost if a worker dies or the run is stopped
SHARE = 8  # pieces for each worker, at least: so that at the end no worker waits long for the others
SMALL = 64 << 20  # bytes from which on a piece is worth a worker
FILE = 64 << 10  # bytes that are read in the time of opening a file
DEATHS = 3  # of workers, after which a file is given up
TICK = 0.2  # seconds between two looks at progress, and whether the run is to stop


class Sized(Protocol):
    """A file, or another unit of work."""

    @property
    def size(self) -> int:
        """The number of bytes."""


File = TypeVar("File", bound=Sized)
Answer = TypeVar("Answer")
Work = Callable[[File, Progress], Answer]


class Lost(NamedTuple):
    """Stands in place of an answer, and says why there is none."""

    why: str


class Each(Protocol):
    """Does work on many files at once, shows the progress, and yields an answer for each file, in their order."""

    def __call__(
        self, work: Work[File, Answer], files: Sequence[File], *, room: float = inf
    ) -> AbstractContextManager[Iterator[Answer | Lost]]:
        """Do the work. No new work begins after the end of the context.

        Args:
            work: a function that can be sent to another process.
            files: the files.
            room: in bytes. While answers on more bytes wait for an earlier file, no new work begins.

        Raises:
            StoppedError: the run is to stop.
            KilledError: there are no workers.
            Exception: one that ``work`` raised in this process.
        """


class Piece(NamedTuple, Generic[File]):
    """Files for one worker; the first of them is the ``number``-th of all. So many workers ``died`` of this piece."""

    number: int
    files: Sequence[File]
    died: int = 0


class Backend(Protocol):
    """Workers that do pieces."""

    @property
    def slots(self) -> int:
        """How many pieces are at work at once."""

    @property
    def deaths(self) -> tuple[type[BaseException], ...]:
        """The exceptions of a future whose worker has died."""

    def begin(self, work: Work[File, Answer], files: Sequence[File]) -> Future[list[Answer | Lost]]:
        """Have `do_piece` done by a worker.

        Raises:
            BaseException: one of ``deaths``, as no worker can be started.
        """

    def done(self) -> int:
        """Return how many bytes the workers have done since the last call.

        Raises:
            KilledError: there are no more workers.
        """


def cut(files: Iterable[File], workers: int) -> Iterator[Piece[File]]:
    """Cut files into pieces of at most `FILES` files, so small that each worker gets several."""
    every = list(files)
    room = min(BYTES, max(SMALL, weight(every) // (SHARE * workers)))
    first = 0
    for end in range(1, len(every) + 1):
        here = every[first:end]
        if end == len(every) or len(here) == FILES or weight([*here, every[end]]) > room:
            yield Piece(first, here)
            first = end


def weight(files: Iterable[Sized]) -> int:
    """Return the bytes of files, and for each file the bytes that could be read while it is opened."""
    return sum(one.size + FILE for one in files)


def spread(
    backend: Backend, work: Work[File, Answer], files: Sequence[File], progress: Progress, *, room: float = inf
) -> Generator[Answer | Lost, None, None]:
    """Yield the answers on many files, as `Each`; ``progress`` may raise, too."""
    from concurrent.futures import FIRST_COMPLETED, wait

    begun: dict[Future[list[Answer | Lost]], Piece[File]] = {}
    waiting = deque(cut(files, backend.slots))
    answers, yielded = dict[int, Answer | Lost](), 0
    try:
        while waiting or begun:
            if not begun or room == inf or weight(files[number] for number in answers) <= room:
                _begin(backend, work, waiting, begun)
            done = wait(begun, TICK, FIRST_COMPLETED).done
            while done:  # keep no reference to a future: Dask may do again what somebody still holds
                answers.update(_answers(backend, done.pop(), begun, waiting))
            progress(backend.done())
            while yielded in answers:
                yield answers.pop(yielded)
                yielded += 1
        progress(backend.done())
    finally:
        for future in begun:
            future.cancel()


def _begin(
    backend: Backend,
    work: Work[File, Answer],
    waiting: deque[Piece[File]],
    begun: dict[Future[list[Answer | Lost]], Piece[File]],
) -> None:
    """Begin a piece for each free slot; one that is done again has no other beside it."""
    from concurrent.futures import Future

    while waiting and len(begun) < (1 if waiting[0].died else backend.slots):
        if any(piece.died for piece in begun.values()):
            return
        piece = waiting.popleft()
        future: Future[list[Answer | Lost]] = Future()
        try:
            future = backend.begin(work, piece.files)
        except backend.deaths as death:
            future.set_exception(death)
        begun[future] = piece


def _answers(
    backend: Backend,
    future: Future[list[Answer | Lost]],
    begun: dict[Future[list[Answer | Lost]], Piece[File]],
    waiting: deque[Piece[File]],
) -> Iterable[tuple[int, Answer | Lost]]:
    """Return the answers of a piece that has ended, by number; if its worker died, queue its files one by one."""
    piece = begun.pop(future)
    try:
        return enumerate(future.result(), piece.number)
    except backend.deaths as death:
        if piece.died + 1 == DEATHS:
            return [(piece.number, Lost(f"{DEATHS} workers died of it ({type(death).__name__})"))]
        again = [Piece(number, [file], piece.died + 1) for number, file in enumerate(piece.files, piece.number)]
        waiting.extendleft(reversed(again))
        return ()


def do_piece(work: Work[File, Answer], files: Iterable[File], progress: Progress) -> list[Answer | Lost]:
    """Do a piece in a worker; if one file fails, its answer says so, and the others are done.

    Raises:
        StoppedError: the run is to stop.
    """
    return [_do(work, file, progress) for file in files]


def _do(work: Work[File, Answer], file: File, progress: Progress) -> Answer | Lost:
    try:
        return work(file, progress)
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - it concerns this file; the others are done
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return Lost(f"the worker failed: {type(error).__name__}: {why}")
