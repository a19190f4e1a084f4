"""`keep_hourly` to `keep_yearly`: the newest of each hour, day, week, month or year that has any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from typing import NamedTuple

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.judging import NS, Around, Judged, Line, Opinion, is_misdated, kept_by, no, place_of, yes
from ckptrules.engine.shapes import Number

ALL = -1


class Unit(NamedTuple):
    """A piece of the calendar, and how one is written: two times fall into one piece where that is the same."""

    name: str
    write: Callable[[datetime], str]


UNITS = {
    "hourly": Unit("hour", lambda time: f"{time:%Y-%m-%d %H}h"),  # the hour that a change of DST repeats is one
    "daily": Unit("day", lambda time: f"{time:%Y-%m-%d}"),
    "weekly": Unit("week", lambda time: f"{time:%G-W%V}"),
    "monthly": Unit("month", lambda time: f"{time:%Y-%m}"),
    "yearly": Unit("year", lambda time: f"{time:%Y}"),
}


def keep_calendar(unit: Unit) -> Callable[[int, Sequence[Checkpoint], Around], Judged]:
    """Make the line that keeps the newest of each of the last pieces of the calendar that hold a checkpoint.

    While there are fewer of these than asked for, the oldest checkpoint stays as well. A time that cannot be counts for
    nothing: such a checkpoint stays.
    """

    def judge(count: int, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
        dated = [c for c in checkpoints if not is_misdated(c.entry.mtime_ns, around.now_ns)]
        dated.sort(key=lambda c: (c.entry.mtime_ns, c.age_order), reverse=True)
        pieces = {c.entry.name: _piece(unit, c, around.zone) for c in dated}
        newest: dict[str, str] = {}
        for name, (piece, _) in pieces.items():
            newest.setdefault(piece, name)
        places = {name: place for place, name in enumerate(newest.values(), start=1)}
        if dated:
            places.setdefault(dated[-1].entry.name, len(places) + 1)

        def say(name: str, time_ns: int) -> Opinion:
            if name not in pieces:
                return yes("its time is before 1970" if time_ns < 0 else "its time lies ahead")
            piece, zone = pieces[name]
            what = f"{unit.name} {piece} ({zone})"
            if name not in places:
                return no(f"not the newest of {what}")
            is_newest, place = newest[piece] == name, places[name]
            which = "newest" if is_newest else "oldest of all,"
            if count == ALL:
                return yes(f"{which} of {what}")
            if place <= count:
                return yes(f"{which} of {what}, {place_of(place, count)}")
            return no(f"{what} is not of the newest {count}" if is_newest else f"not the newest of {what}", place)

        return {c.entry.name: say(c.entry.name, c.entry.mtime_ns) for c in checkpoints}

    return judge


def _piece(unit: Unit, checkpoint: Checkpoint, zone: tzinfo) -> tuple[str, str]:
    """Return the piece of the calendar that a file time falls into, and what the zone is called then."""
    time = datetime.fromtimestamp(checkpoint.entry.mtime_ns // NS, zone)
    return unit.write(time), time.tzname() or ""


def line(key: str, unit: Unit) -> Line:
    """Describe the line for one unit."""
    shape = Number(f"Keep the newest of each of so many {unit.name}s that have any; -1 = of all of them.", 1, also=ALL)
    return Line(f"keep_{key}", shape, keep_calendar(unit), by_files=True, ranked=kept_by)


LINES = tuple(line(key, unit) for key, unit in UNITS.items())
