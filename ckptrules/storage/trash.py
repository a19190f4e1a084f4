"""Frees what lies in the trash."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.values import STATE, TRASH_SUFFIX, Step
from ckptrules.storage import believing
from ckptrules.storage.dressing import PRIVATE
from ckptrules.storage.folders import Folders
from ckptrules.storage.moving import CHANGED, NOT_IN_TRASH
from ckptrules.storage.reading import (
    TrashUse,
    kind_of,
    measure,
    stands_for,
)
from ckptrules.storage.waiting import trash_path


def free_at_once(folders: Folders, step: Step) -> None:
    """Remove what a step has just moved to the trash.

    Raises:
        OSError: it could not be removed; ESTALE where it has changed on its way.
    """
    if not step.to_directory.startswith(f"{STATE}/trash/"):
        raise OSError(errno.EPERM, NOT_IN_TRASH, step.to)
    directory = folders.descriptor(step.to_directory)
    if not stands_for(directory, step.to, step.identity):
        raise OSError(errno.ESTALE, CHANGED, step.to)
    for error in _remove_all(directory, step.to, step.to).values():
        raise error


class Emptied(NamedTuple):
    """What was freed from the trash, and what could not be: paths below ``outputs_dir``, and why."""

    freed: TrashUse
    left: Mapping[str, OSError]


def empty_trash(outputs_dir: str, runs: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> Emptied:
    """Remove what some runs left in the trash. What cannot be removed stays, and the rest goes all the same.

    ``stopped`` is asked before each item: where it says so, that one and those behind it stay.
    """
    freed = TrashUse(0, 0)
    left: dict[str, OSError] = {}
    for run in runs:
        place = f"{STATE}/trash/{run}"
        before = measure(os.path.join(trash_path(outputs_dir), run))
        try:
            with believing.open_state(outputs_dir, "trash") as trash, believing.open_state(outputs_dir, f"trash/{run}"):
                left |= _empty(trash, run, place, stopped)
        except OSError as error:
            left[place] = error
        after = measure(os.path.join(trash_path(outputs_dir), run))
        freed += TrashUse(before.items - after.items, before.size - after.size)
    return Emptied(freed, left)


def _empty(directory: int, name: str, path: str, stopped: Callable[[], bool]) -> dict[str, OSError]:
    """Remove a folder of the trash, item by item; return those that could not be removed whole, and why."""
    left: dict[str, OSError] = {}
    try:
        with _made_ours(directory, name) as inner:
            for below in os.listdir(inner):
                if stopped():
                    left[path] = OSError(errno.EINTR, "the run was stopped", path)
                    break
                if not below.endswith(TRASH_SUFFIX) and kind_of(inner, below) == "directory":
                    left |= _empty(inner, below, f"{path}/{below}", stopped)
                else:
                    left |= _remove_all(inner, below, f"{path}/{below}")
        if not left:
            os.rmdir(name, dir_fd=directory)
    except OSError as error:
        left[path] = error
    return left


def _remove_all(directory: int, name: str, path: str) -> dict[str, OSError]:
    """Remove what can be removed of a name; return its path and the first reason why not all could."""
    try:
        if kind_of(directory, name) != "directory":
            os.unlink(name, dir_fd=directory)
            return {}
        with _made_ours(directory, name) as inner:
            failed = [error for below in os.listdir(inner) for error in _remove_all(inner, below, path).values()]
        if failed:
            return {path: failed[0]}
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        return {path: error}
    return {}


@contextlib.contextmanager
def _made_ours(directory: int, name: str) -> Iterator[int]:
    """Open a folder that is to be emptied; where it is ours, its mode is no obstacle."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        inner = os.open(name, flags, dir_fd=directory)
    except PermissionError:
        os.chmod(name, PRIVATE, dir_fd=directory)  # of 0o000, say; a link in its place is refused next
        inner = os.open(name, flags, dir_fd=directory)
    try:
        with contextlib.suppress(OSError):  # somebody else's may let us write all the same
            os.fchmod(inner, stat.S_IMODE(os.fstat(inner).st_mode) | PRIVATE)
        yield inner
    finally:
        os.close(inner)
