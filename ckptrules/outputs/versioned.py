"""Says whether a file under git has changes that are not committed, and runs nothing: git runs what a repository says.

A repository names programs in its configuration (monitors, filters, hooks), so of somebody's repository only the index
is read, as a file (``gitformat-index(5)``). It tells what a file was when it was added, and which folders are in it as
they were committed or checked out. Where it cannot be read, the file may have changed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ckptrules.engine.measures import NS
from ckptrules.storage import reading, streams

CHANGED = "has changes that are not committed"
UNKNOWN = "may have changes that are not committed"
LARGEST = 1 << 28  # bytes of an index that is read
LONGEST_PATH = 4096  # bytes
VERSIONS = (2, 3, 4)
PACKED_NAMES = 4  # the version that leaves out what a name has in common with the one before
ENTRY = struct.Struct(">8x2I20xI")  # of an entry before its checksum: when it was written (s, ns), its size
MERGING, EXTENDED = 0x3000, 0x4000  # flags of an entry: of a merge that is not finished, with more flags behind
ELSEWHERE = (b"link", b"sdir")  # extensions: entries stand in another file, or one stands for a whole folder
TREES = b"TREE"  # the extension that tells of folders
Digest = Callable[..., Any]


class Tracked(NamedTuple):
    """A file in the index: its checksum, what was seen of it then, and whether a merge of it is not finished."""

    checksum: bytes
    size: int
    mtime_ns: int
    merging: bool


class GitIndex(NamedTuple):
    """The files of an index, the folders (empty for the top) in which nothing was added since, when it was written."""

    entries: Mapping[bytes, Tracked]
    folders: frozenset[bytes]
    digest: Digest
    written_ns: int


def how_changed(path: str, content: bytes, known: dict[str, GitIndex]) -> str:
    """Say how a file may differ from what is committed, or nothing. A file that git does not track does not.

    ``known`` are the indexes that were read before; each is read once.
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
    """Find the top of the work tree that a folder lies in, and where its index is; a submodule's is elsewhere."""
    while True:
        git = os.path.join(folder, ".git")
        if os.path.isdir(git):
            return folder, git
        if os.path.isfile(git):
            text = os.fsdecode(_bytes(folder, ".git")[0])
            return folder, os.path.join(folder, text.removeprefix("gitdir:").strip())
        above = os.path.dirname(folder)
        if above == folder:
            return "", ""
        folder = above


def _bytes(folder: str, path: str) -> tuple[bytes, int]:
    """Read a plain file of a repository, and when it was written; no link is followed, no pipe waited for."""
    with reading.open_file(folder, path) as file:
        status = os.fstat(file)
        if status.st_size > LARGEST:
            raise ValueError
        return b"".join(streams.chunks(file, status.st_size)), status.st_mtime_ns


def _folders(name: bytes) -> Iterator[bytes]:
    """Yield the folders that a file lies in, the nearest first; the last is the top."""
    while name:
        name = name.rpartition(b"/")[0]
        yield name


def _is_same(entry: Tracked, status: os.stat_result, content: bytes, index: GitIndex) -> bool:
    """Say whether a file is as it was added: by content, or by time where a filter stands between the two.

    What was changed in the moment when the index was written may have its time (git: racily clean).
    """
    if index.digest(b"blob %d\0" % len(content) + content).digest() == entry.checksum:
        return True
    seen = (status.st_size & 0xFFFFFFFF, status.st_mtime_ns)
    return seen == (entry.size, entry.mtime_ns) and status.st_mtime_ns < index.written_ns


def _read_index(own: str) -> GitIndex:
    """Read the index of a repository; it is not there before the first file is added."""
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
    """Read the files of an index; return also where they end. What is merged stands there several times."""
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
    """Yield the paths of the folders that are known as a whole: a row has a name, and tells how many follow in it."""
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
    """Read a number, and say where it ends: seven bits a byte, the highest first; each further byte adds one."""
    number = data[at] & 0x7F
    while data[at] & 0x80:
        at += 1
        number = (number + 1) << 7 | data[at] & 0x7F
    return number, at + 1
