"""Copies files with their metadata and holes."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sys
from collections.abc import Callable

from ckptrules.engine.entries import Item
from ckptrules.storage import reading, streams
from ckptrules.storage.metadata import set_metadata, with_metadata
from ckptrules.storage.reading import Progress, open_below
from ckptrules.storage.streams import Checksum
from ckptrules.storage.writing import new_file, write

FICLONE = 0x40049409  # linux/fs.h
PIECE = 8 << 20  # bytes that the system copies at once: so few that its cache still has them to be hashed


def copy_file(
    root: str,
    item: Item,
    to_root: str,
    to: str,
    how: str,
    progress: Progress,
    *,
    as_item: bool = False,
) -> tuple[Item, str, tuple[str, ...]]:
    """Copy a file durably to a new name, with its holes, its time and its metadata.

    Only bytes that the file had when the copy began are copied.

    Args:
        root: a folder.
        item: the file, below it.
        to_root: another folder, or the same.
        to: the path of the copy, below it; its directory must be there.
        how: ``copy``, ``clone`` (or a copy, if the file system cannot clone) or ``link``.
        progress: is called with the number of bytes of each step.
        as_item: take time and metadata from the item, not from the file: the file may be in a backup on a disk that
            keeps no owners and no access lists.

    Returns:
        the item as it was copied, with a checksum of the same algorithm; ``how`` it was copied; what metadata is lost.

    Raises:
        SourceError: the file cannot be read.
        FileExistsError: the new name is taken.
        OSError: the copy cannot be written. After any error, nothing of it is left.
    """
    folder, name = os.path.split(to)
    with reading.open_file(root, item.path) as origin, open_below(to_root, folder) as directory:
        if how == "link":
            return _link(root, item, directory, name, progress), how, ()
        before = os.fstat(origin)
        item = item if as_item else with_metadata(item, origin)
        is_clone = how == "clone" and clone(origin, directory, name)
        with new_file(directory, name, flags=os.O_RDONLY if is_clone else os.O_RDWR | os.O_CREAT | os.O_EXCL) as copy:
            digest = Checksum(item.checksum)
            if is_clone:
                size = streams.digest_part(copy, 0, os.fstat(copy).st_size, digest, progress)
            else:
                size = _copy_bytes(origin, copy, before.st_size, digest, progress)
            lost = set_metadata(copy, item)
            os.utime(copy, ns=(before.st_atime_ns, item.mtime_ns if as_item else before.st_mtime_ns))
            os.fsync(copy)
            changed = _is_changed(before, origin)
            if changed and not is_clone:  # the bytes that were hashed may be newer than those that were copied
                size, digest = os.fstat(copy).st_size, Checksum(item.checksum)
                streams.digest_part(copy, 0, size, digest, lambda _: progress(0))
    copied = item._replace(size=size, mtime_ns=before.st_mtime_ns, checksum=str(digest), changed=changed)
    return copied, "clone" if is_clone else "copy", lost


def _link(root: str, item: Item, directory: int, name: str, progress: Progress) -> Item:
    """Make a hard link to a file, and return the item of the file that it leads to: that may be another one by now."""
    folder, file = os.path.split(item.path)
    with open_below(root, folder) as here:
        os.link(file, name, src_dir_fd=here, dst_dir_fd=directory, follow_symlinks=False)
    with new_file(directory, name, flags=os.O_RDONLY) as link:
        before, item, digest = os.fstat(link), with_metadata(item, link), Checksum(item.checksum)
        size = streams.digest_part(link, 0, before.st_size, digest, progress)
        os.fsync(link)
        changed = _is_changed(before, link)
    return item._replace(size=size, mtime_ns=before.st_mtime_ns, checksum=str(digest), changed=changed)


def _is_changed(before: os.stat_result, file: int) -> bool:
    after = os.fstat(file)
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _copy_bytes(origin: int, copy: int, size: int, digest: Checksum, progress: Progress) -> int:
    """Copy up to ``size`` bytes of an open file to an empty one, with the holes, and hash them; return how many.

    The bytes of the original are hashed: so the checksum shows a copy that the system has spoilt.
    """
    done = 0
    for first, behind, is_hole in streams.extents(origin, 0, size):
        for at in range(first, behind, PIECE):
            end = min(at + PIECE, behind)
            copied = end if is_hole else _let_system_copy(origin, copy, at, end)
            done += streams.digest_part(origin, at, copied, digest, progress)
            if done == copied < end:
                done += _copy_through_memory(origin, copy, copied, end, digest, progress)
            if done < end:  # the file was truncated meanwhile
                return done
    if os.fstat(copy).st_size < done:
        os.ftruncate(copy, done)
    return done


def _let_system_copy(origin: int, copy: int, at: int, end: int) -> int:
    """Let the system copy a part of an open file to the same place of another; return up to where.

    After an error, the caller goes on by reading and writing, which shows whether one of the files is at fault.
    """
    with contextlib.suppress(OSError, AttributeError):  # macOS has no such call
        while at < end and (count := os.copy_file_range(origin, copy, end - at, at, at)):
            at += count
    return at


def _copy_through_memory(origin: int, copy: int, at: int, end: int, digest: Checksum, progress: Progress) -> int:
    """Copy a part of an open file to the same place of another by reading, and hash it; return how many bytes."""
    size = 0
    os.lseek(copy, at, os.SEEK_SET)
    for chunk, _ in streams.pieces(origin, at, end):
        write(copy, chunk)
        digest.update(chunk)
        size += len(chunk)
        progress(len(chunk))
    return size


def can_clone(root: str, path: str, probe: str) -> bool:
    """Return whether a file can be cloned to a path: try it, and remove the clone."""
    folder, name = os.path.split(probe)
    with reading.open_file(root, path) as origin, open_below(folder, "") as directory:
        cloned = clone(origin, directory, name)
        if cloned:
            os.unlink(name, dir_fd=directory)
    return cloned


def clone(origin: int, directory: int, name: str) -> bool:
    """Clone an open file: the clone shares its bytes until one of the two is written to.

    Returns False, with the name still free, if the file system has no clones.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        _cloner()(origin, directory, name)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


@functools.cache
def _cloner() -> Callable[[int, int, str], None]:
    if sys.platform != "darwin":
        return _clone_by_ioctl
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).fclonefileat

    def call(origin: int, directory: int, name: str) -> None:
        if function(origin, directory, os.fsencode(name), 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)

    return call


def _clone_by_ioctl(origin: int, directory: int, name: str) -> None:
    with new_file(directory, name) as copy:
        fcntl.ioctl(copy, FICLONE, origin)
