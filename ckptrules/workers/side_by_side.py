"""Works on files side by side, by a few threads: what copies, hashes or waits for a disk lets others go on."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from math import inf

from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import SMALL, Answer, File, Work, weight

AT_ONCE = min(8, 2 * (os.cpu_count() or 1))  # twice: one waits for the disk while another one copies
PIECES = 16  # of a stream that a thread hands over at once
BATCHES = 2  # of such pieces that are read before they are asked for
AHEAD = 1000  # files that may be done before an earlier one is


def each(
    work: Work[File, Answer], files: Sequence[File], progress: Progress, *, room: float = inf
) -> Generator[Answer, None, None]:
    """Yield what ``work`` makes of each file, as `Workers.each`. ``progress`` is called by one thread at a time.

    Raises:
        Exception: one that ``work`` or ``progress`` raised. All work has ended then: nothing new was begun, and what
            was at work was ended by its next call of the ``progress`` that it was given.
    """
    if weight(files) < SMALL:  # they are done before threads have begun
        yield from (work(file, progress) for file in files)
        return
    ended: list[BaseException] = []
    alone = threading.Lock()

    def step(count: int) -> None:
        with alone:
            if ended:
                raise CancelledError
            progress(count)

    def guarded(file: File) -> Answer:
        if ended:
            raise CancelledError
        try:
            return work(file, step)
        except BaseException as error:
            ended.append(error)
            raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            yield from _in_order(lambda file: pool.submit(guarded, file), files, room)
        except CancelledError:
            raise ended[0] from None
        finally:
            ended.append(CancelledError())
            pool.shutdown(cancel_futures=True)


def ahead(pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Yield pieces; a thread goes on with them, several at once, while the caller is at work.

    Raises:
        Exception: one that came with a piece, where that would have come, or a few before.
    """
    with ThreadPoolExecutor(1) as pool:
        begun = deque(pool.submit(_some, pieces) for _ in range(BATCHES))
        try:
            while some := begun.popleft().result():
                begun.append(pool.submit(_some, pieces))
                yield from some
        finally:
            pool.shutdown(cancel_futures=True)


def _some(pieces: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(pieces, PIECES))


def _in_order(begin: Callable[[File], Future[Answer]], files: Sequence[File], room: float) -> Iterator[Answer]:
    begun: deque[tuple[int, Future[Answer]]] = deque()
    size = 0
    for file in files:
        begun.append((file.size, begin(file)))
        size += file.size
        while len(begun) > AHEAD or (size > room and len(begun) >= AT_ONCE):
            first, future = begun.popleft()
            size -= first
            yield future.result()
    while begun:
        yield begun.popleft()[1].result()
