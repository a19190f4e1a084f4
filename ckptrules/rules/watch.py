"""Bounds a regular expression that backtracks for ever: it is named, and not waited for."""

from __future__ import annotations

import atexit
import functools
import os
import signal
from types import FrameType

from ckptrules.engine.naming import fits

SECONDS = 1.0  # of the processor, so that a busy machine gives up no sooner

_last: object = None
_installed = False


def install() -> None:
    """From now on, a name that a rule works on for more than two ticks of a timer is given up.

    Only the main thread of a process can be interrupted: ``doit -P thread`` is not bounded.
    """
    global _installed  # noqa: PLW0603 - asking the signal module costs more, for each directory
    signal.signal(signal.SIGVTALRM, _tick)
    _installed = True


def start() -> None:
    """Start the timer of this process, once; a forked process has none of its own. Without `install`, do nothing."""
    if _installed:
        _start(os.getpid())


@functools.cache
def _start(process: int) -> None:  # noqa: ARG001 - the key of the cache
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, SECONDS)
    atexit.register(signal.setitimer, signal.ITIMER_VIRTUAL, 0)  # Python takes its handlers away before it ends


def _tick(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    global _last  # noqa: PLW0603 - a signal has no other way to remember
    now = (id(frame), frame.f_locals["name"]) if frame and frame.f_code is fits.__code__ else None
    if now is not None and now == _last:
        _last = None
        raise TimeoutError
    _last = now
