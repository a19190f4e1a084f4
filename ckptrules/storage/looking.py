"""Looks at files and folders, and recognises them later."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ckptrules.engine.entries import (
    LEADS_NOWHERE,
    NO_CHECKPOINT_ENDINGS,
    EntryKind,
    HardLinks,
    Identity,
    Item,
    Stamp,
)
from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import is_known_by
from ckptrules.storage.reading import DIRECTORY_MODES, FILE_MODES, open_below
from ckptrules.storage.streams import holes_of

WEIGHTS = tuple(
    ".ckpt .pt .pth .bin .safetensors .h5 .hdf5 .npz .npy .msgpack .gguf .distcp .th .t7 .nemo .keras .onnx .pkl .ply "
    ".params .pdparams .pdopt .caffemodel .solverstate .index .zip .tar .tgz .gz .bz2 .xz .zst .lz4".split()
)
SHARD = rf".*-\d{{5}}-of-\d{{5}}(?:{'|'.join(map(re.escape, WEIGHTS))})|.*\.data-\d{{5}}-of-\d{{5}}"
NOTHING_IF_EMPTY = (*WEIGHTS, ".json", ".yaml", ".yml", ".metadata", "_METADATA", ".ocdbt")  # others may be empty marks
NO_CHECKPOINT = re.compile(
    r"(?:.*/)?(?:\.(?!metadata\Z)|events\.out\.).*|.*\.(?:bak|onnx|part|partial|swp|tmp|(?:log|csv|txt)\.gz)"
)
NO_FILE = -1  # the newest time in a directory without files
Leaves = Callable[[str], bool]  # whether a path, which begins with the name of a directory, will be moved out of it
KINDS: dict[int, EntryKind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


def identify(directory: int, name: str, leaves: Leaves | None = None) -> Identity:
    """Return by what a name in an open directory is recognised later (`stands_for`).

    If it is a directory, paths that it ``leaves`` do not count.

    Raises:
        OSError: the name is free, or cannot be looked at.
    """
    status = os.lstat(name, dir_fd=directory)
    if stat.S_ISDIR(status.st_mode):
        return walk_folder(directory, name, leaves).identity
    return identity_of_status(status)


def identify_at(root: str, path: str) -> Identity:
    """Return the identity of a path below a root; as `identify`."""
    folder, name = os.path.split(path)
    with open_below(root, folder) as directory:
        return identify(directory, name)


def stands_for(directory: int, name: str, identity: Identity, leaves: Leaves | None = None) -> bool:
    """Return whether a name in an open directory still has this identity; as `identify`."""
    return is_known_by(identify(directory, name, leaves), identity)


def identity_of_status(status: os.stat_result) -> Identity:
    """Turn a result of ``lstat`` of anything but a directory into its identity."""
    if stat.S_ISREG(status.st_mode):
        return Identity("file", status.st_size, status.st_mtime_ns)
    return Identity("link" if stat.S_ISLNK(status.st_mode) else "other", 0, 0)


def look(root: str, path: str) -> Item | None:
    """Return the file, directory or link at a path below a folder; None if the path is free.

    Raises:
        OSError: a part of the path is no directory (a link, say), or may not be read.
    """
    try:
        with open_below(root, os.path.dirname(path)) as directory:
            return _item(path, directory)
    except FileNotFoundError:
        return None


def read_tree(root: str, top: str = "") -> tuple[list[Item], dict[str, OSError]]:
    """List all below a path in a folder but our state, each directory before its contents.

    The second value maps the directories that could not be read to the reasons.
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


def refuses_changes(directory: int) -> int:
    """Return the number of the error by which the system would refuse new names in an open directory; 0 if none."""
    if os.fstatvfs(directory).f_flag & os.ST_RDONLY:
        return errno.EROFS
    return 0 if os.access(".", os.W_OK | os.X_OK, dir_fd=directory) else errno.EACCES


def stamp_of(status: os.stat_result) -> Stamp:
    """Turn a result of ``stat`` of a directory into its stamp."""
    return Stamp(status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def hard_links(found: Iterable[os.stat_result]) -> tuple[HardLinks, ...]:
    """Return the files with several names, each once, with the number of its names that are in ``found``."""
    several = [(s.st_dev, s.st_ino, s.st_size, s.st_nlink) for s in found if s.st_nlink > 1 and stat.S_ISREG(s.st_mode)]
    return tuple(HardLinks(*file, count) for file, count in Counter(several).items()) if several else ()


class Walked(NamedTuple):
    """What a walk through a checkpoint directory finds.

    ``holds_something`` says whether that holds a file, or a link that leads somewhere. See `Entry` for the others.
    """

    identity: Identity
    holds_something: bool
    hollow: str
    torn: str
    only_texts: bool
    shared: tuple[HardLinks, ...]
    files: tuple[str, ...]
    unread: bool


def walk_folder(directory: int, name: str, leaves: Leaves | None = None) -> Walked:
    """Walk through a directory: its size is the bytes of all files, its time the newest of theirs (or `NO_FILE`).

    A link counts as one byte and has no time: when it gets another text, the directory is still the same checkpoint.
    Paths that it ``leaves`` are passed over.
    """
    # Not above: a run that looks into no folder does not need them.
    from ckptrules.engine.whole.counted import OF_EACH_SAVE, of_kinds, why_ranks_lack, why_too_few
    from ckptrules.engine.whole.weights import NO_WEIGHTS, lacks_weights

    walk = _Walk(name)
    failed: list[OSError] = []
    for folder, directories, names, inner in os.fwalk(name, dir_fd=directory, onerror=failed.append):
        walk.ahead.remove(folder)
        if leaves:
            for some in (directories, names):
                some[:] = [one for one in some if not leaves(os.path.join(folder, one))]
        walk.torn.append(why_too_few(filter(re.compile(SHARD, re.ASCII).fullmatch, names)))
        for one in (*names, *directories):
            walk.look_at(folder, one, inner, names)
    unread = _unread(walk.ahead, [error for error in failed if not isinstance(error, FileNotFoundError)])
    gone = walk.gone if unread else [*walk.gone, *walk.ahead]
    torn = [*walk.torn, *(f"lost {path[len(name) + 1 :]} just now" for path in gone)]
    torn += [why_ranks_lack(walk.paths), NO_WEIGHTS if lacks_weights(walk.paths) else ""]
    hollow = unread or min(walk.hollow, default="")
    saved = [path for path in walk.paths if path.endswith(WEIGHTS) or OF_EACH_SAVE.fullmatch(path)]
    return Walked(
        Identity("directory", walk.size, max(walk.times, default=NO_FILE)),
        holds_something=bool(walk.times) or walk.leads,
        hollow=hollow,
        torn=min(filter(None, torn), default=""),
        only_texts=not hollow
        and all(path.endswith(NO_CHECKPOINT_ENDINGS) or NO_CHECKPOINT.fullmatch(path) for path in walk.paths),
        shared=hard_links(walk.several),
        files=tuple(sorted(path for kind in of_kinds(saved).values() for path in kind)),
        unread=bool(unread),
    )


class _Walk:
    """What a walk through a checkpoint directory has found so far; the directory may change meanwhile."""

    def __init__(self, name: str) -> None:
        self.ahead = {name}  # folders still to be walked through
        self.gone: list[str] = []  # names that were removed during the walk
        self.paths: list[str] = []  # of files and links, without the name of the directory
        self.size, self.times, self.leads = 0, list[int](), False
        self.several: list[os.stat_result] = []
        self.hollow: list[str] = []
        self.torn: list[str] = []
        self._start = len(name) + 1

    def look_at(self, folder: str, name: str, inner: int, beside: Sequence[str]) -> None:
        """Look at a name in a folder, which is open; ``beside`` are the files and links in it."""
        path = os.path.join(folder, name)
        try:
            status = os.lstat(name, dir_fd=inner)
        except FileNotFoundError:
            self.gone.append(path)
            return
        if stat.S_ISDIR(status.st_mode):
            self.ahead.add(path)
            return
        self.paths.append(path[self._start :])
        if stat.S_ISREG(status.st_mode):
            self.size += status.st_size
            self.times.append(status.st_mtime_ns)
            if not status.st_size and name.endswith(WEIGHTS) and not _may_be_empty(name, beside):
                self.hollow.append(f"an empty file: {self.paths[-1]}")
            if status.st_nlink > 1:
                self.several.append(status)
        elif stat.S_ISLNK(status.st_mode):
            self.size += 1
            fault = why_not_there(inner, name)
            self.leads |= not fault
            if name.endswith(WEIGHTS) and fault in LEADS_NOWHERE:
                self.hollow.append(f"a link that leads nowhere: {self.paths[-1]}")


def _may_be_empty(name: str, beside: Sequence[str]) -> bool:
    """Return whether a file of weights may have 0 bytes: a process with nothing to save writes such a shard.

    pytorch 0140b62d, torch/distributed/checkpoint/filesystem.py, write_data; ``.metadata``, written last, lists what is
    in each.
    """
    return name.endswith(".distcp") and ".metadata" in beside


def _unread(folders: Iterable[str], errors: Sequence[OSError]) -> str:
    """Return which folder in a checkpoint could not be read, and why; an empty text if all were.

    Nobody knows whether a checkpoint with such a folder is whole.
    """
    paths = sorted(path.partition("/")[2] for path in folders)
    if not (errors and paths):
        return ""
    return unread_text(paths[0], errors[0])


def unread_text(path: str, error: OSError) -> str:
    """Say that a folder in a checkpoint, or the checkpoint itself (``""``), cannot be read, and why."""
    return f"what cannot be read{path and ': '}{path} ({os.strerror(error.errno or 0)})"


def why_not_there(directory: int, link: str) -> int:
    """Return the number of the error that one gets by following a link; 0 if there is none."""
    try:
        os.stat(link, dir_fd=directory)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def holds_something(directory: int, path: str) -> bool:
    """Return whether a path in an open directory is more than a name: no broken link, no JSON of 0 bytes."""
    try:
        status = os.lstat(path, dir_fd=directory)
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(status.st_mode):
        return why_not_there(directory, path) not in LEADS_NOWHERE
    return bool(status.st_size) or not (stat.S_ISREG(status.st_mode) and path.endswith(NOTHING_IF_EMPTY))
