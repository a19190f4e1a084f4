"""What is pinned, and where that is now: for all commands that could delete it, or tell of it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ckptrules.changes.moved import follower
from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.entries import Directory, Entry, Listing, lies_in
from ckptrules.engine.pins import GONE, OTHER, UNSEEN, Found, Pin, by_place, find_pinned, is_it, name_in
from ckptrules.engine.ruleset import RuleError
from ckptrules.outputs.listing import read_names, scan
from ckptrules.rules.pins import change_pins, read_pins
from ckptrules.rules.shipped import pins_file
from ckptrules.run.finding import find
from ckptrules.run.hints import command
from ckptrules.run.options import Common
from ckptrules.run.outcome import FAULTS
from ckptrules.run.session import Session, once
from ckptrules.storage import reading


def pins_of(session: Session, options: Common) -> tuple[Pin, ...]:
    """Return what is pinned, read once. A run that changes anything first writes the names of today.

    Raises:
        RuleError: nobody can know what is.
    """
    return _read_once(session, options.rules_dir, options.outputs_dir, changes=options.will_change)


def read_anew(session: Session) -> None:
    """Forget what is pinned: another run may have pinned something while this one waited for the lock."""
    session.answers.pop(_read_once, None)


@once
def _read_once(_: Session, rules_dir: str | None, outputs_dir: str, *, changes: bool) -> tuple[Pin, ...]:
    if changes:  # of an earlier run that was killed
        renew(rules_dir, outputs_dir)
    return read_pins(rules_dir)


def pinned_in(outputs_dir: str, listing: Listing, pins: Sequence[Pin], strays: Iterable[Pin]) -> list[Found]:
    """Find what is pinned in a directory that was read: of its own ``pins``, and of the ``strays``."""
    entries = {entry.name: entry for entry in listing.entries} if pins else {}
    follow, here = _paths_of(outputs_dir), listing.directory
    own = [find_pinned(pin, here, entries.get, follow) for pin in pins]
    return [*own, *strayed_into(listing, (pin for pin in strays if pin not in pins))]


@once
def strays_of(_: Session, outputs_dir: str, pins: tuple[Pin, ...]) -> tuple[Pin, ...]:
    """Return the pins that find nothing, or something else: what was pinned may lie in any other directory."""
    return tuple(one.pin for one in look(outputs_dir, pins) if one.fault)


def strayed_into(listing: Listing, pins: Iterable[Pin]) -> Iterator[Found]:
    """Find what has the size and the time of such pins, as where an experiment was renamed by hand."""
    return (Found(pin, listing.directory, one.name) for pin in pins for one in listing.entries if is_it(pin, one))


def look(outputs_dir: str, pins: Iterable[Pin]) -> Iterator[Found]:
    """Find what is pinned, wherever it is; nothing else is looked at."""

    def entry_of(folder: str, name: str) -> Entry | None:
        try:
            with reading.open_below(outputs_dir, folder) as directory:
                return next(iter(read_names(directory, [name])), None)
        except (FileNotFoundError, NotADirectoryError):
            return None

    follow = _paths_of(outputs_dir)
    for pin in pins:
        below = functools.partial(entry_of, pin.directory)
        try:
            yield find_pinned(pin, pin.directory, below, follow)
        except OSError as error:
            yield Found(pin, pin.directory, pin.path.rpartition("/")[2], UNSEEN + reading.why_of(error))


def all_pinned(session: Session, options: Common) -> list[Found]:
    """Find all that is pinned, as it is now: of a pin that finds nothing, or something else, in all directories.

    Raises:
        RuleError: nobody can know what is.
    """
    found = list(look(options.outputs_dir, pins_of(session, options)))
    lost = [one.pin for one in found if one.fault]
    if lost and os.path.isdir(options.outputs_dir):
        for directory in find(session, options):
            with contextlib.suppress(*FAULTS):
                found += strayed_into(scan(options.outputs_dir, directory), lost)
    return found


def told(plan: Plan, found: Sequence[Found]) -> Plan:
    """Let a plan say what is pinned, also where nothing is to be deleted, and what of it was not found."""
    if not found:
        return plan
    reasons = {one.name: one.pin.reason for one in found}

    def because(row: Any) -> Any:
        reason = next((reasons[name] for name in row.names if name in reasons), None)
        return row._replace(reasons=(*row.reasons, reason)) if reason and reason not in row.reasons else row

    return plan._replace(
        actions=tuple(because(action) if action.kind == "rename" else action for action in plan.actions),
        kept=tuple(map(because, plan.kept)),
        problems=(*plan.problems, *(problem_of(one) for one in found if one.fault)),
    )


def first_in(found: Iterable[Found], paths: Sequence[str]) -> Found | None:
    """Return the first that is pinned under one of some paths or below it, whatever stands there now."""
    return next((one for one in found if any(lies_in(one.path, path) for path in paths)), None)


def refused(one: Found) -> Problem:
    """Tell that something stays because it is pinned."""
    return Problem("pinned", (one.path,), f"stays as it is: {one.pin.reason.text}", unpin(one))


def unpin(one: Found) -> str:
    """Write the command that takes a pin away."""
    return command("unpin", name=one.path)


def problem_of(one: Found) -> Problem:
    """Tell of a pin that finds nothing, or something else."""
    text = f"{one.fault}, and is {one.pin.reason.text}; nothing is deleted in that directory"
    first = "bring it back, pin it where it is now"
    if one.fault == OTHER:
        first = f"{command('pin', name=one.path)} pins what is there now"
    return Problem("pin", (one.path,), text, f"{first}, or {unpin(one)}")


def archived_by(outputs_dir: str, one: Found) -> str:
    """Return the run that has archived what is pinned and not there, or nothing."""
    with contextlib.suppress(OSError):
        return follower(outputs_dir)(one.pin.path).archived_by if one.fault == GONE else ""
    return ""


def astray(session: Session, options: Common, directories: Iterable[Directory]) -> Iterator[str]:
    """Tell of what is pinned in none of the checkpoint directories that there are, unless it is archived."""
    style, pins = session.style(options), pins_of(session, options)
    around = by_place(pins)
    here = {pin.path for found in directories for pin in around.get(found.directory, ()) if name_in(pin, found)}
    for one in look(options.outputs_dir, [pin for pin in pins if pin.path not in here]):
        if one.fault and not archived_by(options.outputs_dir, one):
            problem = problem_of(one)
            yield f"Problem: {style.name(one.path)} {style.name(problem.text)}\n    hint: {style.name(problem.hint)}"


def renew(rules_dir: str | None, outputs_dir: str) -> str:
    """Write the names that pinned checkpoints have got; say why that cannot be, or nothing.

    They are pinned all the same: by the journals, which tell what was renamed.
    """
    try:
        found = list(look(outputs_dir, read_pins(rules_dir)))
        taken = {one.pin.path for one in found}  # a name that another pin has, which finds nothing there, say
        names = {one.pin.path: one.path for one in found if not (one.fault or one.path in taken)}
        if names:  # what has a fault may be of another tree
            change_pins(rules_dir, lambda pins: [pin._replace(path=names.get(pin.path, pin.path)) for pin in pins])
    except (OSError, RuleError) as error:
        why = reading.why_of(error) if isinstance(error, OSError) else str(error)
    else:
        why = next((f"{one.path} {one.fault}" for one in found if one.fault.startswith(UNSEEN)), "")
    return f"{pins_file(rules_dir)} may have old names: {why}. What is pinned stays pinned." if why else ""


def _paths_of(outputs_dir: str) -> Callable[[str], Sequence[str]]:
    follow = follower(outputs_dir)
    return lambda path: follow(path).paths
