"""Tell whether a file under git has uncommitted changes, without running git.

The configuration of a repository names programs (monitors, filters, hooks) that git would run. So only its index is
read, as a file (``gitformat-index(5)``). The index has the checksum of each file when it was added, and the folders
that are as they were committed or checked out. If the index cannot be read, the file may have changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ckptrules.engine.measures import NS
from ckptrules.storage import reading, streams

CHANGED = "has changes that are not committed"
UNKNOWN = "may have changes that are not committed"
LARGEST = 1 << 28  # bytes of an index that is read
LONGEST_PATH = 4096  # bytes
VERSIONS = (2, 3, 4)
PACKED_NAMES = 4  # the version in which a name leaves out the beginning that it shares with the one before
ENTRY = struct.Struct(">8x2I20xI")  # of an entry, before its checksum: modification time (s, ns) and size
MERGING, EXTENDED = 0x3000, 0x4000  # flags of an entry: its merge is not finished; more flags follow
ELSEWHERE = (b"link", b"sdir")  # extensions: entries are in another file, or one stands for a whole folder
TREES = b"TREE"  # the extension with the folders
Digest = Callable[..., Any]


class Tracked(NamedTuple):
    """A file in the index: its checksum, its size and time when it was added, and whether its merge is unfinished."""

    checksum: bytes
    size: int
    mtime_ns: int
    merging: bool


class GitIndex(NamedTuple):
    """The index of a repository.

    ``entries`` are its files, ``folders`` those to which nothing was added since a commit (empty for the top),
    ``digest`` makes its checksums, and ``written_ns`` is its time in nanoseconds since 1970.
    """

    entries: Mapping[bytes, Tracked]
    folders: frozenset[bytes]
    digest: Digest
    written_ns: int


def how_changed(path: str, content: bytes, known: dict[str, GitIndex]) -> str:
    """Return how a file may differ from what is committed; empty if it does not, or git does not track it.

    ``known`` caches the indexes that were read, by the folder of the repository.
    """
    real = os.path.realpath(path)
    try:
        top, own = _repository(os.path.dirname(real))
        if not own:
            return ""
        if own not in known:
            known[own] = _read_index(own)
        index, name = known[own], os.fsencode(os.path.relpath(real, top))
        entry = index.entries.get(name)
        if entry is None:
            return ""
        if entry.merging or not _is_same(entry, os.stat(real), content, index):
            return CHANGED
    except (OSError, ValueError, LookupError, struct.error):  # not understood
        return UNKNOWN
    return "" if any(folder in index.folders for folder in _folders(name)) else UNKNOWN


def _repository(folder: str) -> tuple[str, str]:
    """Return the top of the work tree around a folder, and the folder of its index; both empty outside of git.

    The index of a submodule is not in its ``.git``, which is a file.
    """
    for top in (folder, *map(str, Path(folder).parents)):
        git = os.path.join(top, ".git")
        if os.path.isdir(git):
            return top, git
        if os.path.isfile(git):
            text = os.fsdecode(_bytes(top, ".git")[0])
            return top, os.path.join(top, text.removeprefix("gitdir:").strip())
    return "", ""


def _bytes(folder: str, path: str) -> tuple[bytes, int]:
    """Return the content and the time of a plain file of a repository; follows no link, waits for no pipe."""
    with reading.open_file(folder, path) as file:
        status = os.fstat(file)
        if status.st_size > LARGEST:
            raise ValueError
        return b"".join(streams.chunks(file, status.st_size)), status.st_mtime_ns


def _folders(name: bytes) -> Iterator[bytes]:
    """Yield the folders that contain a file, the nearest first and the top last."""
    while name:
        name = name.rpartition(b"/")[0]
        yield name


def _is_same(entry: Tracked, status: os.stat_result, content: bytes, index: GitIndex) -> bool:
    """Return whether a file is as it was added: by content, or by size and time where a filter changes the content.

    A file with the time of the index may have been changed after it was added (git: racily clean), so it is not.
    """
    if index.digest(b"blob %d\0" % len(content) + content).digest() == entry.checksum:
        return True
    seen = (status.st_size & 0xFFFFFFFF, status.st_mtime_ns)
    return seen == (entry.size, entry.mtime_ns) and status.st_mtime_ns < index.written_ns


def _read_index(own: str) -> GitIndex:
    """Return the index of a repository; an empty one before the first file is added."""
    try:
        data, written_ns = _bytes(own, "index")
    except OSError as error:
        if error.errno == errno.ENOENT:
            return GitIndex({}, frozenset(), hashlib.sha1, 0)
        raise
    is_sha1 = hashlib.sha1(data[:-20], usedforsecurity=False).digest() == data[-20:] or not any(data[-20:])
    digest: Digest = hashlib.sha1 if is_sha1 else hashlib.sha256
    length = digest().digest_size
    entries, at = _read_entries(data, length)
    folders: frozenset[bytes] = frozenset()
    while at < len(data) - length:
        kind, size = struct.unpack_from(">4sI", data, at)
        end = at + 8 + size
        if kind in ELSEWHERE:
            raise ValueError
        if kind == TREES:
            folders = frozenset(_whole_folders(data[at + 8 : end], length))
        at = end
    return GitIndex(entries, folders, digest, written_ns)


def _read_entries(data: bytes, length: int) -> tuple[dict[bytes, Tracked], int]:
    """Return the files of an index, and the offset of their end; a file in a merge has several entries."""
    kind, version, count = struct.unpack_from(">4s2I", data)
    if kind != b"DIRC" or version not in VERSIONS:
        raise ValueError
    at, name, found = 12, b"", {}
    for _ in range(count):
        seconds, ns, size = ENTRY.unpack_from(data, at)
        checksum, flags = struct.unpack_from(f">{length}sH", data, at + ENTRY.size)
        start = at + ENTRY.size + length + (4 if flags & EXTENDED else 2)
        kept = b""
        if version == PACKED_NAMES:
            dropped, start = _varint(data, start)
            kept = name[: len(name) - dropped]
        end = data.index(b"\0", start)
        name = kept + data[start:end]
        if len(name) > LONGEST_PATH:
            raise ValueError
        found[name] = Tracked(checksum, size, seconds * NS + ns, bool(flags & MERGING))
        at = end + 1 if version == PACKED_NAMES else at + (end - at + 8) // 8 * 8
    return found, at


def _whole_folders(data: bytes, length: int) -> Iterator[bytes]:
    """Yield the folders to which nothing was added since; each row has a name and the number of its subfolders."""
    at, around = 0, [(b"", 1)]  # paths, and how many rows are still to come in each
    while at < len(data):
        end, line = data.index(b"\0", at), data.index(b"\n", at)
        count, inner = map(int, data[end + 1 : line].split())
        while not around[-1][1]:
            around.pop()
        above, more = around[-1]
        path = b"/".join(filter(None, (above, data[at:end])))
        if len(path) > LONGEST_PATH:
            raise ValueError
        around[-1:] = [(above, more - 1), (path, inner)]
        if count >= 0:
            yield path
        at = line + 1 + (length if count >= 0 else 0)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and the offset of its end: seven bits a byte, the highest first; each further byte adds one."""
    number = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        number = (number + 1) << 7 | data[at] & 0x7F
    return number, at + 1
