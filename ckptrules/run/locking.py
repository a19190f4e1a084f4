"""Before a run changes anything: the state is refused or believed, the lock taken, and an interrupted run finished."""

from __future__ import annotations

import contextlib
import functools
import os
import time

from ckptrules.changes.journal import JOURNALS
from ckptrules.changes.journals import unfinished_journals
from ckptrules.engine.measures import visible
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
    """Refuse to act on a state that others could have written.

    Raises:
        OptionError: with its place and what helps.
    """
    for options in filter(lambda options: options.believes_state, session.line.asked().values()):
        path = options.outputs_dir
        try:
            _look_at_state(session, path)
            if options.reads_journals:
                unfinished_journals(Disk(path))  # opens each
        except reading.StateError as error:
            raise OptionError(refusal_of(error), place="") from None
        except OSError:  # told by what needs it
            continue


@once
def _look_at_state(_: Session, path: str) -> None:
    """Look at a state once; where files have no modes of their own (FAT, say), the modes are passed over."""
    try:
        believing.refuse_state(path)
    except reading.StateError as error:
        if not error.is_open or state.keeps_modes(path):
            raise
        believing.NO_MODES.add(os.stat(path).st_dev)
        believing.refuse_state(path)


def take_lock(session: Session, path: str, wait: int = 0) -> None:
    """Take the lock of a folder of outputs, once, for as long as the session lives; ``wait`` is in seconds.

    Raises:
        OptionError: another run has it, or ``outputs_dir`` cannot be written.
    """
    folder = os.path.realpath(path)
    if folder in session.locks:
        return
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = f"process {os.getpid()} on {os.uname().nodename}, since {started}"
    try:
        lock = session.cleanup.enter_context(Disk(path).lock(holder, wait, functools.partial(_tell, session)))
        session.locks[folder] = lock.descriptor
    except LockedError as other:
        hint = "wait=60 waits a minute for it to finish; the lock goes with its holder"
        raise OptionError(visible(str(other)), hint, f"another run is at work in '{path}'") from None
    except OSError as error:
        raise OptionError(cannot_be_written(path, f"outputs_dir '{path}'", error), place="") from None


def recover_first(session: Session, path: str) -> None:
    """Finish what an interrupted run began, and say so; what cannot be read of it is a problem that is left.

    Raises:
        OptionError: the journals cannot be read, so nothing is begun.
        OSError: somebody else could write into the user's own state.
    """
    from ckptrules.run import pinning  # not above: tasks of the user's own need it not
    from ckptrules.run.finding import find_anew
    from ckptrules.run.records import begun

    own, told = believing.own_state(path), []
    try:
        begun(session, path)
        if any(unfinished_journals(Disk(root)) for root in (path, own) if root):
            from ckptrules.changes.recovery import recover

            recovered = recover(path, own)
            session.problems_before |= bool(recovered.left)
            told = [*recovered.told, *recovered.left]
        state.clear_work(path)
    except OSError as error:
        fact = f"{path}/{JOURNALS} cannot be read or written: {os.strerror(error.errno or 0)}"
        if isinstance(error, reading.StateError):
            raise OptionError(refusal_of(error), place="") from None
        raise OptionError(fact, "look at it: ls -la; nothing is begun without a journal", place="") from None
    find_anew(session)  # another run may have been at work until the lock was free
    pinning.read_anew(session)
    for sentence in told:
        _tell(session, sentence)


def _tell(session: Session, sentence: str) -> None:
    with contextlib.suppress(OSError):  # the reporter says that the output cannot be written
        print(session.completed(visible(sentence)), flush=True)


def cannot_be_written(path: str, what: str, error: OSError) -> str:
    """Say that a part of the state of a folder of outputs cannot be written, and what helps."""
    if isinstance(error, reading.StateError):
        return refusal_of(error)
    fact = f"{what} cannot be written: {os.strerror(error.errno or 0)}"
    if isinstance(error, PermissionError):
        return f"{fact}\n    hint: let its owner run this, or share it with your group: chmod g+rwx {quoted(path)}"
    if error.errno in FULL:
        can_purge = any(trash.trash_runs(Disk(path)))
        return f"{fact}\n    hint: {PURGE if can_purge else LITTLE}"
    return fact
