"""Copies files with all that a person set: access lists, attributes, owners, holes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from ckptrules.engine.entries import Item
from ckptrules.storage import believing, reading
from ckptrules.storage.believing import explained
from ckptrules.storage.checksums import Checksum
from ckptrules.storage.dressing import PRIVATE, described, dress, dress_as, give_link_away
from ckptrules.storage.moving import rename, status_of
from ckptrules.storage.reading import (
    NO_TRICKS,
    Progress,
    open_below,
)
from ckptrules.storage.state import WORK, open_state
from ckptrules.storage.writing import in_blocks, new_file, remove, temporary_name, write, write_beside, write_with_holes

FICLONE = 0x40049409  # linux/fs.h
PARTIAL = ".{}.partial"  # what an archive is called until it is proved
TRIES = 5  # to remove a folder into which somebody has just written
PIECE = 8 << 20  # bytes that the system copies at once; what it has read for that is then hashed from its memory
SYNCS = 4  # files that may be on their way to the disk while another one is written

Tell = Callable[[str, tuple[str, ...]], object]  # of a copy: its path, and what could not be kept


@contextlib.contextmanager
def new_archive(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """Give a file to write an archive to, and its hidden path; at the end it gets its name, or is gone.

    Raises:
        FileExistsError: the name is taken.
        BlockingIOError: another run is writing it.
        OSError: it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    partial = PARTIAL.format(name)
    with open_below(folder, "") as directory:
        _remove_partial(directory, partial, folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_TRICKS
        mode = 0o664 & os.fstat(directory).st_mode
        with open(os.open(partial, flags, mode, dir_fd=directory), "w+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield file, os.path.join(folder, partial)
                file.flush()
                os.fsync(file.fileno())
                rename(directory, partial, name)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(partial, dir_fd=directory)
                raise
        os.fsync(directory)


@contextlib.contextmanager
def staging(outputs_dir: str, start: str = "unarchive-") -> Iterator[str]:
    """Give a new folder in the workplace, by its path below ``outputs_dir``; remove what is left in it at the end."""
    name = temporary_name(start)
    with open_state(outputs_dir, "work") as work:
        os.mkdir(name, PRIVATE, dir_fd=work)
        try:
            yield f"{WORK}/{name}"
        finally:
            with contextlib.suppress(OSError):  # the next run clears the workplace
                _remove_in_use(work, name)


@contextlib.contextmanager
def waiting(root: str, path: str) -> Iterator[None]:
    """Make a folder in which copies wait for their places; at the end it is removed, with what is left in it.

    Raises:
        OSError: it cannot be made, or removed.
    """
    folder, name = os.path.split(path)
    with open_below(root, folder) as directory:
        os.mkdir(name, PRIVATE, dir_fd=directory)
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                _remove_in_use(directory, name)
            raise
        _remove_in_use(directory, name)


def _remove_in_use(directory: int, name: str) -> None:
    """Remove a folder into which others may still write: under another name none of them finds it.

    Raises:
        OSError: it cannot be removed.
    """
    gone = f"{name}.gone"
    rename(directory, name, gone)
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            return remove(directory, gone)
    return remove(directory, gone)


def place_copy(root: str, path: str, to: str) -> None:
    """Move a copy to its place below a folder in which this process alone gives names, a backup that is being made.

    So it need not be the system that finds the place free: not every disk that takes a backup can (FAT behind FUSE).

    Raises:
        FileExistsError: the place is not free.
        OSError: the system refuses.
    """
    (folder, name), (to_folder, to_name) = os.path.split(path), os.path.split(to)
    with open_below(root, folder) as directory, open_below(root, to_folder) as target:
        if status_of(target, to_name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name)
        os.rename(name, to_name, src_dir_fd=directory, dst_dir_fd=target)


def untold(_: str, __: tuple[str, ...]) -> None:
    """Tell nobody what a copy has lost."""


@contextlib.contextmanager
def syncing() -> Iterator[Callable[[int], None]]:
    """Give what sees an open file on the disk: a large one while others are written; at the end all are there.

    It is synced through the descriptor that has written it, since no other is sure to hear of an error.

    Raises:
        OSError: a file could not be written.
    """
    begun: deque[Future[None]] = deque()

    def sync(file: int) -> None:
        if os.fstat(file).st_size < PIECE:
            os.fsync(file)
            return
        begun.append(pool.submit(_sync, os.dup(file)))
        if len(begun) > SYNCS:
            begun.popleft().result()

    with ThreadPoolExecutor(SYNCS) as pool:
        yield sync
        for each in begun:
            each.result()


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_member(
    root: str, path: str, content: Iterator[bytes], progress: Progress, sync: Callable[[int], None] = os.fsync
) -> str:
    """Write a file of an archive, for the owner alone, ``sync`` it, and return its checksum.

    Zeros become holes.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be written.
    """
    folder, name = os.path.split(path)
    digest = Checksum()
    with open_below(root, folder) as directory, new_file(directory, name) as file:
        for piece in in_blocks(content):
            digest.update(piece)
            write_with_holes(file, piece)
            progress(len(piece))
        os.ftruncate(file, os.lseek(file, 0, os.SEEK_CUR))
        sync(file)
    return str(digest)


def dress_file(root: str, item: Item, progress: Progress) -> tuple[str, ...]:
    """Give a file all that its item says, and its time, see that on the disk, and return what it could not be given."""
    progress(0)
    with reading.open_file(root, item.path) as file:
        lost = dress_as(file, item)
        os.utime(file, ns=(item.mtime_ns, item.mtime_ns))
        os.fsync(file)
    return lost


def make_parents(outputs_dir: str, path: str) -> None:
    """Make the folders above a path that are missing, through no link.

    Raises:
        OSError: something else stands there, or it cannot be written.
    """
    parts = path.split("/")[:-1]
    for length in range(1, len(parts) + 1):
        parent = "/".join(parts[: length - 1])
        with open_below(outputs_dir, parent) as directory, contextlib.suppress(FileExistsError):
            os.mkdir(parts[length - 1], dir_fd=directory)


def write_manifest(folder: str, path: str, text: str) -> None:
    """Write the manifest of a backup; it is the old or the new one at every moment."""
    place = os.path.join(folder, path)
    os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
    write_beside(place, text)


def finish_backup(partial: str, path: str, like: str, tell: Tell = untold) -> None:
    """Give a finished backup its name; its folder is dressed like the one that it is a backup of.

    Raises:
        FileExistsError: the name was taken meanwhile.
    """
    with open_below(like, "") as origin, open_below(partial, "") as copy:
        _tell(tell, like, dress(copy, origin))
    with open_below(os.path.dirname(path) or ".", "") as folder:
        rename(folder, os.path.basename(partial), os.path.basename(path))
        os.fsync(folder)


def remove_backup(path: str, hidden: str, progress: Progress = lambda _: None) -> None:
    """Remove a backup, under a hidden name; what an interruption leaves of it still has its manifest.

    ``progress`` is called before each name that is removed.

    Raises:
        OSError: something could not be removed.
    """
    with open_below(os.path.dirname(path) or ".", "") as folder:
        if hidden != path:
            rename(folder, os.path.basename(path), os.path.basename(hidden))
        remove(folder, os.path.basename(hidden), progress)


def can_clone(root: str, path: str, probe: str) -> bool:
    """Find out by trying whether a file can be cloned to a path; nothing of it stays there."""
    folder, name = os.path.split(probe)
    with reading.open_file(root, path) as origin, open_below(folder, "") as directory:
        cloned = clone(origin, directory, name)
        if cloned:
            os.unlink(name, dir_fd=directory)
    return cloned


def copy_file(
    root: str,
    item: Item,
    to_root: str,
    to: str,
    how: str,
    progress: Progress,
    tell: Tell = untold,
    *,
    as_item: bool = False,
) -> tuple[Item, str]:
    """Copy a file to a new name, with its holes and its time, dressed like it, and see it on the disk.

    Returns what was copied, with its checksum, of the algorithm that the item's names, and how that came about. No more
    is copied than the file had when the copy began.

    Args:
        root: a folder.
        item: the file, below it.
        to_root: another folder, or the same.
        to: the copy, below that; its directory must be there.
        how: ``copy``, ``clone`` (a copy where that cannot be) or ``link``.
        progress: is called with the number of bytes of each step.
        tell: is called with what the copy could not be given.
        as_item: whether the copy is dressed as the item says, with its time, and not like the file: a backup may lie
            where the system knows no owners and no access lists.

    Raises:
        SourceError: the file cannot be read.
        FileExistsError: the new name is taken.
        OSError: the copy cannot be written. Whatever failed, nothing of it is left.
    """
    (folder, name), (to_folder, to_name) = os.path.split(item.path), os.path.split(to)
    with reading.open_file(root, item.path) as origin, open_below(to_root, to_folder) as directory:
        before = os.fstat(origin)
        item = item if as_item else described(item, origin)
        if how == "link":
            with open_below(root, folder) as here:
                os.link(name, to_name, src_dir_fd=here, dst_dir_fd=directory, follow_symlinks=False)
        elif how != "clone" or not clone(origin, directory, to_name):
            how = "copy"
        flags = {"copy": os.O_RDWR | os.O_CREAT | os.O_EXCL}.get(how, os.O_RDONLY)
        copy = os.open(to_name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE, dir_fd=directory)
        try:
            digest = Checksum(item.checksum)
            if how == "copy":
                size = _copy_bytes(origin, copy, before.st_size, digest, progress)
            else:
                awaited = os.fstat(copy).st_size if how == "clone" else before.st_size
                size = reading.digest_part(copy, 0, awaited, digest, progress)
            if how != "link":
                _tell(tell, item.path, dress_as(copy, item))
                os.utime(copy, ns=(before.st_atime_ns, item.mtime_ns if as_item else before.st_mtime_ns))
            os.fsync(copy)
            after = os.fstat(origin)
            changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
            if changed and how == "copy":  # what was hashed may be younger than what was copied
                size, digest = os.fstat(copy).st_size, Checksum(item.checksum)
                reading.digest_part(copy, 0, size, digest, lambda _: progress(0))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(to_name, dir_fd=directory)
            raise
        finally:
            os.close(copy)
    return item._replace(size=size, mtime_ns=before.st_mtime_ns, checksum=str(digest), changed=changed), how


def _copy_bytes(origin: int, copy: int, size: int, digest: Checksum, progress: Progress) -> int:
    """Copy up to so many bytes of an open file to an empty one, with the holes, and hash them; return how many.

    Hashed is what the original holds: so a copy that the system has spoilt is found by its checksum.

    Raises:
        SourceError: they cannot be read.
        OSError: they cannot be written.
    """
    done = 0
    for first, behind, is_hole in reading.extents(origin, 0, size):
        for at in range(first, behind, PIECE):
            end = min(at + PIECE, behind)
            copied = end if is_hole else _let_system_copy(origin, copy, at, end)
            done += reading.digest_part(origin, at, copied, digest, progress)
            if done == copied < end:
                done += _copy_through_memory(origin, copy, copied, end, digest, progress)
            if done < end:  # cut off meanwhile
                return done
    if os.fstat(copy).st_size < done:
        os.ftruncate(copy, done)
    return done


def _let_system_copy(origin: int, copy: int, at: int, end: int) -> int:
    """Let the system copy a part of an open file to the same place of another, and say how far it came.

    It may not know how, or one of the two files fails: to read and to write tells which.
    """
    with contextlib.suppress(OSError, AttributeError):  # macOS has no such call
        while at < end and (count := os.copy_file_range(origin, copy, end - at, at, at)):
            at += count
    return at


def _copy_through_memory(origin: int, copy: int, at: int, end: int, digest: Checksum, progress: Progress) -> int:
    """Copy a part of an open file to the same place of another by reading, and hash it; return how many bytes."""
    size = 0
    os.lseek(copy, at, os.SEEK_SET)
    for chunk, _ in reading.pieces(origin, at, end):
        write(copy, chunk)
        digest.update(chunk)
        size += len(chunk)
        progress(len(chunk))
    return size


def make_link(root: str, item: Item, tell: Tell = untold) -> None:
    """Make a symbolic link with its owner and its time.

    Raises:
        FileExistsError: the name is taken.
    """
    folder, name = os.path.split(item.path)
    with open_below(root, folder) as directory:
        os.symlink(item.link, name, dir_fd=directory)
        _tell(tell, item.path, give_link_away(directory, name, item))
        os.utime(name, ns=(item.mtime_ns, item.mtime_ns), dir_fd=directory, follow_symlinks=False)


def make_directory(root: str, item: Item) -> None:
    """Make a directory that only its owner can fill; `dress_directory` ends that.

    Raises:
        FileExistsError: the name is taken.
    """
    folder, name = os.path.split(item.path)
    with open_below(root, folder) as directory:
        os.mkdir(name, PRIVATE, dir_fd=directory)


def dress_directory(root: str, item: Item, tell: Tell = untold) -> None:
    """Give a filled directory all that its item says, and its time, and see its names on the disk."""
    with open_below(root, item.path) as directory:
        _tell(tell, item.path, dress_as(directory, item))
        os.utime(directory, ns=(item.mtime_ns, item.mtime_ns))
        os.fsync(directory)


def drop_partial(path: str) -> None:
    """Remove what one who was killed has left of an archive; where that cannot be, the next run tries again."""
    folder, name = os.path.split(os.path.abspath(path))
    with contextlib.suppress(OSError), open_below(folder, "") as directory:
        _remove_partial(directory, PARTIAL.format(name), folder)


def _remove_partial(directory: int, name: str, folder: str) -> None:
    """Remove what an interrupted run left of an archive.

    Raises:
        BlockingIOError: another run is writing it.
        OSError: something else stands there, or it cannot be removed.
    """
    try:
        file = os.open(name, os.O_RDWR | NO_TRICKS, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise explained(error, directory, name, folder) from None
    try:
        believing.refuse_other_kinds(os.fstat(file), os.path.join(folder, name))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    finally:
        os.close(file)


def _tell(tell: Tell, path: str, lost: tuple[str, ...]) -> None:
    if lost:
        tell(path, lost)


def clone(origin: int, directory: int, name: str) -> bool:
    """Give an open file a clone: a file of its own that shares its bytes until one of the two is written to.

    Returns False where the file system has none; the name is still free then.

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
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE, dir_fd=directory)
    try:
        fcntl.ioctl(copy, FICLONE, origin)
    except OSError:
        os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(copy)
