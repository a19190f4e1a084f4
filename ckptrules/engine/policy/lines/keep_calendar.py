"""`keep_hourly` to `keep_yearly`: keep the newest of each hour, day, week, month or year that has a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.measures import NS
from ckptrules.engine.policy.judging import Around, Judged, Line, Opinion, is_misdated, kept_by, no, place_of, yes
from ckptrules.engine.shapes import Number

ALL = -1
UNITS = {
    "hourly": ("hour", "%Y-%m-%d %Hh"),  # at the end of DST, the repeated hour counts once
    "daily": ("day", "%Y-%m-%d"),
    "weekly": ("week", "%G-W%V"),
    "monthly": ("month", "%Y-%m"),
    "yearly": ("year", "%Y"),
}
"""By the end of a key: a unit of the calendar, and its format. Times with the same text are in the same period."""


def keep_calendar(unit: str, form: str) -> Callable[[int, Sequence[Checkpoint], Around], Judged]:
    """Make the line that keeps the newest of each of the last periods that have a checkpoint.

    While there are fewer periods than asked for, the oldest checkpoint is kept, too. A checkpoint with an impossible
    time belongs to no period, and is kept.
    """

    def judge(count: int, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
        dated = [c for c in checkpoints if not is_misdated(c.entry.mtime_ns, around.now_ns)]
        dated.sort(key=lambda c: (c.entry.mtime_ns, c.age_order), reverse=True)
        periods = {c.entry.name: _period(form, c, around.zone) for c in dated}
        newest: dict[str, str] = {}
        for name, (period, _) in periods.items():
            newest.setdefault(period, name)
        places = {name: place for place, name in enumerate(newest.values(), start=1)}
        if dated:
            places.setdefault(dated[-1].entry.name, len(places) + 1)

        def opinion_on(name: str, time_ns: int) -> Opinion:
            if name not in periods:
                return yes("its time is before 1970" if time_ns < 0 else "its time lies ahead")
            period, zone = periods[name]
            what = f"{unit} {period} ({zone})"
            if name not in places:
                return no(f"not the newest of {what}")
            is_newest, place = newest[period] == name, places[name]
            which = "newest" if is_newest else "oldest of all,"
            if count == ALL:
                return yes(f"{which} of {what}")
            if place <= count:
                return yes(f"{which} of {what}, {place_of(place, count)}")
            return no(f"{what} is not of the newest {count}" if is_newest else f"not the newest of {what}", place)

        return {c.entry.name: opinion_on(c.entry.name, c.entry.mtime_ns) for c in checkpoints}

    return judge


def _period(form: str, checkpoint: Checkpoint, zone: tzinfo) -> tuple[str, str]:
    """Return the period of a file time, and the name of the time zone at that time."""
    time = datetime.fromtimestamp(checkpoint.entry.mtime_ns // NS, zone)
    return time.strftime(form), time.tzname() or ""


def line(key: str, unit: str, form: str) -> Line:
    """Describe the line for one unit."""
    shape = Number(f"Keep the newest of each of so many {unit}s that have any; -1 = of all of them.", 1, also=ALL)
    return Line(f"keep_{key}", shape, keep_calendar(unit, form), by_files=True, ranked=kept_by)


LINES = tuple(line(key, *unit) for key, unit in UNITS.items())
