"""Pure: the numbers of runs, and whether the clock has leapt since the last run.

Clocks leap, and two machines seldom agree, so runs are ordered by numbers. Only the trash is freed by age: if the clock
has leapt since the last run, the age of all that is in the trash is counted from now on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ckptrules.engine.measures import NS

TOLERANCE_NS = 3600 * NS  # a smaller correction of a clock is no leap
LONGEST_PAUSE_NS = 366 * 86_400 * NS  # after a reboot, less than this may be an idle project, and is no leap


class Now(NamedTuple):
    """The times of all clocks at one moment, in nanoseconds.

    ``wall_ns`` is since 1970, ``files_ns`` likewise, by the clock of the file system. ``up_ns`` is since the boot of
    the machine, and ``boot`` the id of that boot (empty if the system has none).
    """

    wall_ns: int
    files_ns: int
    boot: str = ""
    up_ns: int = 0


class LastRun(NamedTuple):
    """The record of the last run that could change something: its number, and the times of the clocks.

    ``leapt_ns`` is when a leap of the clock was last seen (0: never), and ``waited`` are the runs that had something in
    the trash then. ``at_work`` is the id of the run until it ends; after a kill it is still there.
    """

    number: int = 0
    wall_ns: int = 0
    boot: str = ""
    up_ns: int = 0
    leapt_ns: int = 0
    waited: tuple[str, ...] = ()
    at_work: str = ""


def read(text: str) -> LastRun | None:
    """Read what `write` wrote; None if it is anything else."""
    try:
        row = json.loads(text)
        found = LastRun(**{**row, "waited": tuple(map(str, row["waited"]))})
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    numbers = found.number, found.wall_ns, found.up_ns, found.leapt_ns
    texts = found.boot, found.at_work
    is_sound = all(type(number) is int for number in numbers) and all(type(text) is str for text in texts)
    return found if is_sound else None


def write(last: LastRun) -> str:
    """Write a record as JSON."""
    return json.dumps(last._asdict()) + "\n"


def leap(last: LastRun | None, now: Now) -> str:
    """Return in words how the clock has leapt since the last run; an empty text if it has not."""
    if abs(now.wall_ns - now.files_ns) > TOLERANCE_NS:
        return f"differs from that of the file system by {_days(now.wall_ns - now.files_ns)}"
    if last is None:
        return ""
    passed = now.wall_ns - last.wall_ns
    if passed < -TOLERANCE_NS:
        return f"was set back by {_days(passed)}"
    same_start = bool(now.boot) and now.boot == last.boot
    ahead = passed - (now.up_ns - last.up_ns) if same_start else passed - LONGEST_PAUSE_NS
    if ahead > (TOLERANCE_NS if same_start else 0):
        return f"has moved on by {_days(passed)} since the last run"
    return f"was set back by {_days(ahead)}" if same_start and ahead < -TOLERANCE_NS else ""


def begin(last: LastRun | None, highest: int, now: Now, waiting: Iterable[str]) -> LastRun:
    """Return the record of a run that begins.

    Args:
        last: the record of the run before, if there is one.
        highest: the highest number in the journals.
        now: the times of the clocks.
        waiting: the runs that have something in the trash.
    """
    before = last or LastRun()
    this = before._replace(number=max(before.number, highest) + 1, wall_ns=now.wall_ns, boot=now.boot, up_ns=now.up_ns)
    return this._replace(leapt_ns=now.wall_ns, waited=tuple(waiting)) if leap(last, now) else this


def waits_since(last: LastRun | None, run: str, started: float) -> float:
    """Return from when the age of a run's trash is counted, in seconds since 1970; ``started`` is in the run's id."""
    return last.leapt_ns / NS if last and run in last.waited else started


def highest(headers: Iterable[Mapping[str, object]]) -> int:
    """Return the highest number of a run in the headers of journals, or 0."""
    numbers = [header.get("number") for header in headers]
    return max((number for number in numbers if type(number) is int), default=0)


def _days(time_ns: int) -> str:
    hours = abs(time_ns) // (3600 * NS)
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004 - two days
