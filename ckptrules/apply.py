"""Carries out one plan: journal the intent, change the store, journal the outcome; finishes what a crash left."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ckptrules import store
from ckptrules.facts import obstacle
from ckptrules.journal import Intent, Journal, UnitRef, trash_name
from ckptrules.model import (
    FOLLOWING,
    STATE,
    Action,
    Entry,
    Identity,
    Listing,
    Plan,
    Problem,
    Stamp,
    Step,
    Unit,
)
from ckptrules.scan import told

NOT_BEGUN = "not begun, as the run was stopped"
NOT_RECORDED = "not begun, as it could not be recorded"
ADVICE: Mapping[str, str] = {
    os.strerror(errno.EEXIST): "compare the two, keep the better one, delete or rename the other",
    os.strerror(errno.ENOENT): "something else moved it; look where it is now",
    store.CHANGED: "look at it: it is left as it is",
    store.LINK_CHANGED: "look at it: it is left as it is",
    store.NOT_OURS: "let its owner run this, or root",
    os.strerror(errno.EACCES): "look at the owner and the mode: ls -la",
    os.strerror(errno.EPERM): "look at the owner and the mode: ls -la",
    os.strerror(
        errno.EXDEV
    ): "the trash lies on another file system: mount outputs_dir as a whole, or delete it by hand",
    os.strerror(errno.ENAMETOOLONG): "shorten the name",
    store.NEITHER: "copy the tree to another disk, or name the checkpoints by hand",
    os.strerror(errno.ENOSPC): "make space (df -h), and run again",
}


VERBS: Mapping[str, str] = {
    "trash": "be moved to the trash",
    "restore": "be brought back",
    "replace": "be replaced",
    "fix": "get other paths in its state",
    "unfix": "get its old state back",
    "link": "become a link",
    "unlink": "be removed",
    "rewrite": "be rewritten",
}


class Workplace(NamedTuple):
    """Where and how a run changes things. ``stopped`` says whether it is to end before the next change.

    ``texts`` says that ``outputs_dir`` is the user's own state, from which texts elsewhere are rewritten.
    """

    outputs_dir: str
    run: str
    journal: Journal
    trash_days: int
    stopped: Callable[[], bool]
    texts: bool = False


class Done(NamedTuple):
    """What a transaction came to.

    ``failed`` tells which units were not done, by number, and why; ``not_freed`` whose space could not be freed.
    ``unrecorded`` says why the journal could not be written; where that was before the first change, all have failed.
    """

    failed: Mapping[int, str]
    not_freed: Mapping[int, str] = {}
    unrecorded: str = ""


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
) -> Done:
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
        return Done(dict.fromkeys(range(len(units)), NOT_RECORDED), unrecorded=told(error))
    with store.Folders(place.outputs_dir, texts=place.texts) as folders:
        failed = do_units(folders, units, place.stopped)
        freed = [one for one in frees if one not in failed]
        left: dict[int, str] = {}
        try:
            place.journal.conclude(number, failed, freed)
            if left := _free(folders, units, freed):
                place.journal.conclude(number, failed, [one for one in freed if one not in left])
        except OSError as error:
            return Done(failed, left, told(error))
    return Done(failed, left)


def carry_out(plan: Plan, listing: Listing, place: Workplace) -> Outcome:
    """Carry out one plan and return what came of it: actions that failed have become problems."""
    if not plan.actions:
        return Outcome(plan, _look_back(plan, listing, place.outputs_dir))
    with store.Folders(place.outputs_dir) as folders:
        directory = folders.descriptor(plan.directory)
        if problem := obstacle(directory, plan):
            return Outcome(plan._replace(actions=(), problems=(*plan.problems, problem)), None)
        units = units_of(plan, listing, place.run)
        frees = () if place.trash_days else to_be_freed(plan)
        done = transact(place, plan.experiment, plan.directory, units, kept=plan.remaining, frees=frees)
        outcome = after(plan, done.failed, problems_of(plan, done))
        if outcome.problems:
            return Outcome(outcome, None)
        return Outcome(outcome, settle(directory, outcome, listing, changed=True))


# --- units: pure -----------------------------------------------------------------------------------------------------


def units_of(plan: Plan, listing: Listing, run: str) -> list[Unit]:
    """Turn a plan into units, in the order of its heads (`heads`)."""
    identities = {entry.name: _identity(entry) for entry in listing.entries}
    followers: dict[str, list[Action]] = defaultdict(list)
    for action in plan.actions:
        if action.kind in FOLLOWING:
            followers[action.follows].append(action)
    trash = trash_folder(run, plan.directory)
    return [_unit(head, followers.get(head.name, ()), identities, plan.directory, trash) for head in heads(plan)]


def trash_folder(run: str, directory: str) -> str:
    """Return where in the trash lies what a run puts there from a directory; both are paths below ``outputs_dir``."""
    return f"{STATE}/trash/{run}/{directory}".rstrip("/")


def heads(plan: Plan) -> list[Action]:
    """List the actions that are no mere consequence of another: each becomes one unit."""
    return [action for action in plan.actions if action.kind not in FOLLOWING]


def after(plan: Plan, failed: Mapping[int, str], problems: Iterable[Problem] = ()) -> Plan:
    """Return the plan as it came out, given what failed of its heads, by number."""
    done = plan.actions
    if failed:
        lost = {action.name for number, action in enumerate(heads(plan)) if number in failed}
        done = tuple(a for a in plan.actions if (a.follows if a.kind in FOLLOWING else a.name) not in lost)
    return plan._replace(actions=done, problems=(*plan.problems, *problems))


def _unit(
    head: Action, links: Sequence[Action], identities: Mapping[str, Identity], directory: str, trash: str
) -> Unit:
    goes = head.kind == "trash"
    steps = [
        Step(
            "move",
            directory,
            name,
            trash if goes else directory,
            trash_name(name) if goes else to,
            "",
            identities[name],
        )
        for name, to in ((head.name, head.to), *head.with_it)
    ]
    for link in links:
        place = link.directory or directory
        if link.kind == "repoint":
            steps.append(Step("repoint", place, link.name, trash, link.to, link.was))
        else:
            steps.append(Step("relink", place, link.name, place, link.to, link.was))
    if head.leaves_link:
        steps.append(Step("link", directory, head.name, directory, head.to))
    return Unit(head.kind, head.size, tuple(steps))


def _identity(entry: Entry) -> Identity:
    own = Identity._make(entry[1:4]) if entry.kind == "file" else Identity(entry.kind, 0, 0)
    return entry.known_by or own


# --- doing -----------------------------------------------------------------------------------------------------------


def do_units(folders: store.Folders, units: Sequence[Unit], stopped: Callable[[], bool]) -> dict[int, str]:
    """Do units, each wholly or not at all; return the numbers of those that were not done, and why."""
    failed = {}
    for number, unit in enumerate(units):
        if why := NOT_BEGUN if stopped() else _do_unit(folders, unit.steps):
            failed[number] = why
    return failed


def finish(folders: store.Folders, intent: Intent) -> dict[int, str]:
    """Finish what a crash interrupted: a unit that was begun is completed or, where that fails, taken back.

    Units are done in their order, so only the last that was begun can be half done. Those before it were done, or are
    as they were. Returns what `do_units` does. A unit that was not begun stays so: the next plan decides anew.
    """
    failed = {}
    done_of = _done_steps(folders, intent.units)
    last = max((number for number, done in enumerate(done_of) if done), default=-1)
    for number, (unit, done) in enumerate(zip(intent.units, done_of, strict=True)):
        rest = [step for step in unit.steps if step not in done]
        if number > last:
            failed[number] = "not begun, as the run was interrupted"
        elif unit.head in rest and not store.stands(folders, unit.head):  # moved, and changed since: no way back
            _do_unit(folders, rest[1:] if number == last else ())
        elif number < last:
            if unit.head in rest:
                failed[number] = "not done when the run was interrupted"
        elif why := _do_unit(folders, rest, done):
            failed[number] = why
    return failed


def _done_steps(folders: store.Folders, units: Sequence[Unit]) -> list[list[Step]]:
    """List the steps of each unit that were made.

    Later ones first: one may have taken the name that another left, or moved what another has exchanged.
    """
    found: list[list[Step]] = []
    taken: set[tuple[str, str]] = set()
    moved: dict[tuple[str, str], tuple[str, str]] = {}
    for unit in reversed(units):
        done: list[Step] = []
        for step in reversed(unit.steps):
            here = (step.directory, step.name)
            directory, name = moved.get(here, here) if step.kind == "exchange" else here
            if store.is_done(folders, step._replace(directory=directory, name=name), taken_again=here in taken):
                done.insert(0, step)
                if step.kind == "move":
                    taken.add((step.to_directory, step.to))
                    moved[here] = (step.to_directory, step.to)
        found.append(done)
    return found[::-1]


def problems_of(plan: Plan, done: Done) -> list[Problem]:
    """Tell of what a transaction could not do. Args: ``plan`` has a head for each of its units."""
    every = heads(plan)
    one_for_all = (NOT_BEGUN, NOT_RECORDED, store.NEITHER)
    problems = [refused(every[n], why) for n, why in done.failed.items() if why not in one_for_all]
    if store.NEITHER in done.failed.values():
        text = f"cannot be changed: {store.NEITHER}"
        problems.append(Problem("refused", (plan.directory,), text, ADVICE[store.NEITHER]))
    problems += [_not_freed(every[n], why) for n, why in done.not_freed.items()]
    if waiting := [why for why in done.failed.values() if why == NOT_BEGUN]:
        text = f"{len(waiting)} of its changes {NOT_BEGUN}"
        problems.append(Problem("stopped", (plan.directory,), text, "run again to go on"))
    if done.unrecorded:
        problems.append(_unrecorded(plan, done.unrecorded))
    return problems


def _do_unit(folders: store.Folders, steps: Sequence[Step], before: Sequence[Step] = ()) -> str:
    """Do steps, all or none (``before`` were done already); return why it could not be, or nothing."""
    done = list(before)
    for step in steps:
        try:
            store.do_step(folders, step)
            done.append(step)
        except OSError as error:
            why = told(error) if not before and step is steps[0] else f"{step.name}: {told(error)}"
            return why + _take_back(folders, done)
    return ""


def _take_back(folders: store.Folders, done: Sequence[Step]) -> str:
    for step in reversed(done):
        try:
            store.do_step(folders, step.inverse)
        except OSError as error:
            return f"; {step.to} could not be taken back: {told(error)}"
    return ""


def to_be_freed(plan: Plan) -> list[int]:
    """List the units whose space is freed at once: what the policy let go. What lost a conflict waits in any case."""
    return [n for n, head in enumerate(heads(plan)) if head.kind == "trash" and not head.keep_in_trash]


def _free(folders: store.Folders, units: Sequence[Unit], numbers: Iterable[int]) -> dict[int, str]:
    """Free the space of some units, and return those that could not be removed, and why: they stay in the trash.

    That they are freed is on record before: a crash while freeing must not hide it.
    """
    left = {}
    for number in numbers:
        try:
            for step in units[number].steps:
                store.free_at_once(folders, step)
        except OSError as error:
            left[number] = told(error)
    return left


def _not_freed(head: Action, why: str) -> Problem:
    text = f"was moved to the trash, but its space cannot be freed: {why}"
    return Problem("refused", (head.name,), text, "'doit purge' tries again; 'doit undo' brings it back")


def _look_back(plan: Plan, listing: Listing, outputs_dir: str) -> Stamp | None:
    if plan.problems:
        return None
    with store.Folders(outputs_dir) as folders:
        return settle(folders.descriptor(plan.directory), plan, listing, changed=False)


def settle(directory: int, plan: Plan, listing: Listing, *, changed: bool) -> Stamp | None:
    """Return the stamp to remember a directory by in which a plan was carried out; see `store.settle`."""
    return store.settle(directory, names_left(plan, listing), plain=is_plain(plan, listing), changed=changed)


def is_plain(plan: Plan, listing: Listing) -> bool:
    """Say whether a directory holds nothing but files after a plan, so that no link in it can lead anywhere."""
    return all(entry.kind == "file" for entry in listing.entries) and not any(a.leaves_link for a in plan.actions)


def names_left(plan: Plan, listing: Listing) -> set[str]:
    """Return the names that a directory should have after a plan."""
    moving = [action for action in plan.actions if action.kind in ("rename", "trash", "restore")]
    beside = [pair for action in moving for pair in action.with_it]
    gone = {action.name for action in moving if not action.leaves_link}.union([name for name, _ in beside])
    come = {action.to for action in moving}.union([to for _, to in beside])
    return ({entry.name for entry in listing.entries} - gone | come) - {""}


def _unrecorded(plan: Plan, why: str) -> Problem:
    hint = ADVICE.get(why, "look at the free space and the permissions, run again")
    return Problem("stopped", (plan.directory,), f"the journal cannot be written: {why}", hint)


def refused(head: Action, why: str) -> Problem:
    """Tell that a unit was not done, by the action that heads it."""
    verbs = {**VERBS, "rename": f"be renamed to {head.to}"}
    text = f"cannot {verbs[head.kind]}: {why}"
    return Problem("refused", (head.name,), text, next((hint for fact, hint in ADVICE.items() if fact in why), ""))
