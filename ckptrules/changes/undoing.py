"""What of a run still stands on the disk, and what taking it back would meet."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection

from ckptrules.changes.history import Run
from ckptrules.changes.journal import refs
from ckptrules.engine.values import STATE, Identity, Step, Unit
from ckptrules.storage import moving, steps
from ckptrules.storage.folders import Folders
from ckptrules.storage.reading import stands_for, told


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
        undone = {ref for ref, unit in open_units.items() if _is_to_do(folders, unit.head)}
    return run._replace(done=run.done - undone)


def _is_to_do(folders: Folders, step: Step) -> bool:
    """Say whether a change could still be made: what it begins with is there, as it was."""
    with contextlib.suppress(OSError):
        if step.kind == "rewrite":
            return steps.text_checksum(step) == step.was
        if step.kind == "exchange":
            return steps.is_marked(folders, step)
        directory = folders.descriptor(step.directory)
        if step.kind == "move":
            return stands_for(directory, step.name, step.identity)
        if step.kind == "unlink":
            return os.readlink(step.name, dir_fd=directory) == step.to
        os.lstat(step.name, dir_fd=directory)
        return False
    return step.kind == "link"


def foresee(folders: Folders, units: tuple[Unit, ...]) -> dict[int, str]:
    """Find the units that cannot be taken back as things stand; nothing is changed."""
    failed = {}
    gone: set[tuple[str, str]] = set()
    exchanged: set[tuple[str, str]] = set()
    for number, unit in enumerate(units):
        leaves = {(step.directory, step.name) for step in unit.steps if step.kind in ("move", "unlink")}
        whys = [
            (why if step is unit.head else f"{step.name}: {why}")
            for step in unit.steps
            if (why := _obstacle(folders, step, gone | leaves, exchanged))
        ]
        if whys:
            failed[number] = whys[0]
        else:
            gone |= leaves
            exchanged |= {(step.directory, step.name) for step in unit.steps if step.kind == "exchange"}
    return failed


def _obstacle(
    folders: Folders, step: Step, gone: Collection[tuple[str, str]], exchanged: Collection[tuple[str, str]]
) -> str:
    try:
        if step.kind == "rewrite":
            return steps.rewrite_obstacle(folders, step)
        directory = folders.descriptor(step.directory)
        if step.kind == "exchange" and not steps.is_marked(folders, step):
            return moving.CHANGED
        if step.kind == "unlink" and os.readlink(step.name, dir_fd=directory) != step.to:
            return moving.LINK_CHANGED
        if step.kind == "relink" and os.readlink(step.name, dir_fd=directory) != step.was:
            return moving.LINK_CHANGED
        known = (step.directory, step.name) not in exchanged  # else it is not there yet
        if step.kind == "move" and known and not stands_for(directory, step.name, step.identity):
            return "" if _will_be_empty(directory, step, gone) else moving.CHANGED
        if step.kind == "move" and (step.to_directory, step.to) not in gone and not _is_free(folders, step):
            return os.strerror(errno.EEXIST)
    except OSError as error:
        return told(error)
    return ""


def _will_be_empty(directory: int, step: Step, gone: Collection[tuple[str, str]]) -> bool:
    """Say whether a directory that was made empty will be so again, as all that is in it leaves before."""
    return step.identity == Identity("directory", 0, -1) and all(
        (os.path.normpath(os.path.join(step.directory, folder)), name) in gone
        for folder, inner, names, _ in os.fwalk(step.name, dir_fd=directory)
        for name in (*inner, *names)
    )


def _is_free(folders: Folders, step: Step) -> bool:
    """Say whether the new name of a move is free; folders of the trash are made when they are needed."""
    try:
        os.lstat(step.to, dir_fd=folders.descriptor(step.to_directory))
    except FileNotFoundError as error:
        if error.filename == step.to or step.to_directory.startswith(f"{STATE}/"):
            return True
        raise
    return False
