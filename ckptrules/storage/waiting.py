"""What waits in the trash."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Sequence
from typing import NamedTuple

from ckptrules.engine.measures import freed
from ckptrules.engine.values import STATE, TRASH_SUFFIX, HardLinks
from ckptrules.storage.believing import open_state
from ckptrules.storage.reading import TrashUse, hard_links, look_inside, measure

RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d+")


def trash_use(outputs_dir: str, runs: Sequence[str] | None = None) -> TrashUse:
    """Count what waits in the trash: of some runs, or of all. What is no folder of ours (a link, say) is nothing."""
    places = []
    for run in trash_runs(outputs_dir) if runs is None else runs:
        with contextlib.suppress(OSError), open_state(outputs_dir, f"trash/{run}"):
            places.append(os.path.join(trash_path(outputs_dir), run))
    return measure(*places)


def trash_runs(outputs_dir: str) -> list[str]:
    """List the runs that have something in the trash, oldest first. Names that are not ours are left out."""
    try:
        return sorted(name for name in os.listdir(trash_path(outputs_dir)) if RUN_ID.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def strangers(outputs_dir: str) -> list[str]:
    """List the paths of what lies in the trash and is of no run: nothing of ours lists or frees it."""
    try:
        names = sorted(os.listdir(trash_path(outputs_dir)))
    except OSError:
        return []
    return [os.path.join(trash_path(outputs_dir), name) for name in names if not RUN_ID.fullmatch(name)]


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
        """Where it lies, below ``outputs_dir``."""
        return os.path.normpath(os.path.join(STATE, "trash", self.run, self.directory, self.name + TRASH_SUFFIX))


def trash_items(outputs_dir: str) -> list[TrashItem]:
    """List what waits in the trash, oldest run first.

    Raises:
        OSError: it cannot be read.
    """
    found: list[tuple[TrashItem, tuple[HardLinks, ...]]] = []
    for run in trash_runs(outputs_dir):
        with open_state(outputs_dir, f"trash/{run}") as top:
            for folder, directories, files, inner in os.fwalk(".", dir_fd=top):
                here = [name for name in (*directories, *files) if name.endswith(TRASH_SUFFIX)]
                directories[:] = sorted(name for name in directories if name not in here)
                for name in sorted(here):
                    size, links = _bytes_of(inner, name)
                    item = TrashItem(run, os.path.normpath(folder), name.removesuffix(TRASH_SUFFIX), size)
                    found.append((item, links))
    return _each_once(found)


def _bytes_of(directory: int, name: str) -> tuple[int, tuple[HardLinks, ...]]:
    status = os.lstat(name, dir_fd=directory)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size, hard_links([status])
    inside = look_inside(directory, name)
    return inside.identity.size, inside.shared


def _each_once(items: Sequence[tuple[TrashItem, tuple[HardLinks, ...]]]) -> list[TrashItem]:
    """Give each item the bytes that are freed when it and those before it are: they add up to what all of them free."""
    size, before, links = 0, 0, list[HardLinks]()
    found = []
    for item, shared in items:
        size += item.size
        links += shared
        now = freed(size, links) if links else size
        found.append(item._replace(size=now - before))
        before = now
    return found


def trash_path(outputs_dir: str) -> str:
    """Return where the trash of ``outputs_dir`` is."""
    return os.path.join(outputs_dir, STATE, "trash")
