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

EXIT_CODE = 130
FAILED = 2
POLL = 0.5  # seconds
KILLED = """ERROR: a worker was killed by signal {} (9: was the memory full?)
    hint: run again, with fewer processes (doit -n 0 migrate); what was begun is finished then
"""

_main = _here = os.getpid()
_asked = False


def install() -> None:
    """From now on, take signals as a wish to stop soon. A second one ends the process at once; the next run repairs."""
    global _here  # noqa: PLW0603 - a fork has no other way to tell
    _here = os.getpid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)
    os.register_at_fork(before=_expect_workers, after_in_child=_follow_main)


def stopped() -> bool:
    """Say whether the run is to end before the next change."""
    return _asked


@functools.cache
def _expect_workers() -> None:
    """See to the end of the workers, before the first one is made."""
    atexit.register(_end_workers)  # not before: what is registered last is called first, and Python would wait for them
    signal.signal(signal.SIGCHLD, _end_with_worker)


def _end_with_worker(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    """End when a worker was killed: doit would wait for its answer for ever, and hold the lock."""
    workers = getattr(multiprocessing.process, "_children", ()) if os.getpid() == _main else ()
    codes = [worker.exitcode or 0 for worker in tuple(workers)]  # `active_children` forgets those that have ended
    if min(codes, default=0) >= 0:
        return
    with contextlib.suppress(OSError, RuntimeError):  # the signal may have come in the middle of a write
        sys.stdout.flush()
    with contextlib.suppress(OSError, RuntimeError):
        print(KILLED.format(-min(codes)), end="", file=sys.stderr, flush=True)
    _end_workers()
    os._exit(FAILED)


def _follow_main() -> None:
    """In a worker, see to it that it ends with the main process: else it would wait for ever, and hold the lock.

    Who made it is not asked of the system: the main process may be gone already.
    """
    global _here
    parent, _here = _here, os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if parent == _main:
        threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    while os.getppid() == _main:
        time.sleep(POLL)
    os._exit(EXIT_CODE)


def _end_workers() -> None:
    """End the workers that doit has left waiting: they take its SIGTERM as a wish, and Python would wait for them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


def _note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape that signal wants
    global _asked  # noqa: PLW0603 - a signal has no other way to tell
    is_main = os.getpid() == _main
    if _asked and is_main:
        os._exit(EXIT_CODE)
    _asked = True
    if is_main:
        for worker in multiprocessing.active_children():
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGINT)
