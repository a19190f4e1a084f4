"""Moves: renames within a directory, into the trash, or out of it.

A ``move`` renames ``name`` in ``directory`` to ``to`` in ``to_directory``, if it has the ``identity``.
"""

from __future__ import annotations

import errno
import os

from ckptrules.changes.kinds.kind import ActionKind, Ahead, Kind
from ckptrules.engine.actions import Step
from ckptrules.engine.entries import Spot, folders_above, lies_in
from ckptrules.engine.state_folder import STATE, TRASH, WORK, trash_folder, trash_name
from ckptrules.storage import looking, moving, reading
from ckptrules.storage.base import Changed
from ckptrules.storage.posix import Disk
from ckptrules.storage.state import Folders
from ckptrules.storage.trash import trash_runs

RENAME = ActionKind("rename", "Renamed", "Would rename", "be renamed to {to}", "rename", "renamed", shows_to=True)
TRASHED = ActionKind(
    "trash", "Deleted", "Would delete", "be moved to the trash", "trash", "deleted", inverse="restore", in_trash=True
)
SWEPT = ActionKind(
    "sweep", "Deleted", "Would delete", "be moved to the trash", "trash", "leftovers", inverse="unsweep", in_trash=True
)
RESTORE = ActionKind("restore", "Restored", "Would restore", "be brought back", "restore", "restored", inverse="trash")
UNSWEPT = ActionKind("unsweep", "Restored", "Would restore", "be brought back", "restore", "restored", inverse="sweep")
REPLACE = ActionKind(
    "replace", "Replaced", "Would replace", "be replaced", "restore", "restored", in_trash=True, in_sequence=True
)


class Move(Kind):
    """Renames a file or folder; nothing is ever overwritten."""

    name = "move"
    actions = (RENAME, TRASHED, SWEPT, RESTORE, UNSWEPT, REPLACE)
    moves = True
    leaves = True

    def begins(self, folders: Folders, step: Step) -> bool:
        return looking.stands_for(folders.descriptor(step.directory), step.name, step.identity)

    def check(self, folders: Folders, step: Step, ahead: Ahead) -> str:
        if why := super().check(folders, step, ahead):
            return "" if _will_stand(folders, step, ahead) else why
        return "" if step.there in ahead.left or _is_free(folders, step) else os.strerror(errno.EEXIST)

    def do(self, folders: Folders, step: Step) -> None:
        reading.refuse_path(step.to)
        directory = folders.descriptor(step.directory)
        if not looking.stands_for(directory, step.name, step.identity):
            raise Changed(step.name)
        try:
            target = folders.descriptor(step.to_directory, create=True)
        except FileNotFoundError:
            if not _comes_to_new_place(folders, step):
                raise
            from ckptrules.storage import making  # not above: most runs do not need it

            making.make_parents(folders.outputs_dir, step.there.path)
            target = folders.descriptor(step.to_directory)
        moving.rename(directory, step.name, step.to, target)

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        reading.refuse_path(step.to)
        target = folders.descriptor(step.to_directory)
        try:
            directory = folders.descriptor(step.directory)
        except FileNotFoundError:  # a folder of the workplace, removed when it was empty
            return looking.stands_for(target, step.to, step.identity)
        # Under the old name there may be a link that was to stay there, or a file that somebody has written since.
        is_old_there = (
            not (taken_again or folders.is_free(step.here))
            and looking.stands_for(directory, step.name, step.identity)
            and not moving.finish_rename(directory, step.name, target, step.to)
        )
        return not is_old_there and looking.stands_for(target, step.to, step.identity)

    def inverse(self, step: Step) -> Step:
        return step._replace(directory=step.to_directory, name=step.to, to_directory=step.directory, to=step.name)

    def in_trash_of(self, step: Step, run: str) -> Step:
        if lies_in(step.to_directory, WORK):  # the inverse of a restore: the file was staged there
            return step._replace(to_directory=trash_folder(run, step.directory), to=trash_name(step.name))
        if not step.to_directory.startswith(f"{TRASH}/"):
            return step
        return step._replace(to_directory="/".join([TRASH, run, *step.to_directory.split("/")[3:]]))


def _will_stand(folders: Folders, step: Step, ahead: Ahead) -> bool:
    """Return whether a directory has its identity without the names that earlier steps move out of it."""

    def leaves(path: str) -> bool:  # to list them for each directory would be quadratic
        folder, name = os.path.split(os.path.join(step.directory, path))
        return Spot(folder, name) in ahead.left

    return looking.stands_for(folders.descriptor(step.directory), step.name, step.identity, leaves)


def _is_free(folders: Folders, step: Step) -> bool:
    """Return whether the new name is free; its folder may be missing, if the step makes it."""
    try:
        return folders.is_free(step.there)
    except FileNotFoundError:
        if step.to_directory.startswith(f"{STATE}/") or _comes_to_new_place(folders, step):
            return True
        raise


def _comes_to_new_place(folders: Folders, step: Step) -> bool:
    """Return whether a step brings something out of the trash, for which a directory that is gone is made again.

    Not if the directory, or one above it, is in the trash as a whole (of an archived experiment): that comes first.
    """
    if not step.directory.startswith(f"{TRASH}/"):
        return False
    places = [os.path.split(path) for path in (step.to_directory, *folders_above(step.to_directory))]
    runs = trash_runs(Disk(folders.outputs_dir))
    wholes = (f"{trash_folder(run, above)}/{trash_name(name)}" for run in runs for above, name in places)
    return not any(os.path.lexists(os.path.join(folders.outputs_dir, whole)) for whole in wholes)


KINDS = (Move(),)
