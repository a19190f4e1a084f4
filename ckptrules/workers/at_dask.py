"""What a Dask worker does: it proves that it can, does a piece of work, tells how far it is, and heeds a wish to stop.

Nothing of Dask is imported here: in a worker it is there.
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
TELL = 0.5  # seconds between two words on how far it is
AWAY = 30.0  # seconds in which a worker that does not fit is sent away
PYTHON = ".".join(platform.python_version_tuple()[:2])
SAME = "\n    hint: install the same on all machines"
MOUNT = "\n    hint: all machines must have the same folders under the same paths"


class Terms(NamedTuple):
    """What a worker must agree with before it does anything for a run.

    Paths begin in ``folder``. Who sees all ``tokens`` sees the same files as the main process; ``no_modes`` are folders
    in which modes of files tell nothing.
    """

    run: str
    version: str
    python: str
    folder: str
    tokens: tuple[str, ...] = ()
    no_modes: tuple[str, ...] = ()


class UnfitError(Exception):
    """A worker cannot do what it is asked to."""


_alone = threading.Lock()  # a process has one current folder, and one run whose wish to stop it heeds
_joined: set[str] = set()  # runs
_stopped: set[str] = set()  # likewise


def join(terms: Terms) -> str:
    """Make ready for a run, or say why that cannot be, with what helps."""
    if (ckptrules.__version__, PYTHON) != (terms.version, terms.python):
        ours = f"ckptrules {ckptrules.__version__} on Python {PYTHON}"
        return f"has {ours}; here is {terms.version} on {terms.python}{SAME}"
    for path in (terms.folder, *terms.tokens):
        if not os.path.exists(path):
            return f"does not see {path}{MOUNT}"
    believing.NO_MODES.update(os.stat(os.path.join(terms.folder, path)).st_dev for path in terms.no_modes)
    with contextlib.suppress(ValueError):  # in the main thread only
        ignore_lease_breaks()
    _joined.add(terms.run)
    return ""


def stop(run: str) -> None:
    """Let go of what is at work for a run."""
    _stopped.add(run)


def do_files(terms: Terms, rate: float | None, work: Work[File, Answer], files: Sequence[File]) -> list[Answer | Lost]:
    """Do a piece, as `pieces.do_piece`, with so many bytes a second at most, if that is limited."""
    with _at_work(terms) as progress:
        return do_piece(work, files, Limiter(rate).held(progress) if rate else progress)


def do_whole(terms: Terms, work: Callable[..., Answer], values: Sequence[Any]) -> Answer:
    """Do a piece of work that tells nothing before its end."""
    with _at_work(terms):
        return work(*values)


@contextlib.contextmanager
def _at_work(terms: Terms) -> Iterator[Progress]:
    if terms.run not in _joined and (why := join(terms)):
        _wait_to_be_sent_away(terms)
        raise UnfitError(why)
    told = _Told(terms.run)
    with _alone:
        os.chdir(terms.folder)
        stopping.share(_Wish(terms.run))
        try:
            yield told
        finally:
            stopping.share(_Wish(""))
            told.tell()


def _wait_to_be_sent_away(terms: Terms) -> None:
    """Give the main process the time to look who has come: else the same worker would take the same piece again."""
    from distributed import get_worker

    worker, until = get_worker(), time.monotonic() + AWAY
    while terms.run not in _stopped and time.monotonic() < until and worker.status.name not in ("closing", "closed"):
        time.sleep(TELL)


class _Wish:
    """The wish to stop a run, in the form that `stopping.share` takes; that of an earlier one is of no matter."""

    def __init__(self, run: str) -> None:
        self._run = run

    def __getitem__(self, place: int) -> int:
        return stopping.ASKED if place == stopping.WISH and self._run in _stopped else 0

    def __setitem__(self, place: int, value: float) -> None: ...


class _Told:
    """Takes the bytes done, and tells the main process of them now and then."""

    def __init__(self, run: str) -> None:
        from distributed import get_worker

        self._worker, self._run = get_worker(), run
        self._count, self._next = 0, time.monotonic() + TELL

    def __call__(self, count: int) -> None:
        stopping.heed()
        self._count += count
        if time.monotonic() > self._next:
            self.tell()

    def tell(self) -> None:
        """Tell what has not been told yet."""
        if self._count:
            self._worker.log_event(TOPIC, {"run": self._run, "done": self._count})
        self._count, self._next = 0, time.monotonic() + TELL
