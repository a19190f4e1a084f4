"""Finishes what an interrupted run has begun, before another run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ckptrules.changes import journals
from ckptrules.changes.doing import begins, do_unit, half_done, is_done
from ckptrules.changes.history import in_trash_of
from ckptrules.changes.journal import JournalError
from ckptrules.changes.kinds import KINDS
from ckptrules.changes.record import NOT_REACHED, RunRecord, closing, read
from ckptrules.changes.units import head_of
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Spot
from ckptrules.engine.state_folder import JOURNALS
from ckptrules.storage.base import FULL
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.state import Folders


class Recovered(NamedTuple):
    """Sentences about interrupted runs: those that were finished, and those that could not be."""

    done: list[str]
    left: list[str]


def recover(outputs_dir: str, own_state: str = "") -> Recovered:
    """Finish or take back what interrupted runs began. The caller holds the lock.

    Args:
        outputs_dir: the folder of the experiments; its journals have power below it only.
        own_state: the user's own state, whose journals may rewrite texts; empty if there is none.
    """
    result = Recovered([], [])
    for root in filter(None, (outputs_dir, own_state)):
        for name, text in journals.read_journals(Disk(root), journals.unfinished_journals(Disk(root))).items():
            try:
                record = read(name, text, own=root == own_state)
            except JournalError as error:
                place = f"{root}/" if root == own_state else ""
                result.left.append(
                    f"Not recovered: {place}{error.strerror}. Move the file away when you have looked at it."
                )
                continue
            _finish(root, name, text, record, result)
    return result


def _finish(root: str, name: str, text: str, record: RunRecord | None, result: Recovered) -> None:
    open_intents = [intent for intent in record.intents if intent.failed is None] if record else []
    intent = open_intents[-1] if open_intents else None
    failed: Mapping[int, str] = {}
    if record and intent:
        intent = intent._replace(units=tuple(in_trash_of(record.run, unit) for unit in intent.units))
        try:
            with Folders(root, texts=record.own) as folders:
                failed = finish(folders, intent.units)
            why = half_done(failed)
        except OSError as error:
            why = why_of(error)
        if why:  # the next run tries again
            result.left.append(f"Not recovered: a run was interrupted in {intent.directory}: {why}")
            return
        counts = f"{len(intent.units) - len(failed)} of its changes done, {len(failed)} not begun"
        result.done.append(f"Recovered: a run was interrupted in {intent.directory}: {counts}.")
    try:
        Disk(root).append(f"{JOURNALS}/{name}", closing(text, intent, failed).encode())
    except OSError as error:
        if error.errno not in FULL:
            raise
        result.left.append(f"Not on record: {JOURNALS}/{name} cannot be written: {why_of(error)}.")  # purge makes room


def finish(folders: Folders, units: Sequence[Unit]) -> dict[int, str]:
    """Finish what a crash interrupted; return the numbers of the units that were not done, and why, as `do_units`.

    Units are done in their order, so only the last one that was begun can be half done: it is completed or, if that
    fails, taken back. A unit that was not begun is left to the next plan, which decides anew.

    Raises:
        OSError: it cannot be seen what was done.
    """
    failed = {}
    done_of = _done_steps(folders, units)
    last = max((number for number, done in enumerate(done_of) if done), default=-1)
    for number, (unit, done) in enumerate(zip(units, done_of, strict=True)):
        head, rest = head_of(unit), [step for step in unit.steps if step not in done]
        if number > last:
            failed[number] = NOT_REACHED
        elif head in rest and _has_moved_on(folders, unit, done):
            do_unit(folders, rest[1:] if number == last else ())
        elif number < last:
            if head in rest:
                failed[number] = "not done when the run was interrupted"
        elif why := do_unit(folders, rest, done):
            failed[number] = why
    return failed


def _has_moved_on(folders: Folders, unit: Unit, done: Sequence[Step]) -> bool:
    """Return whether the head was moved, and has changed since: a later step is done, or its old name is free."""
    head = head_of(unit)
    if not KINDS[head.kind].moves or begins(folders, head):
        return False
    try:
        return any(step in done for step in unit.steps[unit.steps.index(head) :]) or folders.is_free(head.here)
    except FileNotFoundError:  # its old directory is gone
        return True


def _done_steps(folders: Folders, units: Sequence[Unit]) -> list[list[Step]]:
    """List the steps of each unit that were done.

    The last step is looked at first, as it may have taken a name that another left, or moved a file that another has
    exchanged.
    """
    found: list[list[Step]] = []
    taken: set[Spot] = set()
    moved: dict[Spot, Spot] = {}
    for unit in reversed(units):
        done: list[Step] = []
        for step in reversed(unit.steps):
            now = moved.get(step.here, step.here) if KINDS[step.kind].stays_with_file else step.here
            if is_done(folders, step._replace(directory=now.directory, name=now.name), taken_again=step.here in taken):
                done.insert(0, step)
                if KINDS[step.kind].moves:
                    taken.add(step.there)
                    moved[step.here] = step.there
        found.append(done)
    return found[::-1]
