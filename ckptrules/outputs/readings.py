"""Record what a plan was made from besides the names of a directory, and compare it before the plan is remembered.

A directory's own time changes whenever a name in it does. It does not change when a file is rewritten in place, when
something arrives inside a folder checkpoint, or when the target of a link changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ckptrules.engine.entries import Directory, Entry, Listing, OutsideLink
from ckptrules.outputs.listing import read_directory, read_names
from ckptrules.storage import reading
from ckptrules.storage.moving import is_young

Mark = tuple[int, ...]


def marks(directory: int, names: Iterable[str]) -> Mapping[str, Mark] | None:
    """Return inode, size and times of files in an open directory, before they are read; None if one was just written.

    Another write within the same tick of the clock may give the same time, so it could not be seen.
    """
    found = {name: _mark(directory, name) for name in names}
    now_ns = time.time_ns()
    times = [time_ns for mark in found.values() for time_ns in mark[2::4]]
    return None if any(is_young(one, now_ns) for one in times) else found


def read_by(
    listing: Listing, names: Iterable[str] | None, contents: Mapping[str, Mark] | None, links: Sequence[OutsideLink]
) -> dict[str, Any] | None:
    """Return a record of what a plan was made from; empty if only names were read, None if ``contents`` is None.

    ``names`` are the entries of which more than the name counted (None for all). ``contents`` are the `marks` of the
    files whose content was read. ``links`` are those of other directories.
    """
    if contents is None:
        return None
    wanted = None if names is None else sorted(names)
    elsewhere = {os.path.join(folder, link.name): link.link_text for folder, link in links}
    if not (wanted is None or wanted or contents or elsewhere):
        return {}
    entries = [entry for entry in listing.entries if wanted is None or entry.name in set(wanted)]
    return {
        "names": wanted,
        "contents": sorted(contents),
        "links": sorted(elsewhere),
        "digest": _digest(entries, contents, elsewhere),
    }


def holds(outputs_dir: str, directory: str, read: Mapping[str, Any]) -> bool:
    """Return whether everything is still as it was recorded."""
    try:
        with reading.open_below(outputs_dir, directory) as here:
            names = read["names"]
            found = Directory("", directory)
            entries = read_directory(here, found).entries if names is None else read_names(here, names)
            contents = {name: _mark(here, name) for name in read["contents"]}
            elsewhere = {path: _link_text(outputs_dir, path) for path in read["links"]}
            return bool(_digest(entries, contents, elsewhere) == read["digest"])
    except OSError:
        return False


def _mark(directory: int, name: str) -> Mark:
    try:
        status = os.lstat(name, dir_fd=directory)
    except OSError:
        return ()
    behind: Mark = ()
    if stat.S_ISLNK(status.st_mode):  # a pointer file may lie elsewhere
        with contextlib.suppress(OSError):
            there = os.stat(name, dir_fd=directory)
            behind = there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, *behind


def _link_text(outputs_dir: str, path: str) -> str:
    try:
        return os.readlink(os.path.join(outputs_dir, path))
    except OSError:
        return ""


def _digest(entries: Iterable[Entry], contents: Mapping[str, Mark], links: Mapping[str, str]) -> str:
    rows = (sorted(entries), sorted(contents.items()), sorted(links.items()))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
