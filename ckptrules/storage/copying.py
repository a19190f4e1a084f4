"""Copies files with their metadata and holes."""

from __future__ import annotations

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
from ckptrules.storage.writing import NEW, new_file, skip, write

FICLONE = 0x40049409  # linux/fs.h


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
        with new_file(directory, name, flags=os.O_RDONLY if is_clone else NEW) as copy:
            digest = Checksum(item.checksum)
            if is_clone:
                size = streams.digest_part(copy, 0, os.fstat(copy).st_size, digest, progress)
            else:
                size = _copy_bytes(origin, copy, before.st_size, digest, progress)
            lost = set_metadata(copy, item)
            os.utime(copy, ns=(before.st_atime_ns, item.mtime_ns if as_item else before.st_mtime_ns))
            os.fsync(copy)
            changed = _is_changed(before, origin)
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

    Bytes are hashed as they were read: so the checksum shows a copy that the system has spoilt.
    """
    done = 0
    for chunk, is_hole in streams.pieces(origin, 0, size):
        skip(copy, len(chunk)) if is_hole else write(copy, chunk)
        digest.update(chunk)
        done += len(chunk)
        progress(len(chunk))
    os.ftruncate(copy, done)
    return done


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
