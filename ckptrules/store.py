"""The only file that changes the disk. It decides nothing.

No function follows a link below ``outputs_dir``, and none overwrites a file: a taken name fails in the system call.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import itertools
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple, TextIO

from ckptrules import scan
from ckptrules.attributes import (
    ACCESS,
    DEFAULT,
    GROUP,
    LISTS,
    MODE,
    OWNER,
    UNKNOWN,
    as_bytes,
    for_another_group,
    without_list,
    word,
)
from ckptrules.journal import TRASH_SUFFIX, trash_name
from ckptrules.model import STATE, Item, Stamp, Step
from ckptrules.pointers import mentions, with_other_name
from ckptrules.scan import (
    NO_TRICKS,
    Progress,
    TrashUse,
    checked,
    explained,
    identity_of,
    kind_of,
    measure,
    open_below,
    read_pointer,
    refuse_path,
    stamp_of,
    stands_for,
    told,
    trash_path,
)

if TYPE_CHECKING:  # what reads torch files is imported by the one command that needs it
    from ckptrules.torchstate import Part, Rewrite

NS = 1_000_000_000
TICK_NS = 20_000_000
COARSE_TICK_NS = 2 * NS
CHANGED = "has changed since it was looked at"
NOT_IN_TRASH = "is not in the trash"
NO_TEXTS = "what lies where others can write has no power over texts"
LINK_CHANGED = "is no longer the link that it was"
NEITHER = "this file system can neither rename without overwriting nor make hard links"
NOT_OURS = "a copy of it would be yours"
LOCK_POLL = 0.2  # seconds
EXCLUSIVE = 1 if sys.platform == "linux" else 4  # RENAME_NOREPLACE, RENAME_EXCL
EXCHANGE = 2  # RENAME_EXCHANGE, RENAME_SWAP
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
PRIVATE = 0o700
SPARE = ".spare"
OLD_POINTER = ".pointer"  # in the trash, before its own suffix: what a pointer file held
TEMPORARY = ".tmp"
WORK = f"{STATE}/work"
NEW_LINK = "link-"  # begins the names in the workplace of what is to take the place of a link
FICLONE = 0x40049409  # linux/fs.h
HOLE = 4096  # bytes; zeros of fewer are written
Tell = Callable[[str, tuple[str, ...]], object]  # of a copy: its path, and what could not be kept


class LockedError(Exception):
    """Another run holds the lock; the message is what that run wrote about itself."""


def open_state(outputs_dir: str, path: str = "") -> contextlib.AbstractContextManager[int]:
    """Open a folder of the state as `scan.open_state` does, and make what is missing of it; give its descriptor.

    Raises:
        StateError: a part of it is no folder, not to be believed, or not ours to write to.
        OSError: it cannot be made.
    """
    return scan.open_state(outputs_dir, path, _open_or_make)


def open_own(directory: int, name: str, place: str, flags: int) -> int:
    """Open a file of the state for writing, or make it, in an open directory that is called ``place``.

    Raises:
        StateError: it is no plain file of its own, not to be believed, or not ours to write to.
        OSError: it cannot be made.
    """
    try:
        file = os.open(name, flags | NO_TRICKS, dir_fd=directory)
    except FileNotFoundError:
        try:
            return _made(directory, name, place, flags)
        except FileExistsError:  # another process has just made it
            return open_own(directory, name, place, flags)
    except OSError as error:
        raise explained(error, directory, name, place) from None
    checked(file, directory, os.path.join(place, name))
    _share(file, directory, is_new=False)
    return file


def make_own(outputs_dir: str, name: str) -> None:
    """Make an empty file in the state folder, where it is missing, so that those who share the folder may write to it.

    Raises:
        StateError, OSError: as `open_own`.
    """
    with open_state(outputs_dir) as directory:
        os.close(open_own(directory, name, os.path.join(outputs_dir, STATE), os.O_RDWR))


def keeps_modes(outputs_dir: str) -> bool:
    """Find out by trying whether the state lies where a file has a mode of its own (not so on FAT, say)."""
    name = _temporary("mode-")
    with contextlib.suppress(OSError), open_below(outputs_dir, STATE) as directory:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600, dir_fd=directory)
        try:
            return not os.fstat(file).st_mode & stat.S_IWOTH
        finally:
            os.close(file)
            os.unlink(name, dir_fd=directory)
    return True


def set_aside_database(outputs_dir: str, name: str, companions: Sequence[str]) -> str:
    """Give a database that nobody can use, and what SQLite left beside it, another name, and return that.

    Args:
        outputs_dir: in whose state it lies.
        name: the database.
        companions: what may stand behind its name.

    Raises:
        OSError: it cannot be renamed.
    """
    with open_state(outputs_dir) as directory:
        taken = set(os.listdir(directory))
        ends = (*companions, "")
        names = (f"{name}.damaged-{number}" for number in itertools.count(1))
        aside = next(new for new in names if taken.isdisjoint(new + end for end in ends))
        for end in ends:
            if name + end in taken:
                rename(directory, name + end, aside + end)
    return aside


class Folders(contextlib.ExitStack):
    """Descriptors of the directories that a piece of work needs, each opened once, all closed at its end.

    Every part of a path is opened without following links, so a directory that is swapped for a link cannot
    lead the work out of ``outputs_dir``.

    Args:
        outputs_dir: the folder below which everything happens.
        texts: whether texts elsewhere may be rewritten: only by what lies in the user's own state.
    """

    def __init__(self, outputs_dir: str, *, texts: bool = False) -> None:
        super().__init__()
        self.outputs_dir = outputs_dir
        self.texts = texts
        self._open: dict[str, int] = {}

    def descriptor(self, path: str, *, create: bool = False) -> int:
        """Return the descriptor of a directory; ``create`` makes what is missing of a folder of the state.

        Raises:
            OSError: it is not there, or a part of its path is a link or leads upwards.
        """
        if path not in self._open:
            opened: contextlib.AbstractContextManager[int]
            if path == STATE or path.startswith(f"{STATE}/"):
                opened = (open_state if create else scan.open_state)(self.outputs_dir, path[len(STATE) + 1 :])
            else:
                opened = open_below(self.outputs_dir, path)
            self._open[path] = self.enter_context(opened)
        return self._open[path]


def do_step(folders: Folders, step: Step) -> None:
    """Make one change, or none.

    Raises:
        FileExistsError: the new name is taken.
        FileNotFoundError: nothing stands under the old name.
        OSError: ESTALE where something else stands there; or the system refuses.
    """
    refuse_path(step.name)
    if step.kind == "rewrite":
        _rewrite_text(folders, step)
        return
    directory = folders.descriptor(step.directory)
    if step.kind != "move":
        _OTHER_STEPS[step.kind](folders, directory, step)
        return
    refuse_path(step.to)
    same = step.to_directory == step.directory
    target = directory if same else folders.descriptor(step.to_directory, create=True)
    if not stands_for(directory, step.name, step.identity):
        raise OSError(errno.ESTALE, CHANGED, step.name)
    rename(directory, step.name, step.to, target)


def is_done(folders: Folders, step: Step, *, taken_again: bool = False) -> bool:
    """Say whether a step was made already; what was begun of one that takes two system calls is finished first.

    Args:
        folders: the open directories.
        step: what may have been done.
        taken_again: what stands under the old name of a move came there by a later step.
    """
    try:
        refuse_path(step.name)
        if step.kind == "rewrite":
            return folders.texts and text_checksum(step) == step.to
        directory = folders.descriptor(step.directory)
        if step.kind in ("relink", "link"):
            return os.readlink(step.name, dir_fd=directory) == step.to
        if step.kind == "unlink":
            return _status(directory, step.name) is None or not _is_link_to(directory, step.name, step.to)
        if step.kind == "repoint":
            content = read_pointer(directory, step.name) or b""
            return mentions(content, step.to) and not mentions(content, step.was)
        refuse_path(step.to)
        if step.kind == "exchange":
            return _is_exchanged(folders, step)
        target = folders.descriptor(step.to_directory)
        old, new = None if taken_again else _status(directory, step.name), _status(target, step.to)
        if old and new and _finish_two_steps(directory, step, old, target, new):
            old = None
        # What is left under the old name may be a link that was to stay there, or what somebody has written since.
        is_old_there = old is not None and stands_for(directory, step.name, step.identity)
        return not is_old_there and stands_for(target, step.to, step.identity)
    except OSError:
        return False


def stands(folders: Folders, step: Step) -> bool:
    """Say whether a step is still to be made: the old name of a move holds what was to be moved."""
    if step.kind != "move":
        return not is_done(folders, step)
    with contextlib.suppress(OSError):
        return stands_for(folders.descriptor(step.directory), step.name, step.identity)
    return False


def free_at_once(folders: Folders, step: Step) -> None:
    """Remove what a step has just moved to the trash.

    Raises:
        OSError: it could not be removed; ESTALE where it has changed on its way.
    """
    if not step.to_directory.startswith(f"{STATE}/trash/"):
        raise OSError(errno.EPERM, NOT_IN_TRASH, step.to)
    directory = folders.descriptor(step.to_directory)
    if not stands_for(directory, step.to, step.identity):
        raise OSError(errno.ESTALE, CHANGED, step.to)
    for error in _remove_all(directory, step.to, step.to).values():
        raise error


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


def settle(directory: int, names: set[str], *, plain: bool, changed: bool) -> Stamp | None:
    """Return the stamp to remember a finished directory by, or None where the next run must look again.

    A directory's time stands still within one tick of the clock, so a change in the same tick as the last look
    would be missed for ever (git calls this "racily clean"). A directory that we have just changed is therefore dated
    back by two seconds: any later change gives it another time. One that somebody else changed
    within the tick, or that does not hold what the plan left, is not remembered.

    Args:
        directory: its descriptor.
        names: what the plan left in it.
        plain: whether all of them are files, none a link that could lead somewhere.
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
    now = time.time_ns()
    status = os.fstat(directory)
    tick = COARSE_TICK_NS if status.st_mtime_ns % NS == 0 else TICK_NS
    return None if now - status.st_mtime_ns < tick else stamp_of(status)


class Emptied(NamedTuple):
    """What was freed from the trash, and what could not be: paths below ``outputs_dir``, and why."""

    freed: TrashUse
    left: Mapping[str, OSError]


def empty_trash(outputs_dir: str, runs: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> Emptied:
    """Remove what some runs left in the trash. What cannot be removed stays, and the rest goes all the same.

    ``stopped`` is asked before each item: where it says so, that one and those behind it stay.
    """
    freed = TrashUse(0, 0)
    left: dict[str, OSError] = {}
    for run in runs:
        place = f"{STATE}/trash/{run}"
        before = measure(os.path.join(trash_path(outputs_dir), run))
        try:
            with scan.open_state(outputs_dir, "trash") as trash, scan.open_state(outputs_dir, f"trash/{run}"):
                left |= _empty(trash, run, place, stopped)
        except OSError as error:
            left[place] = error
        after = measure(os.path.join(trash_path(outputs_dir), run))
        freed += TrashUse(before.items - after.items, before.size - after.size)
    return Emptied(freed, left)


def _empty(directory: int, name: str, path: str, stopped: Callable[[], bool]) -> dict[str, OSError]:
    """Remove a folder of the trash, item by item; return those that could not be removed whole, and why."""
    left: dict[str, OSError] = {}
    try:
        with _made_ours(directory, name) as inner:
            for below in os.listdir(inner):
                if stopped():
                    left[path] = OSError(errno.EINTR, "the run was stopped", path)
                    break
                if not below.endswith(TRASH_SUFFIX) and kind_of(inner, below) == "directory":
                    left |= _empty(inner, below, f"{path}/{below}", stopped)
                else:
                    left |= _remove_all(inner, below, f"{path}/{below}")
        if not left:
            os.rmdir(name, dir_fd=directory)
    except OSError as error:
        left[path] = error
    return left


def _remove_all(directory: int, name: str, path: str) -> dict[str, OSError]:
    """Remove what can be removed of a name; return its path and the first reason why not all could."""
    try:
        if kind_of(directory, name) != "directory":
            os.unlink(name, dir_fd=directory)
            return {}
        with _made_ours(directory, name) as inner:
            failed = [error for below in os.listdir(inner) for error in _remove_all(inner, below, path).values()]
        if failed:
            return {path: failed[0]}
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        return {path: error}
    return {}


@contextlib.contextmanager
def _made_ours(directory: int, name: str) -> Iterator[int]:
    """Open a folder that is to be emptied; where it is ours, its mode is no obstacle."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        inner = os.open(name, flags, dir_fd=directory)
    except PermissionError:
        os.chmod(name, PRIVATE, dir_fd=directory)  # of 0o000, say; a link in its place is refused next
        inner = os.open(name, flags, dir_fd=directory)
    try:
        with contextlib.suppress(OSError):  # somebody else's may let us write all the same
            os.fchmod(inner, stat.S_IMODE(os.fstat(inner).st_mode) | PRIVATE)
        yield inner
    finally:
        os.close(inner)


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
        descriptor = open_own(state, "lock", os.path.join(outputs_dir, STATE), os.O_RDWR)
    deadline = time.monotonic() + wait
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            text = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise LockedError(text or "it has just begun")
        time.sleep(LOCK_POLL)
    with contextlib.suppress(OSError):  # on a full disk 'doit purge' must be able to begin
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
            place = os.path.join(self._outputs_dir, STATE, self._folder)
            with open_state(self._outputs_dir, self._folder) as directory:
                self._file = open_own(directory, self._name, place, os.O_WRONLY | os.O_APPEND)
                os.fsync(directory)
        left = memoryview(text.encode())
        while left:
            left = left[os.write(self._file, left) :]
        if durable:
            os.fdatasync(self._file) if hasattr(os, "fdatasync") else os.fsync(self._file)


def append_line(outputs_dir: str, path: str, line: str) -> None:
    """Add a line to a file below the state folder that may be lost: it is not waited for."""
    folder, name = os.path.split(path)
    with open_state(outputs_dir, folder) as directory:
        place = os.path.join(outputs_dir, STATE, folder)
        descriptor = open_own(directory, name, place, os.O_WRONLY | os.O_APPEND)
    with open(descriptor, "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def replace_state(outputs_dir: str, path: str, text: str) -> None:
    """Replace a note below the state folder; readers see the old or the new one. A power cut may lose it: it can be."""
    folder, name = os.path.split(path)
    with open_state(outputs_dir, folder) as directory:
        for left in os.listdir(directory):  # by a crash
            if left.startswith(f"{name}.") and left.endswith(TEMPORARY):
                os.unlink(left, dir_fd=directory)
        dress = functools.partial(_share, directory=directory, is_new=True)
        put(directory, name, text.encode(), dress, durable=False)


def drop_state(outputs_dir: str, path: str) -> None:
    """Remove a note from below the state folder; it may be gone itself."""
    folder, name = os.path.split(path)
    with open_state(outputs_dir, folder) as directory, contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def put(
    directory: int,
    name: str,
    content: bytes,
    dress: Callable[[int], object] = lambda _: None,
    mode: int = 0o600,
    *,
    durable: bool = True,
) -> None:
    """Write a file as a whole: readers see the old or the new content, never half of one.

    It is written beside, under a name that is its own, then takes the place of what stood under ``name``; a link that
    stood there is not followed.

    Args:
        directory: the open directory where it belongs.
        name: what it is called there.
        content: what it holds.
        dress: gives the open file what else it needs.
        mode: what it is made with, less the umask.
        durable: whether that holds also after a power cut.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    temporary = _temporary(os.fsdecode(os.fsencode(name)[:150]) + ".") + TEMPORARY
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_TRICKS
    try:
        with open(os.open(temporary, flags, mode, dir_fd=directory), "wb", buffering=0) as file:
            _write(file.fileno(), content)
            dress(file.fileno())
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def write_whole(path: str, text: str) -> None:
    """Write a file that the user has named (or the one that a link leads to) as a whole; its mode stays."""
    write_beside(os.path.realpath(path), text)


def write_beside(path: str, text: str) -> None:
    """Write a file of ours among the user's as a whole. A link under its name is replaced, not followed.

    Raises:
        OSError: it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with open_below(folder, "") as directory:
        before = _status(directory, name)
        if before and stat.S_ISREG(before.st_mode):
            put(directory, name, text.encode(), lambda file: _keep_mode(file, before))
        else:
            put(directory, name, text.encode(), mode=0o664 & os.fstat(directory).st_mode)


def refuse_taken(path: str) -> None:
    """Refuse a path under which something else stands than a plain file with one name: it would be overwritten.

    Raises:
        OSError: as said.
    """
    with contextlib.suppress(FileNotFoundError):
        scan.refuse_other_kinds(os.lstat(path), path)


def write_json(path: str, data: object) -> None:
    """Write a report as JSON, as a whole."""
    write_whole(path, json.dumps(data, indent=1) + "\n")


def silence(stream: TextIO) -> None:
    """Let what a stream holds back, and what is still written to it, go nowhere."""
    with contextlib.suppress(OSError), open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def write_new(path: str, content: bytes) -> None:
    """Write a new file, with its folders; a file that is there already is an error, never overwritten."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "xb", buffering=0) as file:
        try:
            _write(file.fileno(), content)
        except OSError:  # half of it would look whole to the next run
            os.unlink(path)
            raise


def set_aside(path: str, beside: str) -> str:
    """Give what stands under a path a name that no rule knows, and return that; nothing where nothing is, or a link.

    What stands ``beside`` it, a sidecar, goes with it.

    Raises:
        OSError: the system refuses.
    """
    if not os.path.lexists(path) or os.path.islink(path):
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    end = f".replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
    with open_below(folder, "") as directory:
        rename(directory, name, name + end)
        with contextlib.suppress(FileNotFoundError):
            rename(directory, os.path.basename(beside), os.path.basename(beside) + end)
    return name + end


def remove_sidecar(path: str) -> None:
    """Remove what told of a checkpoint that is gone; it may be gone itself."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


# --- backups ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_archive(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """Give a file to write an archive to, and its hidden path; at the end it gets its name, or is gone.

    Raises:
        FileExistsError: the name is taken.
        BlockingIOError: another run is writing it.
        OSError: it cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    partial = f".{name}.partial"
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
def staging(outputs_dir: str) -> Iterator[str]:
    """Give a new folder in the workplace, by its path below ``outputs_dir``; remove what is left in it at the end."""
    name = _temporary("unarchive-")
    with open_state(outputs_dir, "work") as work:
        os.mkdir(name, PRIVATE, dir_fd=work)
        try:
            yield f"{WORK}/{name}"
        finally:
            with contextlib.suppress(OSError):  # the next run clears the workplace
                _remove(work, name)


def untold(_: str, __: tuple[str, ...]) -> None:
    """Tell nobody what a copy has lost."""


def write_member(root: str, item: Item, content: IO[bytes], progress: Progress, tell: Tell = untold) -> str:
    """Write a file of an archive, dressed as its item says, see it on the disk, and return its checksum.

    Zeros become holes.

    Raises:
        FileExistsError: the name is taken.
        OSError: it cannot be written.
    """
    folder, name = os.path.split(item.path)
    digest = hashlib.sha256()
    with open_below(root, folder) as directory:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, PRIVATE, dir_fd=directory), "wb", buffering=0) as file:
            while chunk := content.read(scan.CHUNK):
                digest.update(chunk)
                _write_with_holes(file.fileno(), chunk)
                progress(len(chunk))
            os.ftruncate(file.fileno(), os.lseek(file.fileno(), 0, os.SEEK_CUR))
            _tell(tell, item.path, dress_as(file.fileno(), item))
            os.utime(file.fileno(), ns=(item.mtime_ns, item.mtime_ns))
            os.fsync(file.fileno())
    return digest.hexdigest()


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


def make_folder(path: str, mode: int = 0o777) -> None:
    """Make a folder; its parent must be there.

    Raises:
        FileExistsError: the name is taken.
    """
    os.mkdir(path, mode)


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
        _remove(folder, os.path.basename(hidden), progress)


def can_clone(root: str, path: str, probe: str) -> bool:
    """Find out by trying whether a file can be cloned to a path; nothing of it stays there."""
    folder, name = os.path.split(probe)
    with scan.open_file(root, path) as origin, open_below(folder, "") as directory:
        cloned = _cloned(origin, directory, name)
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

    Returns what was copied, with its checksum, and how that came about. No more is copied than the file had when the
    copy began.

    Args:
        root: a folder.
        item: the file, below it.
        to_root: another folder, or the same.
        to: the copy, below that; its directory must be there.
        how: ``copy``, ``clone`` (a copy where that cannot be) or ``link``.
        progress: is called with the number of bytes of each step.
        tell: is called with what the copy could not be given.
        as_item: whether the copy is dressed as the item says, and not like the file: a backup may lie where the system
            knows no owners and no access lists.

    Raises:
        SourceError: the file cannot be read; the copy is removed.
        FileExistsError: the new name is taken.
        OSError: the copy cannot be written.
    """
    (folder, name), (to_folder, to_name) = os.path.split(item.path), os.path.split(to)
    with scan.open_file(root, item.path) as origin, open_below(to_root, to_folder) as directory:
        before = os.fstat(origin)
        item = item if as_item else scan.described(item, origin)
        if how == "link":
            with open_below(root, folder) as here:
                os.link(name, to_name, src_dir_fd=here, dst_dir_fd=directory, follow_symlinks=False)
        elif how != "clone" or not _cloned(origin, directory, to_name):
            how = "copy"
        flags = {"copy": os.O_WRONLY | os.O_CREAT | os.O_EXCL}.get(how, os.O_RDONLY)
        copy = os.open(to_name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE, dir_fd=directory)
        try:
            size, digest = 0, hashlib.sha256()
            source, awaited = (copy, os.fstat(copy).st_size) if how == "clone" else (origin, before.st_size)
            is_hole = False
            for chunk, is_hole in scan.pieces(source, 0, awaited):
                digest.update(chunk)
                size += len(chunk)
                if how == "copy":
                    _skip(copy, len(chunk)) if is_hole else _write(copy, chunk)
                progress(len(chunk))
            if is_hole and how == "copy":
                os.ftruncate(copy, size)
            if how != "link":
                _tell(tell, item.path, dress_as(copy, item))
                os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
            os.fsync(copy)
        except scan.SourceError:
            os.unlink(to_name, dir_fd=directory)
            raise
        finally:
            os.close(copy)
        after = os.fstat(origin)
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    mtime_ns, sha256 = before.st_mtime_ns, digest.hexdigest()
    return item._replace(size=size, mtime_ns=mtime_ns, sha256=sha256, changed=changed), how


def make_link(root: str, item: Item, tell: Tell = untold) -> None:
    """Make a symbolic link with its owner and its time.

    Raises:
        FileExistsError: the name is taken.
    """
    folder, name = os.path.split(item.path)
    with open_below(root, folder) as directory:
        os.symlink(item.link, name, dir_fd=directory)
        _tell(tell, item.path, _give_link_away(directory, name, item))
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


def stage(backup: str, item: Item, outputs_dir: str, progress: Progress, tell: Tell = untold) -> tuple[str, str]:
    """Make in the workplace what is to be brought back from a backup, one move from where it belongs.

    A directory is made empty. Returns its name there, and the checksum of a file.

    It is dressed as the manifest says.

    Raises:
        SourceError: it cannot be read.
        OSError: it cannot be written.
    """
    name = _temporary("restore-")
    place = f"{WORK}/{name}"
    checksum = ""
    with open_state(outputs_dir, "work") as work:
        if item.kind == "file":
            copied, _ = copy_file(backup, item, outputs_dir, place, "clone", progress, tell, as_item=True)
            checksum = copied.sha256
            os.utime(name, ns=(item.mtime_ns, item.mtime_ns), dir_fd=work)
        elif item.kind == "directory":
            make_directory(outputs_dir, item._replace(path=place))
        else:
            make_link(outputs_dir, item._replace(path=place), lambda _, lost: tell(item.path, lost))
    return name, checksum


# --- inside ----------------------------------------------------------------------------------------------------------


def _open_or_make(directory: int, name: str, path: str) -> int:
    """Open a folder of the state, and make it where it is missing."""
    is_new = False
    try:
        folder = scan.open_folder(directory, name, path)
    except FileNotFoundError:
        is_new = _made_folder(directory, name, path)
        folder = scan.open_folder(directory, name, path)
    _share(folder, directory, is_new=is_new)
    return folder


def _made_folder(directory: int, name: str, path: str) -> bool:
    """Make a folder of the state and say so; another process may be faster."""
    try:
        os.mkdir(name, PRIVATE, dir_fd=directory)
    except FileExistsError:
        return False
    except PermissionError as error:
        raise error if name == STATE else _not_shared(error, os.path.dirname(path)) from None
    return True


def _not_shared(error: OSError, folder: str) -> scan.StateError:
    return scan.StateError(folder, f"cannot be written: {scan.told(error)}", scan.SHARE)


def _keep_mode(file: int, before: os.stat_result) -> None:
    with contextlib.suppress(OSError):  # FAT, say, knows no modes
        os.fchmod(file, stat.S_IMODE(before.st_mode))


def _made(directory: int, name: str, place: str, flags: int) -> int:
    """Make a file of the state.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        file = os.open(name, flags | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600, dir_fd=directory)
    except PermissionError as error:
        raise _not_shared(error, place) from None
    _share(file, directory, is_new=True)
    return file


def _share(file: int, directory: int, *, is_new: bool) -> None:
    """Give an open file or folder of the state to those with whom the folder is shared that it lies in.

    A new one gets the group of that folder (by root, its owner as well) and its modes for others, whatever the umask
    says; but not everybody may write to it. An older one of ours lets the group in where it does not yet.
    """
    status, folder = os.fstat(file), os.fstat(directory)
    is_folder = stat.S_ISDIR(status.st_mode)
    may = folder.st_mode & (0o2075 if is_folder else 0o064)
    mode = 0o700 if is_folder else 0o600
    if not is_new:
        mode, may = stat.S_IMODE(status.st_mode), may & 0o2070
        if status.st_uid != os.geteuid() or not folder.st_mode & stat.S_IWGRP or not may & ~mode:
            return
    owner = folder.st_uid if os.geteuid() == 0 else status.st_uid
    if (owner, folder.st_gid) != (status.st_uid, status.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(file, owner, folder.st_gid)
    if os.fstat(file).st_gid != folder.st_gid:  # we are not in it, and another group is not meant
        may &= ~0o070
    with contextlib.suppress(OSError):  # FAT, say, knows no modes
        os.fchmod(file, mode | may)
    if is_new and os.fstat(file).st_mode & stat.S_IWOTH:
        scan.NO_MODES.add(status.st_dev)


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
        scan.refuse_other_kinds(os.fstat(file), os.path.join(folder, name))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=directory)
    finally:
        os.close(file)


@functools.cache
def _system_rename() -> Callable[[int, bytes, int, bytes, int], int]:
    """Find the system's rename that takes flags: ``renameat2`` on Linux, ``renameatx_np`` on macOS.

    What is returned gives 0 or the number of an error; ENOSYS where the system knows no such call.
    """
    import ctypes

    name = "renameat2" if sys.platform == "linux" else "renameatx_np"
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return lambda *_: errno.ENOSYS
    return lambda *arguments: 0 if function(*arguments) == 0 else ctypes.get_errno() or errno.EIO


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
    if code := _system_rename()(from_fd, os.fsencode(old), to_fd, os.fsencode(new), flag):
        raise OSError(code, os.strerror(code), new if code == errno.EEXIST else old)


def _rename_in_two_steps(from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Rename where the file system knows no exclusive rename: both ways fail on a taken name by themselves.

    A file gets its second name before it loses the first. A directory replaces an empty one made for it.
    """
    is_directory = stat.S_ISDIR(os.lstat(old, dir_fd=from_fd).st_mode)
    if is_directory:
        os.mkdir(new, dir_fd=to_fd)
    else:
        _link_exclusively(from_fd, old, to_fd, new)
    try:
        if is_directory:
            os.rename(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        else:
            os.unlink(old, dir_fd=from_fd)
    except OSError:
        with contextlib.suppress(OSError):
            (os.rmdir if is_directory else os.unlink)(new, dir_fd=to_fd)
        raise


def _link_exclusively(from_fd: int, old: str, to_fd: int, new: str) -> None:
    """Give a file a second name.

    Raises:
        FileExistsError: the name is taken.
        OSError: ENOTSUP where the file system knows no second names either (FAT, many stores behind FUSE).
    """
    try:
        os.link(old, new, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    except OSError as error:
        ours = os.geteuid() in (0, os.lstat(old, dir_fd=from_fd).st_uid)  # Linux refuses links to what is not ours
        if error.errno in (*UNSUPPORTED, errno.EOPNOTSUPP) or (error.errno == errno.EPERM and ours):
            raise OSError(errno.ENOTSUP, NEITHER, old) from None
        raise


def _finish_two_steps(directory: int, step: Step, old: os.stat_result, target: int, new: os.stat_result) -> bool:
    """Finish what a crash left between the two steps and say so; the empty directory of a first step is removed."""
    if (
        not stands_for(directory, step.name, step.identity)
        or step.name not in os.listdir(directory)
        or step.to not in os.listdir(target)
    ):
        return False  # the last: where case is ignored, one file answers to both names
    if stat.S_ISDIR(old.st_mode) and stat.S_ISDIR(new.st_mode):
        with contextlib.suppress(OSError):  # it is not empty, so it is none of ours
            os.rmdir(step.to, dir_fd=target)
        return False
    if os.path.samestat(old, new):
        os.unlink(step.name, dir_fd=directory)
        return True
    return False


def _is_same_but_for_case(from_fd: int, old: str, to_fd: int, new: str) -> bool:
    """Say whether a taken name is the old one itself, on a file system that ignores case.

    There it is found, but not listed. An inode number is no proof alone: file systems behind FUSE give each look
    at a file its own, and two hard links of one file share theirs.
    """
    if from_fd != to_fd or old.casefold() != new.casefold():
        return False
    names = os.listdir(from_fd)
    one, other = _status(from_fd, old), _status(to_fd, new)
    if old not in names or new in names or not one or not other:
        return False
    return os.path.samestat(one, other) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return None


def _relink(folders: Folders, directory: int, step: Step) -> None:
    """Replace a link by another in one step, so that the name is there at every moment."""
    if not _is_link_to(directory, step.name, step.was):
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    work = folders.descriptor(WORK, create=True)
    temporary = _temporary(NEW_LINK)
    os.symlink(step.to, temporary, dir_fd=work)
    try:
        try:
            swap(work, temporary, directory, step.name, lambda: _is_link_to(work, temporary, step.was), LINK_CHANGED)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            os.rename(temporary, step.name, src_dir_fd=work, dst_dir_fd=directory)
    finally:
        _drop_link(work, temporary)


def _repoint(folders: Folders, directory: int, step: Step) -> None:
    """Replace a pointer file by one that names another checkpoint; all but that name stays as it is.

    What it held before goes to the trash: the new file is written there, and the two exchange their places.
    """
    if not step.to_directory.startswith(f"{STATE}/trash/"):
        raise OSError(errno.EPERM, NOT_IN_TRASH, step.to_directory)
    with scan.open_file_in(directory, step.name) as origin:
        content = scan.read_text(origin)
        if content is None or not mentions(content, step.was):
            raise OSError(errno.ESTALE, CHANGED, step.name)
        if mentions(content, step.to):
            raise OSError(errno.ESTALE, f"names {step.to} already", step.name)
        trash = folders.descriptor(step.to_directory, create=True)
        spare = _new_file(trash, step.name + OLD_POINTER, with_other_name(content, step.was, step.to), origin)
        try:
            swap(trash, spare, directory, step.name, lambda: read_pointer(trash, spare) == content, CHANGED)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                if read_pointer(trash, spare) != content:  # else it could not go back
                    os.unlink(spare, dir_fd=trash)
                raise
            _new_file(trash, step.name + OLD_POINTER, content, origin)
            os.rename(spare, step.name, src_dir_fd=trash, dst_dir_fd=directory)


def _new_file(directory: int, start: str, content: bytes, like: int) -> str:
    """Write a new file in the trash that has all but the content of an open one, and return its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for number in itertools.count(1):
        name = trash_name(f"{start}-{number}" if number > 1 else start)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(name, flags, PRIVATE, dir_fd=directory)
            break
    try:
        with open(descriptor, "wb", buffering=0) as file:
            _write(file.fileno(), content)
            dress_or_refuse(file.fileno(), like, start)
            status = os.fstat(like)
            os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
    return name


def swap(
    spare_directory: int, spare: str, directory: int, name: str, as_expected: Callable[[], bool], otherwise: str
) -> None:
    """Give two names each other's content, in one step, and look at what came out.

    If that is not what was expected, or cannot be looked at, the two go back.

    Raises:
        OSError: they went back, or the system refuses; UNSUPPORTED where it knows no exchange.
    """
    _rename_with(EXCHANGE, spare_directory, spare, directory, name)
    try:
        if as_expected():
            return
        why = OSError(errno.ESTALE, otherwise, name)
    except OSError as error:  # of no errno that stands for a system without exchange, as it was exchanged
        why = OSError(errno.EIO if error.errno in UNSUPPORTED else error.errno, told(error), name)
    _rename_with(EXCHANGE, spare_directory, spare, directory, name)
    raise why


def _link(_: Folders, directory: int, step: Step) -> None:
    refuse_path(step.to)
    os.symlink(step.to, step.name, dir_fd=directory)


def _unlink(folders: Folders, directory: int, step: Step) -> None:
    """Remove a link, by way of the workplace: what is removed there has been looked at there."""
    if not _is_link_to(directory, step.name, step.to):
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    work = folders.descriptor(WORK, create=True)
    temporary = _temporary(NEW_LINK)
    try:
        rename(directory, step.name, temporary, work)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        os.unlink(step.name, dir_fd=directory)  # the workplace lies on another file system
        return
    try:
        fault = None if _is_link_to(work, temporary, step.to) else OSError(errno.ESTALE, LINK_CHANGED, step.name)
    except OSError as error:
        fault = error
    if fault:
        rename(work, temporary, step.name, directory)
        raise fault
    _drop_link(work, temporary)


def _drop_link(work: int, name: str) -> None:
    """Remove a link from the workplace. What else stands there is somebody's; what cannot be removed harms nothing."""
    with contextlib.suppress(OSError):
        if stat.S_ISLNK(os.lstat(name, dir_fd=work).st_mode):
            os.unlink(name, dir_fd=work)


def _exchange(folders: Folders, directory: int, step: Step) -> None:
    """Give two files each other's name, in one step where the system can.

    Elsewhere the first gets a second name, then the other takes its first one, then the second becomes the other's.
    """
    refuse_path(step.to)
    target = folders.descriptor(step.to_directory, create=True)
    if not is_marked(folders, step):
        raise OSError(errno.ESTALE, CHANGED, step.name)
    try:
        swap(directory, step.name, target, step.to, lambda: is_marked(folders, step.inverse), CHANGED)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        spare = step.to + SPARE
        _link_exclusively(directory, step.name, target, spare)
        os.rename(step.to, step.name, src_dir_fd=target, dst_dir_fd=directory)
        os.rename(spare, step.to, src_dir_fd=target, dst_dir_fd=target)


def _is_exchanged(folders: Folders, step: Step) -> bool:
    """Say whether two files have each other's name; what a crash left of the way without exchange is put in order."""
    target = folders.descriptor(step.to_directory)
    if _status(target, step.to + SPARE):
        if _status(target, step.to):
            os.unlink(step.to + SPARE, dir_fd=target)
        else:
            os.rename(step.to + SPARE, step.to, src_dir_fd=target, dst_dir_fd=target)
    return is_marked(folders, step.inverse)


def mark(folders: Folders, directory: str, name: str) -> str:
    """Return what tells a file from another one that takes its name, also where both were copied elsewhere.

    That is inode, size in bytes, time in nanoseconds and `_edges`, with dots between.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    with scan.open_file_in(folders.descriptor(directory), name) as file:
        status = os.fstat(file)
        return f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{_edges(file, status.st_size)}"


def is_marked(folders: Folders, step: Step) -> bool:
    """Say whether the two files of an exchange stand where they stood when they were marked.

    A file is known by inode, size and time. Where the inode is another one, as in a copy of the tree, it is known by
    size, time and its edges; earlier journals have no edges, and there the two files must differ in size or time.

    Raises:
        OSError: one of the two is not there, or cannot be looked at.
    """
    here, there = (_Mark(*text.split(".")) for text in step.was.split(" "))
    alike = (here.size, here.mtime_ns) == (there.size, there.mtime_ns)
    return all(
        _has_mark(folders.descriptor(directory), name, seen, alike=alike)
        for directory, name, seen in ((step.directory, step.name, here), (step.to_directory, step.to, there))
    )


class _Mark(NamedTuple):
    inode: str
    size: str
    mtime_ns: str
    edges: str = ""


def _has_mark(directory: int, name: str, seen: _Mark, *, alike: bool) -> bool:
    status = os.lstat(name, dir_fd=directory)
    if (str(status.st_size), str(status.st_mtime_ns)) != (seen.size, seen.mtime_ns):
        return False
    if str(status.st_ino) == seen.inode:
        return True
    if not seen.edges:
        return not alike
    with scan.open_file_in(directory, name) as file:
        return _edges(file, status.st_size) == seen.edges


def _edges(file: int, size: int) -> str:
    """Return a checksum of the first and the last MiB of a file.

    At the end of a zip file stands its directory, with the checksum of every entry (APPNOTE.TXT 6.3.10, 4.3.12).
    """
    ends = os.pread(file, scan.CHUNK, 0), os.pread(file, scan.CHUNK, max(0, size - scan.CHUNK))
    return hashlib.sha256(b"".join(ends)).hexdigest()[:32]


_OTHER_STEPS: dict[str, Callable[[Folders, int, Step], None]] = {
    "relink": _relink,
    "repoint": _repoint,
    "link": _link,
    "unlink": _unlink,
    "exchange": _exchange,
}


# --- state of checkpoints --------------------------------------------------------------------------------------------


def clear_work(outputs_dir: str) -> None:
    """Remove what an interrupted run left in the workplace: copies that were not in their place yet. Under the lock.

    A file that has the name of a new link stood in its place when the two were exchanged, just before the crash: it is
    somebody's, and stays.
    """
    with contextlib.suppress(OSError), scan.open_state(outputs_dir, "work") as work:
        for name in os.listdir(work):
            with contextlib.suppress(OSError):
                if not (name.startswith(NEW_LINK) and not stat.S_ISLNK(os.lstat(name, dir_fd=work).st_mode)):
                    _remove(work, name)


def stage_rewrite(outputs_dir: str, path: str, recipe: Rewrite, progress: Progress) -> str:
    """Write a file anew into the workplace, dressed like it, with its time and its holes, and return its name there.

    Args:
        outputs_dir: the folder of the experiments.
        path: the file, below it.
        recipe: the parts of the new file.
        progress: is called with the number of bytes of each step.

    Raises:
        SourceError: the file cannot be read, or was written to meanwhile.
        OSError: the copy cannot be written, or would not keep what the file has; nothing is left of it.
    """
    name = _temporary("state-")
    with scan.open_file(outputs_dir, path) as origin, open_state(outputs_dir, "work") as work:
        before = os.fstat(origin)
        try:
            cloned = _cloned(origin, work, name)
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if cloned else os.O_CREAT | os.O_EXCL)
            with open(os.open(name, flags, PRIVATE, dir_fd=work), "wb", buffering=0) as copy:
                _write_parts(origin, copy.fileno(), recipe.parts, progress, cloned=cloned)
                os.ftruncate(copy.fileno(), recipe.size)
                dress_or_refuse(copy.fileno(), origin, path)
                os.utime(copy.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
                os.fsync(copy.fileno())
            if identity_of(os.fstat(origin)) != identity_of(before):
                raise scan.SourceError(errno.ESTALE, CHANGED, path)  # noqa: TRY301 - the copy goes, whatever failed
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=work)
            raise
    return name


def lay_in_trash(outputs_dir: str, staged: str, folder: str, name: str) -> None:
    """Move a staged file into the trash, where it waits to be exchanged.

    Raises:
        FileExistsError: the name is taken there.
    """
    with Folders(outputs_dir) as folders:
        work, trash = folders.descriptor(WORK), folders.descriptor(folder, create=True)
        rename(work, staged, name, trash)


def drop_staged(outputs_dir: str, staged: str) -> None:
    """Remove what was staged and is of no use; it may have left the workplace, and the next run clears that."""
    with contextlib.suppress(OSError), open_state(outputs_dir, "work") as work:
        _remove(work, staged)


def _write_parts(origin: int, copy: int, parts: Sequence[Part], progress: Progress, *, cloned: bool) -> None:
    """Write the parts one behind the other; what a clone holds at its place already is left as it is.

    From where a part has another place than in the clone, what the clone holds is cut off: holes are only skipped.
    """
    at = 0
    for part in parts:
        if isinstance(part, bytes):
            os.lseek(copy, at, os.SEEK_SET)
            _write(copy, part)
            at += len(part)
            continue
        start, end = part
        if cloned and start != at:
            os.ftruncate(copy, at)
            cloned = False
        if not cloned:
            os.lseek(copy, at, os.SEEK_SET)
            for chunk, is_hole in scan.pieces(origin, start, end):
                _skip(copy, len(chunk)) if is_hole else _write(copy, chunk)
                progress(len(chunk))
        at += end - start


# --- text files ------------------------------------------------------------------------------------------------------


def make_own_state(path: str) -> None:
    """Make a folder in the user's own state, and those above it, for nobody else.

    Raises:
        OSError: it cannot be made.
    """
    os.makedirs(os.path.dirname(os.path.dirname(path)), PRIVATE, exist_ok=True)
    for folder in (os.path.dirname(path), path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, PRIVATE)


def keep_content(own_state: str, content: bytes) -> str:
    """Keep a text in the user's own state, under its checksum, and return that.

    Raises:
        OSError: it could not be written.
    """
    name = hashlib.sha256(content).hexdigest()
    with open_state(own_state, "refs") as folder:
        put(folder, name, content)
    return name


def text_checksum(step: Step) -> str:
    """Return the checksum of what stands in a text file now.

    Raises:
        OSError: it cannot be read, or a part of its path is a link.
    """
    with _text_folder(step) as folder, scan.open_file_in(folder, step.name) as file:
        return hashlib.sha256(b"".join(scan.chunks(file, os.fstat(file).st_size))).hexdigest()


def rewrite_obstacle(folders: Folders, step: Step) -> str:
    """Say why a text file cannot be rewritten, or nothing.

    Raises:
        OSError: it cannot be read.
    """
    if not folders.texts:
        return NO_TEXTS
    return "" if text_checksum(step) == step.was else CHANGED


def _text_folder(step: Step) -> contextlib.AbstractContextManager[int]:
    """Open the folder of a text file, through no link."""
    if not step.directory.startswith("/"):
        raise OSError(errno.EINVAL, "is no absolute path", step.directory)
    return open_below("/", step.directory.strip("/"))


def _rewrite_text(folders: Folders, step: Step) -> None:
    """Replace a text file in one step; all but text and time stays as it is.

    Raises:
        OSError: EPERM where the step does not come from the user's own state, or the new file would not keep what the
            old one has; ESTALE where something else stands in the file; or the system refuses.
    """
    if not folders.texts:
        raise OSError(errno.EPERM, NO_TEXTS, step.name)
    refuse_path(step.to)
    with scan.open_state(folders.outputs_dir, "refs") as kept:
        content = _read_kept(kept, step.to)
    if text_checksum(step) != step.was:
        raise OSError(errno.ESTALE, CHANGED, step.name)
    with _text_folder(step) as folder, scan.open_file_in(folder, step.name) as origin:
        temporary, descriptor = _text_beside(folder, step.name, content)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                _write(file.fileno(), content)
                dress_or_refuse(file.fileno(), origin, step.name)
                os.fsync(file.fileno())
            os.replace(temporary, step.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


def _text_beside(folder: int, name: str, content: bytes) -> tuple[str, int]:
    """Make a new file beside a text; one that an interrupted run left half written is removed first."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    temporary = f".{name[:200]}.ckptrules.tmp"
    try:
        return temporary, os.open(temporary, flags, PRIVATE, dir_fd=folder)
    except FileExistsError:
        if _is_begun(folder, temporary, content):
            os.unlink(temporary, dir_fd=folder)
        else:
            temporary = f".{_temporary('ckptrules-')}.tmp"
        return temporary, os.open(temporary, flags, PRIVATE, dir_fd=folder)


def _is_begun(folder: int, name: str, content: bytes) -> bool:
    with contextlib.suppress(OSError), scan.open_file_in(folder, name) as file:
        status = os.fstat(file)
        return status.st_nlink == 1 and content.startswith(os.read(file, len(content) + 1))
    return False


def _read_kept(folder: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != name:
        raise OSError(errno.EIO, "what was kept of it is damaged", name)
    return content


def _temporary(start: str) -> str:
    """Return a name in the workplace that nobody else takes."""
    return f"{start}{os.getpid()}-{time.time_ns()}"


def _is_link_to(directory: int, name: str, text: str) -> bool:
    try:
        return os.readlink(name, dir_fd=directory) == text
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _skip(file: int, count: int) -> None:
    """Leave a hole; if nothing is written behind it, `os.ftruncate` must say where the file ends."""
    os.lseek(file, count, os.SEEK_CUR)


def _write_with_holes(file: int, data: bytes) -> None:
    """Write data, and leave a hole for each block of zeros."""
    blocks = range(0, len(data), HOLE)
    for is_hole, run in itertools.groupby(blocks, lambda at: not data[at : at + HOLE].strip(b"\0")):
        first, *more = run
        part = data[first : first + HOLE * (1 + len(more))]
        _skip(file, len(part)) if is_hole else _write(file, part)


# --- what copies keep ------------------------------------------------------------------------------------------------


def dress(copy: int, like: int) -> tuple[str, ...]:
    """Give an open copy what an open original has beside its bytes and times, and say what it could not be given.

    That is owner and group, mode, access lists, ``user.*`` attributes. At no moment may anybody do more with the copy
    than with the original, if the copy was made for its owner alone (`PRIVATE`).

    Args:
        copy: the descriptor of a file or a directory of ours.
        like: the descriptor of another.

    Returns:
        words for people: ``owner``, ``access list``, ``attribute user.note``. Where the group is not kept, or an access
        list, the mode is so narrow that nobody gains by it.

    Raises:
        SourceError: the attributes of the original cannot be read.
        OSError: the copy cannot be given a mode.
    """
    kind = scan.KINDS[stat.S_IFMT(os.fstat(like).st_mode)]
    return dress_as(copy, scan.described(Item("", kind, 0, 0, 0), like, modes=0o7777))


def dress_as(copy: int, item: Item) -> tuple[str, ...]:
    """Give an open copy what an item says: `dress` without the original.

    Raises:
        OSError: the copy cannot be given a mode.
    """
    attributes = as_bytes(item.attributes)
    lists = {name: value for name, value in attributes.items() if name in LISTS}
    _take_off(copy, (ACCESS, DEFAULT) if item.kind == "directory" else (ACCESS,))
    others = [name for name in attributes if name not in LISTS]
    lost = [word(name) for name in others if not _set(copy, name, attributes[name])]  # while we may still write to it
    lost += _give_away(copy, item)
    mode = without_list(item.mode, lists[ACCESS]) if ACCESS in lists else item.mode
    lost += _chmod(copy, for_another_group(mode) if GROUP in lost else mode)
    kept = GROUP not in lost  # what a list says of the owning group is meant for that group
    return (*lost, *(word(name) for name in lists if not (kept and _set(copy, name, lists[name]))))


def dress_or_refuse(copy: int, like: int, name: str) -> None:
    """Dress what is to take the place of an original; it must not lose anything by that.

    Raises:
        OSError: EPERM, with what it would lose.
    """
    if lost := dress(copy, like):
        owner = scan.owner_name(os.fstat(like).st_uid)
        why = f"belongs to {owner}; {NOT_OURS}" if OWNER in lost else f"a copy would lose its {', its '.join(lost)}"
        raise OSError(errno.EPERM, why, name)


def _take_off(copy: int, names: Iterable[str]) -> None:
    """Remove the access lists that a new file or directory has from the directory that it was made in."""
    for name in names if hasattr(os, "removexattr") else ():
        try:
            os.removexattr(copy, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, *scan.KNOWS_NONE):
                raise


def _give_away(copy: int, item: Item) -> list[str]:
    """Give a copy its owner and group, or at least its group; say what could not be given."""
    if UNKNOWN in (item.uid, item.gid):
        return []
    try:
        os.fchown(copy, item.uid, item.gid)
    except OSError:
        with contextlib.suppress(OSError):
            os.fchown(copy, -1, item.gid)
        return _not_given(os.fstat(copy), item)
    return []


def _give_link_away(directory: int, name: str, item: Item) -> tuple[str, ...]:
    if UNKNOWN in (item.uid, item.gid):
        return ()
    with contextlib.suppress(OSError):
        os.chown(name, item.uid, item.gid, dir_fd=directory, follow_symlinks=False)
    return tuple(_not_given(os.lstat(name, dir_fd=directory), item))


def _not_given(there: os.stat_result, item: Item) -> list[str]:
    return [OWNER] * (there.st_uid != item.uid) + [GROUP] * (there.st_gid != item.gid)


def _chmod(copy: int, mode: int) -> list[str]:
    """Give a copy its mode; say so where the file system keeps none (FAT)."""
    try:
        os.fchmod(copy, mode)
    except OSError as error:
        if error.errno not in scan.KNOWS_NONE:
            raise
        return [MODE]
    return []


def _set(copy: int, name: str, value: bytes) -> bool:
    try:
        os.setxattr(copy, name, value)
    except (OSError, AttributeError):  # macOS has other ones
        return False
    return True


def _tell(tell: Tell, path: str, lost: tuple[str, ...]) -> None:
    if lost:
        tell(path, lost)


def _cloned(origin: int, directory: int, name: str) -> bool:
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


def _remove(directory: int, name: str, progress: Progress = lambda _: None) -> None:
    """Remove a name and all below it, also out of directories that their owner may not write to; our state last."""
    progress(0)
    if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    os.chmod(name, PRIVATE, dir_fd=directory)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        for below in sorted(os.listdir(inner), key=lambda below: below == STATE):
            _remove(inner, below, progress)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=directory)
