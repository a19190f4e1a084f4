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
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, BinaryIO, TextIO

from ckptrules import scan
from ckptrules.model import STATE, Item, Stamp, Step
from ckptrules.pointers import LONGEST, mentions, with_other_name
from ckptrules.scan import (
    NO_TRICKS,
    TRASH_SUFFIX,
    Progress,
    TrashUse,
    checked,
    explained,
    identify,
    identity_of,
    measure,
    open_below,
    refuse_path,
    stamp_of,
    stands_for,
    trash_path,
)

if TYPE_CHECKING:  # what reads torch files is imported by the one command that needs it
    from ckptrules.torchstate import Part, Rewrite

NS = 1_000_000_000
TICK_NS = 20_000_000
COARSE_TICK_NS = 2 * NS
CHANGED = "has changed since it was looked at"
LINK_CHANGED = "is no longer the link that it was"
LOCK_POLL = 0.2  # seconds
EXCLUSIVE = 1 if sys.platform == "linux" else 4  # RENAME_NOREPLACE, RENAME_EXCL
EXCHANGE = 2  # RENAME_EXCHANGE, RENAME_SWAP
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
PRIVATE = 0o700
SPARE = ".spare"
TEMPORARY = ".tmp"
STAGED = f"{STATE}/work/restore"
NEW_LINK = "link-"  # begins the names in the workplace of what is to take the place of a link
FICLONE = 0x40049409  # linux/fs.h


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
            return text_checksum(step) == step.to
        directory = folders.descriptor(step.directory)
        if step.kind in ("relink", "link"):
            return os.readlink(step.name, dir_fd=directory) == step.to
        if step.kind == "unlink":
            return _status(directory, step.name) is None or not _is_link_to(directory, step.name, step.to)
        if step.kind == "repoint":
            content = _read_pointer(directory, step.name)
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
        raise OSError(errno.EPERM, "is not in the trash", step.to)
    directory = folders.descriptor(step.to_directory)
    if not stands_for(directory, step.to, step.identity):
        raise OSError(errno.ESTALE, CHANGED, step.to)
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


def empty_trash(outputs_dir: str, runs: Sequence[str]) -> TrashUse:
    """Remove what some runs left in the trash, and say how much that was.

    Raises:
        OSError: something could not be removed.
    """
    freed = TrashUse(0, 0)
    for run in runs:
        with scan.open_state(outputs_dir, f"trash/{run}"):  # fails where a part of the path is a link
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
    """Replace a file below the state folder; readers see the old or the new content, never half of one."""
    folder, name = os.path.split(path)
    with open_state(outputs_dir, folder) as directory:
        for left in os.listdir(directory):  # by a crash
            if left.startswith(f"{name}.") and left.endswith(TEMPORARY):
                os.unlink(left, dir_fd=directory)
        put(directory, name, text.encode(), lambda file: _share(file, directory, is_new=True))


def put(
    directory: int,
    name: str,
    content: bytes,
    dress: Callable[[int], object] = lambda _: None,
    mode: int = 0o600,
) -> None:
    """Write a file as a whole: readers see the old or the new content, never half of one, also after a power cut.

    It is written beside, under a name that is its own, then takes the place of what stood under ``name``; a link that
    stood there is not followed.

    Args:
        directory: the open directory where it belongs.
        name: what it is called there.
        content: what it holds.
        dress: gives the open file what else it needs.
        mode: what it is made with, less the umask.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    temporary = _temporary(os.fsdecode(os.fsencode(name)[:150]) + ".") + TEMPORARY
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_TRICKS
    try:
        with open(os.open(temporary, flags, mode, dir_fd=directory), "wb", buffering=0) as file:
            _write(file.fileno(), content)
            dress(file.fileno())
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
    with open(path, "xb") as file:
        file.write(content)


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
    """Give a new folder in the workplace, and remove what is left in it at the end."""
    name = _temporary("unarchive-")
    with open_state(outputs_dir, "work") as work:
        os.mkdir(name, PRIVATE, dir_fd=work)
        try:
            yield os.path.join(outputs_dir, STATE, "work", name)
        finally:
            _remove(work, name)


def write_member(root: str, item: Item, content: IO[bytes], progress: Progress) -> str:
    """Write a file of an archive, with its mode and time, see it on the disk, and return its checksum.

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
                _write(file.fileno(), chunk)
                progress(len(chunk))
            os.fchmod(file.fileno(), item.mode)
            os.utime(file.fileno(), ns=(item.mtime_ns, item.mtime_ns))
            os.fsync(file.fileno())
    return digest.hexdigest()


def move_in(staged: str, name: str, outputs_dir: str, experiment: str) -> None:
    """Move an experiment that is whole into its place; never overwrite. Its own time stays.

    Raises:
        FileExistsError: something stands there.
    """
    parent, last = os.path.split(experiment)
    os.makedirs(os.path.join(outputs_dir, parent), exist_ok=True)
    with open_below(staged, "") as origin, open_below(outputs_dir, parent) as target:
        rename(origin, name, last, target)
        os.fsync(target)


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


def finish_backup(partial: str, path: str, mode: int) -> None:
    """Give a finished backup its permissions and its name.

    Raises:
        FileExistsError: the name was taken meanwhile.
    """
    os.chmod(partial, mode)
    with open_below(os.path.dirname(path) or ".", "") as folder:
        rename(folder, os.path.basename(partial), os.path.basename(path))
        os.fsync(folder)


def remove_backup(path: str, hidden: str) -> None:
    """Remove a backup, under a hidden name; what an interruption leaves of it still has its manifest.

    Raises:
        OSError: something could not be removed.
    """
    with open_below(os.path.dirname(path) or ".", "") as folder:
        if hidden != path:
            rename(folder, os.path.basename(path), os.path.basename(hidden))
        _remove(folder, os.path.basename(hidden))


def can_clone(root: str, path: str, probe: str) -> bool:
    """Find out by trying whether a file can be cloned to a path; nothing of it stays there."""
    folder, name = os.path.split(probe)
    with scan.open_file(root, path) as origin, open_below(folder, "") as directory:
        cloned = _cloned(origin, directory, name)
        if cloned:
            os.unlink(name, dir_fd=directory)
    return cloned


def copy_file(root: str, item: Item, to_root: str, to: str, how: str, progress: Progress) -> tuple[Item, str]:
    """Copy a file to a new name, with its time and permissions, and see it on the disk.

    Returns what the copy is, with its checksum, and how it came about. No more is copied than the file had when the
    copy began.

    Args:
        root: a folder.
        item: the file, below it.
        to_root: another folder, or the same.
        to: the copy, below that; its directory must be there.
        how: ``copy``, ``clone`` (a copy where that cannot be) or ``link``.
        progress: is called with the number of bytes of each step.

    Raises:
        SourceError: the file cannot be read; the copy is removed.
        FileExistsError: the new name is taken.
        OSError: the copy cannot be written.
    """
    (folder, name), (to_folder, to_name) = os.path.split(item.path), os.path.split(to)
    with scan.open_file(root, item.path) as origin, open_below(to_root, to_folder) as directory:
        before = os.fstat(origin)
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
            for chunk in scan.chunks(source, awaited):
                digest.update(chunk)
                size += len(chunk)
                if how == "copy":
                    _write(copy, chunk)
                progress(len(chunk))
            if how != "link":
                os.fchmod(copy, item.mode)
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


def make_link(root: str, item: Item) -> None:
    """Make a symbolic link with its time.

    Raises:
        FileExistsError: the name is taken.
    """
    folder, name = os.path.split(item.path)
    with open_below(root, folder) as directory:
        os.symlink(item.link, name, dir_fd=directory)
        os.utime(name, ns=(item.mtime_ns, item.mtime_ns), dir_fd=directory, follow_symlinks=False)


def make_directory(root: str, item: Item) -> None:
    """Make a directory that only its owner can fill; `dress_directory` ends that.

    Raises:
        FileExistsError: the name is taken.
    """
    folder, name = os.path.split(item.path)
    with open_below(root, folder) as directory:
        os.mkdir(name, PRIVATE, dir_fd=directory)


def dress_directory(root: str, item: Item) -> None:
    """Give a filled directory its permissions and its time, and see its names on the disk."""
    with open_below(root, item.path) as directory:
        os.fchmod(directory, item.mode)
        os.utime(directory, ns=(item.mtime_ns, item.mtime_ns))
        os.fsync(directory)


def stage(backup: str, item: Item, outputs_dir: str, progress: Progress) -> str:
    """Copy a file of a backup to one rename from where it belongs, and return the checksum of the copy.

    Raises:
        SourceError: it cannot be read.
        OSError: it cannot be written.
    """
    clear_stage(outputs_dir)
    return copy_file(backup, item, outputs_dir, STAGED, "clone", progress)[0].sha256


def clear_stage(outputs_dir: str) -> None:
    """Remove what was staged and not put in place."""
    folder, name = os.path.split(STAGED)
    with open_state(outputs_dir, folder.removeprefix(f"{STATE}/")) as workplace, contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=workplace)


def put_in_place(outputs_dir: str, item: Item) -> None:
    """Move the staged file to where it belongs, with the time that it had; never overwrite.

    Raises:
        FileExistsError: the name is taken.
    """
    staged, (folder, name) = os.path.basename(STAGED), os.path.split(item.path)
    with scan.open_state(outputs_dir, "work") as workplace, open_below(outputs_dir, folder) as directory:
        os.utime(staged, ns=(item.mtime_ns, item.mtime_ns), dir_fd=workplace)
        rename(workplace, staged, name, directory)


def trash_below(outputs_dir: str, run: str, path: str) -> None:
    """Move whatever is at a path to the trash.

    Raises:
        OSError: nothing is there, or the system refuses.
    """
    folder, name = os.path.split(path)
    with Folders(outputs_dir) as folders:
        there = identify(folders.descriptor(folder), name)
        place = f"{STATE}/trash/{run}/{folder}".rstrip("/")
        do_step(folders, Step("move", folder, name, place, name + TRASH_SUFFIX, identity=there))


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
    """Replace a link by another in one step, so that the name is there at every moment."""
    if not _is_link_to(directory, step.name, step.was):
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    work = folders.descriptor(f"{STATE}/work", create=True)
    temporary = _temporary(NEW_LINK)
    os.symlink(step.to, temporary, dir_fd=work)
    _swap_in(work, temporary, directory, step.name, lambda: _is_link_to(work, temporary, step.was), LINK_CHANGED)


def _repoint(folders: Folders, directory: int, step: Step) -> None:
    """Replace a pointer file by one that names another checkpoint; mode and time of the file stay."""
    content = _read_pointer(directory, step.name)
    if not mentions(content, step.was):
        raise OSError(errno.ESTALE, CHANGED, step.name)
    if mentions(content, step.to):
        raise OSError(errno.ESTALE, f"names {step.to} already", step.name)
    work = folders.descriptor(f"{STATE}/work", create=True)
    temporary = _temporary("pointer-")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    status = os.lstat(step.name, dir_fd=directory)
    with open(os.open(temporary, flags, PRIVATE, dir_fd=work), "wb", buffering=0) as file:
        _write(file.fileno(), with_other_name(content, step.was, step.to))
        _dress(file.fileno(), status)
        os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(file.fileno())
    _swap_in(work, temporary, directory, step.name, lambda: _read_pointer(work, temporary) == content, CHANGED)


def _swap_in(
    work: int, temporary: str, directory: int, name: str, as_expected: Callable[[], bool], otherwise: str
) -> None:
    """Exchange a prepared name with the one that it is to replace, and remove what comes out.

    What comes out is looked at first: if it is not what was expected, it goes back.

    Raises:
        OSError: it went back, or the system refuses.
    """
    try:
        _rename_with(EXCHANGE, work, temporary, directory, name)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            os.rename(temporary, name, src_dir_fd=work, dst_dir_fd=directory)
            return
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=work)
        raise
    whole = as_expected()
    if not whole:
        _rename_with(EXCHANGE, work, temporary, directory, name)
    with contextlib.suppress(OSError):  # what is left in the workplace harms nothing
        os.unlink(temporary, dir_fd=work)
    if not whole:
        raise OSError(errno.ESTALE, otherwise, name)


def _link(_: Folders, directory: int, step: Step) -> None:
    refuse_path(step.to)
    os.symlink(step.to, step.name, dir_fd=directory)


def _unlink(folders: Folders, directory: int, step: Step) -> None:
    """Remove a link, by way of the workplace: what is removed there has been looked at there."""
    if not _is_link_to(directory, step.name, step.to):
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    work = folders.descriptor(f"{STATE}/work", create=True)
    temporary = _temporary(NEW_LINK)
    try:
        rename(directory, step.name, temporary, work)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        os.unlink(step.name, dir_fd=directory)  # the workplace lies on another file system
        return
    if not _is_link_to(work, temporary, step.to):
        rename(work, temporary, step.name, directory)
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    os.unlink(temporary, dir_fd=work)


def _exchange(folders: Folders, directory: int, step: Step) -> None:
    """Give two files each other's name, in one step where the system can.

    Elsewhere the first gets a second name, then the other takes its first one, then the second becomes the other's.
    """
    refuse_path(step.to)
    target = folders.descriptor(step.to_directory, create=True)
    if marks(folders, step) != step.was:
        raise OSError(errno.ESTALE, CHANGED, step.name)
    try:
        _rename_with(EXCHANGE, directory, step.name, target, step.to)
        if marks(folders, step) != step.inverse.was:  # saved again since the look: it goes back
            _rename_with(EXCHANGE, directory, step.name, target, step.to)
            raise OSError(errno.ESTALE, CHANGED, step.name)  # noqa: TRY301 - no second way to exchange is tried
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        spare = step.to + SPARE
        os.link(step.name, spare, src_dir_fd=directory, dst_dir_fd=target, follow_symlinks=False)
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
    return marks(folders, step) == step.inverse.was


def marks(folders: Folders, step: Step) -> str:
    """Return what tells the two files of an exchange apart: inode, size and time of each.

    Raises:
        OSError: one of the two is not there.
    """
    return f"{mark(folders, step.directory, step.name)} {mark(folders, step.to_directory, step.to)}"


def mark(folders: Folders, directory: str, name: str) -> str:
    """Return what tells a file from another one that takes its name: inode, size in bytes and time in nanoseconds.

    Raises:
        OSError: it is not there.
    """
    status = os.lstat(name, dir_fd=folders.descriptor(directory))
    return f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"


def _read_pointer(directory: int, name: str) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:
        return file.read(LONGEST)


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
    """Write a file anew into the workplace, with its mode and time, and return its name there.

    Args:
        outputs_dir: the folder of the experiments.
        path: the file, below it.
        recipe: the parts of the new file.
        progress: is called with the number of bytes of each step.

    Raises:
        SourceError: the file cannot be read, or was written to meanwhile.
        OSError: the copy cannot be written; nothing is left of it.
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
                _dress(copy.fileno(), before)
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
        work, trash = folders.descriptor(f"{STATE}/work"), folders.descriptor(folder, create=True)
        rename(work, staged, name, trash)


def drop_staged(outputs_dir: str, staged: str) -> None:
    """Remove a staged file that is of no use."""
    with open_state(outputs_dir, "work") as work, contextlib.suppress(FileNotFoundError):
        os.unlink(staged, dir_fd=work)


def _write_parts(origin: int, copy: int, parts: Sequence[Part], progress: Progress, *, cloned: bool) -> None:
    """Write the parts one behind the other; what a clone holds at its place already is left as it is."""
    at = 0
    for part in parts:
        if isinstance(part, bytes):
            os.lseek(copy, at, os.SEEK_SET)
            _write(copy, part)
            at += len(part)
            continue
        start, end = part
        if not (cloned and start == at):
            os.lseek(origin, start, os.SEEK_SET)
            os.lseek(copy, at, os.SEEK_SET)
            for chunk in scan.chunks(origin, end - start):
                _write(copy, chunk)
                progress(len(chunk))
        at += end - start


# --- text files ------------------------------------------------------------------------------------------------------


def keep_content(outputs_dir: str, content: bytes) -> str:
    """Keep a text in the state, under its checksum, and return that.

    Raises:
        OSError: it could not be written.
    """
    name = hashlib.sha256(content).hexdigest()
    with open_state(outputs_dir, "refs") as folder:
        put(folder, name, content)
    return name


def text_checksum(step: Step) -> str:
    """Return the checksum of what stands in a text file now.

    Raises:
        OSError: it cannot be read.
    """
    with open(os.path.join(step.directory, step.name), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def rewrite_obstacle(step: Step) -> str:
    """Say why a text file cannot be rewritten, or nothing.

    Raises:
        OSError: it cannot be read.
    """
    return "" if text_checksum(step) == step.was else CHANGED


def _rewrite_text(folders: Folders, step: Step) -> None:
    """Replace a text file in one step; its mode stays.

    Raises:
        OSError: ESTALE where something else stands in it; or the system refuses.
    """
    refuse_path(step.to)
    with open_below(folders.outputs_dir, f"{STATE}/refs") as kept:
        content = _read_kept(kept, step.to)
    if text_checksum(step) != step.was:
        raise OSError(errno.ESTALE, CHANGED, step.name)
    place = os.path.join(step.directory, step.name)
    temporary = os.path.join(step.directory, f".{step.name[:200]}.ckptrules.tmp")  # the next run takes one left behind
    status = os.lstat(place)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, PRIVATE), "wb", buffering=0) as file:
            _write(file.fileno(), content)
            _dress(file.fileno(), status)
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


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


def _dress(file: int, like: os.stat_result) -> None:
    """Give an open file the owner, where we may, and the mode of the one whose place it is to take."""
    with contextlib.suppress(OSError):
        os.fchown(file, like.st_uid, like.st_gid)
    os.fchmod(file, stat.S_IMODE(like.st_mode))


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


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


def _remove(directory: int, name: str) -> None:
    """Remove a name and all below it, also out of directories that their owner may not write to; our state last."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    os.chmod(name, PRIVATE, dir_fd=directory)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        for below in sorted(os.listdir(inner), key=lambda below: below == STATE):
            _remove(inner, below)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=directory)
