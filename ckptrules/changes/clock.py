"""Pure: the number that a run gets under the lock, and whether the clock can be believed since the run before.

Nothing that matters goes by the clock alone: clocks leap, and two machines seldom agree. Runs are ordered by their
numbers. Only what waits in the trash is freed by its age; where the clock has leapt since the last run, all that waits
there waits anew from then on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ckptrules.engine.measures import NS

TOLERANCE_NS = 3600 * NS  # a clock that is set right by less has not leapt
LONGEST_PAUSE_NS = 366 * 86_400 * NS  # after a restart of the machine: what nobody can tell from a leap


class Now(NamedTuple):
    """What the clocks say at one moment, in nanoseconds.

    ``wall_ns`` counts since 1970, ``files_ns`` likewise by the clock of the file system. ``up_ns`` counts since the
    machine was started, and ``boot`` names that start; an empty text where the system does not tell.
    """

    wall_ns: int
    files_ns: int
    boot: str = ""
    up_ns: int = 0


class LastRun(NamedTuple):
    """What is remembered of the last run that could change something: its number, and what the clocks said.

    ``leapt_ns`` is when the clock was last seen to have leapt (0: never), ``waited`` the runs that had something in
    the trash then. ``at_work`` is the id of the run until it ends: it stays where the run is killed.
    """

    number: int = 0
    wall_ns: int = 0
    boot: str = ""
    up_ns: int = 0
    leapt_ns: int = 0
    waited: tuple[str, ...] = ()
    at_work: str = ""


def read(text: str) -> LastRun | None:
    """Read what `write` wrote; None where it is nothing of that kind."""
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
    """Say how the clock has leapt since the last run, or nothing."""
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
    """Return what is to be remembered of a run that begins.

    Args:
        last: what is remembered of the one before, if anything is.
        highest: the highest number in the journals.
        now: what the clocks say.
        waiting: the runs that have something in the trash.
    """
    before = last or LastRun()
    this = before._replace(number=max(before.number, highest) + 1, wall_ns=now.wall_ns, boot=now.boot, up_ns=now.up_ns)
    return this._replace(leapt_ns=now.wall_ns, waited=tuple(waiting)) if leap(last, now) else this


def waits_since(last: LastRun | None, run: str, started: float) -> float:
    """Return since when what a run left in the trash waits, in seconds since 1970; ``started`` is by its name."""
    return last.leapt_ns / NS if last and run in last.waited else started


def highest(headers: Iterable[Mapping[str, object]]) -> int:
    """Return the highest number that the headers of journals tell; 0 where none does."""
    numbers = [header.get("number") for header in headers]
    return max((number for number in numbers if type(number) is int), default=0)


def _days(time_ns: int) -> str:
    hours = abs(time_ns) // (3600 * NS)
    return f"{hours} hours" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004 - two days
