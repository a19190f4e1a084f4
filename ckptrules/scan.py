"""Reads the disk: finds checkpoint directories, lists them, counts the trash, reads whole trees. Changes nothing.

No function follows a link below ``outputs_dir``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from typing import NamedTuple

from ckptrules.journal import TAIL_BYTES, is_finished
from ckptrules.measures import freed
from ckptrules.model import STATE, Entry, EntryKind, Found, HardLinks, Identity, Item, Listing, Stamp

JOURNALS = f"{STATE}/journal"
TRASH_SUFFIX = ".trashed"
_GLOB = re.compile(r"[*?[]")
RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d+")
UNREADABLE = Stamp(0, 0, 0)
CHUNK = 1 << 20
WEIGHTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".hdf5", ".npz", ".msgpack", ".gguf")
KINDS: dict[int, EntryKind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
FILE_MODES = 0o777  # without set-user-ID: a backup makes no program that runs as somebody else
DIRECTORY_MODES = 0o3777
Progress = Callable[[int], object]


class SourceError(OSError):
    """A file cannot be read; the place that it was to be copied to is in order."""


class TrashUse(NamedTuple):
    """What waits in the trash, or was freed from it: names (checkpoints, and what belongs to them) and bytes.

    The bytes are those that freeing it frees: a file counts once, and not at all while it has another name elsewhere.
    """

    items: int
    size: int

    def __add__(self, other: TrashUse) -> TrashUse:  # type: ignore[override]
        return TrashUse(self.items + other.items, self.size + other.size)


class Inner(NamedTuple):
    """A directory that the layout would take, though it lies in a checkpoint of another: both, and their patterns."""

    directory: str
    pattern: str
    checkpoint: str
    outer: str
    outer_pattern: str

    def __str__(self) -> str:
        return (
            f"'{self.directory}' (layout: {self.pattern}) lies in '{self.checkpoint}', "
            f"a checkpoint of '{self.outer}' (layout: {self.outer_pattern})"
        )


def find_directories(
    outputs_dir: str, layout: Sequence[str], is_claimed: Callable[[str], bool] = lambda _: False
) -> list[Found]:
    """Find the checkpoint directories that the layout patterns describe, sorted, each once.

    An experiment is named by the path below ``outputs_dir`` without the last part where the pattern spells
    that part out (``*/checkpoints`` → ``ocr_training``); where two would have one name, by the whole path.

    Args:
        outputs_dir: the folder of the experiments.
        layout: the patterns, the first of which counts where two lead to one directory.
        is_claimed: says by its name that a directory belongs to a checkpoint; nothing in it is one of its own.
    """
    return survey(outputs_dir, layout, is_claimed)[0]


def survey(
    outputs_dir: str, layout: Sequence[str], is_claimed: Callable[[str], bool]
) -> tuple[list[Found], list[Inner]]:
    """Find the checkpoint directories as `find_directories`, and those that lie in a checkpoint of another."""
    stamps: dict[str, Stamp] = {}
    pattern_of: dict[str, str] = {}
    for pattern in layout:
        for path, stamp in sorted(_walk(outputs_dir, "", tuple(pattern.split("/")))):
            if path not in stamps:
                stamps[path], pattern_of[path] = stamp, pattern
    inner = _inner_directories(pattern_of, is_claimed) if len(layout) > 1 or "**" in "".join(layout) else []
    for one in inner:
        del stamps[one.directory]
    taken: set[str] = set()
    found = []
    for path, stamp in stamps.items():
        experiment = _experiment(path, pattern_of[path], taken)
        taken.add(experiment)
        found.append(Found(experiment, path, stamp))
    return sorted(found), inner


def _experiment(path: str, pattern: str, taken: Collection[str]) -> str:
    _, slash, tail = pattern.rpartition("/")
    experiment = path.rpartition("/")[0] if slash and not _is_glob(tail) else path
    experiment = experiment or path
    while experiment in taken:
        experiment = path if len(experiment) < len(path) else f"{experiment}/."
    return experiment


def _inner_directories(pattern_of: Mapping[str, str], is_claimed: Callable[[str], bool]) -> list[Inner]:
    """Find the directories in which no checkpoint is one of its own, as they lie in a checkpoint themselves."""
    found = []
    for path in sorted(pattern_of):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            outer = "/".join(parts[:depth])
            if outer in pattern_of and is_claimed(parts[depth]):
                found.append(Inner(path, pattern_of[path], parts[depth], outer, pattern_of[outer]))
                break
    return found


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
    """Count what waits in the trash: of some runs, or of all."""
    top = trash_path(outputs_dir)
    return measure(*(os.path.join(top, run) for run in (trash_runs(outputs_dir) if runs is None else runs)))


def trash_runs(outputs_dir: str) -> list[str]:
    """List the runs that have something in the trash, oldest first. Names that are not ours are left out."""
    try:
        return sorted(name for name in os.listdir(trash_path(outputs_dir)) if RUN_ID.fullmatch(name))
    except FileNotFoundError:
        return []


class TrashItem(NamedTuple):
    """One thing in the trash: the run that put it there, the directory that it is from, its name, its bytes.

    A file with several names counts with the first of them, and with none while it has another name elsewhere.
    """

    run: str
    directory: str
    name: str
    size: int


def trash_items(outputs_dir: str) -> list[TrashItem]:
    """List what waits in the trash, oldest run first.

    Raises:
        OSError: it cannot be read.
    """
    found: list[tuple[TrashItem, tuple[HardLinks, ...]]] = []
    for run in trash_runs(outputs_dir):
        with open_below(outputs_dir, f"{STATE}/trash/{run}") as top:
            for folder, directories, files, inner in os.fwalk(".", dir_fd=top):
                here = [name for name in (*directories, *files) if name.endswith(TRASH_SUFFIX)]
                directories[:] = sorted(name for name in directories if name not in here)
                for name in sorted(here):
                    size, links = _bytes_of(inner, name)
                    item = TrashItem(run, os.path.normpath(folder), name.removesuffix(TRASH_SUFFIX), size)
                    found.append((item, links))
    return _each_once(found)


def _bytes_of(directory: int, name: str) -> tuple[int, tuple[HardLinks, ...]]:
    status = os.lstat(name, dir_fd=directory)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size, _hard_links([status])
    inside = _look_inside(directory, name)
    return inside.identity.size, inside.shared


def _each_once(items: Sequence[tuple[TrashItem, tuple[HardLinks, ...]]]) -> list[TrashItem]:
    """Give each item the bytes that are freed when it and those before it are: they add up to what all of them free."""
    size, before, links = 0, 0, list[HardLinks]()
    found = []
    for item, shared in items:
        size += item.size
        links += shared
        now = freed(size, links) if links else size
        found.append(item._replace(size=now - before))
        before = now
    return found


def sizes(outputs_dir: str, directory: str, seen: set[tuple[int, int]], last: Collection[str] = ()) -> dict[str, int]:
    """Return the bytes of each name in a checkpoint directory; a file with several names counts where it is first seen.

    Args:
        outputs_dir: the folder of the experiments.
        directory: the checkpoint directory.
        seen: the files that were counted already; it grows.
        last: the names that are looked at last, so that what they share with others counts with these.

    Raises:
        OSError: it cannot be read.
    """
    found = {}
    with open_below(outputs_dir, directory) as here:
        for name in sorted(os.listdir(here), key=lambda name: (name in last, name)):
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
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(outputs_dir, flags)
    try:
        for part in path.split("/") if path not in ("", ".") else ():
            refuse_path(part)
            inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory
    finally:
        os.close(directory)


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
    """Read the beginning of a file below the state folder; nothing where it cannot be read."""
    with contextlib.suppress(OSError), open_file(outputs_dir, f"{STATE}/{path}") as file:
        return os.read(file, CHUNK).decode("utf-8", "replace")
    return ""


def unfinished_journals(outputs_dir: str) -> list[str]:
    """List the journals that ended in the middle of something. Only the end of each is read."""
    with contextlib.suppress(FileNotFoundError), open_below(outputs_dir, JOURNALS) as directory:
        return sorted(name for name in os.listdir(directory) if not _ends_well(directory, name))
    return []


def read_journals(outputs_dir: str, names: Sequence[str] | None = None) -> dict[str, str]:
    """Read some journals, or all of them, by their names.

    Raises:
        OSError: one cannot be read.
    """
    texts = {}
    with contextlib.suppress(FileNotFoundError), open_below(outputs_dir, JOURNALS) as directory:
        for name in sorted(os.listdir(directory)) if names is None else names:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            with open(descriptor, encoding="utf-8", errors="replace") as file:
                texts[name] = file.read()
    return texts


def measure(*paths: str) -> TrashUse:
    """Count what was trashed below paths of the trash, and the bytes that are free when all of it is gone."""
    count = size = 0
    links: list[HardLinks] = []
    for _, directories, files, inner in (row for path in paths for row in os.fwalk(path)):
        found = [os.lstat(file, dir_fd=inner) for file in files]
        count += sum(name.endswith(TRASH_SUFFIX) for name in (*directories, *files))
        size += sum(status.st_size for status in found)
        links += _hard_links(found)
    return TrashUse(count, freed(size, links))


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


def _ends_well(directory: int, name: str) -> bool:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    with open(descriptor, "rb") as file:
        file.seek(max(0, os.fstat(descriptor).st_size - TAIL_BYTES))
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
        yield _read_entry(directory, entry.name, status)


def _read_entry(directory: int, name: str, status: os.stat_result) -> Entry:
    if stat.S_ISREG(status.st_mode):
        if status.st_nlink > 1:
            return Entry(name, "file", status.st_size, status.st_mtime_ns, shared=_hard_links([status]))
        return Entry(name, "file", status.st_size, status.st_mtime_ns)
    if stat.S_ISLNK(status.st_mode):
        return _read_link(directory, name, status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        return _read_folder(directory, name, status)
    return Entry(name, "other", 0, status.st_mtime_ns)


def read_names(directory: int, names: Iterable[str]) -> Iterator[Entry]:
    """Read some names of an open directory as `read_directory` does; what is not there is left out."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            yield _read_entry(directory, name, os.lstat(name, dir_fd=directory))


def _hard_links(found: Iterable[os.stat_result]) -> tuple[HardLinks, ...]:
    """Pick out the files with several names, each once, with the number of names that are among what was found."""
    several = [(s.st_dev, s.st_ino, s.st_size, s.st_nlink) for s in found if s.st_nlink > 1 and stat.S_ISREG(s.st_mode)]
    return tuple(HardLinks(*file, count) for file, count in Counter(several).items()) if several else ()


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
    inside, hollow, shared = _look_inside(directory, name)
    if inside.mtime_ns >= 0:
        return Entry(name, "directory", inside.size, inside.mtime_ns, known_by=inside, hollow=hollow, shared=shared)
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


class Inside(NamedTuple):
    """What a walk through a checkpoint directory finds: its identity, an empty weight file, files with other names."""

    identity: Identity
    hollow: str
    shared: tuple[HardLinks, ...]


def _look_inside(directory: int, name: str) -> Inside:
    """Add up the bytes of all files in a directory, and find the newest of their times (-1 where there is no file).

    A link counts as one byte and has no time: it may be re-pointed, and the directory is still the same checkpoint.
    """
    size, newest = 0, -1
    hollow: list[str] = []
    several: list[os.stat_result] = []
    for folder, directories, names, inner in os.fwalk(name, dir_fd=directory):
        for one in (*names, *directories):
            below = os.lstat(one, dir_fd=inner)
            if stat.S_ISREG(below.st_mode):
                size, newest = size + below.st_size, max(newest, below.st_mtime_ns)
                if not below.st_size and one.endswith(WEIGHTS):
                    hollow.append(os.path.join(folder, one)[len(name) + 1 :])
                if below.st_nlink > 1:
                    several.append(below)
            elif stat.S_ISLNK(below.st_mode):
                size += 1
    return Inside(Identity("directory", size, newest), min(hollow, default=""), _hard_links(several))


def _identity_inside(directory: int, name: str) -> Identity:
    return _look_inside(directory, name).identity
