"""Ctrl-C, SIGTERM, or a lost lock: the step at hand is finished, nothing new is begun, and what was done is told."""

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
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # they count on while the machine sleeps

_asked = False
WISH, UNTIL = 0, 1
ASKED, LOST = 1, 2
_run: Any = [0, 0]  # the wish to stop, and until when the locks are held (0: none is), in the memory of all processes
_locks: dict[object, float] = {}  # until when each is held; of the main process, like the next
_why = ""


def install() -> None:
    """From now on, take signals as a wish to stop soon. A second one ends the process at once; the next run repairs."""
    for number in SIGNALS:
        signal.signal(number, _note)


def share(run: Any) -> None:
    """Let the processes of a run know of the wish of one another: of the main process, which alone hears signals.

    Args:
        run: two numbers in the memory of all, first 0.
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
    """Let the run end where a lock is not held anew until then (by `now`): another host may have it by that time."""
    _locks[lock] = until
    _run[UNTIL] = min(_locks.values())


def let_go(lock: object) -> bool:
    """Hold a lock no longer; say whether it was held up to now."""
    was_held = lock in _locks and not is_lost()
    _locks.pop(lock, None)
    _run[UNTIL] = min(_locks.values(), default=0)
    return was_held


def lose(why: str) -> None:
    """Let the run end, as it no longer has its lock, and note the fact that is told of it."""
    global _why  # noqa: PLW0603 - what is to stop has no other way to hear of it
    _why = why
    _run[WISH] = LOST


def is_lost() -> bool:
    """Say whether the run is to end as it may have lost its lock."""
    if _run[UNTIL] and now() > _run[UNTIL]:
        _run[WISH] = LOST
    return bool(_run[WISH] == LOST)


def why_lost() -> str:
    """Say why the lock may be lost; nothing where it is not."""
    return (_why or SILENT) if is_lost() else ""


def exit_code() -> int:
    """Return the exit code of a run that was stopped."""
    return FAILED if is_lost() else EXIT_CODE


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    global _asked  # noqa: PLW0603 - a signal has no other way to tell
    if _asked:
        os._exit(EXIT_CODE)
    _asked = True
    _run[WISH] = _run[WISH] or ASKED


class StoppedError(Exception):
    """The run is to end: what was begun is let go, what was finished before stands."""


def heed() -> None:
    """Let go of the work at hand where that is wished.

    Raises:
        StoppedError: the run is to end.
    """
    if stopped():
        raise StoppedError


class KilledError(Exception):
    """A process at work was killed, or there are no workers any more: then it says why, and what helps."""
