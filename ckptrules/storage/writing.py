"""Writes files whole and durably, and removes names."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO

from ckptrules.engine.state_folder import STATE
from ckptrules.storage import believing
from ckptrules.storage.metadata import PRIVATE
from ckptrules.storage.moving import rename, status_of
from ckptrules.storage.reading import NO_TRICKS, Progress, open_below, open_file_in, open_inner

TEMPORARY = ".tmp"
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
HOLE = 4096  # bytes; fewer zeros are written
ROWS = 4  # how deep in a report the rows of a directory are nested
AT_ONCE = 4096  # pieces of a report that are written at once: some hundred KB


@contextlib.contextmanager
def new_file(directory: int, name: str, mode: int = PRIVATE, flags: int = NEW) -> Iterator[int]:
    """Make a file in an open directory, and give its descriptor, for writing; remove it after an error in the block.

    ``mode`` is that of the file, less the umask. ``flags`` without O_CREAT open a file that was made just before.

    Raises:
        FileExistsError: the name is taken.
    """
    file = os.open(name, flags | NO_TRICKS, mode, dir_fd=directory)
    try:
        with undo_on_error(os.unlink, name, dir_fd=directory):
            yield file
    finally:
        with contextlib.suppress(OSError):  # it is durable and has its name by now: this error changes nothing
            os.close(file)


@contextlib.contextmanager
def undo_on_error(undo: Callable[..., object], *of: Any, **more: Any) -> Iterator[None]:
    """Call ``undo`` after any error in the block; an OSError of ``undo`` is passed over."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            undo(*of, **more)
        raise


@contextlib.contextmanager
def temporary_file(directory: int, name: str, content: Iterable[bytes], mode: int = 0o600) -> Iterator[tuple[int, str]]:
    """Write content under a temporary name made of ``name``; give the open file and that name. As `new_file`."""
    temporary = temporary_name(f"{_cut(name)}.") + TEMPORARY
    with new_file(directory, temporary, mode) as file:
        with contextlib.suppress(OSError):  # not every network disk has locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for chunk in content:
            write(file, chunk)
        yield file, temporary


def remove_temporary_files(directory: int, name: str) -> None:
    """Remove the temporary files of a name that killed processes left (see `temporary_file`), as far as possible.

    What its writer still holds stays: a run of another tree may write to the same folder.
    """
    of_ours = re.compile(rf"{re.escape(_cut(name))}\.\d+-\d{{19}}{re.escape(TEMPORARY)}")  # as `temporary_name`
    for left in filter(of_ours.fullmatch, os.listdir(directory)):
        with contextlib.suppress(OSError), open_file_in(directory, left) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(left, dir_fd=directory)


def _cut(name: str) -> str:
    """Return a name that leaves room for an ending; a part of it if it is long."""
    return os.fsdecode(os.fsencode(name)[:150])


def write_report(path: str, text: str) -> None:
    """Write a file that the user has named, as `write_file`; where the path is a link, the file that it leads to."""
    write_file(os.path.realpath(path), text)


def write_file(path: str, text: str) -> None:
    """Write or replace a file outside of the state; its mode stays. A link is replaced, not followed."""
    _replace(path, [text.encode()])


def _replace(path: str, content: Iterable[bytes]) -> None:
    """Write or replace a file durably: readers see the old or the new content, never half of one."""
    folder, name = os.path.split(os.path.abspath(path))
    with open_below(folder, "") as directory:
        before = status_of(directory, name)
        is_kept = before and stat.S_ISREG(before.st_mode)
        mode = 0o600 if is_kept else 0o664 & os.fstat(directory).st_mode
        with temporary_file(directory, name, content, mode) as (file, temporary):
            if before and is_kept:
                with contextlib.suppress(OSError):  # FAT, say, knows no modes
                    os.fchmod(file, stat.S_IMODE(before.st_mode))
            os.fsync(file)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


@contextlib.contextmanager
def folder_lock(path: str) -> Iterator[int]:
    """Lock the folder of a path against other runs that call this; wait for them, and give its descriptor."""
    with open_below(os.path.dirname(os.path.abspath(path)), "") as directory:
        with contextlib.suppress(OSError):  # not every network disk has locks
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory


def change_file(path: str, change: Callable[[str], str]) -> None:
    """Change a file outside of the state durably; of two runs that do so at once, one waits for the other.

    Where the path is a link, the file that it leads to is changed. ``change`` takes the old text (an empty one if there
    is no file) and returns the new one.

    Raises:
        OSError: the file cannot be read or written; it is as it was.
        UnicodeDecodeError: it is not UTF-8.
    """
    path = os.path.realpath(path)
    with folder_lock(path) as directory:
        name = os.path.basename(path)
        remove_temporary_files(directory, name)
        before = status_of(directory, name)
        write_file(path, change(believing.read_plain(path) if before else ""))


def write_json(path: str, data: object) -> None:
    """Write a report as JSON, as `write_report`: each row of a directory on one line.

    Iterables in ``data`` become lists while they are written, so a report may be larger than the memory.
    """
    texts = itertools.chain(_json(data), ["\n"])
    chunks = iter(lambda: "".join(itertools.islice(texts, AT_ONCE)).encode(), b"")
    _replace(os.path.realpath(path), chunks)


def _json(data: Any, depth: int = 0) -> Iterator[str]:
    """Yield data as JSON, indented down to the rows: to indent all of it would take Python ten times as long."""
    if depth == ROWS or not data or isinstance(data, str) or not isinstance(data, Iterable):
        yield json.dumps(data)
        return
    start, end = "{}" if isinstance(data, Mapping) else "[]"
    line = "\n" + " " * depth
    items = data.items() if isinstance(data, Mapping) else ((None, item) for item in data)
    for number, (key, value) in enumerate(items):
        yield f"{',' if number else start}{line} " + ("" if key is None else f"{json.dumps(key)}: ")
        yield from _json(value, depth + 1)
    yield line + end


def nowhere() -> TextIO:
    """Open a stream that drops what is written to it."""
    return open(os.devnull, "w", encoding="utf-8")


def silence(stream: TextIO) -> None:
    """Drop what a stream has buffered, and all that is written to it from now on."""
    with contextlib.suppress(OSError), nowhere() as sink:
        os.dup2(sink.fileno(), stream.fileno())


def write_new(path: str, content: bytes, time_ns: int | None = None) -> None:
    """Write a new file, and the folders above it; FileExistsError if the name is taken.

    Its time is now, or ``time_ns`` since 1970.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "xb", buffering=0) as file:
        try:
            write(file.fileno(), content)
            if time_ns is not None:
                os.utime(file.fileno(), ns=(time_ns, time_ns))
        except OSError:  # to the next run, half of it would look whole
            os.unlink(path)
            raise


def set_aside(path: str, sidecar: str) -> str:
    """Rename a file or folder, and its sidecar, so that no rule knows it; return the new name.

    Returns an empty text, and does nothing, if the path is free or a link.
    """
    if not os.path.lexists(path) or os.path.islink(path):
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    end = f".replaced-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"
    with open_below(folder, "") as directory:
        rename(directory, name, name + end)
        with contextlib.suppress(FileNotFoundError):
            rename(directory, os.path.basename(sidecar), os.path.basename(sidecar) + end)
    return name + end


def remove_sidecar(path: str) -> None:
    """Remove a sidecar, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def temporary_name(start: str) -> str:
    """Return a name that no other process or call takes."""
    return f"{start}{os.getpid()}-{time.time_ns()}"


def write(file: int, data: bytes | memoryview) -> None:
    """Write all the data."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def skip(file: int, count: int) -> None:
    """Leave a hole; at the end of a file, `os.ftruncate` must follow."""
    os.lseek(file, count, os.SEEK_CUR)


def in_blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut pieces of any length anew, at the ends of blocks (`HOLE`), so that each block of zeros is in one piece."""
    rest = b""
    for piece in pieces:
        rest += piece
        whole = len(rest) // HOLE * HOLE
        yield rest[:whole]
        rest = rest[whole:]
    yield rest


def write_with_holes(file: int, data: bytes | memoryview) -> None:
    """Write data, with a hole for each block of zeros."""
    view = memoryview(data)

    def is_zero(at: int) -> bool:
        return not (view[at] or bytes(view[at : at + HOLE]).strip(b"\0"))

    for is_hole, run in itertools.groupby(range(0, len(view), HOLE), is_zero):
        first, *more = run
        part = view[first : first + HOLE * (1 + len(more))]
        skip(file, len(part)) if is_hole else write(file, part)


def remove(directory: int, name: str, progress: Progress = lambda _: None) -> None:
    """Remove a name and all below it that can be removed; our state last, and only if nothing else is left.

    Folders of ours are made writable first. Nothing is removed from other file systems that are mounted below.

    Raises:
        OSError: the first that could not be removed; ``filename`` begins with the name.
    """
    progress(0)
    if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EBUSY:  # a mount point, be it empty or not
            raise
    else:
        return
    failed: list[OSError] = []
    with _writable(directory, name) as inner:
        for below in sorted(os.listdir(inner), key=lambda below: below == STATE):
            if not (failed and below == STATE):
                try:
                    remove(inner, below, progress)
                except OSError as error:
                    error.filename = f"{name}/{error.filename or below}"
                    failed.append(error)
    if failed:
        raise failed[0]
    os.rmdir(name, dir_fd=directory)


@contextlib.contextmanager
def _writable(directory: int, name: str) -> Iterator[int]:
    """Open a folder and, if it is ours, make it writable."""
    try:
        inner = open_inner(directory, name)
    except PermissionError:
        os.chmod(name, PRIVATE, dir_fd=directory)  # it was 0o000, say; a link that took its place is refused next
        inner = open_inner(directory, name)
    try:
        with contextlib.suppress(OSError):  # not ours, but perhaps writable for us all the same
            os.fchmod(inner, stat.S_IMODE(os.fstat(inner).st_mode) | PRIVATE)
        yield inner
    finally:
        os.close(inner)
