"""The trash: what waits in it, and how it is freed. A folder of the state, on any storage."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ckptrules.engine.actions import Step
from ckptrules.engine.entries import HardLinks
from ckptrules.engine.state_folder import TRASH, TRASH_SUFFIX, pointer_of
from ckptrules.storage.base import Changed, Stat, Storage, identity_of, is_known_by

NOT_IN_TRASH = "is not in the trash"
RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d+")


class TrashUse(NamedTuple):
    """What waits in the trash, or was freed from it: names (checkpoints, and what belongs to them) and bytes.

    The bytes are those that freeing it frees: a file counts once, and not at all while it has another name elsewhere.
    """

    items: int
    size: int


class TrashItem(NamedTuple):
    """One thing in the trash: the run that put it there, the directory that it is from, its name, its bytes.

    A file with several names counts with the first of them, and with none while it has another name elsewhere.
    """

    run: str
    directory: str
    name: str
    size: int

    @property
    def path(self) -> str:
        """Where it lies, below the root of its storage."""
        return os.path.normpath(os.path.join(TRASH, self.run, self.directory, self.name + TRASH_SUFFIX))


class Emptied(NamedTuple):
    """What was freed from the trash, and what could not be: paths below the root of the storage, and why."""

    freed: TrashUse
    left: Mapping[str, OSError]


def trash_runs(storage: Storage) -> list[str]:
    """List the runs that have something in the trash, oldest first. Names that are not ours are left out."""
    try:
        return sorted(name for name, _ in storage.list(TRASH) if _is_of_a_run(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def strangers(storage: Storage) -> list[str]:
    """List the paths of what lies in the trash and is of no run: nothing of ours lists or frees it."""
    with contextlib.suppress(OSError):
        return sorted(f"{TRASH}/{name}" for name, _ in storage.list(TRASH) if not _is_of_a_run(name))
    return []


def _is_of_a_run(name: str) -> bool:
    """Say whether a name in the trash is the id of a run, which begins with a time: by that it waits."""
    try:
        run_started(name)
    except ValueError:
        return False
    return RUN_ID.fullmatch(name) is not None


def run_started(run: str) -> float:
    """Return when a run started, in seconds since 1970.

    Raises:
        ValueError: its id begins with no time.
    """
    return datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def trash_use(storage: Storage, runs: Sequence[str] | None = None) -> TrashUse:
    """Count what waits in the trash: of some runs, or of all. What is not there, or cannot be read, is nothing.

    The old text of a pointer file is nothing that was trashed, and takes its bytes.
    """
    found: list[tuple[TrashItem, Sequence[HardLinks]]] = []
    for run in trash_runs(storage) if runs is None else runs:
        with contextlib.suppress(OSError):
            found += _found(storage, run)
    items = list(_each_once(found))
    return TrashUse(sum(not pointer_of(item.name) for item in items), sum(item.size for item in items))


def trash_items(storage: Storage) -> list[TrashItem]:
    """List what waits in the trash, oldest run first.

    Raises:
        OSError: it cannot be read.
    """
    return list(_each_once(one for run in trash_runs(storage) for one in _found(storage, run)))


def empty_trash(storage: Storage, runs: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> Emptied:
    """Remove what some runs left in the trash. What cannot be removed stays, and the rest goes all the same.

    ``stopped`` is asked before each item: where it says so, that one and those behind it stay.
    """
    gone = TrashUse(0, 0)
    left: dict[str, OSError] = {}
    for run in runs:
        before = trash_use(storage, [run])
        left |= _empty(storage, f"{TRASH}/{run}", stopped)
        after = trash_use(storage, [run])
        gone = TrashUse(gone.items + before.items - after.items, gone.size + before.size - after.size)
    return Emptied(gone, left)


def free_at_once(storage: Storage, step: Step) -> None:
    """Remove what a step has just moved to the trash.

    Raises:
        Changed: it has changed on its way.
        OSError: it could not be removed.
    """
    if not step.to_directory.startswith(f"{TRASH}/"):
        raise OSError(errno.EPERM, NOT_IN_TRASH, step.to)
    path = step.there.path
    if not is_known_by(identity_of(storage.stat(path)), step.identity):
        raise Changed(step.to)
    storage.remove(path)


def _found(storage: Storage, run: str) -> Iterator[tuple[TrashItem, Sequence[HardLinks]]]:
    """Yield what a run left in the trash, each with the files of it that have several names."""
    top = f"{TRASH}/{run}"
    for folder, name, stat in _walk(storage, top):
        directory = os.path.relpath(folder, top)
        yield TrashItem(run, directory, name.removesuffix(TRASH_SUFFIX), stat.size), stat.shared


def _walk(storage: Storage, folder: str) -> Iterator[tuple[str, str, Stat]]:
    """Yield what was put below a folder of the trash, folder by folder: the folder, the name, and what stands there."""
    here = sorted(storage.list(folder))
    for name, stat in here:
        if name.endswith(TRASH_SUFFIX):
            if stat.kind == "directory":  # it was put there as a whole
                with contextlib.suppress(OSError):  # of a locked folder nobody knows the bytes
                    stat = storage.stat(f"{folder}/{name}")  # noqa: PLW2901
            yield folder, name, stat
    for name, stat in here:
        if stat.kind == "directory" and not name.endswith(TRASH_SUFFIX):
            yield from _walk(storage, f"{folder}/{name}")


def _empty(storage: Storage, folder: str, stopped: Callable[[], bool]) -> dict[str, OSError]:
    """Remove a folder of the trash, item by item; return those that could not be removed whole, and why."""
    left: dict[str, OSError] = {}
    try:
        for name, stat in list(storage.list(folder)):
            path = f"{folder}/{name}"
            if stopped():
                left[folder] = OSError(errno.EINTR, "the run was stopped", folder)
                break
            if stat.kind == "directory" and not name.endswith(TRASH_SUFFIX):
                left |= _empty(storage, path, stopped)
            else:
                left |= _removed(storage, path)
    except OSError as error:
        left[folder] = error
    return left or _removed(storage, folder)


def _removed(storage: Storage, path: str) -> dict[str, OSError]:
    """Remove what can be removed of a path; return it, and why not all could."""
    try:
        storage.remove(path)
    except FileNotFoundError:  # a folder goes with the last that is in it, where the storage has no folders
        return {}
    except OSError as error:
        return {path: error}
    return {}


def _each_once(items: Iterable[tuple[TrashItem, Sequence[HardLinks]]]) -> Iterator[TrashItem]:
    """Give each item the bytes that are freed when it and those before it are: they add up to what all of them free."""
    gone = Counter[tuple[int, int]]()
    for item, shared in items:
        size = item.size
        for link in shared:
            gone[link[:2]] += link.here
            size += link.size * ((gone[link[:2]] == link.names) - link.here)
        yield item._replace(size=size)
