"""Ctrl-C and SIGTERM: the step at hand is finished, nothing new is begun, and what was done is told.

Main process and workers end with each other.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing.process
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

EXIT_CODE = 130
FAILED = 2
POLL = 0.5  # seconds
KILLED = """ERROR: a worker was killed by signal {} (9: was the memory full?)
    hint: run again, with fewer processes ('doit -n 0 migrate'); what was begun is finished then
"""

_main = _here = os.getpid()
_asked = _ending = False
_killed = KILLED


def install(killed: str = KILLED) -> None:
    """From now on, take signals as a wish to stop soon. A second one ends the process at once; the next run repairs.

    Args:
        killed: what is printed when a worker was killed, with a place for the number of the signal.
    """
    global _here, _killed
    _here, _killed = os.getpid(), killed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)
    os.register_at_fork(after_in_parent=_see_to_workers, after_in_child=_follow_main)


def stopped() -> bool:
    """Say whether the run is to end before the next change."""
    return _asked


@functools.cache
def _see_to_workers() -> None:
    """See to the end of the workers, once there is one."""
    atexit.register(_end_workers)  # not before: what is registered last is called first, and Python would wait for them
    threading.Thread(target=_end_with_worker, daemon=True).start()


def _end_with_worker() -> None:
    """End when a worker was killed: doit would wait for its answer for ever, and hold the lock.

    This is a thread, as a signal may come to a thread of the queues while the main one waits in a read.
    """
    while not _ending:
        time.sleep(POLL)
        codes = [worker.exitcode or 0 for worker in _workers()]
        if min(codes, default=0) < 0 and not _ending:
            with contextlib.suppress(OSError, RuntimeError):
                sys.stdout.flush()
            with contextlib.suppress(OSError, RuntimeError):
                print(_killed.format(-min(codes)), end="", file=sys.stderr, flush=True)
            _end_workers()
            os._exit(FAILED)


def _follow_main() -> None:
    """In a worker, see to it that it ends with the main process: else it would wait for ever, and hold the lock.

    Who made it is not asked of the system: the main process may be gone already.
    """
    global _here
    parent, _here = _here, os.getpid()
    if parent == _main:
        threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    while os.getppid() == _main:
        time.sleep(POLL)
    os._exit(EXIT_CODE)


def _end_workers() -> None:
    """End the workers that doit has left waiting: they take its SIGTERM as a wish, and Python would wait for them."""
    global _ending  # noqa: PLW0603 - the thread that watches has no other way to know
    _ending = True
    for worker in _workers():
        worker.kill()
    for worker in _workers():
        worker.join()


def _workers() -> tuple[Any, ...]:
    """List the worker processes. `multiprocessing.active_children` would forget those that were killed."""
    return tuple(getattr(multiprocessing.process, "_children", ()))


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    global _asked  # noqa: PLW0603 - a signal has no other way to tell
    is_main = os.getpid() == _main
    if _asked and is_main:
        os._exit(EXIT_CODE)
    _asked = True
    if is_main:
        for worker in _workers():
            if worker.pid is not None and worker.exitcode is None:
                os.kill(worker.pid, signal.SIGINT)


class StoppedError(Exception):
    """Ctrl-C or SIGTERM came: what was begun is let go, what was finished before stands."""


def heed() -> None:
    """Let go of the work at hand where that is wished.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    if stopped():
        raise StoppedError
