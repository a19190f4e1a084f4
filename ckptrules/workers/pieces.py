"""Work on many files, cut into pieces by bytes and handed to workers; answers come back in the order of the files.

What was at work when a worker died is done again, file by file, with nothing beside it: so it is known under which file
a worker dies, and everything else is done.
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

if TYPE_CHECKING:  # it takes 10 ms, and a run that has nothing to do needs only the types here
    from concurrent.futures import Future

FILES = 64  # at most in one piece
BYTES = 4 << 30  # likewise: a second of reading or more, and what is lost where a worker dies or the run is stopped
SHARE = 8  # pieces a worker, at the least: at the end none waits long for the others
SMALL = 64 << 20  # bytes that are worth a piece of their own
FILE = 64 << 10  # bytes that would take as long as to open a file
DEATHS = 3  # of workers, after which a file is given up
TICK = 0.2  # seconds between two looks at the wish to stop, and at the progress


class Sized(Protocol):
    """A file, or whatever else is worked on."""

    @property
    def size(self) -> int:
        """Its bytes."""


File = TypeVar("File", bound=Sized)
Answer = TypeVar("Answer")
Work = Callable[[File, Progress], Answer]


class Lost(NamedTuple):
    """In place of an answer: why there is none."""

    why: str


class Each(Protocol):
    """Has work done on many files, side by side, shows how far it is, and gives what comes of each, in their order."""

    def __call__(
        self, work: Work[File, Answer], files: Sequence[File], *, room: float = inf
    ) -> AbstractContextManager[Iterator[Answer | Lost]]:
        """As said; at the end nothing new is begun.

        Args:
            work: can be sent to another process.
            files: what is worked on.
            room: for the bytes that may be done before an earlier file is; with more of them nothing new is begun.

        Raises:
            StoppedError: it is wished that all ends.
            KilledError: there are no workers.
            Exception: one of ``work`` that was done here.
        """


class Piece(NamedTuple, Generic[File]):
    """Files that one worker takes; the first of them is the ``number``-th of all. So many workers ``died`` of it."""

    number: int
    files: Sequence[File]
    died: int = 0


class Place(Protocol):
    """Where pieces are done."""

    @property
    def slots(self) -> int:
        """How many pieces are at work at once."""

    @property
    def deaths(self) -> tuple[type[BaseException], ...]:
        """What a future raises whose worker has died."""

    def begin(self, work: Work[File, Answer], files: Sequence[File]) -> Future[list[Answer | Lost]]:
        """Have `do_piece` done by a worker.

        Raises:
            BaseException: one of ``deaths``: no worker can be had for it.
        """

    def done(self) -> int:
        """Return how many bytes the workers have done since the last call.

        Raises:
            KilledError: there are no workers any more.
        """


def cut(files: Iterable[File], workers: int) -> Iterator[Piece[File]]:
    """Cut files into pieces: of so many bytes that each worker gets several, and of no more than `FILES`."""
    every = list(files)
    room = min(BYTES, max(SMALL, weight(every) // (SHARE * workers)))
    first = 0
    for end in range(1, len(every) + 1):
        here = every[first:end]
        if end == len(every) or len(here) == FILES or weight([*here, every[end]]) > room:
            yield Piece(first, here)
            first = end


def weight(files: Iterable[Sized]) -> int:
    """Return the bytes of files, and what it costs to open them."""
    return sum(one.size + FILE for one in files)


def spread(
    place: Place, work: Work[File, Answer], files: Sequence[File], progress: Progress, *, room: float = inf
) -> Generator[Answer | Lost, None, None]:
    """Yield what ``work`` makes of each file, as `Workers.each`.

    Raises:
        StoppedError: it is wished that all ends. Nothing new is begun then.
        KilledError: no worker is left.
        Exception: one that ``progress`` raised.
    """
    from concurrent.futures import FIRST_COMPLETED, wait

    begun: dict[Future[list[Answer | Lost]], Piece[File]] = {}
    waiting = deque(cut(files, place.slots))
    answers, told = dict[int, Answer | Lost](), 0
    try:
        while waiting or begun:
            if not begun or room == inf or weight(files[number] for number in answers) <= room:
                _begin(place, work, waiting, begun)
            done = wait(begun, TICK, FIRST_COMPLETED).done
            while done:  # no name holds a future beyond that: a place may do again what somebody still holds
                answers.update(_answers(place, done.pop(), begun, waiting))
            progress(place.done())
            while told in answers:
                yield answers.pop(told)
                told += 1
        progress(place.done())
    finally:
        for future in begun:
            future.cancel()


def _begin(
    place: Place,
    work: Work[File, Answer],
    waiting: deque[Piece[File]],
    begun: dict[Future[list[Answer | Lost]], Piece[File]],
) -> None:
    """Begin what there is a slot for; a file that is done again has no other beside it."""
    from concurrent.futures import Future

    while waiting and len(begun) < (1 if waiting[0].died else place.slots):
        if any(piece.died for piece in begun.values()):
            return
        piece = waiting.popleft()
        future: Future[list[Answer | Lost]] = Future()
        try:
            future = place.begin(work, piece.files)
        except place.deaths as death:
            future.set_exception(death)
        begun[future] = piece


def _answers(
    place: Place,
    future: Future[list[Answer | Lost]],
    begun: dict[Future[list[Answer | Lost]], Piece[File]],
    waiting: deque[Piece[File]],
) -> Iterable[tuple[int, Answer | Lost]]:
    """Return the answers of a piece that has ended; where its worker has died, its files wait again, one by one."""
    piece = begun.pop(future)
    try:
        return enumerate(future.result(), piece.number)
    except place.deaths as death:
        if piece.died + 1 == DEATHS:
            return [(piece.number, Lost(f"{DEATHS} workers died of it ({type(death).__name__})"))]
        again = [Piece(number, [file], piece.died + 1) for number, file in enumerate(piece.files, piece.number)]
        waiting.extendleft(reversed(again))
        return ()


def do_piece(work: Work[File, Answer], files: Iterable[File], progress: Progress) -> list[Answer | Lost]:
    """Do a piece where the worker is; what fails with one file is told of it, and the others are done.

    Raises:
        StoppedError: it is wished that all ends.
    """
    return [_do(work, file, progress) for file in files]


def _do(work: Work[File, Answer], file: File, progress: Progress) -> Answer | Lost:
    try:
        return work(file, progress)
    except StoppedError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about this file, and the others are done
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        return Lost(f"the worker failed: {type(error).__name__}: {why}")
