"""Packs one experiment into one compressed tar file, reads it back, and compares it with a manifest of checksums.

The manifest is the last member of the archive. A copy of it lies beside the archive, to recognise an unchanged
experiment without reading the archive.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tarfile
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from ckptrules.engine.entries import Item
from ckptrules.engine.measures import NS, human_size
from ckptrules.storage import looking, making, metadata, reading, streams, unfinished, writing
from ckptrules.storage.attributes import UNKNOWN
from ckptrules.storage.believing import refuse_other_kinds
from ckptrules.storage.reading import Progress, SourceError, why_of
from ckptrules.storage.streams import Checksum
from ckptrules.vault import space
from ckptrules.vault.manifest import Manifest, ManifestError, from_json, longest, to_json
from ckptrules.vault.tar import ArchiveError, writer
from ckptrules.vault.unpacking import MANIFEST, NOT_IN_TAR, check


class Packing(NamedTuple):
    """An experiment, and the folder and format of its archive."""

    outputs_dir: str
    experiment: str
    folder: str
    format: str

    @property
    def root(self) -> str:
        """The folder around the experiment. Paths in the archive begin below it, with `top`."""
        return os.path.join(self.outputs_dir, os.path.dirname(self.experiment))

    @property
    def top(self) -> str:
        """The experiment's last name."""
        return os.path.basename(self.experiment)

    @property
    def name(self) -> str:
        """The name of the archive."""
        return f"{self.experiment.replace('/', '%2F')}.tar.{self.format}"

    @property
    def path(self) -> str:
        """The path of the archive."""
        return os.path.join(self.folder, self.name)


class Ready(NamedTuple):
    """An experiment that is to be packed, or compared with its archive if there is one."""

    place: Packing
    items: tuple[Item, ...]
    created: str

    @property
    def size(self) -> int:
        """The bytes to be packed, and read back."""
        return 2 * sum(item.size for item in self.items)

    @property
    def needed(self) -> int:
        """The bytes that the archive takes at the most; holes take next to nothing."""
        return sum(item.size - item.holes for item in self.items) + space.SPARE


def listing(place: Packing) -> tuple[Item, ...]:
    """List the experiment, each directory before its contents.

    Raises:
        ArchiveError: a part of it cannot be read or packed.
    """
    items, unreadable = looking.read_tree(place.root, place.top)
    for path, error in unreadable.items():
        raise ArchiveError(f"{path} cannot be read: {why_of(error)}")
    for item in items:
        if item.kind == "other":
            raise ArchiveError(f"{item.path} is neither a file nor a directory nor a link")
    own = looking.look(place.root, place.top)
    if own is None:
        raise ArchiveError("is gone")
    return (own, *items)


def refuse_other(place: Packing, items: tuple[Item, ...], manifest: Manifest) -> None:
    """Raise ArchiveError if a tree differs from a manifest in names, sizes, times or modes."""
    if _plain(items) != _plain(item._replace(checksum="") for item in manifest.items):
        raise ArchiveError(already_there(place))


def pack_in_worker(threads: int, ready: Ready, progress: Progress) -> str:
    """Pack an experiment with so many threads, or compare it with its archive; return why that failed, or nothing.

    There may be an archive by now: of a worker that died, with others, before it could answer.
    """
    try:
        if os.path.lexists(ready.place.path):
            prove(ready.place, ready.items, progress)
        else:
            pack(ready, threads, progress)
    except ArchiveError as error:
        return str(error)
    except FileExistsError:  # by now: a run of another tree has the same archive
        return already_there(ready.place)
    except SourceError as error:
        return f"{error.filename} cannot be read: {why_of(error)}"
    except OSError as error:
        return why_of(error)
    return ""


def pack(ready: Ready, threads: int, progress: Progress) -> None:
    """Write the archive, read it back, and only then give it its name. An error until then leaves nothing of it.

    Raises:
        ArchiveError: it would not fit, the experiment has changed meanwhile, or the archive differs from it.
        OSError: the experiment cannot be read, or the archive not written.
    """
    place, items = ready.place, ready.items
    refuse_without_room(ready)
    with unfinished.new_archive(place.path) as (file, partial):
        manifest = _write(ready, file, threads, progress)
        file.flush()
        with making.syncing() as sync:
            sync(file.fileno())
            if check(partial, place.format, progress) != manifest:
                raise ArchiveError("what was read back is not what was packed")
        if _plain(listing(place)) != _plain(items):
            raise ArchiveError("has changed while it was packed")
        with contextlib.suppress(FileNotFoundError):
            refuse_other_kinds(os.lstat(manifest_path(place.path)), manifest_path(place.path))
    # Only now, as a run of another tree may have taken the name meanwhile.
    writing.write_file(manifest_path(place.path), to_json(manifest))


def refuse_without_room(ready: Ready) -> None:
    """Refuse to pack what the disk of the archive may have no room for.

    Raises:
        ArchiveError: with both numbers.
    """
    folder, there = ready.place.folder, space.free(ready.place.folder)
    if ready.needed > there:
        needed, less = human_size(ready.needed), human_size(there)
        raise ArchiveError(f"needs up to {needed} in {folder}, but only {less} are free")


def manifest_path(path: str) -> str:
    """Return the path of the copy of an archive's manifest."""
    return f"{path}.manifest.json"


def packed_before(place: Packing, items: tuple[Item, ...], progress: Progress) -> bool:
    """Return whether there is an archive of just this tree, by its manifest.

    The copy of the manifest is used if it is sound, no longer than one of these items, and not older than the archive;
    otherwise the archive is read.

    Raises:
        ArchiveError: the archive is of another tree, or damaged.
    """
    if not os.path.lexists(place.path):
        return False
    manifest = None
    with contextlib.suppress(OSError, ManifestError, UnicodeDecodeError):
        folder, name = os.path.split(manifest_path(place.path))
        with reading.open_file(folder, name) as file, open(file, encoding="utf-8", closefd=False) as text:
            status = os.fstat(file)
            if status.st_size <= longest(items) and os.stat(place.path).st_mtime_ns <= status.st_mtime_ns:
                manifest = from_json(text.read(), len(items))
    manifest = manifest or _there(place, items, progress)
    refuse_other(place, items, manifest)
    return True


def prove(place: Packing, items: tuple[Item, ...], progress: Progress) -> None:
    """Read an archive and the experiment, and compare them.

    Raises:
        ArchiveError: the archive is damaged, or differs.
        SourceError: a part of the experiment cannot be read.
    """
    manifest = _there(place, items, progress)
    refuse_other(place, items, manifest)
    for item, here in zip(manifest.items, items, strict=True):
        if item.kind == "file" and streams.checksum(place.root, item.path, progress, item.checksum) != item.checksum:
            raise ArchiveError(f"{already_there(place)}: {item.path} differs")
        if item.kind != "link" and _noted(place.root, item).attributes != item.attributes:
            raise ArchiveError(f"{already_there(place)}: {item.path} has other attributes")
        if item.uid != UNKNOWN and (item.uid, item.gid) != (here.uid, here.gid):
            raise ArchiveError(f"{already_there(place)}: {item.path} has another owner")


def _there(place: Packing, items: tuple[Item, ...], progress: Progress) -> Manifest:
    """Read the file under the name of an archive, as an archive with no more bytes than the items have."""
    try:
        return check(place.path, place.format, progress, sum(item.size for item in items))
    except ArchiveError as error:
        why = str(error)
    except OSError as error:
        why = why_of(error) if error.errno == errno.EINVAL else f"cannot be read: {why_of(error)}"
    raise ArchiveError(already_there(place, why))


def already_there(place: Packing, why: str = "holds something else") -> str:
    """Return a sentence on the file that has the name of an archive."""
    link = ", as a link" * os.path.islink(place.path)
    return f"{place.path} is there already{link}, and {why}; it is not overwritten"


def _write(ready: Ready, file: BinaryIO, threads: int, progress: Progress) -> Manifest:
    place = ready.place
    with (
        writer(file, place.format, threads) as packed,
        tarfile.open(fileobj=packed, mode="w:", format=tarfile.PAX_FORMAT) as tar,
    ):
        tar.copybufsize = streams.CHUNK  # type: ignore[attr-defined] # fewer calls of zstd are faster
        held = tuple(_add(tar, place.root, item, progress) for item in ready.items)
        source, names = os.path.realpath(place.outputs_dir), (place.experiment,)
        manifest = Manifest(ready.created, source, place.format, complete=True, experiments=names, items=held)
        content = to_json(manifest).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return manifest


def _add(tar: tarfile.TarFile, root: str, item: Item, progress: Progress) -> Item:
    info = tarfile.TarInfo(item.path)
    info.mode, info.mtime, info.linkname = item.mode, item.mtime_ns // NS, item.link
    info.uid, info.gid = item.uid, item.gid
    info.type = {"directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}.get(item.kind, tarfile.REGTYPE)
    if item.kind != "file":
        tar.addfile(info)
        return _noted(root, item) if item.kind == "directory" else item
    info.size = item.size
    with reading.open_file(root, item.path) as file:
        reader = _Hashing(file, progress)
        try:
            tar.addfile(info, reader)  # type: ignore[arg-type] # any object with read
        except OSError as error:
            if error.errno is not None:
                raise
            raise ArchiveError(f"{item.path} has changed while it was packed") from None
    return _noted(root, item)._replace(checksum=str(reader.digest))


def _noted(root: str, item: Item) -> Item:
    return item._replace(attributes=metadata.with_metadata_below(root, item).attributes)


def _plain(items: Iterable[Item]) -> list[Item]:
    """Return items with the fields that archives of every version have; early ones have no owners."""
    return [item._replace(**NOT_IN_TAR) for item in items]


class _Hashing:
    """An open file that hashes what is read from it."""

    def __init__(self, file: int, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.digest = Checksum()

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer at the end of the file."""
        chunk = next(streams.chunks(self._file, count), b"")
        self.digest.update(chunk)
        self._progress(len(chunk))
        return chunk
