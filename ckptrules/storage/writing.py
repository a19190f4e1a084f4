"""Writes files of ours: whole and durable, or not there."""

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
from ckptrules.storage.reading import NO_TRICKS, Progress, open_below, open_inner

TEMPORARY = ".tmp"

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
HOLE = 4096  # bytes; zeros of fewer are written
ROWS = 4  # the depth in a report at which a row of a directory stands
AT_ONCE = 4096  # pieces of a report that are written at once: some hundred KB


@contextlib.contextmanager
def new_file(directory: int, name: str, mode: int = PRIVATE, flags: int = NEW) -> Iterator[int]:
    """Make a file in an open directory, and give it, open for writing; whatever fails until the end, it is gone.

    ``mode`` is what it is made with, less the umask. Other ``flags`` open one that was made just before.

    Raises:
        FileExistsError: the name is taken.
    """
    file = os.open(name, flags | NO_TRICKS, mode, dir_fd=directory)
    try:
        with or_undone(os.unlink, name, dir_fd=directory):
            yield file
    finally:
        with contextlib.suppress(OSError):  # by now it is on the disk, under its name: nothing can be taken back
            os.close(file)


@contextlib.contextmanager
def or_undone(undo: Callable[..., object], *of: Any, **more: Any) -> Iterator[None]:
    """Undo what was begun where what is done until the end fails, by whatever; what cannot be undone stays."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            undo(*of, **more)
        raise


@contextlib.contextmanager
def beside(directory: int, name: str, content: Iterable[bytes], mode: int = 0o600) -> Iterator[tuple[int, str]]:
    """Write what is to be called ``name`` under a name of its own, and give it, open, and that name; as `new_file`."""
    temporary = temporary_name(os.fsdecode(os.fsencode(name)[:150]) + ".") + TEMPORARY
    with new_file(directory, temporary, mode) as file:
        for chunk in content:
            write(file, chunk)
        yield file, temporary


def clear_beside(directory: int, name: str) -> None:
    """Remove what one who was killed has left of a file that `beside` wrote."""
    of_ours = re.compile(rf"{re.escape(name)}\.\d+-\d+{re.escape(TEMPORARY)}")  # as `temporary_name` makes them
    for left in filter(of_ours.fullmatch, os.listdir(directory)):
        os.unlink(left, dir_fd=directory)


def write_whole(path: str, text: str) -> None:
    """Write a file that the user has named (or the one that a link leads to) as a whole; its mode stays."""
    write_beside(os.path.realpath(path), text)


def write_beside(path: str, text: str) -> None:
    """Write a file of ours among the user's as a whole. A link under its name is replaced, not followed."""
    _put_beside(path, [text.encode()])


def _put_beside(path: str, content: Iterable[bytes]) -> None:
    """Write a file as a whole, and durably: readers see the old or the new content, never half of one."""
    folder, name = os.path.split(os.path.abspath(path))
    with open_below(folder, "") as directory:
        before = status_of(directory, name)
        is_kept = before and stat.S_ISREG(before.st_mode)
        mode = 0o600 if is_kept else 0o664 & os.fstat(directory).st_mode
        with beside(directory, name, content, mode) as (file, temporary):
            if before and is_kept:
                with contextlib.suppress(OSError):  # FAT, say, knows no modes
                    os.fchmod(file, stat.S_IMODE(before.st_mode))
            os.fsync(file)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


@contextlib.contextmanager
def in_turn(path: str) -> Iterator[int]:
    """Wait for whoever else of us changes a file of that folder, and give the folder, open; others wait for us."""
    with open_below(os.path.dirname(os.path.abspath(path)), "") as directory:
        with contextlib.suppress(OSError):  # not every network disk has locks
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory


def change_beside(path: str, change: Callable[[str], str]) -> None:
    """Change a file of ours among the user's, durably; of two who do that at once, one waits for the other.

    ``change`` makes of what it holds what it is to hold; of nothing, where it is not there.

    Raises:
        OSError: it cannot be read or written; it is as it was.
        UnicodeDecodeError: it is no UTF-8 text.
    """
    with in_turn(path) as directory:
        name = os.path.basename(path)
        clear_beside(directory, name)
        before = status_of(directory, name)
        write_beside(path, change(believing.read_plain(path) if before else ""))


def write_json(path: str, data: object) -> None:
    """Write a report as JSON, as a whole: what a directory tells of one name is a line.

    It is written as it is made: a report may be longer than the memory, if what iterates over its parts makes them.
    """
    texts = itertools.chain(_json(data), ["\n"])
    chunks = iter(lambda: "".join(itertools.islice(texts, AT_ONCE)).encode(), b"")
    _put_beside(os.path.realpath(path), chunks)


def _json(data: Any, depth: int = 0) -> Iterator[str]:
    """Write data as JSON, indented down to the rows of an experiment: Python takes ten times as long for the rest."""
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
    """Open a stream that takes what nobody reads."""
    return open(os.devnull, "w", encoding="utf-8")


def silence(stream: TextIO) -> None:
    """Let what a stream holds back, and what is still written to it, go nowhere."""
    with contextlib.suppress(OSError), nowhere() as sink:
        os.dup2(sink.fileno(), stream.fileno())


def write_new(path: str, content: bytes, time_ns: int | None = None) -> None:
    """Write a new file, with its folders; a file that is there already is an error, never overwritten.

    Its time is now, or ``time_ns`` since 1970.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "xb", buffering=0) as file:
        try:
            write(file.fileno(), content)
            if time_ns is not None:
                os.utime(file.fileno(), ns=(time_ns, time_ns))
        except OSError:  # half of it would look whole to the next run
            os.unlink(path)
            raise


def set_aside(path: str, beside: str) -> str:
    """Give what stands under a path a name that no rule knows, and return that; nothing where nothing is, or a link.

    What stands ``beside`` it, a sidecar, goes with it.
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


def temporary_name(start: str) -> str:
    """Return a name in the workplace that nobody else takes."""
    return f"{start}{os.getpid()}-{time.time_ns()}"


def write(file: int, data: bytes | memoryview) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def skip(file: int, count: int) -> None:
    """Leave a hole; if nothing is written behind it, `os.ftruncate` must say where the file ends."""
    os.lseek(file, count, os.SEEK_CUR)


def in_blocks(pieces: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """Cut pieces of any length where blocks end, so that no block of zeros is half of one and half of another."""
    rest = b""
    for piece in pieces:
        view = memoryview(piece)
        first = -len(rest) % HOLE
        rest += view[:first]
        if len(rest) == HOLE:
            yield rest
            rest = b""
        if not rest and len(view) > first:
            whole = (len(view) - first) // HOLE * HOLE
            yield view[first : first + whole]
            rest = bytes(view[first + whole :])
    yield rest


def write_with_holes(file: int, data: bytes | memoryview) -> None:
    """Write data, and leave a hole for each block of zeros."""
    view = memoryview(data)

    def is_zero(at: int) -> bool:
        return not (view[at] or bytes(view[at : at + HOLE]).strip(b"\0"))

    for is_hole, run in itertools.groupby(range(0, len(view), HOLE), is_zero):
        first, *more = run
        part = view[first : first + HOLE * (1 + len(more))]
        skip(file, len(part)) if is_hole else write(file, part)


def remove(directory: int, name: str, progress: Progress = lambda _: None) -> None:
    """Remove a name and all below it that can be removed; our state last, and only where nothing else is left.

    In a folder of ours, its mode is no obstacle. Of what is mounted below it, nothing is removed: it lies elsewhere.

    Raises:
        OSError: the first reason why not all could be removed; its ``filename`` begins with the name.
    """
    progress(0)
    if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    try:
        os.rmdir(name, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EBUSY:  # a mount point: the system says that before it looks for what is in it
            raise
    else:
        return
    failed: list[OSError] = []
    with _made_ours(directory, name) as inner:
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
def _made_ours(directory: int, name: str) -> Iterator[int]:
    """Open a folder that is to be emptied; where it is ours, its mode is no obstacle."""
    try:
        inner = open_inner(directory, name)
    except PermissionError:
        os.chmod(name, PRIVATE, dir_fd=directory)  # of 0o000, say; a link in its place is refused next
        inner = open_inner(directory, name)
    try:
        with contextlib.suppress(OSError):  # somebody else's may let us write all the same
            os.fchmod(inner, stat.S_IMODE(os.fstat(inner).st_mode) | PRIVATE)
        yield inner
    finally:
        os.close(inner)
