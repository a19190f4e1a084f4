"""The pins, and where each pinned checkpoint lies now."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ckptrules.changes.moved import follower
from ckptrules.engine.actions import Plan, Problem
from ckptrules.engine.entries import Directory, Entry, Listing, lies_in
from ckptrules.engine.pins import GONE, OTHER, Found, Pin, by_place, find_pinned, is_it, name_in
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
    """Return the pins, read once. A run that changes anything first updates the names of renamed checkpoints.

    Raises:
        RuleError: the file of pins cannot be read or is damaged.
    """
    return _read_once(session, options.rules_dir, options.outputs_dir, changes=options.will_change)


def read_anew(session: Session) -> None:
    """Forget the pins that were read: another run may have changed them while this one waited for the lock."""
    session.answers.pop(_read_once, None)


@once
def _read_once(_: Session, rules_dir: str | None, outputs_dir: str, *, changes: bool) -> tuple[Pin, ...]:
    if changes:  # a run that was killed after its renames has left old names
        renew(rules_dir, outputs_dir)
    return read_pins(rules_dir)


def pinned_in(outputs_dir: str, listing: Listing, pins: Sequence[Pin], strays: Iterable[Pin]) -> list[Found]:
    """Find the pinned checkpoints of a listed directory: by its own ``pins``, and by the ``strays`` of the tree."""
    entries = {entry.name: entry for entry in listing.entries} if pins else {}
    follow, here = _paths_of(outputs_dir), listing.directory
    own = [find_pinned(pin, here, entries.get, follow) for pin in pins]
    return [*own, *strayed_into(listing, (pin for pin in strays if pin not in pins))]


@once
def strays_of(_: Session, outputs_dir: str, pins: tuple[Pin, ...]) -> tuple[Pin, ...]:
    """Return the pins that find nothing, or something else: the pinned checkpoint may lie in any other directory."""
    return tuple(found.pin for found in look(outputs_dir, pins) if found.fault)


def strayed_into(listing: Listing, pins: Iterable[Pin]) -> Iterator[Found]:
    """Find the entries with the size and the time of a pin, as after an experiment was renamed by hand."""
    entries = listing.entries
    return (Found(pin, listing.directory, entry.name) for pin in pins for entry in entries if is_it(pin, entry))


def look(outputs_dir: str, pins: Iterable[Pin]) -> Iterator[Found]:
    """Look for each pinned checkpoint, under its own path and the paths to which runs have moved it."""

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
            yield Found(
                pin, pin.directory, pin.path.rpartition("/")[2], f"cannot be looked at: {reading.why_of(error)}"
            )


def all_pinned(session: Session, options: Common) -> list[Found]:
    """Find all pinned checkpoints; one that is not in its place is looked for in all directories.

    Raises:
        RuleError: the file of pins cannot be read or is damaged.
    """
    found = list(look(options.outputs_dir, pins_of(session, options)))
    lost = [pinned.pin for pinned in found if pinned.fault]
    if lost and os.path.isdir(options.outputs_dir):
        for directory in find(session, options):
            with contextlib.suppress(*FAULTS):
                found += strayed_into(scan(options.outputs_dir, directory), lost)
    return found


def with_pins(plan: Plan, found: Sequence[Found]) -> Plan:
    """Add to a plan the reason of each pin, and a problem for each pin that does not find its checkpoint."""
    if not found:
        return plan
    reasons = {pinned.name: pinned.pin.reason for pinned in found}

    def with_reason(row: Any) -> Any:
        reason = next((reasons[name] for name in row.names if name in reasons), None)
        return row._replace(reasons=(*row.reasons, reason)) if reason and reason not in row.reasons else row

    return plan._replace(
        actions=tuple(with_reason(action) if action.kind == "rename" else action for action in plan.actions),
        kept=tuple(map(with_reason, plan.kept)),
        problems=(*plan.problems, *(problem_of(pinned) for pinned in found if pinned.fault)),
    )


def first_in(found: Iterable[Found], paths: Sequence[str]) -> Found | None:
    """Return the first pinned checkpoint at or below one of some paths, whatever is there now."""
    return next((pinned for pinned in found if any(lies_in(pinned.path, path) for path in paths)), None)


def refused(pinned: Found) -> Problem:
    """Return the problem that a pinned checkpoint may not be changed."""
    return Problem("pinned", (pinned.path,), f"stays as it is: {pinned.pin.reason.text}", unpin(pinned))


def unpin(pinned: Found) -> str:
    """Return the command that removes a pin."""
    return command("unpin", name=pinned.path)


def problem_of(pinned: Found) -> Problem:
    """Return the problem that a pin finds nothing, or something else."""
    text = f"{pinned.fault}, and is {pinned.pin.reason.text}; nothing is deleted in that directory"
    first = "bring it back, pin it where it is now"
    if pinned.fault == OTHER:
        first = f"{command('pin', name=pinned.path)} pins what is there now"
    return Problem("pin", (pinned.path,), text, f"{first}, or {unpin(pinned)}")


def archived_by(outputs_dir: str, pinned: Found) -> str:
    """Return the run that has archived a pinned checkpoint; an empty text if none has."""
    with contextlib.suppress(OSError):
        return follower(outputs_dir)(pinned.pin.path).archived_by if pinned.fault == GONE else ""
    return ""


def astray(session: Session, options: Common, directories: Iterable[Directory]) -> Iterator[str]:
    """Yield a text for each lost pin that belongs to no checkpoint directory, unless its checkpoint is archived."""
    style, pins = session.style(options), pins_of(session, options)
    places = by_place(pins)
    covered = {pin.path for found in directories for pin in places.get(found.directory, ()) if name_in(pin, found)}
    for lost in look(options.outputs_dir, [pin for pin in pins if pin.path not in covered]):
        if lost.fault and not archived_by(options.outputs_dir, lost):
            problem = problem_of(lost)
            yield f"Problem: {style.name(lost.path)} {style.name(problem.text)}\n    hint: {style.name(problem.hint)}"


def renew(rules_dir: str | None, outputs_dir: str) -> str:
    """Write the new names of renamed checkpoints into the file of pins; return why that failed, or an empty text.

    They stay pinned also if it fails: the journals tell the renames.
    """
    try:
        found = list(look(outputs_dir, read_pins(rules_dir)))
        taken = {pinned.pin.path for pinned in found}  # two pins must not get the same path
        names = {p.pin.path: p.path for p in found if not (p.fault or p.path in taken)}  # a lost pin keeps its path
        if names:
            change_pins(rules_dir, lambda pins: [pin._replace(path=names.get(pin.path, pin.path)) for pin in pins])
    except (OSError, RuleError) as error:
        why = reading.why_of(error) if isinstance(error, OSError) else str(error)
    else:
        why = next((f"{pinned.path} {pinned.fault}" for pinned in found if pinned.fault not in ("", GONE, OTHER)), "")
    return f"{pins_file(rules_dir)} may have old names: {why}. What is pinned stays pinned." if why else ""


def _paths_of(outputs_dir: str) -> Callable[[str], Sequence[str]]:
    follow = follower(outputs_dir)
    return lambda path: follow(path).paths
