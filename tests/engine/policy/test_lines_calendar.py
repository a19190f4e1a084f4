"""`keep_hourly` to `keep_yearly` beside a second reading of the same rules, and beside what a calendar says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import product
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry
from ckptrules.engine.measures import NS
from ckptrules.engine.policy.judging import Around, Judged, Others
from ckptrules.engine.policy.lines import LINES
from ckptrules.engine.ruleset import Reason
from tests.support.tables import every, every_row

BUCKETS = {
    "keep_hourly": "%Y %m %d %H",
    "keep_daily": "%Y %j",
    "keep_weekly": "%G %V",
    "keep_monthly": "%Y %m",
    "keep_yearly": "%Y",
}


def zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        pytest.skip(f"this machine does not know {name}")


def judged(key: str, count: int, times: Sequence[datetime], where: tzinfo, now: datetime | None = None) -> Judged:
    return judged_of(key, count, found(times), where, now)


def judged_of(key: str, count: int, every: list[Checkpoint], where: tzinfo, now: datetime | None = None) -> Judged:
    now_ns = round(now.timestamp()) * NS if now else 0
    return LINES[key].judge(count, every, Around(now_ns, Others(0), where))


def found(times: Sequence[datetime]) -> list[Checkpoint]:
    return [
        Checkpoint(Entry(str(time), "file", 1, round(time.timestamp()) * NS), {"step": str(n)}, "", Reason(""))
        for n, time in enumerate(times)
    ]


def kept(said: Judged) -> list[str]:
    return sorted(name for name, one in said.items() if one.keeps)


def second_reading(key: str, count: int, times: Sequence[datetime], where: tzinfo) -> list[str]:
    return kept_of(count, in_buckets(key, times, where))


def in_buckets(key: str, times: Sequence[datetime], where: tzinfo) -> list[tuple[str, str]]:
    """Say of each time, the newest first, in which bucket it is."""
    return [(str(time), time.astimezone(where).strftime(BUCKETS[key])) for time in sorted(times, reverse=True)]


def kept_of(count: int, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Go from the newest to the oldest as long as counts are left: a bucket not seen before takes one, so does the end."""
    left, seen, stays = count, set[str](), []
    for row in rows:
        time, bucket = row
        if left and (bucket not in seen or row is rows[-1]):
            stays.append(time)
            seen.add(bucket)
            left -= left > 0
    return sorted(stays)


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe")
STARTS = {
    "around a year's end": datetime(2020, 12, 20, 23, 10, tzinfo=UTC),
    "around a leap day": datetime(2024, 2, 27, 22, 50, tzinfo=UTC),
    "around a century's February": datetime(2100, 2, 26, 21, 0, tzinfo=UTC),
    "where clocks go forward": datetime(2025, 3, 28, 20, 0, tzinfo=UTC),
    "where clocks go back": datetime(2025, 10, 24, 20, 0, tzinfo=UTC),
    "where clocks go back elsewhere": datetime(2025, 10, 31, 20, 0, tzinfo=UTC),
    "around 1970": datetime(1970, 1, 1, tzinfo=UTC),
}
GAPS: dict[str, Callable[[int], timedelta]] = {
    "twenty minutes": lambda n: timedelta(minutes=20 * n),
    "seven hours": lambda n: timedelta(hours=7 * n),
    "growing": lambda n: timedelta(hours=n**2),
    "five weeks": lambda n: timedelta(weeks=5 * n),
    "in bursts": lambda n: timedelta(days=9 * (n // 4), minutes=n % 4),
}


COUNTS = (1, 2, 5, 39, 40, -1)


@every([*enumerate(product(ZONES, STARTS, GAPS))])
def test_a_second_reading_keeps_the_same(row: tuple[int, tuple[str, str, str]]) -> None:
    """Each row has a third of the counts; each zone and each start has all."""
    turn, (where, start, gap) = row
    times, here = [STARTS[start] + GAPS[gap](n) for n in range(40)], zone(where)
    every = found(times)
    for key in BUCKETS:
        rows = in_buckets(key, times, here)
        for count in COUNTS[turn % 3 :: 3]:
            assert kept(judged_of(key, count, every, here)) == kept_of(count, rows), (key, count)


@settings(max_examples=2 * settings().max_examples)
@given(
    st.sampled_from(sorted(BUCKETS)),
    st.integers(1, 6) | st.just(-1),
    st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)), unique_by=lambda t: t.replace(microsecond=0)),  # noqa: DTZ001 - a zone is given below
    st.integers(-12, 14),
)
def test_a_second_reading_keeps_the_same_of_any_times(key: str, count: int, naive: list[datetime], hours: int) -> None:
    here = timezone(timedelta(hours=hours))
    times = [time.replace(microsecond=0, tzinfo=UTC) for time in naive]
    assert kept(judged(key, count, times, here)) == second_reading(key, count, times, here)


def berlin(*texts: str) -> list[datetime]:
    return [datetime.fromisoformat(text) for text in texts]


@every_row(
    ("key", "count", "times", "stays"),
    [
        # A week belongs to the year that has its Thursday: 2020-12-31 to 2021-01-03 are one, in two years.
        ("keep_weekly", 1, berlin("2020-12-27T12+01", "2020-12-28T12+01", "2021-01-03T12+01"), ["2021-01-03"]),
        ("keep_weekly", 2, berlin("2020-12-26T12+01", "2020-12-27T12+01", "2021-01-01T12+01"), ["2020-12-27", "2021-01-01"]),
        ("keep_weekly", 2, berlin("2024-12-29T12+01", "2024-12-30T12+01", "2025-01-05T12+01"), ["2024-12-29", "2025-01-05"]),
        ("keep_yearly", 2, berlin("2019-05-05T12+02", "2020-12-30T12+01", "2020-12-31T23+01", "2021-01-01T00+01"), ["2020-12-31", "2021-01-01"]),
        # In Berlin it is the next year, month and day already.
        ("keep_yearly", 1, berlin("2020-12-31T22:59:59+00", "2020-12-31T23:00:00+00"), ["2020-12-31 23:00:00"]),
        ("keep_daily", 2, berlin("2025-06-01T12+00", "2025-06-01T21:59+00", "2025-06-01T22:00+00"), ["2025-06-01 21:59", "2025-06-01 22:00"]),
        # Leap days.
        ("keep_daily", 2, berlin("2024-02-28T12+01", "2024-02-29T12+01", "2024-03-01T12+01"), ["2024-02-29", "2024-03-01"]),
        ("keep_monthly", 2, berlin("2024-01-31T12+01", "2024-02-01T12+01", "2024-02-29T12+01", "2024-03-01T12+01"), ["2024-02-29", "2024-03-01"]),
        ("keep_yearly", 1, berlin("2024-02-29T12+01", "2024-12-31T12+01"), ["2024-12-31"]),
        # The clocks go forward: behind 01:59 comes 03:00, and the day has 23 hours.
        ("keep_hourly", 2, berlin("2025-03-30T01:30+01", "2025-03-30T01:59+01", "2025-03-30T03:00+02"), ["2025-03-30 01:59", "2025-03-30 03:00"]),
        ("keep_daily", 1, berlin("2025-03-30T00:00+01", "2025-03-30T23:59+02"), ["2025-03-30 23:59"]),
        ("keep_daily", 2, berlin("2025-03-29T22:59+00", "2025-03-29T23:00+00", "2025-03-30T21:59+00"), ["2025-03-29 22:59", "2025-03-30 21:59"]),
        # They go back: the hour from 02:00 comes twice and is one, and the day has 25 hours.
        ("keep_hourly", 2, berlin("2025-10-26T01:59+02", "2025-10-26T02:30+02", "2025-10-26T02:15+01"), ["2025-10-26 01:59", "2025-10-26 02:15"]),
        ("keep_hourly", 3, berlin("2025-10-26T01:59+02", "2025-10-26T02:30+02", "2025-10-26T02:15+01", "2025-10-26T03:00+01"), ["2025-10-26 01:59", "2025-10-26 02:15", "2025-10-26 03:00"]),
        ("keep_daily", 1, berlin("2025-10-26T00:00+02", "2025-10-26T23:59+01"), ["2025-10-26 23:59"]),
        # Days without a checkpoint count for nothing; the oldest stays while counts are left, and takes one.
        ("keep_daily", 2, berlin("2025-01-01T12+01", "2025-03-01T12+01", "2025-09-01T12+02"), ["2025-03-01", "2025-09-01"]),
        ("keep_monthly", 3, berlin("2025-01-01T12+01", "2025-01-02T12+01", "2025-02-01T12+01"), ["2025-01-01", "2025-01-02", "2025-02-01"]),
        ("keep_monthly", 2, berlin("2025-01-01T12+01", "2025-01-02T12+01", "2025-02-01T12+01"), ["2025-01-02", "2025-02-01"]),
        ("keep_yearly", -1, berlin("2025-01-01T12+01", "2025-01-02T12+01", "2025-02-01T12+01"), ["2025-01-01", "2025-02-01"]),
        ("keep_yearly", 1, berlin("2025-01-01T12+01", "2025-01-02T12+01", "2025-02-01T12+01"), ["2025-02-01"]),
    ],
)  # fmt: skip
def test_what_a_calendar_says_in_berlin(key: str, count: int, times: list[datetime], stays: list[str]) -> None:
    said = kept(judged(key, count, times, zone("Europe/Berlin")))
    assert len(said) == len(stays)
    for name, start in zip(said, sorted(stays), strict=True):
        assert name.startswith(start)


def test_every_reason_says_piece_zone_and_place() -> None:
    times = berlin("2025-10-24T12+02", "2025-10-25T12+02", "2025-10-25T13+02", "2025-10-26T12+01")
    two, four, all_days = (judged("keep_daily", count, times, zone("Europe/Berlin")) for count in (1, 4, -1))
    assert [one.why for one in two.values()] == [
        "day 2025-10-24 (CEST) is not of the newest 1",
        "not the newest of day 2025-10-25 (CEST)",
        "day 2025-10-25 (CEST) is not of the newest 1",
        "newest of day 2025-10-26 (CET), 1 of 1",
    ]
    assert [one.would for one in two.values()] == [3, None, 2, None]
    assert [one.why for one in four.values()] == [
        "newest of day 2025-10-24 (CEST), 3 of 4",
        "not the newest of day 2025-10-25 (CEST)",
        "newest of day 2025-10-25 (CEST), 2 of 4",
        "newest of day 2025-10-26 (CET), 1 of 4",
    ]
    assert [one.why for one in all_days.values()][-1] == "newest of day 2025-10-26 (CET)"
    oldest = [next(iter(judged("keep_yearly", count, times, UTC).values())) for count in (1, 2, -1)]
    assert [(one.why, one.would) for one in oldest] == [
        ("not the newest of year 2025 (UTC)", 2),
        ("oldest of all, of year 2025 (UTC), 2 of 2", None),
        ("oldest of all, of year 2025 (UTC)", None),
    ]


@pytest.mark.parametrize("key", BUCKETS)
def test_a_time_that_cannot_be_stays_and_takes_no_place(key: str) -> None:
    now = datetime(2025, 6, 15, 12, tzinfo=UTC)
    ahead, before = now + timedelta(days=400), datetime(1969, 12, 31, tzinfo=UTC)
    times = [before, now - timedelta(days=800), now - timedelta(days=1), now + timedelta(seconds=30), ahead]
    said = judged(key, 1, times, UTC, now)
    assert kept(said) == sorted(map(str, (before, now + timedelta(seconds=30), ahead)))
    assert said[str(ahead)].why == "its time lies ahead"
    assert said[str(before)].why == "its time is before 1970"


def test_of_equal_times_the_newest_by_epoch_and_step_stays() -> None:
    found = [
        Checkpoint(Entry(name, "file", 1, 10**18), {"step": step}, name, Reason(""))
        for name, step in (("b", "3"), ("a", "20"), ("c", "1"))
    ]
    for rows in (found, found[::-1]):
        assert kept(LINES["keep_daily"].judge(1, rows, Around(0, Others()))) == ["a"]
        assert kept(LINES["keep_daily"].judge(2, rows, Around(0, Others()))) == ["a", "c"]
