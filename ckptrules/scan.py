"""Reads the disk: finds checkpoint directories, lists them, counts the trash, reads whole trees. Changes nothing.

No function follows a link below ``outputs_dir``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate
from typing import NamedTuple

from ckptrules.journal import TAIL_BYTES, is_finished
from ckptrules.model import STATE, Entry, EntryKind, Found, Identity, Item, Listing, Stamp

JOURNALS = f"{STATE}/journal"
TRASH_SUFFIX = ".trashed"
_GLOB = re.compile(r"[*?[]")
RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d+")
UNREADABLE = Stamp(0, 0, 0)
OPEN = "everybody may write to it, so it is not believed"
CLOSE = "if nobody else wrote to it: chmod -R o-w {state}"
SHARE = "its owner shares it with the group: chmod -R g+rwX {state}; chmod g+s {state}"
AWAY = "look at it (ls -la), then move it away: nothing is read or written through it"
COPY = "give it a copy of its own: cp -p {path} {path}.own && mv {path}.own {path}"
STRANGER = "look who that is (ls -la); move it away, and a new one is begun"
CHUNK = 1 << 20
KINDS: dict[int, EntryKind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
FILE_MODES = 0o777  # without set-user-ID: a backup makes no program that runs as somebody else
DIRECTORY_MODES = 0o3777
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NO_TRICKS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a link is refused, a named pipe does not hold us up
BELIEVED = tuple("lock proved doit.db journal verified trash work refs".split())
NO_MODES: set[int] = set()  # the devices on which every file has one mode: no mode tells anything there
OTHER_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
Progress = Callable[[int], object]


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
        super().__init__(errno.EPERM, f"{printable(path)}: {fact}")
        before, _, _ = f"{path}/".rpartition(f"/{STATE}/")
        state = os.path.join(before, STATE)
        self.is_open = fact == OPEN
        self.hint = hint.format(path=printable(shlex.quote(path)), state=printable(shlex.quote(state)))


class TrashUse(NamedTuple):
    """What waits in the trash, or was freed from it: names (checkpoints, and what belongs to them) and bytes."""

    items: int
    size: int

    def __add__(self, other: TrashUse) -> TrashUse:  # type: ignore[override]
        return TrashUse(self.items + other.items, self.size + other.size)


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
            experiment = path.rpartition("/")[0] if literal_end else path
            experiment = experiment or path
            while experiment in taken:
                experiment = path if len(experiment) < len(path) else f"{experiment}/."
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
    with open_below(outputs_dir, found.directory) as directory:
        return read_directory(directory, found)


def read_directory(directory: int, found: Found) -> Listing:
    """Read one checkpoint directory that is open.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(directory) as entries:
        return Listing(found.experiment, found.directory, tuple(_read_entries(directory, entries)))


def trash_use(outputs_dir: str, runs: Sequence[str] | None = None) -> TrashUse:
    """Count what waits in the trash: of some runs, or of all.

    Raises:
        OSError: a part of it is no folder of ours (a link, say).
    """
    total = TrashUse(0, 0)
    for run in trash_runs(outputs_dir) if runs is None else runs:
        with contextlib.suppress(FileNotFoundError), open_state(outputs_dir, f"trash/{run}"):
            total = total + measure(os.path.join(trash_path(outputs_dir), run))
    return total


def trash_runs(outputs_dir: str) -> list[str]:
    """List the runs that have something in the trash, oldest first. Names that are not ours are left out."""
    try:
        return sorted(name for name in os.listdir(trash_path(outputs_dir)) if RUN_ID.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


class TrashItem(NamedTuple):
    """One thing in the trash: the run that put it there, the directory that it is from, its name, its bytes."""

    run: str
    directory: str
    name: str
    size: int


def trash_items(outputs_dir: str) -> list[TrashItem]:
    """List what waits in the trash, oldest run first.

    Raises:
        OSError: it cannot be read.
    """
    found = []
    for run in trash_runs(outputs_dir):
        with open_state(outputs_dir, f"trash/{run}") as top:
            for folder, directories, files, inner in os.fwalk(".", dir_fd=top):
                here = [name for name in (*directories, *files) if name.endswith(TRASH_SUFFIX)]
                directories[:] = sorted(name for name in directories if name not in here)
                for name in sorted(here):
                    status = os.lstat(name, dir_fd=inner)
                    size = _identity_inside(inner, name).size if stat.S_ISDIR(status.st_mode) else status.st_size
                    found.append(TrashItem(run, os.path.normpath(folder), name.removesuffix(TRASH_SUFFIX), size))
    return found


def sizes(outputs_dir: str, directory: str, seen: set[tuple[int, int]]) -> dict[str, int]:
    """Return the bytes of each name in a checkpoint directory; a file with several names counts where it is first seen.

    Raises:
        OSError: it cannot be read.
    """
    found = {}
    with open_below(outputs_dir, directory) as here:
        for name in sorted(os.listdir(here)):
            status = os.lstat(name, dir_fd=here)
            if stat.S_ISDIR(status.st_mode):
                files = (os.lstat(f, dir_fd=inner) for _, _, names, inner in os.fwalk(name, dir_fd=here) for f in names)
                found[name] = sum(_once(file, seen) for file in files)
            elif stat.S_ISREG(status.st_mode):
                found[name] = _once(status, seen)
    return found


def _once(status: os.stat_result, seen: set[tuple[int, int]]) -> int:
    key = status.st_dev, status.st_ino
    if status.st_nlink > 1 and key in seen:
        return 0
    seen.add(key)
    return status.st_size


def trash_path(outputs_dir: str) -> str:
    """Return where the trash of ``outputs_dir`` is."""
    return os.path.join(outputs_dir, STATE, "trash")


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


@contextlib.contextmanager
def open_state(outputs_dir: str, path: str = "", opener: Callable[[int, str, str], int] | None = None) -> Iterator[int]:
    """Open the state folder, or a folder below it, part by part, and give its descriptor.

    Args:
        outputs_dir: whose state it is.
        path: the folder, below the state folder.
        opener: opens a name in an open directory, given the whole path for what it has to tell; it may make it.

    Raises:
        FileNotFoundError: it is not there.
        StateError: a part of it is no folder (a link, say), or not to be believed (`believe`).
    """
    place = outputs_dir
    directory = os.open(outputs_dir, FOLDER)
    try:
        for part in (STATE, *filter(None, path.split("/"))):
            refuse_path(part)
            place = os.path.join(place, part)
            inner = (opener or open_folder)(directory, part, place)
            try:
                believe(os.fstat(inner), os.fstat(directory), place)
            except StateError:
                os.close(inner)
                raise
            os.close(directory)
            directory = inner
        yield directory
    finally:
        os.close(directory)


def open_believed(directory: int, name: str, place: str) -> int:
    """Open a file of the state for reading, in an open directory that is called ``place``.

    Raises:
        FileNotFoundError: it is not there.
        StateError: it is no plain file of its own, or not to be believed (`believe`).
    """
    try:
        file = os.open(name, os.O_RDONLY | NO_TRICKS, dir_fd=directory)
    except OSError as error:
        raise explained(error, directory, name, place) from None
    return checked(file, directory, os.path.join(place, name))


def checked(file: int, directory: int, path: str) -> int:
    """Return an open file of the state; close it where it is no plain file of its own, or not to be believed.

    Raises:
        StateError: as said.
    """
    try:
        status = os.fstat(file)
        refuse_other_kinds(status, path)
        believe(status, os.fstat(directory), path)
    except OSError:
        os.close(file)
        raise
    return file


def explained(error: OSError, directory: int, name: str, place: str) -> OSError:
    """Say why a file of the state cannot be opened: the error as it is, or a better one."""
    path = os.path.join(place, name)
    try:
        refuse_other_kinds(os.lstat(name, dir_fd=directory), path)
    except StateError as better:
        return better
    except OSError:
        return error
    fact = f"cannot be opened: {told(error)}"
    return StateError(path, fact, SHARE) if isinstance(error, PermissionError) else error


def refuse_other_kinds(status: os.stat_result, path: str) -> None:
    """Refuse what is no plain file with one name: whatever is written there would be written elsewhere, too.

    Raises:
        StateError: as said.
    """
    if kind := OTHER_KINDS.get(stat.S_IFMT(status.st_mode)):
        raise StateError(path, f"is {kind}, not a plain file of its own", AWAY)
    if status.st_nlink > 1:
        raise StateError(path, "has a second name (a hard link), so it is not a plain file of its own", COPY)


def believe(status: os.stat_result, folder: os.stat_result, path: str) -> None:
    """Refuse a file or folder of the state that somebody may have written whom nobody has let in.

    Let in are we, root, the owner of the folder that it lies in, and the group with which that folder is shared. Where
    everybody may make files of that group (a folder with modes o+w and g+s), the group says nothing.

    Raises:
        StateError: everybody may write to it, or it belongs to somebody else.
    """
    if status.st_mode & stat.S_IWOTH and status.st_dev not in NO_MODES:
        raise StateError(path, OPEN, CLOSE)
    gives_group_away = folder.st_mode & stat.S_IWOTH and folder.st_mode & stat.S_ISGID
    is_shared = folder.st_mode & stat.S_IWGRP and status.st_gid == folder.st_gid and not gives_group_away
    if status.st_uid not in (os.geteuid(), 0, folder.st_uid) and not is_shared:
        raise StateError(path, f"belongs to somebody else (user {status.st_uid}), so it is not believed", STRANGER)


def refuse_state(outputs_dir: str) -> None:
    """Refuse a state that is not to be believed. What is in its folders is looked at when it is opened.

    Raises:
        StateError: as said.
    """
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir) as directory:
        folder = os.fstat(directory)
        for name in BELIEVED:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(name, dir_fd=directory)
                if not stat.S_ISLNK(status.st_mode):  # a link is not followed, and has no mode of its own
                    believe(status, folder, os.path.join(outputs_dir, STATE, name))


def read_plain(path: str) -> str:
    """Read a text file of the user's as `open_plain` does.

    Raises:
        OSError: it cannot be read, or is no plain file.
        UnicodeDecodeError: it is no UTF-8 text.
    """
    with open(open_plain(path), encoding="utf-8") as text:
        return text.read()


def open_plain(path: str) -> int:
    """Open a file of the user's for reading, wherever links lead; what is no plain file does not hold us up.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if kind := OTHER_KINDS.get(stat.S_IFMT(os.fstat(file).st_mode)):
        os.close(file)
        raise OSError(errno.EINVAL, f"is {kind}, not a plain file", path)
    return file


def told(error: OSError) -> str:
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

    A directory of which nothing was noted (0 bytes at time 0: earlier journals) is known by being one.

    Raises:
        OSError: nothing is there, or it cannot be looked at.
    """
    there = identify(directory, name)
    return there == identity or (there.kind == "directory" and identity == Identity("directory", 0, 0))


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


def read_state(outputs_dir: str, path: str) -> str:
    """Read the beginning of a file below the state folder; nothing where it cannot be read, or is not believed."""
    with contextlib.suppress(OSError), open_state_file(outputs_dir, path) as file:
        return os.read(file, CHUNK).decode("utf-8", "replace")
    return ""


@contextlib.contextmanager
def open_state_file(outputs_dir: str, path: str) -> Iterator[int]:
    """Open a file below the state folder for reading, and give its descriptor.

    Raises:
        FileNotFoundError: it is not there.
        StateError: it is no plain file of its own, or not to be believed.
    """
    folder, name = os.path.split(path)
    with open_state(outputs_dir, folder) as directory:
        file = open_believed(directory, name, os.path.join(outputs_dir, STATE, folder))
    try:
        yield file
    finally:
        os.close(file)


def unfinished_journals(outputs_dir: str) -> list[str]:
    """List the journals that ended in the middle of something. Only the end of each is read.

    Raises:
        StateError: one of them is not to be believed.
        OSError: one of them cannot be read.
    """
    place = os.path.join(outputs_dir, JOURNALS)
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir, "journal") as directory:
        return sorted(name for name in os.listdir(directory) if not _ends_well(directory, name, place))
    return []


def read_journals(outputs_dir: str, names: Sequence[str] | None = None) -> dict[str, str]:
    """Read some journals, or all of them, by their names.

    Raises:
        StateError: one of them is not to be believed.
        OSError: one of them cannot be read.
    """
    texts = {}
    place = os.path.join(outputs_dir, JOURNALS)
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir, "journal") as directory:
        for name in sorted(os.listdir(directory)) if names is None else names:
            with open(open_believed(directory, name, place), encoding="utf-8", errors="replace") as file:
                texts[name] = file.read()
    return texts


def measure(path: str) -> TrashUse:
    """Count what was trashed below a path of the trash, and their bytes."""
    count = size = 0
    for _, directories, files, inner in os.fwalk(path):
        count += sum(name.endswith(TRASH_SUFFIX) for name in (*directories, *files))
        size += sum(os.lstat(file, dir_fd=inner).st_size for file in files)
    return TrashUse(count, size)


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
    try:
        with open_below(root, folder) as directory:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    except OSError as error:
        raise SourceError(error.errno, error.strerror, path) from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise SourceError(errno.EINVAL, "is not a plain file", path)
        yield file
    finally:
        os.close(file)


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


def checksum(root: str, path: str, progress: Progress) -> str:
    """Return the SHA-256 of a file below a folder.

    Raises:
        SourceError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open_file(root, path) as file:
        for chunk in chunks(file, os.fstat(file).st_size):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def _item(path: str, directory: int) -> Item | None:
    name = os.path.basename(path)
    try:
        status = os.lstat(name, dir_fd=directory)
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "other")
        link = os.readlink(name, dir_fd=directory) if kind == "link" else ""
    except FileNotFoundError:
        return None
    mode = status.st_mode & (DIRECTORY_MODES if kind == "directory" else FILE_MODES)
    return Item(path, kind, status.st_size if kind == "file" else 0, status.st_mtime_ns, mode, link)


def _is_glob(part: str) -> bool:
    return _GLOB.search(part) is not None


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
        fits = re.compile(translate(part)).match
        for inner in names:
            if not fits(inner.rpartition("/")[2]):
                continue
            if len(rest) == 1 and not _is_glob(rest[0]):  # the usual case, and thousands of it
                yield from _directory(outputs_dir, f"{inner}/{rest[0]}")
            else:
                yield from _walk(outputs_dir, inner, rest)
    elif rest:
        yield from _walk(outputs_dir, os.path.join(path, part), rest)
    else:
        yield from _directory(outputs_dir, os.path.join(path, part))


def _directory(outputs_dir: str, path: str) -> Iterator[tuple[str, Stamp]]:
    try:
        status = os.lstat(f"{outputs_dir}/{path}" if path else outputs_dir)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        yield path, UNREADABLE
        return
    if stat.S_ISDIR(status.st_mode):
        yield path, stamp_of(status)


def _subdirectories(outputs_dir: str, path: str) -> list[str]:
    with os.scandir(os.path.join(outputs_dir, path)) as entries:
        start = f"{path}/" if path else ""
        return [
            start + entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]


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


def _ends_well(directory: int, name: str, place: str) -> bool:
    with open(open_believed(directory, name, place), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return is_finished(file.read())


def stamp_of(status: os.stat_result) -> Stamp:
    """Turn what ``stat`` says of a directory into what is remembered of it."""
    return Stamp(status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def _read_entries(directory: int, entries: Iterable[os.DirEntry[str]]) -> Iterator[Entry]:
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            yield Entry(entry.name, "file", status.st_size, status.st_mtime_ns)
        elif stat.S_ISLNK(status.st_mode):
            yield _read_link(directory, entry.name, status.st_mtime_ns)
        elif stat.S_ISDIR(status.st_mode):
            yield _read_folder(directory, entry.name, status)
        else:
            yield Entry(entry.name, "other", 0, status.st_mtime_ns)


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


def _read_folder(directory: int, name: str, status: os.stat_result) -> Entry:
    """Read a directory in a checkpoint directory; one that holds only links that lead nowhere counts as empty."""
    inside = _identity_inside(directory, name)
    if inside.mtime_ns >= 0:
        return Entry(name, "directory", inside.size, inside.mtime_ns, known_by=inside)
    leads = False
    for _, folders, names, inner in os.fwalk(name, dir_fd=directory):
        leads |= any(_is_link(inner, link) and _leads_somewhere(inner, link) for link in (*names, *folders))
    return Entry(name, "directory", inside.size if leads else 0, status.st_mtime_ns, known_by=inside)


def _is_link(directory: int, name: str) -> bool:
    return stat.S_ISLNK(os.lstat(name, dir_fd=directory).st_mode)


def _leads_somewhere(directory: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(os.stat(name, dir_fd=directory))
    return False


def _identity_inside(directory: int, name: str) -> Identity:
    """Add up the bytes of all files in a directory, and find the newest of their times (-1 where there is no file).

    A link counts as one byte and has no time: it may be re-pointed, and the directory is still the same checkpoint.
    """
    size, newest = 0, -1
    for _, directories, names, inner in os.fwalk(name, dir_fd=directory):
        for below in (os.lstat(one, dir_fd=inner) for one in (*names, *directories)):
            if stat.S_ISREG(below.st_mode):
                size, newest = size + below.st_size, max(newest, below.st_mtime_ns)
            elif stat.S_ISLNK(below.st_mode):
                size += 1
    return Identity("directory", size, newest)
