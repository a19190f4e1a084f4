"""Stops a run on Ctrl-C, SIGTERM or a lost lock: the current step is finished, nothing new begins."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType
from typing import Any

EXIT_CODE = 130
FAILED = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SILENT = "this run could give no sign of life for so long that another host may be at work by now"
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # counts on while the machine sleeps

_asked = False
WISH, UNTIL = 0, 1
ASKED, LOST = 1, 2
_run: Any = [0, 0]  # whether to stop, and until when the locks are held (0: there are none); shared by all processes
_locks: dict[object, float] = {}  # until when each is held; in the main process only
_why = ""  # why a lock was lost; in the main process only


def install() -> None:
    """From now on, stop the run on a signal. A second one ends the process at once; the next run repairs."""
    for number in SIGNALS:
        signal.signal(number, _note)


def share(run: Any) -> None:
    """Share the request to stop with the other processes of a run; only the main process receives signals.

    Args:
        run: two numbers in shared memory, at first 0.
    """
    global _run
    before, _run = _run, run
    for place in (WISH, UNTIL):
        run[place] = max(run[place], before[place])


def stopped() -> bool:
    """Say whether the run is to end before the next change."""
    return is_lost() or bool(_run[WISH])


def now() -> float:
    """Return the seconds of a clock that nobody sets and that counts on while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


def hold(lock: object, until: float) -> None:
    """Stop the run at a time (by `now`) unless the lock is held anew before: another host may have it by then."""
    _locks[lock] = until
    _run[UNTIL] = min(_locks.values())


def let_go(lock: object) -> bool:
    """Release a lock; say whether it was held up to now."""
    was_held = lock in _locks and not is_lost()
    _locks.pop(lock, None)
    _run[UNTIL] = min(_locks.values(), default=0)
    return was_held


def lose(why: str) -> None:
    """Stop the run, as it no longer has its lock, and note why."""
    global _why  # noqa: PLW0603 - as `_run`
    _why = why
    _run[WISH] = LOST


def is_lost() -> bool:
    """Say whether the run is to end because it may have lost its lock."""
    if _run[UNTIL] and now() > _run[UNTIL]:
        _run[WISH] = LOST
    return bool(_run[WISH] == LOST)


def why_lost() -> str:
    """Return why the lock may be lost; an empty text if it is not."""
    return (_why or SILENT) if is_lost() else ""


def exit_code() -> int:
    """Return the exit code of a run that was stopped."""
    return FAILED if is_lost() else EXIT_CODE


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    global _asked  # noqa: PLW0603 - a signal handler returns nothing
    if _asked:
        os._exit(EXIT_CODE)
    _asked = True
    _run[WISH] = _run[WISH] or ASKED


class StoppedError(Exception):
    """The run is to stop: work that has begun is given up, work that was finished stays."""


def heed() -> None:
    """Raise an error if the run is to stop.

    Raises:
        StoppedError: it is.
    """
    if stopped():
        raise StoppedError


class KilledError(Exception):
    """A worker process was killed, or there are no workers; the latter says why, with a hint."""
