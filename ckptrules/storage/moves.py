"""Moves a checkpoint that is known by its identity, and says whether it was moved."""

from __future__ import annotations

import contextlib
import os
import stat

from ckptrules.engine.actions import Spot
from ckptrules.engine.entries import Identity
from ckptrules.storage import moving
from ckptrules.storage.base import Changed
from ckptrules.storage.looking import stands_for
from ckptrules.storage.state import Folders


def stands(folders: Folders, here: Spot, identity: Identity) -> bool:
    """Say whether a name stands for what it stood for; OSError where nothing is there."""
    return stands_for(folders.descriptor(here.directory), here.name, identity)


def is_free(folders: Folders, here: Spot) -> bool:
    """Say whether nothing stands under a name; OSError where its directory is not there."""
    return moving.status_of(folders.descriptor(here.directory), here.name) is None


def move(folders: Folders, here: Spot, there: Spot, identity: Identity) -> None:
    """Bring what stands under one name under another one, without ever overwriting; the times of the file stay.

    Raises:
        FileExistsError: the new name is taken.
        Changed: something else stands under the old one.
        OSError: the system refuses.
    """
    directory = folders.descriptor(here.directory)
    same = there.directory == here.directory
    target = directory if same else folders.descriptor(there.directory, create=True)
    if not stands_for(directory, here.name, identity):
        raise Changed(here.name)
    moving.rename(directory, here.name, there.name, target)


def is_moved(folders: Folders, here: Spot, there: Spot, identity: Identity, *, taken_again: bool) -> bool:
    """Say whether a move was made; what a crash left between its two system calls is finished first.

    What is left under the old name may be a link that was to stay there, or what somebody has written since.

    ``taken_again`` says that a later step brought what stands under the old name now.
    """
    target = folders.descriptor(there.directory)
    try:
        directory = folders.descriptor(here.directory)
    except FileNotFoundError:  # a folder of the workplace, which went when all that waited in it had left
        return stands_for(target, there.name, identity)
    old, new = None if taken_again else moving.status_of(directory, here.name), moving.status_of(target, there.name)
    both = (directory, here.name, target, there.name)
    if old and new and stands_for(directory, here.name, identity) and _finish_two_steps(*both, old, new):
        old = None
    is_old_there = old is not None and stands_for(directory, here.name, identity)
    return not is_old_there and stands_for(target, there.name, identity)


def _finish_two_steps(
    directory: int, name: str, target: int, to: str, old: os.stat_result, new: os.stat_result
) -> bool:
    """Finish what a crash left between the two steps and say so; the empty directory of a first step is removed."""
    if name not in os.listdir(directory) or to not in os.listdir(target):
        return False  # where case is ignored, one file answers to both names
    if stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(new.st_mode):
        with contextlib.suppress(OSError):  # it is not empty, so it is none of ours
            os.rmdir(to, dir_fd=target)
        return False
    if os.path.samestat(old, new):
        os.unlink(name, dir_fd=directory)
        return True
    return False
