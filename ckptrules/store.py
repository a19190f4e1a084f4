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

from ckptrules.model import STATE, Stamp, Step
from ckptrules.scan import TrashUse, identify, measure, open_below, refuse_path, stamp_of, trash_path

NS = 1_000_000_000
TICK_NS = 20_000_000
COARSE_TICK_NS = 2 * NS
CHANGED = "has changed since it was looked at"
LINK_CHANGED = "is no longer the link that it was"
LOCK_POLL = 0.2  # seconds
EXCLUSIVE = 1 if sys.platform == "linux" else 4  # RENAME_NOREPLACE, RENAME_EXCL
EXCHANGE = 2  # RENAME_EXCHANGE, RENAME_SWAP
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


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


class Folders(contextlib.ExitStack):
    """Descriptors of the directories that a piece of work needs, each opened once, all closed at its end.

    Every part of a path is opened without following links, so a directory that is swapped for a link cannot
    lead the work out of ``outputs_dir``.
    """

    def __init__(self, outputs_dir: str) -> None:
        super().__init__()
        self.outputs_dir = outputs_dir
        self._open: dict[str, int] = {}

    def descriptor(self, path: str, *, create: bool = False) -> int:
        """Return the descriptor of a directory; ``create`` makes what is missing of a folder of the state.

        Raises:
            OSError: it is not there, or a part of its path is a link or leads upwards.
        """
        if path not in self._open:
            state = path == STATE or path.startswith(f"{STATE}/")
            opened = open_state(self.outputs_dir, path[len(STATE) + 1 :]) if state and create else None
            self._open[path] = self.enter_context(opened or open_below(self.outputs_dir, path))
        return self._open[path]


def do_step(folders: Folders, step: Step) -> None:
    """Make one change, or none.

    Raises:
        FileExistsError: the new name is taken.
        FileNotFoundError: nothing stands under the old name.
        OSError: ESTALE where something else stands there; or the system refuses.
    """
    refuse_path(step.name)
    directory = folders.descriptor(step.directory)
    if step.kind == "relink":
        _relink(folders, directory, step)
        return
    refuse_path(step.to)
    if identify(os.lstat(step.name, dir_fd=directory)) != step.identity:
        raise OSError(errno.ESTALE, CHANGED, step.name)
    rename(directory, step.name, step.to, folders.descriptor(step.to_directory, create=True))


def is_done(folders: Folders, step: Step) -> bool:
    """Say whether a step was made already; what was begun of one that takes two system calls is finished first."""
    try:
        refuse_path(step.name)
        directory = folders.descriptor(step.directory)
        if step.kind == "relink":
            return os.readlink(step.name, dir_fd=directory) == step.to
        refuse_path(step.to)
        target = folders.descriptor(step.to_directory)
        old, new = _status(directory, step.name), _status(target, step.to)
        if old and new and _finish_two_steps(directory, step, old, target, new):
            old = None
        return old is None and new is not None and identify(new) == step.identity
    except OSError:
        return False


def free_at_once(folders: Folders, step: Step) -> None:
    """Remove what a step has just moved to the trash.

    Raises:
        OSError: it could not be removed.
    """
    if not step.to_directory.startswith(f"{STATE}/trash/"):
        raise OSError(errno.EPERM, "is not in the trash", step.to)
    directory = folders.descriptor(step.to_directory)
    if step.identity.kind == "directory":
        shutil.rmtree(os.path.join(folders.outputs_dir, step.to_directory, step.to))
    else:
        os.unlink(step.to, dir_fd=directory)


def rename(directory: int, name: str, to: str, to_directory: int | None = None) -> None:
    """Rename without ever overwriting; the times of the file stay.

    Raises:
        FileExistsError: ``to`` is taken.
        OSError: the system refuses for another reason.
    """
    target = directory if to_directory is None else to_directory
    try:
        _rename_with(EXCLUSIVE, directory, name, target, to)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            _rename_in_two_steps(directory, name, target, to)
        elif not (error.errno == errno.EEXIST and _is_same_but_for_case(directory, name, target, to)):
            raise
        else:
            os.rename(name, to, src_dir_fd=directory, dst_dir_fd=target)


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


def empty_trash(outputs_dir: str, runs: Sequence[str]) -> TrashUse:
    """Remove what some runs left in the trash, and say how much that was.

    Raises:
        OSError: something could not be removed.
    """
    freed = TrashUse(0, 0)
    for run in runs:
        with open_below(outputs_dir, f"{STATE}/trash/{run}"):  # fails where a part of the path is a link
            place = os.path.join(trash_path(outputs_dir), run)
            freed += measure(place)
            shutil.rmtree(place)
    return freed


def lock(outputs_dir: str, holder: str, wait: float = 0) -> int:
    """Take the lock of ``outputs_dir``; the kernel drops it when the process and its children are gone.

    Args:
        outputs_dir: the folder that one run at a time may change.
        holder: what another run is told about this one.
        wait: seconds to wait for another run to finish.

    Raises:
        LockedError: another run has it.
        OSError: ``outputs_dir`` cannot be written.
    """
    with open_state(outputs_dir) as state:
        descriptor = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=state)
    deadline = time.monotonic() + wait
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            text = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise LockedError(text)
        time.sleep(LOCK_POLL)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, holder.encode("utf-8", "backslashreplace"))
    return descriptor


class Appender:
    """Adds text to the end of a file of the state; the file is made with the first text.

    Args:
        outputs_dir: whose state it is.
        path: the file below the state folder.
    """

    def __init__(self, outputs_dir: str, path: str) -> None:
        self._outputs_dir = outputs_dir
        self._folder, self._name = os.path.split(path)
        self._file: int | None = None

    def __call__(self, text: str, durable: bool) -> None:  # noqa: FBT001 - the shape that a journal wants
        """Add a text; when ``durable`` is true it is on the disk on return, and all before it.

        Raises:
            OSError: it could not be written whole.
        """
        if self._file is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with open_state(self._outputs_dir, self._folder) as directory:
                self._file = os.open(self._name, flags, 0o666, dir_fd=directory)
                os.fsync(directory)
        left = memoryview(text.encode())
        while left:
            left = left[os.write(self._file, left) :]
        if durable:
            os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)


def append_line(outputs_dir: str, path: str, line: str) -> None:
    """Add a line to a file below the state folder that may be lost: it is not waited for."""
    folder, name = os.path.split(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open_state(outputs_dir, folder) as directory:
        descriptor = os.open(name, flags, 0o666, dir_fd=directory)
    with open(descriptor, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def replace_state(outputs_dir: str, path: str, text: str) -> None:
    """Replace a file below the state folder; readers see the old or the new content, never half of one."""
    folder, name = os.path.split(path)
    temporary = f"{name}.{os.getpid()}.tmp"
    with open_state(outputs_dir, folder) as directory:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o666, dir_fd=directory), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


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


@functools.cache
def _system_rename() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """Find the system's rename that takes flags: ``renameat2`` on Linux, ``renameatx_np`` on macOS."""
    import ctypes

    name = "renameat2" if sys.platform == "linux" else "renameatx_np"
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _rename_with(flag: int, from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Rename with a flag.

    Raises:
        OSError: the system refuses; ENOSYS where it knows no such call.
    """
    import ctypes

    function = _system_rename()
    code = errno.ENOSYS
    if function is not None:
        if function(from_fd, os.fsencode(old), to_fd, os.fsencode(new), flag) == 0:
            return
        code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), new if code == errno.EEXIST else old)


def _rename_in_two_steps(from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Rename where the file system knows no exclusive rename: both ways fail on a taken name by themselves.

    A file gets its second name before it loses the first. A directory replaces an empty one made for it.
    """
    is_directory = stat.S_ISDIR(os.lstat(old, dir_fd=from_fd).st_mode)
    if is_directory:
        os.mkdir(new, dir_fd=to_fd)
    else:
        os.link(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    try:
        if is_directory:
            os.rename(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        else:
            os.unlink(old, dir_fd=from_fd)
    except OSError:
        with contextlib.suppress(OSError):
            (os.rmdir if is_directory else os.unlink)(new, dir_fd=to_fd)
        raise


def _finish_two_steps(directory: int, step: Step, old: os.stat_result, target: int, new: os.stat_result) -> bool:
    """Finish what a crash left between the two steps and say so; the empty directory of a first step is removed."""
    if identify(old) != step.identity:
        return False
    if stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(new.st_mode):
        with contextlib.suppress(OSError):  # it is not empty, so it is none of ours
            os.rmdir(step.to, dir_fd=target)
        return False
    if os.path.samestat(old, new):
        os.unlink(step.name, dir_fd=directory)
        return True
    return False


def _is_same_but_for_case(from_fd: int, old: str, to_fd: int, new: str) -> bool:
    """Say whether a taken name is the old one itself, on a file system that ignores case."""
    if from_fd != to_fd or old.casefold() != new.casefold():
        return False
    one, other = _status(from_fd, old), _status(to_fd, new)
    # Two hard links of one file are two names indeed, and the system would leave both.
    return bool(one and other and os.path.samestat(one, other) and (one.st_nlink == 1 or stat.S_ISDIR(one.st_mode)))


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return None


def _relink(folders: Folders, directory: int, step: Step) -> None:
    """Replace a link by another in one step, so that the name is there at every moment.

    The two are exchanged, and what comes out is looked at: if it is not the link that was expected, it goes back.
    """
    if not _is_link_to(directory, step.name, step.was):
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    work = folders.descriptor(f"{STATE}/work", create=True)
    temporary = f"link-{os.getpid()}-{time.time_ns()}"
    os.symlink(step.to, temporary, dir_fd=work)
    try:
        _rename_with(EXCHANGE, work, temporary, directory, step.name)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            os.rename(temporary, step.name, src_dir_fd=work, dst_dir_fd=directory)
            return
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=work)
        raise
    as_expected = _is_link_to(work, temporary, step.was)
    if not as_expected:
        _rename_with(EXCHANGE, work, temporary, directory, step.name)
    with contextlib.suppress(OSError):  # what is left in the workplace harms nothing
        os.unlink(temporary, dir_fd=work)
    if not as_expected:
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)


def _is_link_to(directory: int, name: str, text: str) -> bool:
    try:
        return os.readlink(name, dir_fd=directory) == text
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
