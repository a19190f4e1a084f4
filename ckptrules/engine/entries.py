"""What lies on the disk, as it was found: names, directories, listings."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

from collections.abc import Mapping
from typing import Literal, NamedTuple

NOT_READ = "what cannot be read"  # in a checkpoint; so nobody knows whether it is whole
TELLING = tuple(
    ".json .jsonl .txt .log .yaml .yml .csv .tsv .md .html .pdf .png .jpg .jpeg .svg .gif .mp4 .wav .npy .py".split()
)
"""Endings of what stays where it is protected, as ``best_metrics.json`` by ``best_*``, and counts for no checkpoint."""
EntryKind = Literal["file", "directory", "link", "other"]


class Spot(NamedTuple):
    """A name in a directory; the directory is a path below ``outputs_dir``."""

    directory: str
    name: str

    @property
    def path(self) -> str:
        """The path below ``outputs_dir``."""
        return f"{self.directory}/{self.name}".lstrip("/")


class HardLinks(NamedTuple):
    """A file that has more names than one: which file it is, its bytes, its names, and how many of these are meant."""

    device: int
    inode: int
    size: int
    names: int
    here: int = 1


class Identity(NamedTuple):
    """What tells whether a name still stands for what it stood for: the kind, the bytes, and the time in nanoseconds.

    Of a directory, the bytes of all files in it (a link counts as one), and the newest of their times (-1 where there
    is no file). Of a link, the kind alone.
    """

    kind: EntryKind
    size: int
    mtime_ns: int


class Entry(NamedTuple):
    """One name found in a checkpoint directory.

    ``size`` is in bytes (of a directory: the sum of the files below it), ``mtime_ns`` in nanoseconds since 1970.
    For a link, ``link_text`` is what is written in it, ``sibling`` the name in the same directory that
    it leads to or through (if it does), ``behind`` the text behind that name (``/`` or ``/shard-0.pt``: a checkpoint
    may be a directory), and ``dangling`` says that it leads nowhere. A directory is ``known_by`` more than that: by an
    `Identity`; ``hollow`` says which weights inside it are none: of 0 bytes, or a link that leads nowhere; or which
    folder in it is `NOT_READ`. ``torn`` says what its names show to be missing: shards that count themselves, ranks,
    weights; or what went while it was looked at. ``tells_only`` says that nothing is in it but texts, pictures and the
    like. ``shared`` are the files of it that have other names. ``model_parts`` are the paths in it of which there is
    one for each part of the model.
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
    tells_only: bool = False
    shared: tuple[HardLinks, ...] = ()
    model_parts: tuple[str, ...] = ()


class Item(NamedTuple):
    """One name anywhere below a folder, as a backup keeps it.

    ``path`` is relative to the folder. ``size`` is in bytes (of links and directories: 0), ``mtime_ns`` in nanoseconds
    since 1970, ``mode`` the permission bits. A link has its text in ``link``, a file that was read its ``checksum``,
    which names its algorithm; ``changed`` says that somebody wrote into it meanwhile. ``uid`` and ``gid`` are its
    owner, -1 where that is unknown, ``attributes`` its access lists and ``user.*`` attributes, in base64. ``holes`` are
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
    """What ``stat`` says of a directory; it changes whenever a name in the directory does."""

    inode: int
    mtime_ns: int
    ctime_ns: int


NO_STAMP = Stamp(0, 0, 0)  # of what nobody has looked at


class Directory(NamedTuple):
    """A checkpoint directory, before it is read: its experiment, its path below ``outputs_dir``, its stamp.

    Folders in it that ``part_folders`` fit hold parts of its checkpoints: what is in them is read as if it were here.
    """

    experiment: str
    directory: str
    stamp: Stamp = NO_STAMP
    part_folders: tuple[str, ...] = ()


class Listing(NamedTuple):
    """One checkpoint directory, read. The name of what lies in a part folder begins with that: ``mp_rank_00/x.pt``.

    ``part_folders`` are these folders, also one that holds nothing.
    """

    experiment: str
    directory: str
    entries: tuple[Entry, ...]
    part_folders: tuple[str, ...] = ()


class OutsideLink(NamedTuple):
    """A link in another directory (a path below ``outputs_dir``) that leads to or through a name of this one.

    It has no text, and may be in this directory itself, where it leads here through another link, outside of the tree.
    """

    directory: str
    entry: Entry


def in_part_folder(name: str) -> tuple[str, str]:
    """Split a name of a listing into the part folder that it lies in, if it does, and the name there."""
    folder, _, base = name.rpartition("/")
    return folder, base


def folders_above(path: str) -> list[str]:
    """Return the paths of the folders that a path lies in, the uppermost first."""
    return [path[:end] for end, letter in enumerate(path) if letter == "/"]


def lies_in(path: str, folder: str) -> bool:
    """Say whether a path is that of a folder, or of something below it."""
    return f"{path}/".startswith(f"{folder}/")
