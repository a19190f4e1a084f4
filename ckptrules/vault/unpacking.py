"""Reads an archive, compares it with the manifest at its end, and unpacks the experiment in it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.entries import Identity, Item
from ckptrules.engine.measures import human_size
from ckptrules.storage import looking, making, streams, unfinished
from ckptrules.storage.believing import is_trusted
from ckptrules.storage.reading import Progress, why_of
from ckptrules.storage.streams import Checksum, algorithm_of
from ckptrules.storage.writing import temporary_name, undo_on_error
from ckptrules.vault import space
from ckptrules.vault.copies import OnLost
from ckptrules.vault.manifest import Manifest, ManifestError, from_json, longest, unsafe_path
from ckptrules.vault.tar import ArchiveError, damage_as_error, format_of, members
from ckptrules.workers import side_by_side

MANIFEST = ".ckptrules-manifest.json"
Take = Callable[[tarfile.TarInfo, Iterator[bytes]], Item]  # reads a member and its content
NOT_IN_TAR: Mapping[str, Any] = {"uid": -1, "gid": -1, "attributes": {}, "holes": 0}  # only the manifest has these


class Unpacking(NamedTuple):
    """An archive, and the folder, below ``outputs_dir``, to unpack it to; without a folder, it is only read.

    ``size`` is that of the archive, ``room`` how much it may take on the disk, both in bytes.
    """

    path: str
    outputs_dir: str
    size: int
    folder: str = ""
    room: int = 0

    @property
    def needed(self) -> int:
        """A high estimate of the bytes that it takes unpacked: weights hardly shrink."""
        return 2 * self.size + space.SPARE


class Unpacked(NamedTuple):
    """The manifest of an archive, and its unpacked content, below ``outputs_dir``; none if it was only read."""

    manifest: Manifest
    staged: str = ""


def unpacking_of(path: str, outputs_dir: str) -> Unpacking:
    """Look at an archive that is to be unpacked; ArchiveError if it is no file, or not named like an archive."""
    format_of(path)
    if not os.path.isfile(path):
        raise ArchiveError("is no file")
    return Unpacking(path, outputs_dir, os.path.getsize(path))


def check(path: str, form: str, progress: Progress, most: int | None = None, *, with_: str = "") -> Manifest:
    """Read an archive to its end, compare it with its manifest, and return that.

    Args:
        path: the archive.
        form: its format.
        progress: is called with the bytes of each step, and before the next bytes are read.
        most: how many bytes its files may have together; with more, it is read no further.
        with_: a checksum by the algorithm to use. The manifest, which names the algorithm, comes last: if that is an
            old one, the archive is read again.

    Raises:
        ArchiveError: it is damaged, cut off, no archive of ours, or differs from its manifest.
    """
    manifest, found = _read(path, form, progress, most, lambda member, content: _seen(member, content, progress, with_))
    old = _some_checksum(manifest)
    if not with_ and algorithm_of(old) != algorithm_of(with_):
        return check(path, form, progress, most, with_=old)
    _refuse_difference(manifest, found)
    return manifest


def unpack(one: Unpacking, progress: Progress) -> Unpacked:
    """Unpack an archive into a folder of its own, and compare the content with its manifest.

    Metadata and links are still missing; see `finish`. After an error, nothing of it is left.

    Raises:
        ArchiveError: as `check`.
        OSError: it would not fit (ENOSPC), cannot be read, or the folder cannot be made.
    """
    if not one.folder:
        return Unpacked(check(one.path, format_of(one.path), progress, one.room))
    staged = f"{one.folder}/{temporary_name('')}"
    making.make_directory(one.outputs_dir, staged)
    with undo_on_error(drop, one.outputs_dir, staged):
        return Unpacked(_unpack(one, staged, progress), staged)


def drop(outputs_dir: str, staged: str) -> None:
    """Remove the folder that an archive was unpacked to, if it was, as far as possible."""
    if staged:
        folder, name = os.path.split(staged)
        unfinished.drop_staged(outputs_dir, name, folder)


def unpack_in_worker(one: Unpacking, progress: Progress) -> Unpacked | ArchiveError | OSError:
    """Unpack an archive, or return why not; a worker that dies of it leaves a folder that no other process uses."""
    try:
        return unpack(one, progress)
    except (ArchiveError, OSError) as error:
        return error


def in_shares(several: Sequence[Unpacking], folder: str, there: int) -> list[Unpacking]:
    """Give archives that are unpacked at once a folder, and each a share of the free bytes ``there`` by its size.

    Without a folder they are only read, and each may have all of the bytes.
    """
    if not folder:
        return [one._replace(room=there) for one in several]
    size = max(1, sum(one.size for one in several))
    return [one._replace(folder=folder, room=there * one.size // size) for one in several]


def _unpack(one: Unpacking, staged: str, progress: Progress) -> Manifest:
    root = os.path.join(one.outputs_dir, staged)
    with making.syncing() as sync:
        into = _Folder(root, space.block(one.outputs_dir), one.room, progress, sync)
        manifest, found = _read(one.path, format_of(one.path), progress, one.room, into.take)
    space.refuse_more(into.needed, one.room, one.outputs_dir)
    old = _some_checksum(manifest)
    if algorithm_of(old) != algorithm_of(""):
        for item in (item for item in found.values() if item.kind == "file"):
            found[item.path] = item._replace(checksum=streams.checksum(root, item.path, progress, old))
    _refuse_difference(manifest, found)
    return manifest


def finish(outputs_dir: str, staged: str, manifest: Manifest, progress: Progress, on_lost: OnLost) -> Identity:
    """Give unpacked content its links and metadata, durably, and return the identity of the experiment.

    The top folder stays writable for its owner: otherwise only root could move it to its place. ``on_lost`` is called
    for each file, directory and link.

    Raises:
        OSError: it cannot be written.
    """
    root = os.path.join(outputs_dir, staged)
    top, *rest = manifest.items
    items = [top._replace(mode=top.mode | stat.S_IWUSR), *rest]
    files = [item for item in items if item.kind == "file"]
    every = side_by_side.each(lambda item, step: making.set_item_metadata(root, item, step), files, progress)
    for item, lost in zip(files, every, strict=True):
        on_lost(item.path, lost)
    for item in reversed(items):
        if item.kind == "link":
            on_lost(item.path, making.make_link(root, item))
        elif item.kind == "directory":
            on_lost(item.path, making.set_item_metadata(root, item))
    return looking.identify_at(outputs_dir, f"{staged}/{top.path}")


def believed(path: str, manifest: Manifest) -> Manifest:
    """Return the manifest of an archive, without owners and access lists if somebody else could have written it."""
    real = os.path.realpath(path)
    trusted = all(is_trusted(os.stat(place)) for place in (real, os.path.dirname(real)))
    return manifest if trusted else manifest.disbelieved


def _read(path: str, form: str, progress: Progress, most: int | None, take: Take) -> tuple[Manifest, dict[str, Item]]:
    """Read an archive to its end; return its manifest, and the results of ``take`` by path.

    Raises:
        ArchiveError: it is damaged, cut off, or no archive of ours.
        OSError: its files have more bytes than ``most`` (ENOSPC), or it cannot be read.
    """
    found: dict[str, Item] = {}
    manifest, size = None, 0
    with damage_as_error(), contextlib.closing(members(path, form, progress)) as every:
        for member, content in every:
            if manifest is not None:
                raise ArchiveError(f"{member.name} comes behind its manifest")
            if member.name == MANIFEST:
                manifest = _manifest(member, content, found.values())
                continue
            if member.name in found:
                raise ArchiveError(f"{member.name} is in it twice")
            size += member.size
            if most is not None and size > most:
                raise OSError(errno.ENOSPC, f"holds more than {human_size(most)}")
            found[member.name] = take(member, content)
    if manifest is None:
        raise ArchiveError("holds no manifest of ckptrules, or is cut off")
    return manifest, found


def _refuse_difference(manifest: Manifest, found: dict[str, Item]) -> None:
    """Raise ArchiveError for the first difference between a manifest and the items that were found."""
    for item in manifest.items:
        seen = found.pop(item.path, None)
        if seen != item._replace(mtime_ns=0, mode=0, **NOT_IN_TAR):
            raise ArchiveError(f"{item.path} is {'missing in it' if seen is None else 'not what its manifest says'}")
    if found:
        raise ArchiveError(f"{min(found)} is in it, but not in its manifest")


def _some_checksum(manifest: Manifest) -> str:
    return next((item.checksum for item in manifest.items if item.checksum), "")


class _Folder:
    """Unpacks members into a folder, for the owner alone, as long as there is room.

    Links are made later, when all is checked: so no later member is written through one. ``needed`` are the bytes that
    all members take on the disk, in whole blocks.
    """

    def __init__(self, root: str, block: int, room: int, progress: Progress, sync: Callable[[int], None]) -> None:
        self._root, self._block, self._room, self._progress, self._sync = root, block, room, progress, sync
        self._directories = {""}
        self.needed = 0

    def take(self, member: tarfile.TarInfo, content: Iterator[bytes]) -> Item:
        """Write a member, and return its item. Once the room is used up, members are only read, to count their bytes.

        Raises:
            ArchiveError: it cannot be written, or comes before its directory.
        """
        self.needed += space.allocated(member.size, self._block)
        if self.needed > self._room:
            return _seen(member, content, self._progress, "")
        if os.path.dirname(member.name) not in self._directories:
            raise ArchiveError(f"{member.name} comes before the directory that it lies in")
        item = _item(member)
        try:
            if item.kind == "directory":
                making.make_directory(self._root, item.path)
                self._directories.add(item.path)
            elif item.kind == "file":
                checksum = making.write_member(self._root, item.path, content, self._progress, self._sync)
                return item._replace(checksum=checksum)
        except OSError as error:
            if error.errno is None:  # of gzip: the archive is damaged
                raise
            raise ArchiveError(f"cannot be unpacked: {why_of(error)}") from None
        return item


def _seen(member: tarfile.TarInfo, content: Iterator[bytes], progress: Progress, with_: str) -> Item:
    """Return the item of a member, with the checksum of a file."""
    item = _item(member)
    if item.kind != "file":
        return item
    digest = Checksum(with_)
    for piece in content:
        digest.update(piece)
        progress(len(piece))
    return item._replace(checksum=str(digest))


def _item(member: tarfile.TarInfo) -> Item:
    """Return the item of a member, without mode and time: those of the manifest count."""
    kind: Any = "file" if member.isreg() else "directory" if member.isdir() else "link"
    return Item(member.name, kind, member.size, 0, 0, link=member.linkname if member.issym() else "")


def _manifest(member: tarfile.TarInfo, content: Iterator[bytes], found: Collection[Item]) -> Manifest:
    if member.size > longest(found):
        raise ArchiveError("its manifest: is longer than one of what it holds")
    try:
        manifest = from_json(b"".join(content).decode("utf-8"), len(found))
    except ManifestError as error:
        raise ArchiveError(f"its manifest: {error}") from None
    if len(manifest.experiments) != 1 or not manifest.items:
        raise ArchiveError("its manifest: is not that of one experiment")
    if fault := unsafe_path(manifest.experiments[0]):
        raise ArchiveError(f"its manifest: the experiment {fault}")
    return manifest
