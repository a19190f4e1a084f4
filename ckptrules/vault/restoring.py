"""Restores the contents of a backup."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

from ckptrules.changes.transaction import JournalledTree, transact
from ckptrules.changes.units import cannot
from ckptrules.engine.actions import Problem, Step, Unit
from ckptrules.engine.entries import Item
from ckptrules.engine.state_folder import trash_folder, trash_name
from ckptrules.storage import looking, making, unfinished
from ckptrules.storage.reading import SourceError, why_of
from ckptrules.vault.backups import MISSING, belongs, difference, fault_of, quick_difference
from ckptrules.vault.copies import Answer, CopyRoute, OnLost, files_and_links, stage_copy
from ckptrules.vault.manifest import Manifest
from ckptrules.workers.pieces import Each, Lost

AHEAD = 16 << 30  # bytes of copies that may wait in the workplace for an earlier one
FORCE_HINT = "force=1 brings back the backup's; what is here goes to the trash"
LOOK_AT_ALL = "'doit backups verify=1'"
DAMAGED_HINT = f"{LOOK_AT_ALL} tells what else is damaged; take this one from another backup"
Decision = Literal["bring", "replace", "identical", "failed"]
COMES: tuple[Decision, ...] = ("bring", "replace")


class RestoreStep(NamedTuple):
    """What is to be done, or was done, with one name of a backup; one that failed has a problem."""

    item: Item
    verdict: Decision
    problem: Problem | None = None


def plan_restore(
    outputs_dir: str,
    manifest: Manifest,
    chosen: Collection[str] | None,
    *,
    force: bool,
    each: Each,
) -> list[RestoreStep]:
    """Decide for every name of a backup, or of the chosen experiments; nothing is changed.

    Names below a directory that cannot be restored are left out.
    """
    steps: list[RestoreStep] = []
    unread: list[Item] = []
    new: set[str] = set()
    blocked: set[str] = set()
    for item in manifest.items:
        if chosen is not None and not belongs(item.path, chosen):
            continue
        parent = os.path.dirname(item.path)
        if parent in blocked:
            blocked.add(item.path)
            continue
        fault = MISSING if parent in new else quick_difference(outputs_dir, item, by_time=True)
        unread += [item] if fault is None else []
        step = _decide(item, fault or "", force=force)
        if step.problem:
            blocked.add(item.path)
        elif fault:
            new.add(item.path)
        steps.append(step)
    with each(partial(difference, outputs_dir), unread) as answers:
        read = {item.path: fault for item, fault in zip(unread, map(fault_of, answers), strict=True)}
    return [_decide(step.item, read[step.item.path], force=force) if step.item.path in read else step for step in steps]


def _decide(item: Item, fault: str, *, force: bool) -> RestoreStep:
    if not fault:
        return RestoreStep(item, "identical")
    if fault == MISSING:
        return RestoreStep(item, "bring")
    if force:
        return RestoreStep(item, "replace")
    below = "; nothing below it was brought back" * (item.kind == "directory")
    return _failed(item, "differs", f"differs from the backup: {fault}{below}", FORCE_HINT)


def restore(
    tree: JournalledTree, backup: str, steps: Sequence[RestoreStep], each: Each, on_lost: OnLost = lambda *_: None
) -> list[RestoreStep]:
    """Carry out a plan, and return its steps with a problem for each that failed.

    Replaced files go to the trash of the run. Workers (``each``) copy files into the workplace, some ahead of those
    that are moved to their places. ``on_lost`` is called for each copy.

    Raises:
        OSError: the workplace, or a directory that was just made, cannot be written.
    """
    outputs_dir, coming = tree.outputs_dir, [step.item for step in steps if step.verdict in COMES]
    if not coming:
        return list(steps)
    with (
        contextlib.ExitStack() as at_end,  # after an error as well: the directories are there for the next run
        unfinished.staging(outputs_dir, "restore-") as folder,
    ):
        route = CopyRoute(backup, outputs_dir, folder, "clone", as_item=True)

        def bring(step: RestoreStep) -> RestoreStep:
            came = _carry_out(step, tree, route, answers, on_lost)
            if came.item.kind == "directory" and not came.problem:
                at_end.callback(lambda: on_lost(came.item.path, making.set_item_metadata(outputs_dir, came.item)))
            return came

        with each(partial(stage_copy, route), files_and_links(coming), room=AHEAD) as answers:
            return [bring(step) if step.verdict in COMES else step for step in steps]


def _carry_out(
    step: RestoreStep, tree: JournalledTree, route: CopyRoute, answers: Iterator[Answer], on_lost: OnLost
) -> RestoreStep:
    """Restore one name. A copy is known to be sound before the file in its place is touched."""
    item = step.item
    answer = stage_copy(route, item) if item.kind == "directory" else next(answers)
    if isinstance(answer, Lost):
        return _failed(item, "refused", f"was not brought back: {answer.why}")
    if isinstance(answer, SourceError):
        return _failed(item, "damaged", f"cannot be read in the backup: {why_of(answer)}", DAMAGED_HINT)
    if isinstance(answer, OSError):
        return _failed(item, "refused", f"cannot be brought back: {why_of(answer)}")
    name = os.path.basename(answer.path)
    try:
        if answer.item.checksum != item.checksum:
            text = "is damaged in the backup: its checksum is not that of the manifest"
            return _failed(item, "damaged", text, DAMAGED_HINT)
        if why := _put_in_place(step, tree, route.folder, name):
            return _failed(item, "refused", cannot("be brought back", why))
    finally:
        unfinished.drop_staged(tree.outputs_dir, name, route.folder)
    on_lost(item.path, answer.lost)
    return step


def _put_in_place(step: RestoreStep, tree: JournalledTree, waits_in: str, staged: str) -> str:
    """Move a staged copy to its place, and the file that is there to the trash; return why that failed, or nothing."""
    folder, name = os.path.split(step.item.path)
    try:
        identity = looking.identify_at(tree.outputs_dir, f"{waits_in}/{staged}")
        bring = Step("move", waits_in, staged, folder, name, identity=identity)
        unit = Unit("restore", step.item.size, (bring,))
        if step.verdict == "replace":
            trash, there = trash_folder(tree.journal.run, folder), looking.identify_at(tree.outputs_dir, step.item.path)
            away = Step("move", folder, name, trash, trash_name(name), identity=there)
            unit = Unit("replace", step.item.size, (away, bring))
    except OSError as error:
        return why_of(error)
    top = step.item.path.partition("/")[0]  # so that undo takes back what lies in a folder before the folder
    return transact(tree, top, top, [unit]).why


def _failed(item: Item, identity: str, text: str, hint: str = "") -> RestoreStep:
    return RestoreStep(item, "failed", Problem(identity, (item.path,), text, hint))
