"""Reads the disk: finds checkpoint directories, lists them, counts the trash, reads whole trees. Changes nothing.

No function follows a link below ``outputs_dir``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
import stat
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from itertools import islice
from typing import NamedTuple

from ckptrules.attributes import MOST, as_text, is_kept
from ckptrules.clock import NS, Now
from ckptrules.journal import TAIL_BYTES, TRASH_SUFFIX, is_finished
from ckptrules.measures import freed
from ckptrules.model import STATE, Entry, EntryKind, Found, HardLinks, Identity, Item, Listing, Stamp
from ckptrules.pointers import LONGEST, is_text

JOURNALS = f"{STATE}/journal"
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
OTHERS_WRITE = 0o022
LEADS_NOWHERE = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EACCES,
)  # of a link; or nobody knows
BLOCK = 512  # bytes, the unit of st_blocks, whatever the file system gives space away in
KNOWS_NONE = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM)  # a file system without modes, owners, attributes
WEIGHTS = (".ckpt", ".pt", ".pth", ".bin", ".safetensors", ".h5", ".hdf5", ".npz", ".msgpack", ".gguf")
MOST_NAMES = 20_000
KINDS: dict[int, EntryKind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
FILE_MODES = 0o777  # without set-user-ID: a backup makes no program that runs as somebody else
DIRECTORY_MODES = 0o3777
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NO_TRICKS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a link is refused, a named pipe does not hold us up
BELIEVED = tuple("lock lock.last_run proved doit.db journal verified trash work refs".split())
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
        super().__init__(errno.EPERM, f"{printable(path)}: {fact}")
        before, _, _ = f"{path}/".rpartition(f"/{STATE}/")
        state = os.path.join(before, STATE)
        self.is_open = fact == OPEN
        self.hint = hint.format(path=printable(shlex.quote(path)), state=printable(shlex.quote(state)))


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


def lookalikes(
    outputs_dir: str, covered: Collection[str], looks_like: Callable[[str], bool]
) -> list[tuple[str, int, str]]:
    """Find folders that no layout covers and that hold what looks like checkpoints: path, number, an example.

    No more than `MOST_NAMES` names are looked at, the upper folders first: this is a glance, not an inventory.
    """
    found = []
    above = {path[:end] for path in covered for end, letter in enumerate(path) if letter == "/"}
    pending, looked = deque([""]), 0
    while pending and looked < MOST_NAMES:
        path = pending.popleft()
        alike = []
        with contextlib.suppress(OSError), os.scandir(os.path.join(outputs_dir, path)) as entries:
            for entry in islice(entries, MOST_NAMES - looked):
                looked += 1
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.name.startswith(".") or entry.is_symlink() or below in covered:
                    continue
                if looks_like(entry.name) and below not in above:
                    alike.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(below)
        if alike:
            found.append((path, len(alike), min(alike)))
        looked += 1
    return sorted(found)


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
    """Count what waits in the trash: of some runs, or of all. What is no folder of ours (a link, say) is nothing."""
    places = []
    for run in trash_runs(outputs_dir) if runs is None else runs:
        with contextlib.suppress(OSError), open_state(outputs_dir, f"trash/{run}"):
            places.append(os.path.join(trash_path(outputs_dir), run))
    return measure(*places)


def trash_runs(outputs_dir: str) -> list[str]:
    """List the runs that have something in the trash, oldest first. Names that are not ours are left out."""
    try:
        return sorted(name for name in os.listdir(trash_path(outputs_dir)) if RUN_ID.fullmatch(name))
    except (FileNotFoundError, NotADirectoryError):
        return []


class TrashItem(NamedTuple):
    """One thing in the trash: the run that put it there, the directory that it is from, its name, its bytes.

    A file with several names counts with the first of them, and with none while it has another name elsewhere.
    """

    run: str
    directory: str
    name: str
    size: int

    @property
    def path(self) -> str:
        """Where it lies, below ``outputs_dir``."""
        return os.path.normpath(os.path.join(STATE, "trash", self.run, self.directory, self.name + TRASH_SUFFIX))


def trash_items(outputs_dir: str) -> list[TrashItem]:
    """List what waits in the trash, oldest run first.

    Raises:
        OSError: it cannot be read.
    """
    found: list[tuple[TrashItem, tuple[HardLinks, ...]]] = []
    for run in trash_runs(outputs_dir):
        with open_state(outputs_dir, f"trash/{run}") as top:
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
                with contextlib.suppress(RecursionError):  # as in `_read_entry`: no checkpoint, and not measured
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


def own_state(outputs_dir: str) -> str:
    """Return the folder in the user's own state that is for a tree, or nothing where the user has no home.

    Raises:
        OSError: EPERM where somebody else could write there.
    """
    home = os.environ.get("XDG_STATE_HOME", "")  # https://specifications.freedesktop.org/basedir-spec/latest/
    home = home if os.path.isabs(home) else os.path.expanduser("~/.local/state")
    if not os.path.isabs(home):
        return ""
    ours = os.path.join(home, "ckptrules")
    with contextlib.suppress(FileNotFoundError):
        try:
            status = os.lstat(ours)
        except PermissionError:  # the home of somebody else
            return ""
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
            raise OSError(
                errno.EPERM, f"must be a folder of yours that nobody else may write (chmod 700 '{ours}')", ours
            )
    place = os.path.realpath(outputs_dir)
    return os.path.join(ours, hashlib.sha256(os.fsencode(place)).hexdigest()[:32])


def clocks(outputs_dir: str) -> Now:
    """Read the clocks; that of the file system by the lock, which was just written to."""
    boot, up = "", 0
    with contextlib.suppress(OSError, ValueError):  # Linux
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        with open("/proc/uptime", encoding="utf-8") as file:
            up = int(float(file.read().split()[0]) * NS)
    now_ns = files_ns = time.time_ns()
    with contextlib.suppress(FileNotFoundError), open_below(outputs_dir, STATE) as state:
        files_ns = os.lstat("lock", dir_fd=state).st_mtime_ns
    return Now(now_ns, files_ns, boot, up)


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


def journal_headers(outputs_dir: str) -> list[Mapping[str, object]]:
    """Read what each journal says first; what cannot be read is left out."""
    found: list[Mapping[str, object]] = []
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir, "journal") as directory:
        for name in os.listdir(directory):
            with contextlib.suppress(OSError, ValueError, RecursionError), open_file_in(directory, name) as file:
                row = json.loads(os.read(file, CHUNK).partition(b"\n")[0])
                found += [row] if isinstance(row, dict) else []
    return found


def measure(*paths: str) -> TrashUse:
    """Count what was trashed below paths of the trash, and the bytes that are free when all of it is gone.

    What is not there, or locked, is nothing.
    """
    count = size = 0
    links: list[HardLinks] = []
    for path in paths:
        with contextlib.suppress(OSError), _opened(path) as top:
            for _, directories, files, inner in os.fwalk(".", dir_fd=top):
                found = [os.lstat(file, dir_fd=inner) for file in files]
                count += sum(name.endswith(TRASH_SUFFIX) for name in (*directories, *files))
                size += sum(status.st_size for status in found)
                links += _hard_links(found)
    return TrashUse(count, freed(size, links))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """Open a folder; a link or a pipe in its place is refused, and does not hold us up."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


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


def read_text(file: int) -> bytes | None:
    """Read an open pointer file whole, as `read_pointer` does."""
    content = b"".join(chunks(file, LONGEST + 1))
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
    os.lseek(file, start, os.SEEK_SET)
    if not holes_of(os.fstat(file)):
        yield from ((chunk, False) for chunk in chunks(file, end - start))
        return
    while start < end:
        data, hole = _extent(file, start, end)
        for at in range(start, data, CHUNK):
            yield _ZEROS[: data - at], True
        os.lseek(file, data, os.SEEK_SET)
        for chunk in chunks(file, hole - data):
            data += len(chunk)
            yield chunk, False
        if data < hole or hole == start:  # cut off meanwhile
            return
        start = hole


def holes_of(status: os.stat_result) -> int:
    """Return how many bytes of a file take no space on its disk."""
    return max(0, status.st_size - status.st_blocks * BLOCK) if stat.S_ISREG(status.st_mode) else 0


def checksum(root: str, path: str, progress: Progress) -> str:
    """Return the SHA-256 of a file below a folder.

    Raises:
        SourceError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open_file(root, path) as file:
        for chunk, _ in pieces(file, 0, os.fstat(file).st_size):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def described(item: Item, file: int, modes: int | None = None) -> Item:
    """Return an item with the mode, the owner and the attributes of an open file or directory.

    Args:
        item: what is known of it.
        file: its descriptor.
        modes: the bits of the mode that count; where it is None, those that a backup keeps.

    Raises:
        SourceError: its attributes cannot be read.
    """
    status = os.fstat(file)
    if modes is None:
        modes = DIRECTORY_MODES if stat.S_ISDIR(status.st_mode) else FILE_MODES
    attributes = attributes_of(file)
    return item._replace(mode=status.st_mode & modes, uid=status.st_uid, gid=status.st_gid, attributes=attributes)


def described_below(root: str, item: Item) -> Item:
    """Return an item with the mode, the owner and the attributes of what stands at its path now.

    Raises:
        SourceError: it cannot be looked at, or is no plain file or directory.
    """
    try:
        with (open_below if item.kind == "directory" else open_file)(root, item.path) as there:
            return described(item, there)
    except OSError as error:
        raise SourceError(error.errno, told(error), item.path) from None


def attributes_of(file: int) -> dict[str, str]:
    """Return the access lists and the ``user.*`` attributes of an open file or directory, in base64.

    There are none where the system knows none (those of macOS are others, and are not read).

    Raises:
        SourceError: one cannot be read, or they are more than `MOST` bytes.
    """
    if not hasattr(os, "listxattr"):
        return {}
    found: dict[str, bytes] = {}
    try:
        for name in filter(is_kept, os.listxattr(file)):
            found[name] = os.getxattr(file, name)
    except OSError as error:
        if not found and error.errno in KNOWS_NONE:
            return {}
        raise SourceError(error.errno, f"its attributes: {told(error)}") from None
    if sum(map(len, found.values())) > MOST:
        raise SourceError(errno.E2BIG, f"its attributes are more than {MOST} bytes")
    return as_text(found)


def owner_name(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner_of_other(status: os.stat_result) -> str:
    """Return whom a file belongs to if a copy of ours could not belong to the same, or nothing."""
    return "" if os.geteuid() in (0, status.st_uid) else owner_name(status.st_uid)


def is_trusted(status: os.stat_result) -> bool:
    """Say whether a file or folder is ours or root's, and not everybody may write to it (or, into a sticky one)."""
    open_to_all = status.st_mode & stat.S_IWOTH and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
    return status.st_uid in (0, os.geteuid()) and not open_to_all


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
        yield _read_entry(directory, entry.name, status)


def _read_entry(directory: int, name: str, status: os.stat_result) -> Entry:
    if stat.S_ISREG(status.st_mode):
        if status.st_nlink > 1:
            return Entry(name, "file", status.st_size, status.st_mtime_ns, shared=_hard_links([status]))
        return Entry(name, "file", status.st_size, status.st_mtime_ns)
    if stat.S_ISLNK(status.st_mode):
        return _read_link(directory, name, status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        with contextlib.suppress(RecursionError):  # folders in folders, some thousand times: no checkpoint is so
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
    except OSError as error:
        if error.errno not in LEADS_NOWHERE:
            raise  # a link that is taken for one that leads nowhere would be left behind by what it leads to
        dangling = error.errno != errno.EACCES
    sibling, behind = _split_at(directory, text)
    return Entry(name, "link", 0, mtime_ns, text, sibling, dangling, behind)


def _split_at(directory: int, text: str) -> tuple[str | None, str]:
    """Find the part of a link's text that is a name in the directory, and what stands behind it."""
    path, behind = text, ""
    while path.strip("/"):
        parent, name = os.path.split(path)
        try:
            if name and os.path.samestat(os.stat(parent or ".", dir_fd=directory), os.fstat(directory)):
                return name, behind
        except OSError as error:
            if error.errno not in LEADS_NOWHERE:
                raise
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
