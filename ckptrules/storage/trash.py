"""Lists and empties the trash, a folder of the state, on any storage."""

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
from ckptrules.storage.base import Changed, Storage, identity_of_stat, is_known_by

NOT_IN_TRASH = "is not in the trash"
RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d+")


class TrashUse(NamedTuple):
    """How many names (checkpoints and the files that go with them) are in the trash, or were freed, and their bytes.

    Bytes are those that are freed: a file with several names counts once, and not at all if one of them is elsewhere.
    """

    items: int
    size: int


class TrashItem(NamedTuple):
    """A name in the trash: the run that put it there, the directory it was in, its name there, and its bytes.

    The bytes of a file with several names (``shared``) count with the last of them, and not at all if one of them is
    elsewhere.
    """

    run: str
    directory: str
    name: str
    size: int
    shared: tuple[HardLinks, ...] = ()

    @property
    def path(self) -> str:
        """Where it lies, below the root of its storage."""
        return os.path.normpath(os.path.join(TRASH, self.run, self.directory, self.name + TRASH_SUFFIX))


class Emptied(NamedTuple):
    """What was freed from the trash; ``left`` maps paths below the root that could not be freed to the reasons."""

    freed: TrashUse
    left: Mapping[str, OSError]


def trash_runs(storage: Storage) -> list[str]:
    """List the runs that have something in the trash, oldest first; see `foreign_paths` for other names."""
    try:
        return sorted(name for name, _ in storage.list(TRASH) if _is_of_a_run(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def foreign_paths(storage: Storage) -> list[str]:
    """List the paths in the trash that no run of ours has made. No other function lists them, and none frees them."""
    with contextlib.suppress(OSError):
        return sorted(f"{TRASH}/{name}" for name, _ in storage.list(TRASH) if not _is_of_a_run(name))
    return []


def _is_of_a_run(name: str) -> bool:
    """Return whether a name in the trash is the id of a run, with a sound time, from which its age is counted."""
    try:
        run_started(name)
    except ValueError:
        return False
    return RUN_ID.fullmatch(name) is not None


def run_started(run: str) -> float:
    """Return when a run started by its id, in seconds since 1970; ValueError if that begins with no time."""
    return datetime.strptime(run.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def trash_use(storage: Storage, runs: Sequence[str] | None = None) -> TrashUse:
    """Count names and bytes in the trash, of some runs or of all; what cannot be read counts as nothing.

    The old text of a pointer file counts with its bytes, but not as a name.
    """
    found: list[TrashItem] = []
    for run in trash_runs(storage) if runs is None else runs:
        with contextlib.suppress(OSError):
            found += _found(storage, run)
    items = list(_each_once(found))
    return TrashUse(sum(not pointer_of(item.name) for item in items), sum(item.size for item in items))


def trash_items(storage: Storage) -> list[TrashItem]:
    """List what is in the trash, oldest run first."""
    return list(_each_once(one for run in trash_runs(storage) for one in _found(storage, run)))


def empty_trash(storage: Storage, runs: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> Emptied:
    """Remove what some runs have in the trash, as far as it can be removed.

    ``stopped`` is called before each item; once it returns True, nothing more is removed.
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
    """Remove what a step has just moved to the trash; `Changed` if it is something else by now."""
    if not step.to_directory.startswith(f"{TRASH}/"):
        raise OSError(errno.EPERM, NOT_IN_TRASH, step.to)
    path = step.there.path
    if not is_known_by(identity_of_stat(storage.stat(path)), step.identity):
        raise Changed(step.to)
    storage.remove(path)


def _found(storage: Storage, run: str, directory: str = ".") -> Iterator[TrashItem]:
    """Yield what a run has moved to the trash from a directory, or from below it; each with all of its bytes."""
    here = os.path.normpath(os.path.join(TRASH, run, directory))
    folders = []
    for name, stat in sorted(storage.list(here)):
        if not name.endswith(TRASH_SUFFIX):
            folders += [name] * (stat.kind == "directory")
            continue
        if stat.kind == "directory":  # it was moved as a whole
            with contextlib.suppress(OSError):  # the bytes of a folder that we may not read stay unknown
                stat = storage.stat(f"{here}/{name}")  # noqa: PLW2901
        yield TrashItem(run, directory, name.removesuffix(TRASH_SUFFIX), stat.size, stat.shared)
    for name in folders:
        yield from _found(storage, run, os.path.normpath(os.path.join(directory, name)))


def _empty(storage: Storage, folder: str, stopped: Callable[[], bool]) -> dict[str, OSError]:
    """Remove a folder of the trash, item by item; return those that are left, and why."""
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
    """Remove a path, as far as it can be removed; return it, and why, if something is left."""
    try:
        storage.remove(path)
    except FileNotFoundError:  # in a storage without folders, a folder is gone when the last file in it is
        return {}
    except OSError as error:
        return {path: error}
    return {}


def _each_once(items: Iterable[TrashItem]) -> Iterator[TrashItem]:
    """Give each item the bytes that are freed by removing it after those before it: so all add up to what is freed."""
    gone = Counter[tuple[int, int]]()
    for item in items:
        size = item.size
        for link in item.shared:
            gone[link[:2]] += link.here
            size += link.size * ((gone[link[:2]] == link.names) - link.here)
        yield item._replace(size=size)
