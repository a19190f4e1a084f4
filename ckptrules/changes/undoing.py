"""What of a run still stands on the disk, and what taking it back would meet. Nothing is changed here."""

from __future__ import annotations

import contextlib

from ckptrules.changes.history import Run
from ckptrules.changes.kinds import KINDS
from ckptrules.changes.kinds.kind import Ahead
from ckptrules.changes.record import refs
from ckptrules.changes.units import head_of
from ckptrules.engine.actions import Spot, Step, Unit
from ckptrules.storage.folders import Folders
from ckptrules.storage.reading import why_of


def as_the_disk_tells(outputs_dir: str, run: Run) -> Run:
    """Return a run that was interrupted with what it has really done; nothing is changed."""
    if not run.interrupted:
        return run
    open_units = {
        ref: unit
        for record, intent in run.intents
        if intent.failed is None
        for ref, unit in zip(refs(record, intent), intent.units, strict=True)
    }
    with Folders(outputs_dir) as folders:
        undone = {ref for ref, unit in open_units.items() if _is_to_do(folders, head_of(unit))}
    return run._replace(done=run.done - undone)


def _is_to_do(folders: Folders, step: Step) -> bool:
    with contextlib.suppress(OSError):
        return KINDS[step.kind].begins(folders, step)
    return False


def foresee(folders: Folders, units: tuple[Unit, ...]) -> dict[int, str]:
    """Find the units that cannot be taken back as things stand, and say why; nothing is changed."""
    failed = {}
    left: set[Spot] = set()
    altered: set[Spot] = set()
    for number, unit in enumerate(units):
        leaves = {step.here for step in unit.steps if KINDS[step.kind].leaves}
        if why := _first_obstacle(folders, unit, Ahead(left | leaves, altered)):
            failed[number] = why
        else:
            left |= leaves
            altered |= {step.here for step in unit.steps} - leaves
    return failed


def _first_obstacle(folders: Folders, unit: Unit, ahead: Ahead) -> str:
    for step in unit.steps:
        if why := _obstacle(folders, step, ahead):
            return why if step is head_of(unit) else f"{step.name}: {why}"
    return ""


def _obstacle(folders: Folders, step: Step, ahead: Ahead) -> str:
    try:
        return KINDS[step.kind].check(folders, step, ahead)
    except OSError as error:
        return why_of(error)
