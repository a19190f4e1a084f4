"""Reads an archive, proves it by the manifest at its end, and brings back the experiment that it holds."""

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
from ckptrules.storage import looking, making, reading, streams, unfinished
from ckptrules.storage.believing import is_trusted
from ckptrules.storage.reading import Progress, why_of
from ckptrules.storage.streams import Checksum, algorithm_of
from ckptrules.storage.writing import temporary_name, undo_on_error
from ckptrules.vault import space
from ckptrules.vault.copies import Failed, Tell
from ckptrules.vault.manifest import Manifest, ManifestError, from_json, longest, unsafe_path
from ckptrules.vault.tar import ArchiveError, format_of, members, told_as_damage
from ckptrules.workers import side_by_side

MANIFEST = ".ckptrules-manifest.json"
Take = Callable[[tarfile.TarInfo, Iterator[bytes]], Item]  # what is done with a member of an archive
BESIDE: Mapping[str, Any] = {"uid": -1, "gid": -1, "attributes": {}, "holes": 0}  # stands in the manifest alone


class Unpacking(NamedTuple):
    """An archive, and where it is unpacked to: a folder of the workplace, below ``outputs_dir``; or it is only read.

    ``size`` are its own bytes, and ``room`` those that it may take on the disk.
    """

    path: str
    outputs_dir: str
    size: int
    folder: str = ""
    room: int = 0

    @property
    def needed(self) -> int:
        """The bytes that weights take when they are unpacked, generously: they hardly shrink."""
        return 2 * self.size + space.SPARE


class Unpacked(NamedTuple):
    """What an archive holds, and where it lies in the workplace, below ``outputs_dir``; nowhere if it was only read."""

    manifest: Manifest
    staged: str = ""


def unpacking_of(path: str, outputs_dir: str) -> Unpacking:
    """Look at an archive that is to be unpacked.

    Raises:
        ArchiveError: it is no file, or is not called like an archive.
    """
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
        most: the most bytes that its files may have; where it tells of more, it is read no further.
        with_: a checksum of the algorithm that its manifest names, which comes last: where it turns out to be another
            one than that of new archives, the archive is read again.

    Raises:
        ArchiveError: it is damaged, cut off, no archive of ours, or holds something else than it says.
    """
    manifest, found = _read(path, form, progress, most, lambda member, content: _seen(member, content, progress, with_))
    old = _some_checksum(manifest)
    if not with_ and algorithm_of(old) != algorithm_of(with_):
        return check(path, form, progress, most, with_=old)
    _refuse_difference(manifest, found)
    return manifest


def unpack(one: Unpacking, progress: Progress) -> Unpacked:
    """Read an archive once: unpack it into a folder of its own, and compare what came with its manifest.

    Nothing is dressed yet, and links are not made. Where anything is wrong, what was unpacked is removed.

    Raises:
        ArchiveError: as `check`.
        OSError: it would not fit (ENOSPC), or cannot be read, or the folder cannot be made.
    """
    if not one.folder:
        return Unpacked(check(one.path, format_of(one.path), progress, one.room))
    staged = f"{one.folder}/{temporary_name('')}"
    making.make_directory(one.outputs_dir, staged)
    with undo_on_error(drop, one.outputs_dir, staged):
        return Unpacked(_unpack(one, staged, progress), staged)


def drop(outputs_dir: str, staged: str) -> None:
    """Remove what is left in the folder that an archive was unpacked to, if it was; what cannot be removed stays."""
    if staged:
        folder, name = os.path.split(staged)
        unfinished.drop_staged(outputs_dir, name, folder)


def unpack_apart(one: Unpacking, progress: Progress) -> Unpacked | Failed:
    """Unpack an archive beside others; who dies of it leaves a folder that nobody names."""
    try:
        return unpack(one, progress)
    except ArchiveError as error:
        return Failed(None, str(error))
    except OSError as error:
        return Failed(error.errno, why_of(error))


def in_shares(several: Sequence[Unpacking], folder: str, there: int) -> list[Unpacking]:
    """Let archives be unpacked in one folder at once, each with its share of the room that is there, by its size.

    Where there is no folder, they are only read, and each has all of it.
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


def finish(outputs_dir: str, staged: str, manifest: Manifest, progress: Progress, tell: Tell) -> Identity:
    """Give what was unpacked all that a manifest says, see it on the disk, and return what tells the experiment apart.

    Its owner can write to the experiment still, whatever its mode: else nobody but root could move it to its place.
    ``tell`` is called with what could not be given to what was brought back.

    Raises:
        OSError: it cannot be written.
    """
    root = os.path.join(outputs_dir, staged)
    top, *rest = manifest.items
    items = [top._replace(mode=top.mode | stat.S_IWUSR), *rest]
    files = [item for item in items if item.kind == "file"]
    every = side_by_side.each(lambda item, step: making.set_item_metadata(root, item, step), files, progress)
    for item, lost in zip(files, every, strict=True):
        tell(item.path, lost)
    for item in reversed(items):
        if item.kind == "link":
            tell(item.path, making.make_link(root, item))
        elif item.kind == "directory":
            tell(item.path, making.set_item_metadata(root, item))
    with reading.open_below(outputs_dir, staged) as directory:
        return looking.identify(directory, top.path)


def believed(path: str, manifest: Manifest) -> Manifest:
    """Return the manifest of an archive without owners and access lists if somebody else could have written it."""
    real = os.path.realpath(path)
    trusted = all(is_trusted(os.stat(place)) for place in (real, os.path.dirname(real)))
    return manifest if trusted else manifest.disbelieved


def _read(path: str, form: str, progress: Progress, most: int | None, take: Take) -> tuple[Manifest, dict[str, Item]]:
    """Read an archive to its end, and return its manifest, and by path what ``take`` made of each member.

    Raises:
        ArchiveError: it is damaged, cut off or no archive of ours.
        OSError: ENOSPC, as its files have more bytes than ``most``; or it cannot be read.
    """
    found: dict[str, Item] = {}
    manifest, size = None, 0
    with told_as_damage(), contextlib.closing(members(path, form, progress)) as every:
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
    """Refuse an archive in which anything else was ``found`` than its manifest says.

    Raises:
        ArchiveError: with one difference.
    """
    for item in manifest.items:
        seen = found.pop(item.path, None)
        if seen != item._replace(mtime_ns=0, mode=0, **BESIDE):
            raise ArchiveError(f"{item.path} is {'missing in it' if seen is None else 'not what its manifest says'}")
    if found:
        raise ArchiveError(f"{min(found)} is in it, but not in its manifest")


def _some_checksum(manifest: Manifest) -> str:
    return next((item.checksum for item in manifest.items if item.checksum), "")


class _Folder:
    """Takes the members of an archive into a folder, for the owner alone, as long as there is room for them.

    Links are not made before all is proved: no later member is written through one. ``needed`` are the bytes that all
    take, in steps of a ``block``.
    """

    def __init__(self, root: str, block: int, room: int, progress: Progress, sync: Callable[[int], None]) -> None:
        self._root, self._block, self._room, self._progress, self._sync = root, block, room, progress, sync
        self._directories = {""}
        self.needed = 0

    def take(self, member: tarfile.TarInfo, content: Iterator[bytes]) -> Item:
        """Write a member, and return what it is. Where there is no more room, it is only read: to know how much it is.

        Raises:
            ArchiveError: it cannot be written, or comes before its directory.
        """
        self.needed += space.taken(member.size, self._block)
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
    """Return what a member is, with its checksum if it is a file."""
    item = _item(member)
    if item.kind != "file":
        return item
    digest = Checksum(with_)
    for piece in content:
        digest.update(piece)
        progress(len(piece))
    return item._replace(checksum=str(digest))


def _item(member: tarfile.TarInfo) -> Item:
    """Return what a member says of itself, without mode and time: these are those of the manifest."""
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
