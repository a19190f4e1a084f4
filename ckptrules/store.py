"""The only file that touches checkpoint storage. Everything that changes the disk is here, and nothing decides.

No function follows a link below ``outputs_dir``, and none overwrites a file: a taken name fails in the system call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import translate
from typing import NamedTuple

from ckptrules.model import Entry, Found, Listing, Stamp

STATE = ".ckptrules"
TRASH_SUFFIX = ".trashed"
RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d+")
NS = 1_000_000_000
TICK_NS = 20_000_000
COARSE_TICK_NS = 2 * NS
UNREADABLE = Stamp(0, 0, 0)


class LockedError(Exception):
    """Another run holds the lock; the message is what that run wrote about itself."""


class TrashUse(NamedTuple):
    """What waits in the trash, or was freed from it."""

    checkpoints: int
    size: int


# --- reading ---------------------------------------------------------------------------------------------------------


def find_directories(outputs_dir: str, layout: Sequence[str]) -> list[Found]:
    """Find the checkpoint directories that the layout patterns describe, sorted, each once.

    An experiment is named by the path below ``outputs_dir`` without the last part where the pattern spells
    that part out (``*/checkpoints`` → ``ocr_training``); where two would have one name, by the whole path.
    """
    found: dict[str, Found] = {}
    taken: set[str] = set()
    for pattern in layout:
        parts = tuple(pattern.split("/"))
        literal_end = not _is_glob(parts[-1]) and len(parts) > 1
        for path, status in sorted(_walk(outputs_dir, "", parts)):
            if path in found:
                continue
            experiment = os.path.dirname(path) if literal_end else path
            experiment = path if experiment in taken or not experiment else experiment
            taken.add(experiment)
            found[path] = Found(experiment, path, status)
    return sorted(found.values())


def linked_directories(outputs_dir: str) -> list[str]:
    """List the links at the top of ``outputs_dir`` that lead to directories; they are not followed."""
    with os.scandir(outputs_dir) as entries:
        return sorted(entry.name for entry in entries if entry.is_symlink() and entry.is_dir())


def scan(outputs_dir: str, found: Found) -> Listing:
    """Read one checkpoint directory.

    Raises:
        OSError: it cannot be read, or is no longer a plain directory below ``outputs_dir``.
    """
    with open_below(outputs_dir, found.directory) as directory, os.scandir(directory) as entries:
        read = (_read_entry(directory, entry) for entry in entries)
        return Listing(found.experiment, found.directory, tuple(entry for entry in read if entry))


def trash_use(outputs_dir: str) -> TrashUse:
    """Count what waits in the trash."""
    total = TrashUse(0, 0)
    for run in trash_runs(outputs_dir):
        total = _add(total, _measure(os.path.join(trash_path(outputs_dir), run)))
    return total


def trash_runs(outputs_dir: str) -> list[str]:
    """List the runs that have something in the trash, oldest first. Names that are not ours are left out."""
    try:
        return sorted(name for name in os.listdir(trash_path(outputs_dir)) if RUN_ID.fullmatch(name))
    except FileNotFoundError:
        return []


def trash_path(outputs_dir: str) -> str:
    """Return where the trash of ``outputs_dir`` is."""
    return os.path.join(outputs_dir, STATE, "trash")


# --- changing --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_below(outputs_dir: str, path: str, *, create: bool = False) -> Iterator[int]:
    """Open a directory below ``outputs_dir`` part by part, refusing links, and give its descriptor."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(outputs_dir, flags)
    try:
        for part in path.split("/"):
            if create:
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
    with open_below(outputs_dir, f"{STATE}/trash/{run}/{path}", create=True) as trash:
        rename(directory, name, name + TRASH_SUFFIX, trash)


def relink(outputs_dir: str, directory: int, name: str, text: str) -> None:
    """Replace a link by another in one step, so that the name is there at every moment."""
    with open_below(outputs_dir, f"{STATE}/work", create=True) as workplace:
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
    return None if now - status.st_mtime_ns < tick else _stamp(status)


def empty_trash(outputs_dir: str, runs: Sequence[str], path: str = "") -> TrashUse:
    """Remove what some runs left in the trash (all of it, or only what was in ``path``), and say how much that was.

    Raises:
        OSError: something could not be removed.
    """
    freed = TrashUse(0, 0)
    for run in runs:
        with open_below(outputs_dir, f"{STATE}/trash/{run}"):  # fails where a part of the path is a link
            place = os.path.join(trash_path(outputs_dir), run, path)
            freed = _add(freed, _measure(place))
            shutil.rmtree(place)
    return freed


def lock(outputs_dir: str, holder: str) -> int:
    """Take the lock of ``outputs_dir``; the kernel drops it when the process and its children are gone.

    Raises:
        LockedError: another run has it.
        OSError: ``outputs_dir`` cannot be written.
    """
    with open_below(outputs_dir, STATE, create=True) as state:
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
    with open_below(outputs_dir, f"{STATE}/{folder}", create=True) as directory:
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


def _is_glob(part: str) -> bool:
    return any(character in part for character in "*?[")


def _walk(outputs_dir: str, path: str, parts: Sequence[str]) -> Iterator[tuple[str, Stamp]]:
    """Yield the directories that the parts of a pattern lead to. Links and hidden names are passed over, as in a shell.

    What cannot be looked into is yielded as well, so that reading it tells why.
    """
    if not parts:
        yield from _directory(outputs_dir, path)
        return
    part, rest = parts[0], parts[1:]
    try:
        names = _subdirectories(outputs_dir, path) if _is_glob(part) else []
    except FileNotFoundError:
        return
    except OSError:
        yield path, UNREADABLE
        return
    if part == "**":
        here = list(_walk(outputs_dir, path, rest))
        yield from here
        found = {inner for inner, _ in here}
        for inner in names:
            if inner not in found:
                yield from _walk(outputs_dir, inner, parts)
    elif _is_glob(part):
        regex = re.compile(translate(part))
        for inner in names:
            if regex.match(os.path.basename(inner)):
                yield from _walk(outputs_dir, inner, rest)
    elif rest:
        yield from _walk(outputs_dir, os.path.join(path, part), rest)
    else:
        yield from _directory(outputs_dir, os.path.join(path, part))


def _directory(outputs_dir: str, path: str) -> Iterator[tuple[str, Stamp]]:
    try:
        status = os.lstat(os.path.join(outputs_dir, path))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        yield path, UNREADABLE
        return
    if stat.S_ISDIR(status.st_mode):
        yield path, _stamp(status)


def _subdirectories(outputs_dir: str, path: str) -> list[str]:
    with os.scandir(os.path.join(outputs_dir, path)) as entries:
        return [
            os.path.join(path, entry.name)
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _read_entry(directory: int, entry: os.DirEntry[str]) -> Entry | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(status.st_mode):
        return Entry(entry.name, "file", status.st_size, status.st_mtime_ns)
    if stat.S_ISLNK(status.st_mode):
        return _read_link(directory, entry.name, status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        return Entry(entry.name, "directory", _size_below(directory, entry.name), status.st_mtime_ns)
    return Entry(entry.name, "other", 0, status.st_mtime_ns)


def _read_link(directory: int, name: str, mtime_ns: int) -> Entry:
    text = os.readlink(name, dir_fd=directory)
    try:
        os.stat(name, dir_fd=directory)
        dangling = False
    except PermissionError:
        dangling = False
    except OSError:
        dangling = True
    sibling, behind = _split_at(directory, text)
    return Entry(name, "link", 0, mtime_ns, text, sibling, dangling, behind)


def _split_at(directory: int, text: str) -> tuple[str | None, str]:
    """Find the part of a link's text that is a name in the directory, and what stands behind it."""
    path, behind = text, ""
    while path.strip("/"):
        parent, name = os.path.split(path)
        with contextlib.suppress(OSError):
            if name and os.path.samestat(os.stat(parent or ".", dir_fd=directory), os.fstat(directory)):
                return name, behind
        path, behind = parent, path[len(parent) :] + behind
    return None, ""


def _size_below(directory: int, name: str) -> int:
    size = 0
    for _, _, files, inner in os.fwalk(name, dir_fd=directory):
        size += sum(os.lstat(file, dir_fd=inner).st_size for file in files)
    return size


def _measure(path: str) -> TrashUse:
    """Count the trashed checkpoints below a path of the trash, and their bytes."""
    count = size = 0
    for _, directories, files, inner in os.fwalk(path):
        count += sum(name.endswith(TRASH_SUFFIX) for name in (*directories, *files))
        size += sum(os.lstat(file, dir_fd=inner).st_size for file in files)
    return TrashUse(count, size)


def _add(one: TrashUse, other: TrashUse) -> TrashUse:
    return TrashUse(one.checkpoints + other.checkpoints, one.size + other.size)
