"""Reads names and bytes below a root; no function follows a link or waits for a pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ckptrules.engine.entries import NOT_READ, EntryKind, HardLinks, Identity, Item, Stamp
from ckptrules.engine.pointers import LONGEST_LIST, is_text
from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import is_known_by
from ckptrules.storage.checksums import Checksum

OPEN = "everybody may write to it, so it is not believed"

AWAY = "look at it (ls -la), then move it away: nothing is read or written through it"

CHUNK = 1 << 20
STREAM = 256 << 10  # bytes of a stream at once: for more, Python asks the system for new memory each time

BLOCK = 512  # bytes, the unit of st_blocks, whatever the file system gives space away in

WEIGHTS = (
    *(".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".hdf5", ".npz", ".npy", ".msgpack", ".gguf", ".distcp"),
    *(
        ".th",
        ".t7",
        ".nemo",
        ".keras",
        ".onnx",
        ".pkl",
        ".params",
        ".pdparams",
        ".pdopt",
        ".caffemodel",
        ".solverstate",
    ),
    *(".index", ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".lz4"),
)
NEVER_EMPTY = (*WEIGHTS, ".json", ".yaml", ".yml", ".metadata", "_METADATA", ".ocdbt")  # other files may only mark

LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

KINDS: dict[int, EntryKind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}

FILE_MODES = 0o777  # without set-user-ID: a backup makes no program that runs as somebody else

DIRECTORY_MODES = 0o3777

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

NO_TRICKS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a link is refused, a named pipe does not hold us up

Progress = Callable[[int], object]

_ZEROS = bytes(CHUNK)


class SourceError(OSError):
    """A file cannot be read; the place that it was to be copied to is in order."""


class StateError(OSError):
    """A part of the state that is not believed, or not to be had; ``strerror`` is its place and one fact.

    Args:
        path: the file or folder.
        fact: what is wrong with it.
        hint: what helps; ``{path}`` and ``{state}`` stand for the path and for the state folder, quoted for a shell.
    """

    def __init__(self, path: str, fact: str, hint: str) -> None:
        import shlex

        super().__init__(errno.EPERM, f"{printable(path)}: {fact}")
        before, _, _ = f"{path}/".rpartition(f"/{STATE}/")
        state = os.path.join(before, STATE)
        self.is_open = fact == OPEN
        self.hint = hint.format(path=printable(shlex.quote(path)), state=printable(shlex.quote(state)))


@contextlib.contextmanager
def open_below(outputs_dir: str, path: str) -> Iterator[int]:
    """Open a directory below ``outputs_dir`` part by part (or that itself) and give its descriptor.

    Raises:
        OSError: it is not there, is no directory, or a part of its path is a link or leads upwards.
    """
    directory = os.open(outputs_dir, FOLDER)
    try:
        for part in path.split("/") if path not in ("", ".") else ():
            refuse_path(part)
            inner = os.open(part, FOLDER | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory
    finally:
        os.close(directory)


def why_of(error: OSError) -> str:
    """Say in words what the system refused."""
    return error.strerror or str(error)


def refuse_path(name: str) -> None:
    """Refuse what is no plain name.

    Raises:
        OSError: EINVAL.
    """
    if name in ("", ".", "..") or "/" in name:
        raise OSError(errno.EINVAL, "is no name in a directory", name)


def identify(directory: int, name: str) -> Identity:
    """Find out what tells whether a name in an open directory still stands for what it stood for.

    Raises:
        OSError: nothing is there, or it cannot be looked at.
    """
    status = os.lstat(name, dir_fd=directory)
    if stat.S_ISDIR(status.st_mode):
        return _identity_inside(directory, name)
    return identity_of(status)


def stands_for(directory: int, name: str, identity: Identity) -> bool:
    """Say whether a name in an open directory still stands for what was identified.

    Raises:
        OSError: nothing is there, or it cannot be looked at.
    """
    return is_known_by(identify(directory, name), identity)


def kind_of(directory: int, name: str) -> EntryKind:
    """Say what stands under a name in an open directory, without looking into it.

    Raises:
        OSError: nothing is there, or it cannot be looked at.
    """
    return KINDS.get(stat.S_IFMT(os.lstat(name, dir_fd=directory).st_mode), "other")


def identity_of(status: os.stat_result) -> Identity:
    """Turn what ``lstat`` says of anything but a directory into what is remembered of it."""
    if stat.S_ISREG(status.st_mode):
        return Identity("file", status.st_size, status.st_mtime_ns)
    return Identity("link" if stat.S_ISLNK(status.st_mode) else "other", 0, 0)


def look(root: str, path: str) -> Item | None:
    """Say what is at a path below a folder, or None where nothing is.

    Raises:
        OSError: a part of the path is no directory (a link, say), or may not be looked into.
    """
    try:
        with open_below(root, os.path.dirname(path)) as directory:
            return _item(path, directory)
    except FileNotFoundError:
        return None


def read_tree(root: str, top: str = "") -> tuple[list[Item], dict[str, OSError]]:
    """Read everything below a path in a folder, sorted, so that a directory stands before what is in it.

    Our state is left out. The second value tells which directories could not be read, and why.
    """
    found: list[Item] = []
    unreadable: dict[str, OSError] = {}
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            with open_below(root, folder) as directory:
                paths = [os.path.join(folder, name) for name in os.listdir(directory)]
                here = [item for path in paths if path != STATE and (item := _item(path, directory))]
        except OSError as error:
            unreadable[folder] = error
        else:
            found += here
            pending += [item.path for item in here if item.kind == "directory"]
    return sorted(found), unreadable


@contextlib.contextmanager
def open_file(root: str, path: str) -> Iterator[int]:
    """Open a plain file below a folder and give its descriptor; a named pipe under its name does not hold us up.

    Raises:
        SourceError: it cannot be opened, or is no plain file.
    """
    folder, name = os.path.split(path)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_file_in(stack.enter_context(open_below(root, folder)), name))
        except OSError as error:
            raise SourceError(error.errno, error.strerror, path) from None
        yield file


@contextlib.contextmanager
def open_file_in(directory: int, name: str) -> Iterator[int]:
    """Open a plain file in an open directory and give its descriptor; as `open_file`.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "is not a plain file", name)
        yield file
    finally:
        os.close(file)


def read_pointer(directory: int, name: str) -> bytes | None:
    """Read a pointer file whole; None where it is none: longer than some kB, or no text.

    Raises:
        OSError: it cannot be read, or is no plain file.
    """
    with open_file_in(directory, name) as file:
        return read_text(file)


def read_text_behind(directory: int, link: str) -> bytes | None:
    """Read the pointer file that a link leads to; None where that is none. What it names is left alone, no more.

    Raises:
        OSError: it cannot be read.
    """
    file = os.open(link, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        return read_text(file) if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)


def read_text(file: int) -> bytes | None:
    """Read an open pointer file whole, as `read_pointer` does."""
    content = b"".join(chunks(file, LONGEST_LIST + 1))
    return content if is_text(content) else None


def chunks(file: int, size: int) -> Iterator[bytes]:
    """Yield up to so many bytes of an open file.

    Raises:
        SourceError: they cannot be read.
    """
    while size > 0:
        try:
            chunk = os.read(file, min(CHUNK, size))
        except OSError as error:
            raise SourceError(*error.args) from None
        if not chunk:
            return
        size -= len(chunk)
        yield chunk


def pieces(file: int, start: int, end: int) -> Iterator[tuple[bytes, bool]]:
    """Yield a part of an open file chunk by chunk, and whether the chunk is a hole: its zeros are not read.

    Args:
        file: its descriptor.
        start: the first byte.
        end: the byte behind the last; less is yielded where the file is shorter.

    Raises:
        SourceError: they cannot be read.
    """
    for first, behind, is_hole in extents(file, start, end):
        if is_hole:
            yield from ((_ZEROS[: behind - at], True) for at in range(first, behind, CHUNK))
            continue
        at = os.lseek(file, first, os.SEEK_SET)
        for chunk in chunks(file, behind - first):
            at += len(chunk)
            yield chunk, False
        if at < behind:  # cut off meanwhile
            return


def extents(file: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the data and the holes of a part of an open file, in order: where each begins and ends, and whether a hole.

    What was cut off meanwhile may be yielded as data.
    """
    if not holes_of(os.fstat(file)):
        yield start, end, False
        return
    while start < end:
        data, hole = _extent(file, start, end)
        if start < data:
            yield start, data, True
        if data < hole:
            yield data, hole, False
        if hole == start:  # cut off meanwhile
            return
        start = hole


def digest_part(file: int, start: int, end: int, digest: Checksum, progress: Progress) -> int:
    """Hand a part of an open file to a checksum; return how many bytes there were.

    Raises:
        SourceError: they cannot be read.
    """
    size = 0
    for chunk, _ in pieces(file, start, end):
        digest.update(chunk)
        size += len(chunk)
        progress(len(chunk))
    return size


def holes_of(status: os.stat_result) -> int:
    """Return how many bytes of a file take no space on its disk."""
    return max(0, status.st_size - status.st_blocks * BLOCK) if stat.S_ISREG(status.st_mode) else 0


def checksum(root: str, path: str, progress: Progress, with_: str = "") -> str:
    """Return the checksum of a file below a folder, of the algorithm of the one that it is to be compared ``with``.

    Raises:
        SourceError: it cannot be read.
    """
    digest = Checksum(with_)
    with open_file(root, path) as file:
        digest_part(file, 0, os.fstat(file).st_size, digest, progress)
    return str(digest)


def owner_name(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _extent(file: int, start: int, end: int) -> tuple[int, int]:
    """Find the next data of a file: where they begin and end. A file system without holes says that all is data."""
    try:
        data = min(end, os.lseek(file, start, os.SEEK_DATA))
        return data, min(end, os.lseek(file, data, os.SEEK_HOLE))
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end of the file
            last = max(start, min(end, os.fstat(file).st_size))
            return last, last
        return start, end


def _item(path: str, directory: int) -> Item | None:
    name = os.path.basename(path)
    try:
        status = os.lstat(name, dir_fd=directory)
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "other")
        link = os.readlink(name, dir_fd=directory) if kind == "link" else ""
    except FileNotFoundError:
        return None
    mode = status.st_mode & (DIRECTORY_MODES if kind == "directory" else FILE_MODES)
    size, holes = (status.st_size if kind == "file" else 0), holes_of(status)
    return Item(path, kind, size, status.st_mtime_ns, mode, link, uid=status.st_uid, gid=status.st_gid, holes=holes)


def open_folder(directory: int, name: str, path: str) -> int:
    """Open a folder of the state in an open directory; a link is refused."""
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise StateError(path, os.strerror(errno.ENOTDIR), AWAY) from None
        raise


def printable(text: str) -> str:
    """Write a text that others could have written so that a terminal shows it and does nothing else."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def stamp_of(status: os.stat_result) -> Stamp:
    """Turn what ``stat`` says of a directory into what is remembered of it."""
    return Stamp(status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def hard_links(found: Iterable[os.stat_result]) -> tuple[HardLinks, ...]:
    """Pick out the files with several names, each once, with the number of names that are among what was found."""
    several = [(s.st_dev, s.st_ino, s.st_size, s.st_nlink) for s in found if s.st_nlink > 1 and stat.S_ISREG(s.st_mode)]
    return tuple(HardLinks(*file, count) for file, count in Counter(several).items()) if several else ()


class Inside(NamedTuple):
    """What a walk through a checkpoint directory finds: its identity, why it is hollow, files with other names."""

    identity: Identity
    hollow: str
    shared: tuple[HardLinks, ...]


def look_inside(directory: int, name: str) -> Inside:
    """Add up the bytes of all files in a directory, and find the newest of their times (-1 where there is no file).

    A link counts as one byte and has no time: it may be re-pointed, and the directory is still the same checkpoint.
    """
    size, newest = 0, -1
    hollow: list[str] = []
    several: list[os.stat_result] = []
    failed: list[OSError] = []
    ahead = {name}  # folders to be walked through
    for folder, directories, names, inner in os.fwalk(name, dir_fd=directory, onerror=failed.append):
        ahead.remove(folder)
        for one in (*names, *directories):
            below = os.lstat(one, dir_fd=inner)
            if stat.S_ISREG(below.st_mode):
                size, newest = size + below.st_size, max(newest, below.st_mtime_ns)
                if not below.st_size and one.endswith(WEIGHTS):
                    hollow.append(f"an empty file: {os.path.join(folder, one)[len(name) + 1 :]}")
                if below.st_nlink > 1:
                    several.append(below)
            elif stat.S_ISLNK(below.st_mode):
                size += 1
                if one.endswith(WEIGHTS) and leads_nowhere(inner, one):
                    hollow.append(f"a link that leads nowhere: {os.path.join(folder, one)[len(name) + 1 :]}")
            elif stat.S_ISDIR(below.st_mode):
                ahead.add(os.path.join(folder, one))
    unread = _unread(ahead, [error for error in failed if not isinstance(error, FileNotFoundError)])
    return Inside(Identity("directory", size, newest), unread or min(hollow, default=""), hard_links(several))


def _unread(folders: Iterable[str], errors: Sequence[OSError]) -> str:
    """Say which of the folders in a checkpoint nobody could walk through, and why; nothing where none failed.

    It may hold what makes the checkpoint whole, or not.
    """
    paths = sorted(path.partition("/")[2] for path in folders)
    if not (errors and paths):
        return ""
    where = f": {paths[0]}" if paths[0] else ""
    return f"{NOT_READ}{where} ({os.strerror(errors[0].errno or 0)})"


def leads_nowhere(directory: int, link: str) -> bool:
    """Say whether a link leads to what is not there; what cannot be looked at may be."""
    try:
        os.stat(link, dir_fd=directory)
    except OSError as error:
        return error.errno in LEADS_NOWHERE
    return False


def holds_something(directory: int, path: str) -> bool:
    """Say whether a path in an open directory is more than a name: no link that leads nowhere, no JSON of 0 bytes."""
    try:
        status = os.lstat(path, dir_fd=directory)
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(status.st_mode):
        return not leads_nowhere(directory, path)
    return bool(status.st_size) or not (stat.S_ISREG(status.st_mode) and path.endswith(NEVER_EMPTY))


def _identity_inside(directory: int, name: str) -> Identity:
    return look_inside(directory, name).identity
