"""Reads what runs did, and foresees what an undo cannot take back. Nothing is changed here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from functools import cache, partial

from ckptrules.changes.doing import begins
from ckptrules.changes.history import Run, read_history
from ckptrules.changes.journals import read_journals
from ckptrules.changes.kinds import KINDS
from ckptrules.changes.kinds.kind import Ahead
from ckptrules.changes.record import NOT_REACHED, Intent, RunRecord, read
from ckptrules.changes.units import head_of
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Spot, folders_above
from ckptrules.storage.looking import refuses_changes
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.state import Folders
from ckptrules.storage.trash import trash_runs


def read_runs(outputs_dir: str, own_state: str = "") -> list[Run]:
    """Read all journals, also those in the user's own state; oldest run first.

    The disk shows what became of an interrupted run, and whose trash was removed by hand or by a purge that was killed.

    Raises:
        JournalError: a journal is damaged.
        OSError: a journal cannot be read.
    """
    records = [
        as_the_disk_tells(root, record)
        for root in filter(None, (outputs_dir, own_state))
        for name, text in read_journals(Disk(root)).items()
        if (record := read(name, text, own=root == own_state))
    ]
    return read_history(records, _emptied(outputs_dir, {record.run for record in records}))


def _emptied(outputs_dir: str, runs: set[str]) -> set[str]:
    """Return the runs that have no folder in the trash; none if it cannot be read."""
    with contextlib.suppress(OSError):
        return runs.difference(trash_runs(Disk(outputs_dir)))
    return set()


def as_the_disk_tells(root: str, record: RunRecord) -> RunRecord:
    """Complete a journal without an outcome by what the disk shows.

    Nothing is changed: the next run that changes something finishes what was begun (`recovery`).
    """
    if all(intent.failed is not None for intent in record.intents):
        return record
    with Folders(root, texts=record.own) as folders:
        intents = tuple(_as_the_disk_tells(folders, intent) for intent in record.intents)
    return record._replace(intents=intents, interrupted=True)


def _as_the_disk_tells(folders: Folders, intent: Intent) -> Intent:
    if intent.failed is not None:
        return intent
    to_do = [place for place, unit in enumerate(intent.units) if begins(folders, head_of(unit))]
    return intent._replace(failed=dict.fromkeys(to_do, NOT_REACHED))


def foresee(folders: Folders, units: tuple[Unit, ...]) -> dict[int, str]:
    """Return the numbers of the units that could not be done now, and why; nothing is changed."""
    failed = {}
    left: set[Spot] = set()
    altered: set[Spot] = set()
    refused = cache(partial(_why_refused, folders))
    moved: dict[str, str] = {}  # from a path after earlier steps to where that file is now
    for number, unit in enumerate(units):
        today = unit._replace(steps=tuple(_as_it_lies(step, moved) for step in unit.steps))
        leaves = {step.here for step in today.steps if KINDS[step.kind].leaves}
        new = leaves - left
        left |= new
        if why := _first_obstacle(folders, today, Ahead(left, altered), refused):
            failed[number] = why
            left -= new
        else:
            altered |= {step.here for step in today.steps} - leaves
            steps = zip(unit.steps, today.steps, strict=True)
            moved |= {step.there.path: now.here.path for step, now in steps if KINDS[step.kind].moves}
    return failed


def _as_it_lies(step: Step, moved: Mapping[str, str]) -> Step:
    """Return a step with the paths that its files have now, before earlier steps move them or folders above."""
    here = moved_path(step.here.path, moved)
    if here != step.here.path:
        directory, _, name = here.rpartition("/")
        step = step._replace(directory=directory, name=name)
    return step._replace(to_directory=moved_path(step.to_directory, moved))


def moved_path(path: str, moved: Mapping[str, str]) -> str:
    """Return a path after moves of it, or of a folder above it; ``moved`` maps the paths before to those after."""
    above = next((one for one in (path, *reversed(folders_above(path))) if one in moved), "")
    return f"{moved[above]}{path[len(above) :]}" if above else path


def _why_refused(folders: Folders, directory: str) -> str:
    """Return why the system refuses to change names in a directory, as far as it is there."""
    with contextlib.suppress(OSError):
        if number := refuses_changes(folders.descriptor(directory)):
            return os.strerror(number)
    return ""


def _first_obstacle(folders: Folders, unit: Unit, ahead: Ahead, refused: Callable[[str], str]) -> str:
    for step in unit.steps:
        try:
            why = refused(step.directory) or refused(step.to_directory)
            why = why or KINDS[step.kind].check(folders, step, ahead)
        except OSError as error:
            why = why_of(error)
        if why:
            return why if step is head_of(unit) else f"{step.name}: {why}"
    return ""
