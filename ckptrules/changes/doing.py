"""Does units, each wholly or not at all, by whatever kinds of steps they are made of."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Mapping, Sequence

from ckptrules import stopping
from ckptrules.changes.journal import HALF_DONE
from ckptrules.changes.kinds import KINDS
from ckptrules.changes.units import NOT_BEGUN
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import LEADS_NOWHERE
from ckptrules.storage.base import Changed, HalfWayError
from ckptrules.storage.reading import refuse_path, why_of
from ckptrules.storage.state import Folders

BY_OTHERS = (FileExistsError, FileNotFoundError, Changed)  # somebody else was at work


class HalfDone(str):
    """Why a unit could not be done, where what was done of it could not be taken back: the next run finishes it."""

    __slots__ = ()


def do_step(folders: Folders, step: Step) -> None:
    """Make one change, or none.

    Raises:
        FileExistsError: the new name is taken.
        FileNotFoundError: nothing stands under the old name.
        Changed: something else stands there.
        OSError: the system refuses.
    """
    refuse_path(step.name)
    try:
        KINDS[step.kind].do(folders, step)
    except BY_OTHERS:
        raise
    except OSError:
        with contextlib.suppress(OSError):
            if is_done(folders, step):  # the answer of a server was lost
                return
        raise


def begins(folders: Folders, step: Step) -> bool:
    """Say whether a step could be made by what stands there now (`Kind.begins`); not where that cannot be seen."""
    try:
        return KINDS[step.kind].begins(folders, step)
    except OSError:
        return False


def is_done(folders: Folders, step: Step, *, taken_again: bool = False) -> bool:
    """Say whether a step was made already (`Kind.is_done`); OSError where that cannot be seen."""
    try:
        refuse_path(step.name)
        return KINDS[step.kind].is_done(folders, step, taken_again=taken_again)
    except OSError as error:
        if error.errno not in (*LEADS_NOWHERE, errno.EINVAL):
            raise
        return False  # nothing stands there, or nothing of that kind


def do_units(folders: Folders, units: Sequence[Unit]) -> dict[int, str]:
    """Do units, each wholly or not at all; return the numbers of those that were not done, and why.

    None is begun once the run is to end, or one is half done: only the last that was begun can be finished.
    """
    failed, is_over = dict[int, str](), False
    for number, unit in enumerate(units):
        is_over |= stopping.stopped()
        if why := NOT_BEGUN if is_over else do_unit(folders, unit.steps):
            failed[number] = why
            is_over |= isinstance(why, HalfDone)
    return failed


def half_done(failed: Mapping[int, str]) -> str:
    """Return why a unit is half done, if one is."""
    return next((why for why in failed.values() if isinstance(why, HalfDone)), "")


def do_unit(folders: Folders, steps: Sequence[Step], before: Sequence[Step] = ()) -> str:
    """Do steps, all or none (``before`` were done already); return why it could not be, or nothing."""
    done = list(before)
    for step in steps:
        try:
            do_step(folders, step)
            done.append(step)
        except OSError as error:
            head = next((one for one in steps if not KINDS[one.kind].turn), step)
            why = why_of(error) if not before and step is head else f"{step.name}: {why_of(error)}"
            if isinstance(error, HalfWayError):
                return HalfDone(f"{why}, so it {HALF_DONE}")
            return _taken_back(folders, done, why)
    return ""


def _taken_back(folders: Folders, done: Sequence[Step], why: str) -> str:
    """Take steps back, as many as can be, and return why that is, with what could not be."""
    for step in reversed(done):
        try:
            do_step(folders, KINDS[step.kind].inverse(step))
        except BY_OTHERS as error:
            # No later run can mend it, and what else was done is on no record.
            why = f"{why}; {step.to} could not be taken back: {why_of(error)}"
        except OSError as error:
            return HalfDone(f"{why}; {step.to} could not be taken back: {why_of(error)}, so it {HALF_DONE}")
    return why
