"""All workers together pass no more than so many bytes a second: what waits hears of a wish to stop, and is made up for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from ckptrules.stopping import StoppedError
from ckptrules.storage.reading import Progress
from ckptrules.workers import rate
from ckptrules.workers.pieces import SMALL
from ckptrules.workers.rate import CREDIT, STEP, Limiter
from ckptrules.workers.where import NONE, PROCESSES
from ckptrules.workers.workers import Workers

RATE = 100


class Clock:
    """A clock that goes on only where somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(rate, "time", found)
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 100)] * 10, 10),
        ([(0.5, 100)] * 10, 10.5),
        ([(2, 100)] * 10, 21),
        ([(3, 0), (CREDIT, 100), (0, 100)], 3 + 2),
        ([(50, 0), (0, 100), (0, 300)], 50 + 4),
        ([(0, 0)], 0),
    ],
)  # fmt: skip
def test_as_long_as_the_rate_or_the_work_takes(clock: Clock, steps: list[tuple[float, int]], expected: float) -> None:
    held = Limiter(RATE).limited(lambda _: None)
    for seconds, count in steps:
        clock.now += seconds
        held(count)
    assert clock.now - 1000 == pytest.approx(expected)
    assert max(clock.slept, default=0) <= STEP


def test_those_who_share_a_moment_share_the_rate(clock: Clock) -> None:
    paid = SimpleNamespace(value=0.0)
    for _ in range(10):
        for one in (Limiter(RATE, paid), Limiter(RATE, paid)):
            one.take(100, lambda _: None)
    assert clock.now - 1000 == pytest.approx(20)


def test_who_waits_hears_of_the_wish_to_stop(clock: Clock) -> None:
    heard = list[int]()

    def progress(count: int) -> None:
        heard.append(count)
        if len(heard) > 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        Limiter(RATE).limited(progress)(1_000_000)
    assert heard == [1_000_000, 0, 0, 0]
    assert clock.now - 1000 == pytest.approx(2 * STEP)


class File(NamedTuple):
    """A file of so many bytes."""

    size: int = SMALL


def work(file: File, progress: Progress) -> None:
    for _ in range(8):
        progress(file.size // 8)


@pytest.fixture(params=[NONE, PROCESSES])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    found = Workers({}, asked=3)
    found.executor = request.param
    yield found
    found.end(killed=False)


@pytest.mark.whole
def test_all_workers_together_are_held_back(workers: Workers) -> None:
    start, told = time.monotonic(), list[int]()
    workers.limit(4 * SMALL)
    list(workers.each(work, [File()] * 6, told.append))
    assert time.monotonic() - start >= 1.5
    assert sum(told) == 6 * SMALL
    workers.pay(2 * SMALL)
    assert time.monotonic() - start >= 2


@pytest.mark.whole
def test_each_byte_is_paid_for_once_and_where_it_was_read(workers: Workers, clock: Clock) -> None:
    workers.limiter = Limiter(10 * SMALL)
    list(workers.each(work, [File()] * 6, lambda _: None))
    assert clock.now - 1000 == pytest.approx(0.6 if workers.executor == NONE else 0)
