"""Runs in a worker of Dask: checks that it fits, does pieces of work, reports progress, stops when the run does.

Does not import Dask at once, as the main process imports this module, too.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import ckptrules
from ckptrules import stopping
from ckptrules.outputs.in_use import ignore_lease_breaks
from ckptrules.storage import believing
from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import Answer, File, Lost, Work, do_piece
from ckptrules.workers.rate import Limiter

TOPIC = "ckptrules"
REPORT_EVERY = 0.5  # seconds
AWAY = 30.0  # seconds in which the main process sends away a worker that does not fit
PYTHON = ".".join(platform.python_version_tuple()[:2])
SAME = "\n    hint: install the same on all machines"
MOUNT = "\n    hint: all machines must have the same folders under the same paths"


class Terms(NamedTuple):
    """What a worker must fulfil before it works for a run.

    Attributes:
        run: the id of the run.
        version, python: the versions of ckptrules and Python.
        folder: the current folder, in which relative paths begin.
        tokens: files that the main process has made; a worker that sees them all sees the same folders.
        no_modes: folders on file systems without modes of files.
    """

    run: str
    version: str
    python: str
    folder: str
    tokens: tuple[str, ...] = ()
    no_modes: tuple[str, ...] = ()


class UnfitError(Exception):
    """A worker does not fulfil the terms of a run."""


_alone = threading.Lock()  # for one run at a time: a process has one current folder, and one request to stop
_joined: set[str] = set()  # ids of runs
_stopped: set[str] = set()  # ids of runs


def join(terms: Terms) -> str:
    """Prepare this worker for a run; return why it does not fit, with a hint, or an empty text."""
    if (ckptrules.__version__, PYTHON) != (terms.version, terms.python):
        ours = f"ckptrules {ckptrules.__version__} on Python {PYTHON}"
        return f"has {ours}; here is {terms.version} on {terms.python}{SAME}"
    for path in (terms.folder, *terms.tokens):
        if not os.path.exists(path):
            return f"does not see {path}{MOUNT}"
    believing.NO_MODES.update(os.stat(os.path.join(terms.folder, path)).st_dev for path in terms.no_modes)
    with contextlib.suppress(ValueError):  # possible in the main thread only
        ignore_lease_breaks()
    _joined.add(terms.run)
    return ""


def stop(run: str) -> None:
    """Stop all work for a run."""
    _stopped.add(run)


def do_files(terms: Terms, rate: float | None, work: Work[File, Answer], files: Sequence[File]) -> list[Answer | Lost]:
    """Do a piece, as `pieces.do_piece`, with at most ``rate`` bytes a second."""
    with _at_work(terms) as progress:
        return do_piece(work, files, Limiter(rate).limited(progress) if rate else progress)


def do_whole(terms: Terms, work: Callable[..., Answer], values: Sequence[Any]) -> Answer:
    """Do a piece of work that reports no progress."""
    with _at_work(terms):
        return work(*values)


@contextlib.contextmanager
def _at_work(terms: Terms) -> Iterator[Progress]:
    if terms.run not in _joined and (why := join(terms)):
        _wait_to_be_sent_away(terms)
        raise UnfitError(why)
    reporter = _Reporter(terms.run)
    with _alone:
        os.chdir(terms.folder)
        stopping.share(_Request(terms.run))
        try:
            yield reporter
        finally:
            stopping.share(_Request(""))
            reporter.send()


def _wait_to_be_sent_away(terms: Terms) -> None:
    """Wait until the main process has noticed this worker, which would else take the same piece again."""
    from distributed import get_worker

    worker, until = get_worker(), time.monotonic() + AWAY
    while terms.run not in _stopped and time.monotonic() < until and worker.status.name not in ("closing", "closed"):
        time.sleep(REPORT_EVERY)


class _Request:
    """The request to stop one run, in the form that `stopping.share` takes; requests of earlier runs do not count."""

    def __init__(self, run: str) -> None:
        self._run = run

    def __getitem__(self, place: int) -> int:
        return stopping.ASKED if place == stopping.WISH and self._run in _stopped else 0

    def __setitem__(self, place: int, value: float) -> None: ...


class _Reporter:
    """A `Progress` that reports to the main process now and then, and ends the work if the run is to stop."""

    def __init__(self, run: str) -> None:
        from distributed import get_worker

        self._worker, self._run = get_worker(), run
        self._count, self._next = 0, time.monotonic() + REPORT_EVERY

    def __call__(self, count: int) -> None:
        stopping.heed()
        self._count += count
        if time.monotonic() > self._next:
            self.send()

    def send(self) -> None:
        """Report the bytes done since the last report."""
        if self._count:
            self._worker.log_event(TOPIC, {"run": self._run, "done": self._count})
        self._count, self._next = 0, time.monotonic() + REPORT_EVERY
