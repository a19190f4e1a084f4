"""Work on files is cut by bytes; workers that die or fail cost no more than the file that they died of."""

from __future__ import annotations

import errno
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import pytest

from ckptrules.stopping import StoppedError
from ckptrules.storage.base import Changed, HalfWayError
from ckptrules.storage.reading import Progress, SourceError, StateError
from ckptrules.vault.tar import ArchiveError
from ckptrules.workers import pieces
from ckptrules.workers.pieces import FILE, FILES, SMALL, Lost, Piece, Work, cut, do_piece, spread
from tests.support.tables import every_row

GB = 1 << 30


class File(NamedTuple):
    """A file of so many bytes."""

    name: str
    size: int


class Death(Exception):  # noqa: N818 - it is no error here, but what happens
    """A worker has died."""


class Place:
    """Threads in the place of processes. A worker dies of the files that are named; ``begun`` tells what it was given."""

    slots, deaths = 2, (Death,)

    def __init__(self, *killers: str, gone: int = 0) -> None:
        self._killers, self._gone = killers, gone
        self._pool = ThreadPoolExecutor(4)
        self.begun: list[list[str]] = []
        self._at_work: list[tuple[int, Future[list[Any]]]] = []
        self.crowded = False  # a file that was done again had others beside it
        self._lock, self._count = threading.Lock(), 0

    def begin(self, work: Work[Any, Any], files: Sequence[Any]) -> Future[list[Any]]:
        self.begun.append([file.name for file in files])
        if len(self.begun) <= self._gone:
            raise Death
        beside = [count for count, future in self._at_work if not future.done()]
        self.crowded |= bool(beside) and 1 in (len(files), *beside)
        future = self._pool.submit(self._do, work, files)
        self._at_work.append((len(files), future))
        return future

    def _do(self, work: Work[Any, Any], files: Sequence[Any]) -> list[Any]:
        if {file.name for file in files}.intersection(self._killers):
            raise Death
        return do_piece(work, files, self._tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def _tell(self, count: int) -> None:
        with self._lock:
            self._count += count

    def done(self) -> int:
        with self._lock:
            count, self._count = self._count, 0
        return count


def some(*sizes: int) -> list[File]:
    return [File(str(number), size) for number, size in enumerate(sizes)]


def name_of(file: File, progress: Progress) -> str:
    progress(file.size)
    if file.size == 13:
        raise PermissionError(13, "in no language", file.name)
    return file.name


def sizes(cut: Iterator[Piece[File]]) -> list[int]:
    return [len(piece.files) for piece in cut]


@every_row(
    ("files", "workers", "expected"),
    [
        (some(*[10 * GB] * 500), 4, [1] * 500),
        (some(*[0] * 130), 4, [FILES, FILES, 2]),
        (some(*[SMALL // 4 - FILE] * 10), 2, [4, 4, 2]),
        (some(*[GB] * 1000), 2, [3] * 333 + [1]),
        (some(*[GB] * 30), 4, [1] * 30),
        (some(*[200 * GB] * 3), 1, [1, 1, 1]),
        (some(1), 8, [1]),
        ([], 8, []),
    ],
)  # fmt: skip
def test_pieces_are_of_so_many_bytes_that_each_worker_gets_several(
    files: list[File], workers: int, expected: list[int]
) -> None:
    cut_up = list(cut(files, workers))
    assert [len(piece.files) for piece in cut_up] == expected
    assert [file for piece in cut_up for file in piece.files] == files
    assert [piece.number for piece in cut_up] == [sum(expected[:at]) for at in range(len(expected))]


def test_answers_come_in_the_order_of_the_files_and_all_bytes_are_told() -> None:
    files, told, together = some(*[SMALL] * 40), list[int](), threading.Barrier(2)

    def work(file: File, progress: Progress) -> str:
        together.wait(60)
        return name_of(file, progress)

    with Place() as place:
        assert list(spread(place, work, files, told.append)) == [file.name for file in files]
    assert sum(told) == 40 * SMALL


def test_what_ends_long_after_all_others_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "TICK", 0.01)
    files, late, ticks = some(*[SMALL] * 2), threading.Event(), list[int]()

    def work(file: File, progress: Progress) -> str:
        assert file.name == "0" or late.wait(5)
        return name_of(file, progress)

    def progress(count: int) -> None:
        ticks.append(count)
        if len(ticks) > 9:
            late.set()

    with Place() as place:
        assert list(spread(place, work, files, progress)) == ["0", "1"]


def test_what_fails_with_one_file_is_told_of_it() -> None:
    with Place() as place:
        answers = list(spread(place, name_of, some(1, 13, 2), lambda _: None))
    assert answers == ["0", Lost("the worker failed: PermissionError: Permission denied"), "2"]


def test_a_file_that_kills_its_worker_is_told_and_all_others_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "TICK", 0.01)
    files = some(*[SMALL // 4 - FILE] * 12)

    def work(file: File, progress: Progress) -> str:
        time.sleep(0.05 * (file.name == "0"))  # it is at work when the other dies
        return name_of(file, progress)

    with Place("5") as place:
        answers = list(spread(place, work, files, lambda _: None))
    assert not place.crowded
    assert answers[5] == Lost("3 workers died of it (Death)")
    assert [answer for number, answer in enumerate(answers) if number != 5] == [f.name for f in files if f.name != "5"]
    assert sorted(begun[0] for begun in place.begun if len(begun) == 1) == ["4", "5", "5", "6", "7"]


def test_where_workers_die_and_come_back_everything_is_done() -> None:
    files = some(*[SMALL] * 8)
    with Place(gone=3) as place:
        assert list(spread(place, name_of, files, lambda _: None)) == [file.name for file in files]


def test_with_no_room_for_what_is_done_nothing_new_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that wait for an earlier one take space, of a disk say; nothing waits for ever."""
    monkeypatch.setattr(pieces, "TICK", 0.01)
    files, first, counted = some(*[SMALL] * 40), threading.Event(), list[int]()

    def work(file: File, progress: Progress) -> str:
        if file.name == "0":
            assert first.wait(60)
        return name_of(file, progress)

    def progress(_: int) -> None:
        counted.append(len(place.begun))
        if counted[-20:] == [counted[-1]] * 20:
            first.set()

    with Place() as place:
        assert list(spread(place, work, files, progress, room=3 * SMALL)) == [file.name for file in files]
    assert (counted[19], counted[-1]) == (3, 20)  # pieces of two: one is at work, two are done


def test_a_wish_to_stop_begins_nothing_more() -> None:
    def stop(_: int) -> None:
        raise StoppedError

    with Place() as place, pytest.raises(StoppedError):
        list(spread(place, name_of, some(*[SMALL] * 40), stop))
    assert len(place.begun) <= 4


def test_a_worker_that_hears_of_the_wish_to_stop_ends_its_piece() -> None:
    def stop(_: int) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        do_piece(name_of, some(1, 2), stop)


@pytest.mark.parametrize(
    "error",
    [
        SourceError(errno.EIO, "Input/output error", "a.ckpt"),
        StateError("outputs/.ckptrules/work", "is a link", "{path}"),
        Changed("a.ckpt"),
        HalfWayError(errno.EIO, "Input/output error", "a.ckpt"),
        ArchiveError("is cut off"),
    ],
)
def test_an_error_that_a_worker_returns_is_the_same_here(error: Exception) -> None:
    here = pickle.loads(pickle.dumps(error))
    assert (type(here), str(here), vars(here)) == (type(error), str(error), vars(error))
