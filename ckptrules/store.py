"""The only file that changes the disk. It decides nothing.

No function follows a link below ``outputs_dir``, and none overwrites a file: a taken name fails in the system call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from ckptrules.model import Stamp
from ckptrules.scan import STATE, TRASH_SUFFIX, TrashUse, measure, open_below, refuse_path, stamp_of, trash_path

NS = 1_000_000_000
TICK_NS = 20_000_000
COARSE_TICK_NS = 2 * NS


class LockedError(Exception):
    """Another run holds the lock; the message is what that run wrote about itself."""


@contextlib.contextmanager
def open_state(outputs_dir: str, path: str = "") -> Iterator[int]:
    """Open a folder below the state folder, refusing links, and make what is missing of it; give its descriptor."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(outputs_dir, flags)
    try:
        for part in (STATE, *filter(None, path.split("/"))):
            refuse_path(part)
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=directory)
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory
    finally:
        os.close(directory)


def rename(directory: int, name: str, to: str, to_directory: int | None = None) -> None:
    """Rename without ever overwriting; the times of the file stay.

    Raises:
        FileExistsError: ``to`` is taken.
        OSError: the system refuses for another reason.
    """
    target = directory if to_directory is None else to_directory
    try:
        _exclusive_rename()(directory, name, target, to)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
        _rename_in_two_steps(directory, name, target, to)


def move_to_trash(outputs_dir: str, run: str, path: str, directory: int, name: str) -> None:
    """Move a checkpoint to ``.ckptrules/trash/<run>/<its path>/<its name>.trashed``.

    The path alone tells where it belongs; the suffix keeps ``find -name '*.ckpt'`` from listing it.
    """
    with open_state(outputs_dir, f"trash/{run}/{path}") as trash:
        rename(directory, name, name + TRASH_SUFFIX, trash)


def relink(outputs_dir: str, directory: int, name: str, text: str) -> None:
    """Replace a link by another in one step, so that the name is there at every moment."""
    with open_state(outputs_dir, "work") as workplace:
        temporary = f"link-{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=workplace)
        if not stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode):
            raise FileExistsError(errno.EEXIST, "is no longer a link", name)
        os.symlink(text, temporary, dir_fd=workplace)
        os.rename(temporary, name, src_dir_fd=workplace, dst_dir_fd=directory)


def settle(directory: int, names: set[str], *, changed: bool) -> Stamp | None:
    """Return the stamp to remember a finished directory by, or None where the next run must look again.

    A directory's time stands still within one tick of the clock, so a change in the same tick as the last look
    would be missed for ever (git calls this "racily clean"). A directory that we have just changed is therefore dated
    back by two seconds: any later change gives it another time. One that somebody else changed
    within the tick, or that holds other names than the plan left, is not remembered.
    """
    status = os.fstat(directory)
    if changed:
        try:
            os.utime(directory, ns=(status.st_atime_ns, min(status.st_mtime_ns, time.time_ns()) - COARSE_TICK_NS))
        except OSError:
            return None
    if set(os.listdir(directory)) != names:
        return None
    now = time.time_ns()
    status = os.fstat(directory)
    tick = COARSE_TICK_NS if status.st_mtime_ns % NS == 0 else TICK_NS
    return None if now - status.st_mtime_ns < tick else stamp_of(status)


def empty_trash(outputs_dir: str, runs: Sequence[str], path: str = "") -> TrashUse:
    """Remove what some runs left in the trash (all of it, or only what was in ``path``), and say how much that was.

    Raises:
        OSError: something could not be removed.
    """
    freed = TrashUse(0, 0)
    for run in runs:
        with open_below(outputs_dir, f"{STATE}/trash/{run}"):  # fails where a part of the path is a link
            place = os.path.join(trash_path(outputs_dir), run, path)
            freed += measure(place)
            shutil.rmtree(place)
    return freed


def lock(outputs_dir: str, holder: str) -> int:
    """Take the lock of ``outputs_dir``; the kernel drops it when the process and its children are gone.

    Raises:
        LockedError: another run has it.
        OSError: ``outputs_dir`` cannot be written.
    """
    with open_state(outputs_dir) as state:
        descriptor = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=state)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
        os.close(descriptor)
        raise LockedError(text) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, holder.encode("utf-8", "backslashreplace"))
    return descriptor


def append_line(outputs_dir: str, path: str, line: str) -> None:
    """Append one line to a file below the state folder and see it on the disk before returning."""
    folder, name = os.path.split(path)
    with open_state(outputs_dir, folder) as directory:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o666, dir_fd=directory)
    with open(descriptor, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")
        os.fsync(file.fileno())


def write_whole(path: str, text: str) -> None:
    """Write a report file; readers see the old or the new content, never half of one."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)


def write_new(path: str, content: bytes) -> None:
    """Write a new file, with its folders; a file that is there already is an error, never overwritten."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "xb") as file:
        file.write(content)


# --- inside ----------------------------------------------------------------------------------------------------------

_Renamer = Callable[[int, str, int, str], None]


@functools.cache
def _exclusive_rename() -> _Renamer:
    """Find the system's rename that refuses a taken name: ``renameat2`` on Linux, ``renameatx_np`` on macOS."""
    import ctypes

    name, flag = ("renameat2", 1) if sys.platform == "linux" else ("renameatx_np", 4)
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return _rename_in_two_steps

    def call(from_fd: int, old: str, to_fd: int, new: str) -> None:
        if function(from_fd, os.fsencode(old), to_fd, os.fsencode(new), flag) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), new if code == errno.EEXIST else old)

    return call


def _rename_in_two_steps(from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Rename where the file system knows no exclusive rename: both ways fail on a taken name by themselves.

    A file gets its second name before it loses the first. A directory replaces an empty one made for it.
    """
    if stat.S_ISDIR(os.lstat(old, dir_fd=from_fd).st_mode):
        os.mkdir(new, dir_fd=to_fd)
        os.rename(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)
    else:
        os.link(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
        os.unlink(old, dir_fd=from_fd)
