"""Ctrl-C and SIGTERM: the step at hand is finished, nothing new is begun, and what was done is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
from types import FrameType

EXIT_CODE = 130

_main = os.getpid()
_asked = False


def install() -> None:
    """From now on, take signals as a wish to stop soon. A second one ends the process at once; the next run repairs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)


def stopped() -> bool:
    """Say whether the run is to end before the next change."""
    return _asked


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    global _asked  # noqa: PLW0603 - a signal has no other way to tell
    is_main = os.getpid() == _main
    if (_asked and is_main) or (number == signal.SIGTERM and not is_main):
        os._exit(EXIT_CODE)
    _asked = True
    if is_main:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGINT)
