"""Does units: each wholly or not at all, whatever kinds its steps have."""

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

BY_OTHERS = (FileExistsError, FileNotFoundError, Changed)  # errors that show that another program was at work


class HalfDone(str):
    """Why a unit could be neither done nor taken back; the next run finishes it."""

    __slots__ = ()


def do_step(folders: Folders, step: Step) -> None:
    """Do one step, or change nothing.

    Raises:
        FileExistsError: the new name is taken.
        FileNotFoundError: the old name is free.
        Changed: the old name has another content.
        OSError: the system refuses.
    """
    refuse_path(step.name)
    try:
        KINDS[step.kind].do(folders, step)
    except BY_OTHERS:
        raise
    except OSError:
        with contextlib.suppress(OSError):
            if is_done(folders, step):  # a server has done it, and its answer was lost
                return
        raise


def begins(folders: Folders, step: Step) -> bool:
    """Return whether a step could be done now (`Kind.begins`); False if that cannot be seen."""
    try:
        return KINDS[step.kind].begins(folders, step)
    except OSError:
        return False


def is_done(folders: Folders, step: Step, *, taken_again: bool = False) -> bool:
    """Return whether a step is done already (`Kind.is_done`); OSError if that cannot be seen."""
    try:
        refuse_path(step.name)
        return KINDS[step.kind].is_done(folders, step, taken_again=taken_again)
    except OSError as error:
        if error.errno not in (*LEADS_NOWHERE, errno.EINVAL):
            raise
        return False  # the name is free, or is no link or file as the step needs it


def do_units(folders: Folders, units: Sequence[Unit]) -> dict[int, str]:
    """Do units, each wholly or not at all; return the numbers of those that were not done, and why.

    No unit is begun once the run is to stop, or once one is half done: `recovery` finishes only the last one begun.
    """
    failed, is_over = dict[int, str](), False
    for number, unit in enumerate(units):
        is_over |= stopping.stopped()
        if why := NOT_BEGUN if is_over else do_unit(folders, unit.steps):
            failed[number] = why
            is_over |= isinstance(why, HalfDone)
    return failed


def half_done(failed: Mapping[int, str]) -> str:
    """Return why a unit is half done; an empty text if none is."""
    return next((why for why in failed.values() if isinstance(why, HalfDone)), "")


def do_unit(folders: Folders, steps: Sequence[Step], before: Sequence[Step] = ()) -> str:
    """Do all of some steps, or none; return why not, or an empty text. ``before`` are the steps done already."""
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
    """Take steps back, as far as possible; return ``why``, and what could not be taken back."""
    for step in reversed(done):
        try:
            do_step(folders, KINDS[step.kind].inverse(step))
        except BY_OTHERS as error:  # no later run can mend this, so the unit counts as not done
            why = f"{why}; {step.to} could not be taken back: {why_of(error)}"
        except OSError as error:
            return HalfDone(f"{why}; {step.to} could not be taken back: {why_of(error)}, so it {HALF_DONE}")
    return why
