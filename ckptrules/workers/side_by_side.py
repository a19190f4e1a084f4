"""Works on files in a few threads of this process: while one copies, hashes or waits for a disk, others go on."""

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

AT_ONCE = min(8, 2 * (os.cpu_count() or 1))  # threads: one waits for the disk while another copies
PIECES = 16  # pieces of a stream in a batch
BATCHES = 2  # batches that are read ahead
AHEAD = 1000  # files that may be done before an earlier one is


def each(
    work: Work[File, Answer], files: Sequence[File], progress: Progress, *, room: float = inf
) -> Generator[Answer, None, None]:
    """Yield the answer on each file, in order. ``progress`` is called by one thread at a time.

    Raises:
        Exception: one that ``work`` or ``progress`` raised. All work has ended then: no other begins, and each that
            has begun ends at its next call of its ``progress``.
    """
    if weight(files) < SMALL:  # done before threads would start
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
    """Yield the pieces of a stream; a thread reads on while the caller is at work.

    Raises:
        Exception: one that the stream raised, up to a batch too early.
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
