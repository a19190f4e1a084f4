"""Define what was found on the disk: entries, directories, listings."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

import errno
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)  # errors of broken links
NO_CHECKPOINT_ENDINGS = tuple(
    ".json .jsonl .txt .log .out .err .yaml .yml .toml .ini .cfg .xml .csv .tsv .md .html .pdf .png .jpg .jpeg .svg"
    " .gif .webp .mp4 .wav .npy .py .ipynb .sh .pid .lock".split()
)
"""Endings of files that are no checkpoints even if a protected pattern fits: ``best_metrics.json`` by ``best_*``."""
EntryKind = Literal["file", "directory", "link", "other"]


class Spot(NamedTuple):
    """A name in a directory, which is a path below ``outputs_dir``."""

    directory: str
    name: str

    @property
    def path(self) -> str:
        """The path below ``outputs_dir``."""
        return f"{self.directory}/{self.name}".lstrip("/")


class HardLinks(NamedTuple):
    """A file with several names.

    ``device`` and ``inode`` identify it, ``size`` is in bytes, ``names`` is how many names it has, and ``here`` how
    many of these belong to the checkpoint.
    """

    device: int
    inode: int
    size: int
    names: int
    here: int = 1


class Identity(NamedTuple):
    """What must be unchanged for a name to be the same file: kind, bytes, and time in nanoseconds since 1970.

    A directory has the bytes of all files in it (a link counts as a file) and the newest of their times, -1 without
    any file. A link has only its kind.
    """

    kind: EntryKind
    size: int
    mtime_ns: int


class Entry(NamedTuple):
    """One name found in a checkpoint directory.

    Attributes:
        size: bytes; of a directory, the sum of all files below it.
        mtime_ns: modification time in nanoseconds since 1970.
        link_text: the text of a link.
        sibling: the name in the same directory that a link leads to or through; None where it leads elsewhere.
        dangling: whether a link leads nowhere.
        behind: the text of a link after that name (``/`` or ``/shard-0.pt``: a checkpoint may be a directory).
        known_by: the identity of a directory.
        hollow: which weights inside a directory have 0 bytes or are a link to nowhere, or which folder nobody can read.
        torn: what is missing in a directory by the names in it (shards, ranks, weights), or vanished during the look.
        only_texts: whether a directory has only texts, pictures and the like in it.
        shared: its files that have several names.
        files: paths of weights, states and settings in a directory, as `of_kinds` has them: saves have the same.
        unread: whether a folder in a directory cannot be read; ``hollow`` says which, and why.
    """

    name: str
    kind: EntryKind
    size: int
    mtime_ns: int
    link_text: str = ""
    sibling: str | None = None
    dangling: bool = False
    behind: str = ""
    known_by: Identity | None = None
    hollow: str = ""
    torn: str = ""
    only_texts: bool = False
    shared: tuple[HardLinks, ...] = ()
    files: tuple[str, ...] = ()
    unread: bool = False


class Item(NamedTuple):
    """One name anywhere below a folder, as a backup keeps it.

    ``path`` is relative to the folder. ``size`` is in bytes, 0 for links and directories. ``mtime_ns`` is in
    nanoseconds since 1970, ``mode`` are the permission bits, and ``link`` is the text of a link. ``checksum`` names its
    algorithm; only a file that was read has one. ``changed`` is whether somebody wrote into the file meanwhile. ``uid``
    and ``gid`` are -1 where unknown. ``attributes`` are access lists and ``user.*`` attributes in base64. ``holes`` are
    the bytes of a file that take no space on its disk.
    """

    path: str
    kind: EntryKind
    size: int
    mtime_ns: int
    mode: int
    link: str = ""
    checksum: str = ""
    changed: bool = False
    uid: int = -1
    gid: int = -1
    attributes: Mapping[str, str] = {}
    holes: int = 0


class Stamp(NamedTuple):
    """Inode and times of a directory by ``stat``; they change whenever a name in the directory does."""

    inode: int
    mtime_ns: int
    ctime_ns: int


NO_STAMP = Stamp(0, 0, 0)  # of a directory that nobody has looked at


class Directory(NamedTuple):
    """A checkpoint directory before it is read.

    ``directory`` is its path below ``outputs_dir``. ``part_folders`` are shell patterns of the folders in it that hold
    parts of its checkpoints; their content is listed with the directory.
    """

    experiment: str
    directory: str
    stamp: Stamp = NO_STAMP
    part_folders: tuple[str, ...] = ()


class Listing(NamedTuple):
    """The content of one checkpoint directory.

    Names in a part folder begin with that folder: ``mp_rank_00/x.pt``. ``part_folders`` are all these folders, empty
    ones included.
    """

    experiment: str
    directory: str
    entries: tuple[Entry, ...]
    part_folders: tuple[str, ...] = ()


class OutsideLink(NamedTuple):
    """A link in another directory (a path below ``outputs_dir``) that leads to or through a name of this one.

    A link that leads here through another link outside of the tree has no text, and may be in this directory itself.
    """

    directory: str
    entry: Entry


def in_part_folder(name: str) -> tuple[str, str]:
    """Split a name of a listing into its part folder, which may be empty, and the name in there."""
    folder, _, base = name.rpartition("/")
    return folder, base


def is_part_folder(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a folder of this name is a part folder by one of these shell patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def folders_above(path: str) -> list[str]:
    """Return the paths of the folders that contain a path, the uppermost first."""
    return [path[:end] for end, letter in enumerate(path) if letter == "/"]


def lies_in(path: str, folder: str) -> bool:
    """Return whether a path is a folder itself, or something below it."""
    return f"{path}/".startswith(f"{folder}/")
