"""One bar for all work of a call: it ends where the work ends, whatever was told on the way, and gives way to texts."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest

from ckptrules import stopping
from ckptrules.run import progress
from ckptrules.run.progress import Amount, Bar
from ckptrules.stopping import StoppedError
from tests.support.tables import every_row

GB = 10**9


class File(NamedTuple):
    """A file of so many bytes."""

    size: int


class Screen(io.StringIO):
    """A terminal that shows its last line."""

    @property
    def line(self) -> str:
        return self.getvalue().rpartition("\n")[2].rpartition("\r")[2].strip()


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr(progress, "SHOW_AFTER", 1e-9)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return Screen()


@pytest.fixture
def bar(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Bar:
    made = progress.line_on

    def line(where: io.StringIO, total: int) -> object:
        shown = made(where, total)
        shown.mininterval = 0
        return shown

    monkeypatch.setattr(progress, "line_on", line)
    return Bar(screen)


@every_row(
    ("amount", "done", "expected", "where"),
    [
        (Amount(), 0, 0, ""),
        (Amount(total=100, reported=30), 30, 100, ""),
        (Amount(total=100, reported=30, settled=50), 50, 100, ""),  # counts were lost
        (Amount(total=100, reported=130, settled=50), 100, 100, ""),  # a file was read twice
        (Amount(total=100, reported=30, known=1, directories=1), 30, 100, ""),
        (Amount(total=100, reported=30, known=2, directories=10), 30, 500, "2 of 10"),
        (Amount(total=100, reported=100, settled=100, known=10, directories=10), 100, 100, "10 of 10"),
        (Amount(total=100, reported=30, known=11, directories=10), 30, 100, "11 of 10"),
        (Amount(directories=10), 0, 0, "0 of 10"),
    ],
)  # fmt: skip
def test_what_is_done_and_what_is_to_come(amount: Amount, done: int, expected: int, where: str) -> None:
    assert (amount.done, amount.expected, amount.where) == (done, expected, where)


def lost(reported: Callable[[int], None]) -> None:
    reported(2)


def twice(reported: Callable[[int], None]) -> None:
    reported(70)
    reported(70)


@pytest.mark.parametrize("tell", [lost, twice])
def test_when_the_answers_are_there_all_is_done(tell: Callable[[Callable[[int], None]], None]) -> None:
    bar, files = Bar(), [File(30), File(70)]
    with bar.work(100) as work:
        answers = work.settling(files, iter("ab"))
        tell(work)
        assert next(answers) == "a"
        assert 30 <= bar.amount.done <= 100
        assert list(answers) == ["b"]
    assert (bar.amount.done, bar.amount.expected) == (100, 100)


def test_what_passed_is_what_was_told() -> None:
    bar = Bar()
    bar.know(100, 30)
    with bar.work(100) as work:
        work(40)
        list(work.settling([File(100)], iter("a")))
    assert (bar.amount.done, bar.passed) == (200, 70)


def test_what_was_not_done_is_not_expected_any_more() -> None:
    bar = Bar()
    with contextlib.suppress(StoppedError), bar.work(100) as work:
        work(30)
        raise StoppedError
    with bar.work(50) as work:
        assert (bar.amount.done, bar.amount.expected) == (30, 80)
        work(20)
    assert (bar.amount.done, bar.amount.expected) == (50, 50)


def test_several_threads_tell_one_bar() -> None:
    bar, together = Bar(), threading.Barrier(4, timeout=60)

    def one() -> None:
        with bar.work(10_000) as work:
            together.wait()
            for _ in range(10_000):
                work(1)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (bar.amount.done, bar.amount.expected) == (40_000, 40_000)


def test_the_wish_to_stop_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_run", [stopping.ASKED, 0])
    with pytest.raises(StoppedError), Bar().work(10) as work:
        work(0)


def test_the_line_of_a_work_that_is_stopped_does_not_jump_to_its_end(
    bar: Bar, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 65 % it said `100%|███| 480M/480M`: what was settled, of itself."""
    with bar.work(12 * GB) as work:
        for _ in work.settling([File(GB)] * 4, "abcd"):
            work(GB)
        work(3 * GB)
        assert "7.00G/12.0G" in screen.line
        monkeypatch.setattr(stopping, "_run", [stopping.ASKED, 0])
    assert screen.line == ""
    assert "100%" not in screen.getvalue()


def test_a_terminal_shows_bytes_rate_and_time_left_in_one_line(
    bar: Bar, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar.expect(3)
    bar.know(GB)
    assert screen.line.startswith("1 of 3:  33%|")
    bar.know()
    with bar.work(2 * GB) as work:
        work(GB)
        assert "2.00G/4.50G [00:00<00:0" in screen.line
        assert screen.line.endswith("B/s]")
        assert len(screen.line) <= 80
        with bar.aside():
            screen.write("a text\n")
        assert "\ra text\n" in screen.getvalue()
        assert "2.00G/4.50G" in screen.line
        monkeypatch.setattr(sys, "stderr", screen)
        bar.say("of a worker")
        assert "\rof a worker\n" in screen.getvalue()
        assert "2.00G/4.50G" in screen.line
        work(GB)
    bar.know(0)
    assert screen.line == ""
    assert "\n" not in screen.getvalue().replace("a text\n", "").replace("of a worker\n", "")
    bar.close()
    bar.know(5)
    assert screen.line == ""


def test_without_a_terminal_nothing_is_shown_and_all_is_counted() -> None:
    ticks = iter([10.0, 12.0, 15.0])
    bar = Bar(clock=lambda: next(ticks))
    with bar.work(GB) as work:
        work(GB)
    assert (bar.amount.done, bar.passed, bar.seconds) == (GB, GB, 5)
