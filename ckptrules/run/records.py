"""The records of a run: its header, its number, its journals, and how fast it was."""

from __future__ import annotations

import contextlib
import functools
import getpass
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ckptrules import stopping
from ckptrules.changes import clock, journals
from ckptrules.changes.clock import LastRun
from ckptrules.changes.journal import Journal
from ckptrules.engine.measures import NS, SECONDS, human_size, human_time, rate
from ckptrules.engine.state_folder import LAST_RUN, RATES
from ckptrules.run.options import Common
from ckptrules.run.progress import MUCH
from ckptrules.run.session import Session, once
from ckptrules.storage import notes, trash
from ckptrules.storage.base import FULL, Storage
from ckptrules.storage.posix import Disk

DAY = SECONDS["d"]
UNKNOWN = "not known yet, as no such run here has moved a GB"


class Journals:
    """The journals of one run, one for each thread; each process has its own."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._of: dict[tuple[str, int], Journal] = {}

    def __reduce__(self) -> tuple[Callable[[str], Journals], tuple[str]]:
        return _journals_there, (self._run,)

    def of_this_thread(self, root: str, header: Mapping[str, Any]) -> Journal:
        """Open the journal of this thread, once, in the state folder below ``root``."""
        key = (root, threading.get_native_id())
        if key not in self._of:
            self._of[key] = Journal(Disk(root), self._run, key[1], header)
        return self._of[key]


@functools.cache
def _journals_there(run: str) -> Journals:
    """Return the journals of a run in a worker process, which has no session."""
    return Journals(run)


def run_header(session: Session, command: str, options: Common, **more: Any) -> dict[str, Any]:
    """Return the header of a run, for its journal and its JSON file; ``run`` is None if it changes nothing."""
    return {
        "command": command,
        "selected": session.selected(command),
        "dry_run": options.dry_run,
        "run": session.run_id if options.changes and not options.dry_run else None,
        "started_ns": session.started_ns,
        "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.started_ns / NS)),
        "who": who(),
        "host": os.uname().nodename,
        "options": options.given(),
        **more,
    }


def who() -> str:
    """Return the name of the user, or the number of a user without a name (in a container)."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # which of them depends on the version of Python
        return str(os.getuid())


class Begun(NamedTuple):
    """A run that may change something: its record, and how the clock has leapt since the run before, if it has."""

    last: LastRun
    leap: str


@once
def begun(session: Session, outputs_dir: str) -> Begun:
    """Give this run its number, once, under the lock; note a run before it that was killed, and check the clock.

    Raises:
        OSError: the record cannot be written.
    """
    storage = Disk(outputs_dir)
    now, last = journals.clocks(storage), _last(storage)
    highest = 0 if last else clock.highest(journals.journal_headers(storage))
    this = clock.begin(last, highest, now, trash.trash_runs(storage))._replace(at_work=session.run_id)
    if last and last.at_work:
        try:
            journals.end_early(storage, last.at_work)
        except OSError as error:  # on a full disk, history does without the note
            if error.errno not in FULL:
                raise
    _note(storage, this)
    session.cleanup.callback(ended, outputs_dir, session.run_id)  # in case doit uses another reporter than ours
    return Begun(this, clock.leap(last, now))


def ended(outputs_dir: str, run: str, *, killed: bool = False) -> None:
    """Note that a run has ended, unless another one has taken over its lock.

    If the run was stopped, or a worker was ``killed``, its journals note an early end.
    """
    storage = Disk(outputs_dir)
    last = _last(storage)
    if last and last.at_work == run and not stopping.is_lost():
        with contextlib.suppress(OSError):  # then history shows it as killed
            if killed or stopping.stopped():
                journals.end_early(storage, run)
            _note(storage, last._replace(at_work=""))


def at_work(outputs_dir: str) -> str:
    """Return the id of the run that is at work, or was killed; an empty text if the last run has ended."""
    last = _last(Disk(outputs_dir))
    return last.at_work if last else ""


def _last(storage: Storage) -> LastRun | None:
    return clock.read(notes.read_note(storage, LAST_RUN))


def _note(storage: Storage, last: LastRun) -> None:
    try:
        notes.write_note(storage, LAST_RUN, clock.write(last))
    except OSError as error:
        if error.errno not in FULL:
            raise
        notes.drop_note(storage, LAST_RUN)  # a full disk must not stop a purge; the next run reads the journals


def waits_since(outputs_dir: str, run: str) -> float:
    """Return the time from which the trash of a run waits to be freed, in seconds since 1970."""
    return clock.waits_since(_last(Disk(outputs_dir)), run, trash.run_started(run))


def waiting_runs(outputs_dir: str, days: float) -> list[str]:
    """List the runs whose trash has waited for ``days`` by a clock that has not leapt; with 0 all runs with trash."""
    now, runs = time.time(), trash.trash_runs(Disk(outputs_dir))
    return [run for run in runs if not days or (now - waits_since(outputs_dir, run)) / DAY >= days]


def zoned(seconds: float) -> str | None:
    """Return a time since 1970 as local time with its offset from UTC; None for a time that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return None


@once
def journals_of(session: Session) -> Journals:
    """Return the journals of this run."""
    return Journals(session.run_id)


def open_journal(session: Session, command: str, options: Common, own_state: str = "") -> Journal:
    """Open the journal of this thread, once, below ``own_state`` (the user's own state) or else ``outputs_dir``."""
    path = options.outputs_dir
    header = run_header(session, command, options, number=begun(session, path).last.number)
    return journals_of(session).of_this_thread(own_state or path, header)


# --- the expected time of a command: by ``max_rate``, or by the last run here that moved much -------------------------


def expected_time(command: str, options: Common, size: int) -> list[str]:
    """Return a line on how long ``size`` bytes take; none for few bytes whose rate is not known."""
    text = time_text(size, options.max_rate, rates(options.outputs_dir).get(command)) if size else ""
    return [f"Expected time: {text}"] if text else []


def time_text(size: int, max_rate: str | None, last: int | None) -> str:
    """Say how long ``size`` bytes take, by ``max_rate`` or the rate of the ``last`` run, whichever is lower."""
    if max_rate and not (last and last < rate(max_rate)):
        return f"{_time(size, rate(max_rate))}, at max_rate={max_rate}"
    if last:
        return f"{_time(size, last)}, at {human_size(last)}/s as in the last such run here"
    return UNKNOWN if size >= MUCH else ""


def _time(size: int, rate: int) -> str:
    return f"about {human_time(-(-size // rate), up=True)}"


def note_rate(session: Session) -> None:
    """Note the rate of a run that moved much, unless ``max_rate`` held it back."""
    asked = [(command, options) for command, options in session.line.asked().items() if "max_rate" in options.known()]
    if len(asked) != 1:
        return
    command, options = asked[0]
    if options.max_rate or options.dry_run:
        return
    found = {**rates(options.outputs_dir), command: int(session.bar.passed / session.bar.seconds)}
    with contextlib.suppress(OSError):  # then the next preview has an older rate
        notes.write_note(Disk(options.outputs_dir), RATES, f"{json.dumps(found, sort_keys=True)}\n")


def rates(outputs_dir: str) -> dict[str, int]:
    """Return the rates of earlier runs by command, in bytes a second; empty if the note is damaged."""
    with contextlib.suppress(ValueError, RecursionError, AttributeError):
        noted = json.loads(notes.read_note(Disk(outputs_dir), RATES))
        return {command: rate for command, rate in noted.items() if type(rate) is int and rate > 0}
    return {}
