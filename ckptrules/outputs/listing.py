"""List one checkpoint directory and its part folders."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator

from ckptrules.engine.entries import LEADS_NOWHERE, Directory, Entry, Listing, OutsideLink, is_part_folder
from ckptrules.outputs.find import UNREADABLE
from ckptrules.outputs.links import ways_to_read
from ckptrules.storage.looking import NO_FILE, hard_links, unread_text, walk_folder
from ckptrules.storage.reading import open_below, open_inner

GONE_OR_HIDDEN = (*LEADS_NOWHERE, errno.EACCES)


def scan(outputs_dir: str, found: Directory) -> Listing:
    """Read one checkpoint directory.

    Raises:
        OSError: it cannot be read, or is no longer a plain directory below ``outputs_dir``.
    """
    with open_below(outputs_dir, found.directory) as directory:
        return read_directory(directory, found)


def read_directory(directory: int, found: Directory) -> Listing:
    """Read one checkpoint directory that is open.

    Raises:
        OSError: the directory cannot be read; or it could not be searched for checkpoint directories before, so that
            these would be missing.
    """
    if found.stamp == UNREADABLE:
        raise OSError(errno.EAGAIN, "could not be looked into a moment ago")
    entries = tuple(read_names(directory, os.listdir(directory)))
    if not found.part_folders:
        return Listing(found.experiment, found.directory, entries)
    folders = {e.name for e in entries if e.kind == "directory" and is_part_folder(e.name, found.part_folders)}
    inside = [entry for folder in sorted(folders) for entry in _read_part_folder(directory, folder)]
    others = [_into(entry, folders) for entry in entries if entry.name not in folders]
    return Listing(found.experiment, found.directory, (*others, *inside), tuple(sorted(folders)))


def _read_part_folder(directory: int, folder: str) -> Iterator[Entry]:
    """Read a part folder; each name begins with that of the folder.

    Raises:
        OSError: the folder cannot be read, so its content is unknown.
    """
    opened = open_inner(directory, folder)
    try:
        for entry in read_names(opened, os.listdir(opened)):
            sibling = entry.sibling and f"{folder}/{entry.sibling}"
            yield entry._replace(name=f"{folder}/{entry.name}", sibling=sibling)
    finally:
        os.close(opened)


def _into(entry: Entry, folders: Collection[str]) -> Entry:
    """Return a link into a part folder as a link to the name in there."""
    inner, _, behind = entry.behind[1:].partition("/")
    if entry.sibling not in folders or not inner:
        return entry
    return entry._replace(sibling=f"{entry.sibling}/{inner}", behind=f"/{behind}" if behind else "")


def into_part_folders(links: Iterable[OutsideLink], listing: Listing) -> tuple[OutsideLink, ...]:
    """Return links in other directories that lead into a part folder as links to the names in there."""
    return tuple(link._replace(entry=_into(link.entry, listing.part_folders)) for link in links)


def _read_entry(directory: int, name: str, status: os.stat_result) -> Entry:
    if stat.S_ISREG(status.st_mode):
        if status.st_nlink > 1:
            return Entry(name, "file", status.st_size, status.st_mtime_ns, shared=hard_links([status]))
        return Entry(name, "file", status.st_size, status.st_mtime_ns)
    if stat.S_ISLNK(status.st_mode):
        return _read_link(directory, name, status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        with contextlib.suppress(RecursionError):  # thousands of nested folders are no checkpoint
            return _read_folder(directory, name, status)
    return Entry(name, "other", 0, status.st_mtime_ns)


def read_names(directory: int, names: Iterable[str]) -> Iterator[Entry]:
    """Read some names of an open directory as `read_directory` does; missing ones are left out.

    Raises:
        OSError: a name cannot be read, or is a link that vanishes meanwhile: its target, which must stay, is unknown.
    """
    for name in names:
        try:
            status = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            continue
        yield _read_entry(directory, name, status)


def _read_link(directory: int, name: str, mtime_ns: int) -> Entry:
    text = os.readlink(name, dir_fd=directory)
    try:
        os.stat(name, dir_fd=directory)
        dangling = False
    except OSError as error:
        if error.errno not in GONE_OR_HIDDEN:
            raise  # taken for a dangling link, it would not follow the rename of its target
        dangling = error.errno in LEADS_NOWHERE
    sibling, behind = _split_at(directory, text)
    return Entry(name, "link", 0, mtime_ns, text, sibling, dangling, behind)


def _split_at(directory: int, text: str) -> tuple[str | None, str]:
    """Return the part of a link's text that is a name in the directory (or None), and the text after it."""
    for parent, name, behind in ways_to_read(text):
        try:
            if name not in (".", "..") and os.path.samestat(
                os.stat(parent or ".", dir_fd=directory), os.fstat(directory)
            ):
                return name, behind
        except OSError as error:
            if error.errno not in GONE_OR_HIDDEN:
                raise
    return None, ""


def _read_folder(directory: int, name: str, status: os.stat_result) -> Entry:
    """Read a folder in a checkpoint directory; one that contains only dangling links counts as empty."""
    try:
        found = walk_folder(directory, name)
    except PermissionError as error:
        why = unread_text("", error)
        return Entry(name, "directory", 0, status.st_mtime_ns, hollow=why, unread=True)
    size, mtime_ns = found.identity[1:]
    entry = Entry(
        name, "directory", 0, status.st_mtime_ns, known_by=found.identity, hollow=found.hollow, unread=found.unread
    )
    if not found.holds_something:
        return entry
    return entry._replace(
        size=size,
        mtime_ns=status.st_mtime_ns if mtime_ns == NO_FILE else mtime_ns,
        torn=found.torn,
        only_texts=found.only_texts,
        shared=found.shared,
        files=found.files,
    )
