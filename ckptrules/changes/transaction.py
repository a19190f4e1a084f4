"""The one transaction: journal the intent, change the disk, journal the outcome."""

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


class JournalledTree(NamedTuple):
    """A tree that a run changes, and the journal of the run.

    ``texts`` says that ``outputs_dir`` is the user's own state, so that texts elsewhere may be rewritten.
    """

    outputs_dir: str
    journal: Journal
    texts: bool = False


class Outcome(NamedTuple):
    """A plan after it was carried out; ``stamp`` is None if the next run must look at the directory again."""

    plan: Plan
    stamp: Stamp | None


def transact(
    tree: JournalledTree,
    experiment: str,
    directory: str,
    units: Sequence[Unit],
    *,
    takes_back: Sequence[UnitRef] = (),
    kept: int = 0,
    frees: Collection[int] = (),
) -> Transacted:
    """Record the intent, do the units, record the outcome: the one way to change a tree.

    Args:
        tree: the tree, and the journal of the run.
        experiment: its name.
        directory: the directory that is changed, below ``outputs_dir``.
        units: the changes, each done wholly or not at all.
        takes_back: the units that an undo takes back, in the order of ``units``.
        kept: the number of checkpoints that are to stay.
        frees: the numbers of the units whose space is freed as soon as they are in the trash.
    """
    try:
        number = tree.journal.intend(experiment, directory, units, takes_back, kept)
    except OSError as error:
        return Transacted(dict.fromkeys(range(len(units)), NOT_RECORDED), unrecorded=why_of(error))
    with Folders(tree.outputs_dir, texts=tree.texts) as folders:
        failed = do_units(folders, units)
        if half_done(failed):
            tree.journal.leave_open()
            return Transacted(failed)
        freed = [one for one in frees if one not in failed]
        left: dict[int, str] = {}
        try:
            tree.journal.conclude(number, failed, freed)
            if left := _free(folders, units, freed):
                tree.journal.conclude(number, failed, [one for one in freed if one not in left])
        except OSError as error:
            return Transacted(failed, left, why_of(error))
    return Transacted(failed, left)


def carry_out(plan: Plan, listing: Listing, tree: JournalledTree, trash_days: int) -> Outcome:
    """Carry out one plan; return it with a problem in place of each action that failed.

    If ``trash_days`` is 0, the space of what the policy deletes is freed at once.
    """
    if plan.problems and not plan.actions:
        return Outcome(plan, None)
    with Folders(tree.outputs_dir) as folders:
        directory = folders.descriptor(plan.directory)
        if not plan.actions:
            return Outcome(plan, stamp_after(directory, plan, listing, changed=False))
        if problem := obstacle(directory, plan):
            return Outcome(plan._replace(actions=(), problems=(*plan.problems, problem)), None)
        units = units_of(plan, listing, tree.journal.run)
        frees = () if trash_days else to_be_freed(plan)
        done = transact(tree, plan.experiment, plan.directory, units, kept=len(plan.staying), frees=frees)
        outcome = after(plan, done)
        if outcome.problems:
            return Outcome(outcome, None)
        return Outcome(outcome, stamp_after(directory, outcome, listing, changed=True))


def _free(folders: Folders, units: Sequence[Unit], numbers: Iterable[int]) -> dict[int, str]:
    """Free the space of some units; return those that stay in the trash, and why.

    The journal already says that they are freed, so a crash cannot hide it.
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
    """Return the stamp of a directory after a plan was carried out in it; see `moving.stamp_to_remember`."""
    plain = all(entry.kind == "file" for entry in listing.entries) and not any(a.leaves_link for a in plan.actions)
    return moving.stamp_to_remember(directory, names_left(plan, listing), plain=plain, changed=changed)
