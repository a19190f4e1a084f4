"""The one transaction: journal the intent, change the storage, journal the outcome."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ckptrules.changes.doing import do_units, half_done
from ckptrules.changes.journal import Journal, UnitRef
from ckptrules.changes.units import (
    NOT_RECORDED,
    Transacted,
    after,
    names_left,
    to_be_freed,
    units_of,
)
from ckptrules.engine.actions import Plan, Unit
from ckptrules.engine.entries import Listing, Stamp
from ckptrules.outputs.evidence import obstacle
from ckptrules.storage import moving, trash
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.state import Folders


class Workplace(NamedTuple):
    """Where a run changes things, and its record.

    ``texts`` says that ``outputs_dir`` is the user's own state, from which texts elsewhere are rewritten.
    """

    outputs_dir: str
    journal: Journal
    texts: bool = False


class Outcome(NamedTuple):
    """What a plan came to; ``stamp`` is None where the next run must look at the directory again."""

    plan: Plan
    stamp: Stamp | None


def transact(
    place: Workplace,
    experiment: str,
    directory: str,
    units: Sequence[Unit],
    *,
    takes_back: Sequence[UnitRef] = (),
    kept: int = 0,
    frees: Collection[int] = (),
) -> Transacted:
    """Record what is about to happen, do it, record what came of it: the one way to change a tree.

    Args:
        place: where and how.
        experiment: whom it is for, in the words of the user.
        directory: where it happens, below ``outputs_dir``.
        units: what is to happen; each wholly or not at all.
        takes_back: what an undo takes back, in the order of the units.
        kept: the number of checkpoints that are to stay.
        frees: the numbers of the units whose space is freed as soon as they are in the trash.
    """
    try:
        number = place.journal.intend(experiment, directory, units, takes_back, kept)
    except OSError as error:
        return Transacted(dict.fromkeys(range(len(units)), NOT_RECORDED), unrecorded=why_of(error))
    with Folders(place.outputs_dir, texts=place.texts) as folders:
        failed = do_units(folders, units)
        if half_done(failed):
            place.journal.leave_open()
            return Transacted(failed)
        freed = [one for one in frees if one not in failed]
        left: dict[int, str] = {}
        try:
            place.journal.conclude(number, failed, freed)
            if left := _free(folders, units, freed):
                place.journal.conclude(number, failed, [one for one in freed if one not in left])
        except OSError as error:
            return Transacted(failed, left, why_of(error))
    return Transacted(failed, left)


def carry_out(plan: Plan, listing: Listing, place: Workplace, trash_days: int) -> Outcome:
    """Carry out one plan and return what came of it: actions that failed have become problems.

    With no ``trash_days``, the space of what the policy lets go is freed at once.
    """
    if plan.problems and not plan.actions:
        return Outcome(plan, None)
    with Folders(place.outputs_dir) as folders:
        directory = folders.descriptor(plan.directory)
        if not plan.actions:
            return Outcome(plan, stamp_after(directory, plan, listing, changed=False))
        if problem := obstacle(directory, plan):
            return Outcome(plan._replace(actions=(), problems=(*plan.problems, problem)), None)
        units = units_of(plan, listing, place.journal.run)
        frees = () if trash_days else to_be_freed(plan)
        done = transact(place, plan.experiment, plan.directory, units, kept=len(plan.staying), frees=frees)
        outcome = after(plan, done)
        if outcome.problems:
            return Outcome(outcome, None)
        return Outcome(outcome, stamp_after(directory, outcome, listing, changed=True))


def _free(folders: Folders, units: Sequence[Unit], numbers: Iterable[int]) -> dict[int, str]:
    """Free the space of some units, and return those that could not be removed, and why: they stay in the trash.

    That they are freed is on record before: a crash while freeing must not hide it.
    """
    left = {}
    for number in numbers:
        try:
            for step in units[number].steps:
                trash.free_at_once(Disk(folders.outputs_dir), step)
        except OSError as error:
            left[number] = why_of(error)
    return left


def stamp_after(directory: int, plan: Plan, listing: Listing, *, changed: bool) -> Stamp | None:
    """Return the stamp to remember a directory by in which a plan was carried out; see `moving.stamp_to_remember`."""
    plain = all(entry.kind == "file" for entry in listing.entries) and not any(a.leaves_link for a in plan.actions)
    return moving.stamp_to_remember(directory, names_left(plan, listing), plain=plain, changed=changed)
