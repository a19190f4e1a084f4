"""Renames files and folders, and exchanges them, without ever overwriting one."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import sys
import time
from collections.abc import Callable

from ckptrules.engine.entries import Stamp
from ckptrules.engine.measures import NS
from ckptrules.storage.base import CHANGED, Changed
from ckptrules.storage.looking import stamp_of
from ckptrules.storage.reading import why_of

TICK_NS = 20_000_000
COARSE_TICK_NS = 2 * NS  # of file systems whose times have no fractions of seconds
LINK_CHANGED = "is no longer the link that it was"
NEITHER = "this file system can neither rename without overwriting nor make hard links"
EXCLUSIVE = 1 if sys.platform == "linux" else 4  # RENAME_NOREPLACE, RENAME_EXCL
EXCHANGE = 2  # RENAME_EXCHANGE, RENAME_SWAP
ENCODING = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())  # as `os.fsencode`, in a third of its time
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def rename(directory: int, name: str, to: str, to_directory: int | None = None) -> None:
    """Rename without ever overwriting; the times of the file stay.

    Raises:
        FileExistsError: ``to`` is taken.
        OSError: the system refuses for another reason.
    """
    target = directory if to_directory is None else to_directory
    try:
        try:
            _rename_with(EXCLUSIVE, directory, name, target, to)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            _rename_in_two_steps(directory, name, target, to)
    except FileExistsError:
        if not _is_same_but_for_case(directory, name, target, to):
            raise
        os.rename(name, to, src_dir_fd=directory, dst_dir_fd=target)


def stamp_to_remember(directory: int, names: set[str], *, plain: bool, changed: bool) -> Stamp | None:
    """Return the stamp by which the next run sees that a directory has not changed; None if that run must look again.

    A directory's time stands still within one tick of the clock, so a change in the same tick as the last look would
    never be seen (git: "racily clean"). So the time of a directory that this run has changed is set back by two
    seconds: any later change gives it another time. A directory that somebody else changed within the tick, or that
    holds other names than the plan left, gets no stamp.

    Args:
        directory: its descriptor.
        names: the names that the plan left in it.
        plain: whether all of them are files, and no links.
        changed: whether the plan has changed it.
    """
    status = os.fstat(directory)
    if changed:
        try:
            os.utime(directory, ns=(status.st_atime_ns, min(status.st_mtime_ns, time.time_ns()) - COARSE_TICK_NS))
        except OSError:
            return None
    with os.scandir(directory) as entries:
        left = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    if left.keys() != names or (plain and not all(left.values())):
        return None
    now_ns = time.time_ns()
    status = os.fstat(directory)
    return None if is_young(status.st_mtime_ns, now_ns) else stamp_of(status)


def is_young(time_ns: int, now_ns: int) -> bool:
    """Return whether a time is of the current tick of the clock, so that a change yet to come may not alter it."""
    return now_ns - time_ns < (TICK_NS if time_ns % NS else COARSE_TICK_NS)


@functools.cache
def _system_rename() -> Callable[[int, bytes, int, bytes, int], int]:
    """Return the system's rename with flags: ``renameat2`` of Linux, ``renameatx_np`` of macOS.

    The function returns 0 or the number of an error: ENOSYS if the system has neither.
    """
    import ctypes

    name = "renameat2" if sys.platform == "linux" else "renameatx_np"
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return lambda *_: errno.ENOSYS
    return lambda *arguments: 0 if function(*arguments) == 0 else ctypes.get_errno() or errno.EIO


def _rename_with(flag: int, from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Rename with a flag; ENOSYS if the system cannot."""
    if code := _system_rename()(from_fd, old.encode(*ENCODING), to_fd, new.encode(*ENCODING), flag):
        raise OSError(code, os.strerror(code), new if code == errno.EEXIST else old)


def _rename_in_two_steps(from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Rename where the file system has no exclusive rename. Both ways fail if the new name is taken.

    A file gets its second name before it loses the first. A directory replaces an empty one that is made for it.
    """
    is_directory = stat.S_ISDIR(os.lstat(old, dir_fd=from_fd).st_mode)
    if is_directory:
        os.mkdir(new, dir_fd=to_fd)
    else:
        link_exclusively(from_fd, old, to_fd, new)
    try:
        if is_directory:
            os.rename(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        else:
            os.unlink(old, dir_fd=from_fd)
    except OSError:
        if status_of(from_fd, old) is None:  # it was done, and the server's answer was lost
            return
        with contextlib.suppress(OSError):
            (os.rmdir if is_directory else os.unlink)(new, dir_fd=to_fd)
        raise


def finish_rename(directory: int, name: str, target: int, to: str) -> bool:
    """Finish a rename that a crash interrupted between its two steps; return whether it is done by that.

    The empty directory of a first step is removed: that rename is not done.
    """
    old, new = status_of(directory, name), status_of(target, to)
    if not old or not new or name not in os.listdir(directory) or to not in os.listdir(target):
        return False  # where case is ignored, one file answers to both names
    if stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(new.st_mode):
        with contextlib.suppress(OSError):  # it is not empty, so we did not make it
            os.rmdir(to, dir_fd=target)
        return False
    if os.path.samestat(old, new):
        os.unlink(name, dir_fd=directory)
        return True
    return False


def link_exclusively(from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: the name is taken.
        OSError: ENOTSUP, as the file system has no hard links either (FAT, many stores behind FUSE).
    """
    try:
        os.link(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    except OSError as error:
        ours = os.geteuid() in (0, os.lstat(old, dir_fd=from_fd).st_uid)  # Linux refuses links to files of others
        if error.errno in (*UNSUPPORTED, errno.EOPNOTSUPP) or (error.errno == errno.EPERM and ours):
            raise OSError(errno.ENOTSUP, NEITHER, old) from None
        raise


def _is_same_but_for_case(from_fd: int, old: str, to_fd: int, new: str) -> bool:
    """Return whether a taken name is the old name itself, on a file system that ignores case.

    Such a name is found, but not listed. The inode alone proves nothing: file systems behind FUSE return another for
    each look at a file, and two hard links share one.
    """
    if from_fd != to_fd or old.casefold() != new.casefold():
        return False
    names = os.listdir(from_fd)
    one, other = status_of(from_fd, old), status_of(to_fd, new)
    if old not in names or new in names or not one or not other:
        return False
    return os.path.samestat(one, other) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def status_of(directory: int, name: str) -> os.stat_result | None:
    """Return the status of a name, or None if it is free."""
    try:
        return os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return None


def swap(
    spare_directory: int, spare: str, directory: int, name: str, as_expected: Callable[[], bool], fact: str = CHANGED
) -> bool:
    """Exchange two names in one step, then check the result; return False if the system has no such step.

    If ``as_expected`` returns False or fails, the two are exchanged back.

    Raises:
        Changed: the result was not as expected; ``fact`` says so, and whether it could not be exchanged back.
        OSError: the system refuses, or ``as_expected`` failed.
    """
    try:
        _rename_with(EXCHANGE, spare_directory, spare, directory, name)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    try:
        if as_expected():
            return True
        raise Changed(name, fact)
    except OSError as why:
        try:
            _rename_with(EXCHANGE, spare_directory, spare, directory, name)
        except OSError as error:
            if isinstance(why, Changed):
                raise Changed(name, f"{fact}; what came there cannot go back: {why_of(error)}") from None
            raise
        raise
