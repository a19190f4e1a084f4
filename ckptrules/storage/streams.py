"""Reads the bytes of files: pieces and holes, checksums, the texts of pointer files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from typing import Any

from ckptrules.storage.reading import Progress, SourceError, open_file, open_file_in

CHUNK = 1 << 20
STREAM = 256 << 10  # bytes of a stream at once: for more, Python asks the system for new memory each time
BLOCK = 512  # bytes, the unit of st_blocks on every file system
_ZEROS = bytes(CHUNK)
ALGORITHMS = ("blake3", "sha256")  # new checksums have the first, those of earlier versions the second
_TEXT = re.compile(rf"({'|'.join(ALGORITHMS)}):[0-9a-f]{{64}}")


class Checksum:
    """The checksum of the bytes given to ``update``; its text is ``blake3:…``.

    ``with_`` is a checksum that it is to be compared with: it uses the same algorithm.
    """

    def __init__(self, with_: str = "") -> None:
        self.algorithm = algorithm_of(with_)
        if self.algorithm == "blake3":
            from blake3 import blake3  # not above: many runs hash nothing

            # In one thread: its pool of threads breaks in a forked process, and workers hash side by side.
            self._hash: Any = blake3()
        else:
            self._hash = hashlib.new(self.algorithm)
        self.update = self._hash.update

    def __str__(self) -> str:
        return f"{self.algorithm}:{self._hash.hexdigest()}"


def algorithm_of(checksum: str) -> str:
    """Return the algorithm that a checksum names; of an empty text, that of new checksums."""
    return checksum.partition(":")[0] or ALGORITHMS[0]


def is_checksum(checksum: object) -> bool:
    """Return whether this is the text of a checksum, with an algorithm that we have."""
    return isinstance(checksum, str) and bool(_TEXT.fullmatch(checksum))


def read_pointer(directory: int, name: str) -> bytes | None:
    """Read a pointer file; None if it is none: longer than some kB, or no text."""
    with open_file_in(directory, name) as file:
        return read_text(file)


def read_text_behind(directory: int, link: str) -> bytes | None:
    """Read the pointer file that a link leads to; None if that is none. Such a file is only read, never changed."""
    file = os.open(link, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        return read_text(file) if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)


def read_text(file: int) -> bytes | None:
    """Read an open pointer file, as `read_pointer`."""
    from ckptrules.engine.pointers import LONGEST_LIST, is_text  # not above: a run with nothing to do reads none

    content = b"".join(chunks(file, LONGEST_LIST + 1))
    return content if is_text(content) else None


def chunks(file: int, size: int) -> Iterator[bytes]:
    """Yield up to so many bytes of an open file; SourceError if they cannot be read."""
    while size > 0:
        try:
            chunk = os.read(file, min(CHUNK, size))
        except OSError as error:
            raise SourceError(*error.args) from None
        if not chunk:
            return
        size -= len(chunk)
        yield chunk


def pieces(file: int, start: int, end: int) -> Iterator[tuple[bytes, bool]]:
    """Yield the chunks of a part of an open file, and whether each is a hole, whose zeros are not read.

    The part ends before the byte ``end``, or where the file ends. SourceError if it cannot be read.
    """
    for first, behind, is_hole in extents(file, start, end):
        if is_hole:
            yield from ((_ZEROS[: behind - at], True) for at in range(first, behind, CHUNK))
            continue
        at = os.lseek(file, first, os.SEEK_SET)
        for chunk in chunks(file, behind - first):
            at += len(chunk)
            yield chunk, False
        if at < behind:  # the file was truncated meanwhile
            return


def extents(file: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the data and holes of a part of an open file, in order: start, end, and whether it is a hole.

    Where the file is truncated meanwhile, missing bytes may be yielded as data.
    """
    if not holes_of(os.fstat(file)):
        yield start, end, False
        return
    while start < end:
        data, hole = _extent(file, start, end)
        if start < data:
            yield start, data, True
        if data < hole:
            yield data, hole, False
        if hole == start:  # the file was truncated meanwhile
            return
        start = hole


def digest_part(file: int, start: int, end: int, digest: Checksum, progress: Progress) -> int:
    """Update a checksum with a part of an open file; return how many bytes there were. As `chunks`."""
    size = 0
    for chunk, _ in pieces(file, start, end):
        digest.update(chunk)
        size += len(chunk)
        progress(len(chunk))
    return size


def holes_of(status: os.stat_result) -> int:
    """Return how many bytes of a file take no space on the disk."""
    return max(0, status.st_size - status.st_blocks * BLOCK) if stat.S_ISREG(status.st_mode) else 0


def checksum(root: str, path: str, progress: Progress, with_: str = "") -> str:
    """Return the checksum of a file below a folder, by the algorithm of the checksum ``with_``. As `open_file`."""
    digest = Checksum(with_)
    with open_file(root, path) as file:
        digest_part(file, 0, os.fstat(file).st_size, digest, progress)
    return str(digest)


def _extent(file: int, start: int, end: int) -> tuple[int, int]:
    """Return where the next data of a file begin and end; on a file system without holes, all is data."""
    try:
        data = min(end, os.lseek(file, start, os.SEEK_DATA))
        return data, min(end, os.lseek(file, data, os.SEEK_HOLE))
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end of the file
            last = max(start, min(end, os.fstat(file).st_size))
            return last, last
        return start, end
