"""Exchanges the names of two files, and recognises the files by their marks."""

from __future__ import annotations

import hashlib
import os

from ckptrules.engine.entries import Spot
from ckptrules.storage import reading, streams
from ckptrules.storage.base import Changed, HalfWayError
from ckptrules.storage.moving import link_exclusively, status_of, swap
from ckptrules.storage.state import Folders

SPARE = ".spare"


def exchange(folders: Folders, here: Spot, there: Spot, marks: str) -> None:
    """Exchange the names of two files, in one step if the system can.

    Otherwise the first file gets a second name (`SPARE`), the other file takes its first name, and the second name is
    renamed to that of the other.

    ``marks`` are those of both files (`mark`), with a space between.

    Raises:
        Changed: a file has another mark; nothing is changed.
        HalfWayError: the first has the other's content, and its own still has the spare name.
    """
    directory = folders.descriptor(here.directory)
    target = folders.descriptor(there.directory, create=True)
    if not is_marked(folders, here, there, marks):
        raise Changed(here.name)
    marks = other_way_round(marks)
    if not swap(directory, here.name, target, there.name, lambda: is_marked(folders, here, there, marks)):
        spare = there.name + SPARE
        link_exclusively(directory, here.name, target, spare)
        os.rename(there.name, here.name, src_dir_fd=target, dst_dir_fd=directory)
        try:
            os.rename(spare, there.name, src_dir_fd=target, dst_dir_fd=target)
        except OSError as error:
            raise HalfWayError(error.errno, error.strerror, here.name) from None


def finish_exchange(folders: Folders, there: Spot) -> None:
    """Finish an exchange of three steps, or undo its first, after a crash."""
    target = folders.descriptor(there.directory)
    spare = there.name + SPARE
    if status_of(target, spare):
        if status_of(target, there.name):
            os.unlink(spare, dir_fd=target)
        else:
            os.rename(spare, there.name, src_dir_fd=target, dst_dir_fd=target)


def mark(folders: Folders, here: Spot) -> str:
    """Return the mark of a file: inode, size in bytes, time in nanoseconds and `_edges`, with dots between.

    It tells the file from another one that takes its name, even after both were copied elsewhere.
    """
    with reading.open_file_in(folders.descriptor(here.directory), here.name) as file:
        status = os.fstat(file)
        return f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{_edges(file, status.st_size)}"


def other_way_round(marks: str) -> str:
    """Return the marks of two files in the order after an exchange."""
    return " ".join(reversed(marks.split(" ")))


def is_marked(folders: Folders, here: Spot, there: Spot, marks: str) -> bool:
    """Return whether two files have these marks.

    A file is recognised by inode, size and time. With another inode, as in a copy of the tree, it is recognised by
    size, time and edges. Marks in earlier journals have no edges: there the two files must differ in size or time.
    """
    one, other = (text.split(".") for text in marks.split(" "))
    alike = one[1:3] == other[1:3]
    return all(
        _has_mark(folders.descriptor(spot.directory), spot.name, seen, alike=alike)
        for spot, seen in ((here, one), (there, other))
    )


def _has_mark(directory: int, name: str, seen: list[str], *, alike: bool) -> bool:
    status = os.lstat(name, dir_fd=directory)
    inode, size, mtime_ns, *edges = seen
    if (str(status.st_size), str(status.st_mtime_ns)) != (size, mtime_ns):
        return False
    if str(status.st_ino) == inode:
        return True
    if not edges:
        return not alike
    with reading.open_file_in(directory, name) as file:
        return [_edges(file, status.st_size)] == edges


def _edges(file: int, size: int) -> str:
    """Return a checksum of the first and the last MiB of a file.

    A zip file ends with its directory, which has the checksum of every entry (APPNOTE.TXT 6.3.10, 4.3.12).
    """
    ends = os.pread(file, streams.CHUNK, 0), os.pread(file, streams.CHUNK, max(0, size - streams.CHUNK))
    return hashlib.sha256(b"".join(ends)).hexdigest()[:32]
