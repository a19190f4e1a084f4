"""Prepare a run that changes something: check the state folder, take the lock, and finish an interrupted run."""

from __future__ import annotations

import contextlib
import functools
import os
import time

from ckptrules.changes.journals import unfinished_journals
from ckptrules.engine.measures import visible
from ckptrules.engine.state_folder import JOURNALS
from ckptrules.run.hints import quoted
from ckptrules.run.options import OptionError
from ckptrules.run.refusing import refusal_of
from ckptrules.run.session import Session, once
from ckptrules.storage import believing, reading, state, trash
from ckptrules.storage.base import FULL, LockedError
from ckptrules.storage.posix import Disk

PURGE = "'doit purge' frees what waits in the trash"
LITTLE = (
    "some 100 kB are enough to begin: remove some file by hand (df -h). 'doit plan delete_old=1' needs no space; "
    "trash_days: 0 in the rules frees at once what is deleted"
)


def refuse_state(session: Session) -> None:
    """Refuse a state folder that others could have written.

    Raises:
        OptionError: with the place, and a hint.
    """
    every = session.line.asked().values()
    for options in (one for one in every if one.needs_outputs and one.believes_state):
        path = options.outputs_dir
        try:
            _look_at_state(session, path)
            if options.reads_journals:
                unfinished_journals(Disk(path))  # opens each, and so checks who could write it
        except reading.StateError as error:
            raise OptionError(refusal_of(error), place="") from None
        except OSError:  # the command reports it when it reads the file
            continue


@once
def _look_at_state(_: Session, path: str) -> None:
    """Check a state folder, once; pass over the modes where the file system has none for each file (FAT)."""
    try:
        believing.refuse_state(path)
    except reading.StateError as error:
        if not error.is_open or state.keeps_modes(path):
            raise
        believing.NO_MODES.add(os.stat(path).st_dev)
        believing.refuse_state(path)


def take_lock(session: Session, path: str, wait: int = 0) -> None:
    """Take the lock of ``outputs_dir``, once, until the session ends; wait for it at most ``wait`` seconds.

    Raises:
        OptionError: another run holds the lock, or ``outputs_dir`` cannot be written.
    """
    folder = os.path.realpath(path)
    if folder in session.locks:
        return
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = f"process {os.getpid()} on {os.uname().nodename}, since {started}"
    try:
        lock = session.cleanup.enter_context(Disk(path).lock(holder, wait, functools.partial(_say, session)))
        session.locks[folder] = lock.descriptor
    except LockedError as other:
        hint = "wait=60 waits a minute for it to finish; the lock goes with its holder"
        raise OptionError(visible(str(other)), hint, f"another run is at work in '{path}'") from None
    except OSError as error:
        raise OptionError(cannot_be_written(path, f"outputs_dir '{path}'", error), place="") from None


def recover_first(session: Session, path: str) -> None:
    """Finish what an interrupted run began, and print that; what cannot be finished is a problem.

    Raises:
        OptionError: the journals cannot be read, so nothing is begun.
        OSError: somebody else could write into the user's own state.
    """
    from ckptrules.run import pinning  # not above: tasks of the user's own do without
    from ckptrules.run.finding import find_anew
    from ckptrules.run.records import begun

    own, sentences = believing.own_state(path), []
    try:
        begun(session, path)
        if any(unfinished_journals(Disk(root)) for root in (path, own) if root):
            from ckptrules.changes.recovery import recover

            recovered = recover(path, own)
            session.problems_before |= bool(recovered.left)
            sentences = [*recovered.done, *recovered.left]
        state.clear_work(path)
    except OSError as error:
        fact = f"{path}/{JOURNALS} cannot be read or written: {os.strerror(error.errno or 0)}"
        if isinstance(error, reading.StateError):
            raise OptionError(refusal_of(error), place="") from None
        raise OptionError(fact, "look at it: ls -la; nothing is begun without a journal", place="") from None
    find_anew(session)  # another run may have changed the tree before the lock was free
    pinning.read_anew(session)
    for sentence in sentences:
        _say(session, sentence)


def _say(session: Session, sentence: str) -> None:
    with contextlib.suppress(OSError):  # the reporter prints that the output cannot be written
        print(session.completed(visible(sentence)), flush=True)


def cannot_be_written(path: str, what: str, error: OSError) -> str:
    """Return the text that ``what``, a part of the state in a folder of outputs, cannot be written, with a hint."""
    if isinstance(error, reading.StateError):
        return refusal_of(error)
    fact = f"{what} cannot be written: {os.strerror(error.errno or 0)}"
    if isinstance(error, PermissionError):
        return f"{fact}\n    hint: let its owner run this, or share it with your group: chmod g+rwx {quoted(path)}"
    if error.errno in FULL:
        can_purge = any(trash.trash_runs(Disk(path)))
        return f"{fact}\n    hint: {PURGE if can_purge else LITTLE}"
    return fact
