"""Carries out one plan: journal the intent, change the store, journal the outcome."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from ckptrules import scan, store
from ckptrules.journal import Journal
from ckptrules.model import Action, Listing, Plan, Problem, Stamp

ADVICE: Mapping[type[OSError], str] = {
    FileExistsError: "compare the two, keep the better one, delete or rename the other",
    FileNotFoundError: "something else moved it while this run was going on; run again",
    PermissionError: "look at the owner and the mode: ls -la",
}


class Outcome(NamedTuple):
    """What a plan came to; ``stamp`` is None where the next run must look at the directory again."""

    plan: Plan
    stamp: Stamp | None


def carry_out(plan: Plan, listing: Listing, place: Workplace) -> Outcome:
    """Carry out one plan and return what came of it: actions that failed have become problems."""
    if not plan.actions:
        return Outcome(plan, _look_back(plan, listing, place.outputs_dir))
    try:
        return _carry_out(plan, listing, place)
    except OSError as error:
        text = f"stopped: {_told(error)}; what was done before stands in the journal"
        stopped = Problem("stopped", (plan.directory,), text, "look at the free space and the permissions, run again")
        return Outcome(plan._replace(actions=(), problems=(*plan.problems, stopped)), None)


def _carry_out(plan: Plan, listing: Listing, place: Workplace) -> Outcome:
    place.journal.intend(plan.directory, plan.actions)
    with scan.open_below(place.outputs_dir, plan.directory) as directory:
        failed: dict[str, OSError] = {}
        for action in plan.actions:
            awaited = _awaited(action, listing) if action.kind == "relink" else None
            if awaited in failed:
                failed[action.name] = failed[awaited]
                continue
            try:
                _act(action, plan.directory, directory, place)
            except OSError as error:
                failed[action.name] = error
        place.journal.conclude(plan.directory, {name: _told(error) for name, error in failed.items()})
        done = tuple(action for action in plan.actions if action.name not in failed)
        if place.keep_trash_days == 0 and any(action.kind == "trash" for action in done):
            store.empty_trash(place.outputs_dir, [place.run], plan.directory)
        problems = tuple(_refused(action, failed[action.name]) for action in plan.actions if action.name in failed)
        outcome = plan._replace(actions=done, problems=(*plan.problems, *problems))
        stamp = None if outcome.problems else store.settle(directory, _names_left(outcome, listing), changed=True)
    return Outcome(outcome, stamp)


class Workplace(NamedTuple):
    """Where and how a run changes things."""

    outputs_dir: str
    run: str
    journal: Journal
    keep_trash_days: int


def _act(action: Action, path: str, directory: int, place: Workplace) -> None:
    if action.kind == "rename":
        store.rename(directory, action.name, action.to)
    elif action.kind == "trash":
        store.move_to_trash(place.outputs_dir, place.run, path, directory, action.name)
    else:
        store.relink(place.outputs_dir, directory, action.name, action.to)


def _awaited(relink: Action, listing: Listing) -> str | None:
    """Return the old name of the checkpoint that a link waits for."""
    return next(entry.sibling for entry in listing.entries if entry.name == relink.name)


def _look_back(plan: Plan, listing: Listing, outputs_dir: str) -> Stamp | None:
    if plan.problems:
        return None
    with scan.open_below(outputs_dir, plan.directory) as directory:
        return store.settle(directory, {entry.name for entry in listing.entries}, changed=False)


def _names_left(plan: Plan, listing: Listing) -> set[str]:
    gone = {action.name for action in plan.actions if action.kind != "relink"}
    new = {action.to for action in plan.actions if action.kind == "rename"}
    return {entry.name for entry in listing.entries if entry.name not in gone} | new


def _told(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def _refused(action: Action, error: OSError) -> Problem:
    verb = {"rename": f"cannot be renamed to {action.to}", "trash": "cannot be moved to the trash"}
    text = f"{verb.get(action.kind, 'cannot be pointed to ' + action.to)}: {_told(error)}"
    return Problem("refused", (action.name,), text, ADVICE.get(type(error), ""))
