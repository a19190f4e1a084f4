"""Makes single steps of a change, says whether one was made, and takes nothing for granted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ckptrules.engine.pointers import mentions, with_other_name
from ckptrules.engine.values import STATE, Step, old_text_name
from ckptrules.storage import believing, reading
from ckptrules.storage.dressing import PRIVATE, dress_or_refuse
from ckptrules.storage.folders import Folders
from ckptrules.storage.moving import (
    CHANGED,
    LINK_CHANGED,
    UNSUPPORTED,
    finish_two_steps,
    link_exclusively,
    rename,
    status_of,
    swap,
)
from ckptrules.storage.reading import (
    open_below,
    read_pointer,
    refuse_path,
    stands_for,
)
from ckptrules.storage.state import NEW_LINK, WORK
from ckptrules.storage.writing import temporary_name, write

if TYPE_CHECKING:  # what reads torch files is imported by the one command that needs it
    pass


NOT_IN_TRASH = "is not in the trash"

NO_TEXTS = "what lies where others can write has no power over texts"

SPARE = ".spare"


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
            return status_of(directory, step.name) is None or not _is_link_to(directory, step.name, step.to)
        if step.kind == "repoint":
            content = read_pointer(directory, step.name) or b""
            return mentions(content, step.to) and not mentions(content, step.was)
        refuse_path(step.to)
        if step.kind == "exchange":
            return _is_exchanged(folders, step)
        target = folders.descriptor(step.to_directory)
        old, new = None if taken_again else status_of(directory, step.name), status_of(target, step.to)
        if old and new and finish_two_steps(directory, step, old, target, new):
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


def _relink(folders: Folders, directory: int, step: Step) -> None:
    """Replace a link by another in one step, so that the name is there at every moment."""
    if not _is_link_to(directory, step.name, step.was):
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    work = folders.descriptor(WORK, create=True)
    temporary = temporary_name(NEW_LINK)
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
    with reading.open_file_in(directory, step.name) as origin:
        content = reading.read_text(origin)
        if content is None or not mentions(content, step.was):
            raise OSError(errno.ESTALE, CHANGED, step.name)
        if mentions(content, step.to):
            raise OSError(errno.ESTALE, f"names {step.to} already", step.name)
        trash = folders.descriptor(step.to_directory, create=True)
        spare = _new_file(trash, step.name, with_other_name(content, step.was, step.to), origin)
        try:
            swap(trash, spare, directory, step.name, lambda: read_pointer(trash, spare) == content, CHANGED)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                if read_pointer(trash, spare) != content:  # else it could not go back
                    os.unlink(spare, dir_fd=trash)
                raise
            _new_file(trash, step.name, content, origin)
            os.rename(spare, step.name, src_dir_fd=trash, dst_dir_fd=directory)


def _new_file(directory: int, pointer: str, content: bytes, like: int) -> str:
    """Write a text of a pointer file in the trash, with all else that the open file has, and return its name."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for number in itertools.count(1):
        name = old_text_name(pointer, number)
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(name, flags, PRIVATE, dir_fd=directory)
            break
    try:
        with open(descriptor, "wb", buffering=0) as file:
            write(file.fileno(), content)
            dress_or_refuse(file.fileno(), like, pointer)
            status = os.fstat(like)
            os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
    return name


def _link(_: Folders, directory: int, step: Step) -> None:
    refuse_path(step.to)
    os.symlink(step.to, step.name, dir_fd=directory)


def _unlink(folders: Folders, directory: int, step: Step) -> None:
    """Remove a link, by way of the workplace: what is removed there has been looked at there."""
    if not _is_link_to(directory, step.name, step.to):
        raise OSError(errno.ESTALE, LINK_CHANGED, step.name)
    work = folders.descriptor(WORK, create=True)
    temporary = temporary_name(NEW_LINK)
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
        link_exclusively(directory, step.name, target, spare)
        os.rename(step.to, step.name, src_dir_fd=target, dst_dir_fd=directory)
        os.rename(spare, step.to, src_dir_fd=target, dst_dir_fd=target)


def _is_exchanged(folders: Folders, step: Step) -> bool:
    """Say whether two files have each other's name; what a crash left of the way without exchange is put in order."""
    target = folders.descriptor(step.to_directory)
    if status_of(target, step.to + SPARE):
        if status_of(target, step.to):
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
    with reading.open_file_in(folders.descriptor(directory), name) as file:
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
    with reading.open_file_in(directory, name) as file:
        return _edges(file, status.st_size) == seen.edges


def _edges(file: int, size: int) -> str:
    """Return a checksum of the first and the last MiB of a file.

    At the end of a zip file stands its directory, with the checksum of every entry (APPNOTE.TXT 6.3.10, 4.3.12).
    """
    ends = os.pread(file, reading.CHUNK, 0), os.pread(file, reading.CHUNK, max(0, size - reading.CHUNK))
    return hashlib.sha256(b"".join(ends)).hexdigest()[:32]


_OTHER_STEPS: dict[str, Callable[[Folders, int, Step], None]] = {
    "relink": _relink,
    "repoint": _repoint,
    "link": _link,
    "unlink": _unlink,
    "exchange": _exchange,
}


def text_checksum(step: Step) -> str:
    """Return the checksum of what stands in a text file now.

    Raises:
        OSError: it cannot be read, or a part of its path is a link.
    """
    with _text_folder(step) as folder, reading.open_file_in(folder, step.name) as file:
        return hashlib.sha256(b"".join(reading.chunks(file, os.fstat(file).st_size))).hexdigest()


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
    with believing.open_state(folders.outputs_dir, "refs") as kept:
        content = _read_kept(kept, step.to)
    if text_checksum(step) != step.was:
        raise OSError(errno.ESTALE, CHANGED, step.name)
    with _text_folder(step) as folder, reading.open_file_in(folder, step.name) as origin:
        temporary, descriptor = _text_beside(folder, step.name, content)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                write(file.fileno(), content)
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
            temporary = f".{temporary_name('ckptrules-')}.tmp"
        return temporary, os.open(temporary, flags, PRIVATE, dir_fd=folder)


def _is_begun(folder: int, name: str, content: bytes) -> bool:
    with contextlib.suppress(OSError), reading.open_file_in(folder, name) as file:
        status = os.fstat(file)
        return status.st_nlink == 1 and content.startswith(os.read(file, len(content) + 1))
    return False


def _read_kept(folder: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != name:
        raise OSError(errno.EIO, "what was kept of it is damaged", name)
    return content


def _is_link_to(directory: int, name: str, text: str) -> bool:
    try:
        return os.readlink(name, dir_fd=directory) == text
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
