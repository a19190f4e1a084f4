"""Pure: a plan → units, and the outcome of units → the plan as it was carried out."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ckptrules.changes.journal import HALF_DONE
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.engine.actions import DELETES, Action, Plan, Problem, Step, Unit
from ckptrules.engine.entries import Entry, Identity, Listing, in_part_folder
from ckptrules.engine.measures import count_of
from ckptrules.engine.state_folder import trash_folder, trash_name
from ckptrules.storage import metadata
from ckptrules.storage.base import CHANGED, FULL
from ckptrules.storage.moving import LINK_CHANGED, NEITHER

MOVES = {"rename", *DELETES}
NOT_BEGUN = "not begun, as the run was stopped"
NOT_RECORDED = "not begun, as it could not be recorded"
NO_RECORD = "was changed, but the journal cannot be written: "

ADVICE: Mapping[str, str] = {  # hints by facts in a reason, of which the first counts
    HALF_DONE: "run again when the disk is well: that finishes it, or takes it back",
    os.strerror(errno.EEXIST): "compare the two, keep the better one, delete or rename the other",
    os.strerror(errno.ENOENT): "something else moved it; look where it is now",
    os.strerror(errno.ENOTDIR): "a link or a file stands there for a folder; look at it: ls -la",
    os.strerror(errno.ELOOP): "a link stands there by now; look where it leads: ls -la",
    CHANGED: "look at it: it is left as it is",
    LINK_CHANGED: "look at it: it is left as it is",
    metadata.NOT_OURS: "let its owner run this, or root",
    os.strerror(errno.EACCES): "look at the owner and the mode: ls -la",
    os.strerror(errno.EPERM): "look at the owner and the attributes: ls -la, lsattr",
    os.strerror(
        errno.EXDEV
    ): "the trash lies on another file system: mount outputs_dir as a whole, or delete it by hand",
    os.strerror(errno.ENAMETOOLONG): "shorten the name",
    NEITHER: "copy the tree to another disk, or name the checkpoints by hand",
    **dict.fromkeys(map(os.strerror, FULL), "make space (df -h, quota -s), and run again"),
}


class Transacted(NamedTuple):
    """The outcome of a transaction.

    ``failed`` maps the numbers of units that were not done to the reasons; ``not_freed`` those whose space could not be
    freed. ``unrecorded`` is why the journal could not be written; if that was the intent, all units have failed.
    """

    failed: Mapping[int, str]
    not_freed: Mapping[int, str] = {}
    unrecorded: str = ""

    @property
    def why(self) -> str:
        """Why the only unit was not done, or that it was done and is not on record (`cannot`); else empty."""
        if 0 in self.failed or not self.unrecorded:
            return self.unrecorded or self.failed.get(0, "")
        return NO_RECORD + self.unrecorded


def units_of(plan: Plan, listing: Listing, run: str) -> list[Unit]:
    """Turn a plan into units, in the order of its heads (`heads`)."""
    entries = {entry.name: entry for entry in listing.entries}
    followers: dict[str, list[Action]] = defaultdict(list)
    for action in plan.actions:
        if action.follows:
            followers[action.follows].append(action)
    every = heads(plan)
    units = [_unit(head, followers.get(head.name, ()), entries, plan.directory, run) for head in every]
    linked = {entry.name: entry.shared for entry in listing.entries if entry.shared}
    if not linked:
        return units
    shared = (tuple(link for name in head.names for link in linked.get(name, ())) for head in every)
    return [unit._replace(shared=links) for unit, links in zip(units, shared, strict=True)]


def heads(plan: Plan) -> list[Action]:
    """List the actions that follow no other: each becomes one unit."""
    return [action for action in plan.actions if not action.follows]


def after(plan: Plan, done: Transacted) -> Plan:
    """Return the plan with a problem in place of each action that failed."""
    lost = {action.name for number, action in enumerate(heads(plan)) if number in done.failed}
    actions = tuple(action for action in plan.actions if (action.follows or action.name) not in lost)
    return plan._replace(actions=actions, problems=(*plan.problems, *_problems_of(plan, done)))


def head_of(unit: Unit) -> Step:
    """Return the main step; links under old names are made after it, and removed before it."""
    return next((step for step in unit.steps if not KINDS[step.kind].turn), unit.steps[0])


def parts_of(unit: Unit) -> list[Step]:
    """Return the steps that move the other parts of a checkpoint."""
    others = [step for step in unit.steps if not KINDS[step.kind].turn][1:]
    return others[: unit.parts] if unit.parts >= 0 else others[unit.parts :]


def inverse_of(unit: Unit) -> Unit:
    """Return the unit that takes one back."""
    action = ACTIONS[unit.kind]
    steps = [KINDS[step.kind].inverse(step) for step in unit.steps]
    if action.in_sequence:
        steps.reverse()
    else:
        before, others, after = ([step for step in steps if KINDS[step.kind].turn == turn] for turn in (-1, 0, 1))
        steps = [*before, *others[:1], *reversed(others[1:]), *after]
    return Unit(action.inverse or action.name, unit.size, tuple(steps), -unit.parts, unit.shared)


def _unit(head: Action, followers: Sequence[Action], entries: Mapping[str, Entry], directory: str, run: str) -> Unit:
    goes = head.kind in DELETES
    steps = []
    for name, to in ((head.name, head.to), *head.with_it):
        folder, base = in_part_folder(name)
        here = f"{directory}/{folder}" if folder else directory
        place, new = (trash_folder(run, here), trash_name(base)) if goes else (here, to)
        steps.append(Step("move", here, base, place, new, "", identity_of_entry(entries[name])))
    steps += [follower_step(action, directory, run) for action in followers]
    if head.leaves_link:
        pairs = [(head.name, head.to), *head.with_it[: head.parts]]
        steps += [Step("link", directory, name, directory, to) for name, to in pairs]
    return Unit(head.kind, head.size, tuple(steps), head.parts)


def follower_step(action: Action, directory: str, run: str) -> Step:
    """Return the step of a link or pointer file that follows a rename in a directory."""
    place = action.directory or directory
    step = Step(action.kind, place, action.name, place, action.to, action.was)
    return KINDS[action.kind].in_trash_of(step, run)


def identity_of_entry(entry: Entry) -> Identity:
    """Return what an entry is known by."""
    own = Identity._make(entry[1:4]) if entry.kind == "file" else Identity(entry.kind, 0, 0)
    return entry.known_by or own


def _problems_of(plan: Plan, done: Transacted) -> list[Problem]:
    every = heads(plan)
    one_for_all = (NOT_BEGUN, NOT_RECORDED, NEITHER)
    problems = [refused(every[n], why) for n, why in done.failed.items() if why not in one_for_all]
    if NEITHER in done.failed.values():
        text = f"cannot be changed: {NEITHER}"
        problems.append(Problem("refused", (plan.directory,), text, ADVICE[NEITHER]))
    text = "was moved to the trash, but its space cannot be freed: {}"
    hint = "'doit purge' tries again; 'doit undo' brings it back if all of it is still there"
    problems += [Problem("refused", (every[n].name,), text.format(why), hint) for n, why in done.not_freed.items()]
    if waiting := [why for why in done.failed.values() if why == NOT_BEGUN]:
        text = f"stopped with {count_of(len(waiting), 'change')} to go"
        problems.append(Problem("stopped", (plan.directory,), text, "run again to go on"))
    if done.unrecorded:
        text = f"the journal cannot be written: {done.unrecorded}"
        hint = _advice(done.unrecorded) or "look at the free space and the permissions, run again"
        problems.append(Problem("stopped", (plan.directory,), text, hint))
    return problems


def to_be_freed(plan: Plan) -> list[int]:
    """List the units whose space is freed at once: what the policy deletes. Losers of conflicts stay in the trash."""
    return [n for n, head in enumerate(heads(plan)) if head.kind in DELETES and not head.keep_in_trash]


def names_left(plan: Plan, listing: Listing) -> set[str]:
    """Return the names that a directory should have after a plan that renames and deletes."""
    moving = [action for action in plan.actions if action.kind in MOVES]
    gone = {name for action in moving for name in action.names}
    links = {name for a in moving if a.leaves_link for name in a.names[: a.parts + 1]}
    come = {to for action in moving for to in (action.to, *dict(action.with_it).values())}
    return ({entry.name for entry in listing.entries} - gone | links | come) - {""}


def cannot(be_done: str, why: str) -> str:
    """Return a sentence on what cannot be done; or ``why``, if that says that it was done, but is not on record."""
    return why if why.startswith(NO_RECORD) else f"cannot {be_done}: {why}"


def refused(head: Action, why: str) -> Problem:
    """Return the problem for a unit that was not done, by its head."""
    text = cannot(ACTIONS[head.kind].cannot.format(to=head.to), why)
    return Problem("refused", (head.name,), text, _advice(why))


def _advice(why: str) -> str:
    return next((hint for fact, hint in ADVICE.items() if fact in why), "")
