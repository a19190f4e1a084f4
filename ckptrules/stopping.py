"""Ctrl-C and SIGTERM: the step at hand is finished, nothing new is begun, and what was done is told."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

EXIT_CODE = 130
FAILED = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM)

_asked = False
_shared: Any = None  # a byte in the memory of all processes of the run: not 0 when it is to stop


def install() -> None:
    """From now on, take signals as a wish to stop soon. A second one ends the process at once; the next run repairs."""
    for number in SIGNALS:
        signal.signal(number, _note)


def share(byte: Any) -> None:
    """Let the processes of a run know of the wish of one another: of the main process, which alone hears signals."""
    global _shared  # noqa: PLW0603 - a signal has no other way to tell
    _shared = byte
    if _asked:
        _shared.value = 1


def stopped() -> bool:
    """Say whether the run is to end before the next change."""
    return _asked or (_shared is not None and bool(_shared.value))


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    global _asked  # noqa: PLW0603 - a signal has no other way to tell
    if _asked:
        os._exit(EXIT_CODE)
    _asked = True
    if _shared is not None:
        _shared.value = 1


class StoppedError(Exception):
    """Ctrl-C or SIGTERM came: what was begun is let go, what was finished before stands."""


def heed() -> None:
    """Let go of the work at hand where that is wished.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    if stopped():
        raise StoppedError


class KilledError(Exception):
    """A process at work was killed."""
