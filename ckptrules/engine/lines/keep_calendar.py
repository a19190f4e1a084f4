"""`keep_hourly` to `keep_yearly`: the newest of each hour, day, week, month or year that has any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.judging import Around, Judged, Line, Opinion, is_misdated, kept_by, no, place_of, yes
from ckptrules.engine.measures import NS
from ckptrules.engine.shapes import Number

ALL = -1
UNITS = {
    "hourly": ("hour", "%Y-%m-%d %Hh"),  # the hour that a change of DST repeats is one
    "daily": ("day", "%Y-%m-%d"),
    "weekly": ("week", "%G-W%V"),
    "monthly": ("month", "%Y-%m"),
    "yearly": ("year", "%Y"),
}
"""By the end of a key: a piece of the calendar, and how one is written. Times that are written alike fall into one."""


def keep_calendar(unit: str, form: str) -> Callable[[int, Sequence[Checkpoint], Around], Judged]:
    """Make the line that keeps the newest of each of the last pieces of the calendar that hold a checkpoint.

    While there are fewer of these than asked for, the oldest checkpoint stays as well. A time that cannot be counts for
    nothing: such a checkpoint stays.
    """

    def judge(count: int, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
        dated = [c for c in checkpoints if not is_misdated(c.entry.mtime_ns, around.now_ns)]
        dated.sort(key=lambda c: (c.entry.mtime_ns, c.age_order), reverse=True)
        pieces = {c.entry.name: _piece(form, c, around.zone) for c in dated}
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
            what = f"{unit} {piece} ({zone})"
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


def _piece(form: str, checkpoint: Checkpoint, zone: tzinfo) -> tuple[str, str]:
    """Return the piece of the calendar that a file time falls into, and what the zone is called then."""
    time = datetime.fromtimestamp(checkpoint.entry.mtime_ns // NS, zone)
    return time.strftime(form), time.tzname() or ""


def line(key: str, unit: str, form: str) -> Line:
    """Describe the line for one unit."""
    shape = Number(f"Keep the newest of each of so many {unit}s that have any; -1 = of all of them.", 1, also=ALL)
    return Line(f"keep_{key}", shape, keep_calendar(unit, form), by_files=True, ranked=kept_by)


LINES = tuple(line(key, *unit) for key, unit in UNITS.items())
