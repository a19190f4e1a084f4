"""Packs one experiment into one compressed tar file and brings it back, each proved by a manifest of checksums.

The manifest is the last member of the archive; a copy of it lies beside, so that an unchanged experiment is recognised
without reading the archive. zstd is that of the library ``zstandard`` (extra ``archive``), gzip that of Python.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, NamedTuple

from ckptrules import scan, store
from ckptrules.manifest import Manifest, ManifestError, from_json, to_json, unsafe_path
from ckptrules.measures import human_size
from ckptrules.model import Item
from ckptrules.scan import Progress, told

FORMATS = ("zst", "gz")
MANIFEST = ".ckptrules-manifest.json"
OTHER = "{} is there already, and holds something else; it is not overwritten"
LONGEST_MANIFEST = 1 << 30
LEVEL = 3  # what zstd itself takes; weights hardly shrink further
SPARE = 1 << 20


class ArchiveError(Exception):
    """An archive that cannot be made, believed or brought back; the message is one fact."""


class Place(NamedTuple):
    """An experiment, and where it is packed to."""

    outputs_dir: str
    experiment: str
    folder: str
    format: str

    @property
    def root(self) -> str:
        """The folder that the experiment lies in; paths in the archive begin with the experiment's last name."""
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
        """The archive."""
        return os.path.join(self.folder, self.name)


def listing(place: Place) -> tuple[Item, ...]:
    """List the experiment, directories before what is in them.

    Raises:
        ArchiveError: a part of it cannot be read, or is nothing that can be packed.
    """
    items, unreadable = scan.read_tree(place.root, place.top)
    for path, error in unreadable.items():
        raise ArchiveError(f"{path} cannot be read: {told(error)}")
    for item in items:
        if item.kind == "other":
            raise ArchiveError(f"{item.path} is neither a file nor a directory nor a link")
    own = scan.look(place.root, place.top)
    if own is None:
        raise ArchiveError("is gone")
    return (own, *items)


def refuse_other(place: Place, items: tuple[Item, ...], manifest: Manifest) -> None:
    """Refuse a tree that is not, by names, sizes, times and modes, the one that an archive's manifest tells of.

    Raises:
        ArchiveError: it is another one.
    """
    if items != tuple(item._replace(sha256="") for item in manifest.items):
        raise ArchiveError(OTHER.format(place.path))


def pack(place: Place, items: tuple[Item, ...], created: str, bar: Callable[[int], Any]) -> Manifest:
    """Write the archive, read it back, and only then give it its name.

    Raises:
        ArchiveError: it would not fit, the experiment has changed meanwhile, or something else was read back.
        OSError: it cannot be read or written. Nothing of the archive is left.
    """
    size = sum(item.size for item in items)
    free = os.statvfs(place.folder)
    if size + SPARE > free.f_bavail * free.f_frsize:
        there = human_size(free.f_bavail * free.f_frsize)
        raise ArchiveError(f"needs up to {human_size(size + SPARE)} in {place.folder}, but only {there} are free")
    with store.new_archive(place.path) as (file, partial), bar(2 * size) as progress:
        manifest = _write(place, items, created, file, progress)
        file.flush()
        if check(partial, place.format, progress) != manifest:
            raise ArchiveError("what was read back is not what was packed")
        if listing(place) != items:
            raise ArchiveError("has changed while it was packed")
        store.refuse_taken(beside(place.path))
        store.write_beside(beside(place.path), to_json(manifest))
    return manifest


def beside(path: str) -> str:
    """Return where the copy of an archive's manifest lies."""
    return f"{path}.manifest.json"


def packed_before(place: Place) -> Manifest | None:
    """Return the manifest of the archive that is there already, or None where none is.

    Raises:
        ArchiveError: it cannot be believed.
        OSError: it cannot be read.
    """
    if not os.path.lexists(place.path):
        return None
    try:
        return from_json(scan.read_plain(beside(place.path)))
    except (FileNotFoundError, ManifestError, UnicodeDecodeError):
        return check(place.path, place.format, lambda _: None)


def check(path: str, form: str, progress: Progress) -> Manifest:
    """Read an archive to its end, compare it with its manifest, and return that.

    Raises:
        ArchiveError: it is damaged, cut off, no archive of ours, or holds something else than it says.
        OSError: it cannot be read.
    """
    found: dict[str, Item] = {}
    manifest = None
    with believing():
        for member, content in members(path, form):
            if member.name == MANIFEST:
                manifest = _manifest(content)
            else:
                found[member.name] = _seen(member, content, progress)
    if manifest is None:
        raise ArchiveError("holds no manifest of ckptrules, or is cut off")
    for item in manifest.items:
        seen = found.pop(item.path, None)
        if seen != item._replace(mtime_ns=0, mode=0):
            raise ArchiveError(f"{item.path} is {'missing in it' if seen is None else 'not what its manifest says'}")
    if found:
        raise ArchiveError(f"{min(found)} is in it, but not in its manifest")
    return manifest


def prove(place: Place, items: tuple[Item, ...], progress: Progress) -> None:
    """Read an archive that is there already, and the experiment, and refuse any difference between the two.

    Raises:
        ArchiveError: the archive is damaged, or holds something else.
        OSError: one of the two cannot be read.
    """
    manifest = check(place.path, place.format, progress)
    refuse_other(place, items, manifest)
    for item in manifest.items:
        if item.kind == "file" and scan.checksum(place.root, item.path, progress) != item.sha256:
            raise ArchiveError(f"{OTHER.format(place.path)}: {item.path} differs")


def unpack(path: str, manifest: Manifest, outputs_dir: str, progress: Progress) -> None:
    """Bring an experiment back: beside its place first, and into it when all of it is there and proved.

    Raises:
        ArchiveError: the archive is not what it was when it was checked.
        FileExistsError: something stands in its place.
        OSError: it cannot be read or written.
    """
    (experiment,) = manifest.experiments
    items = {item.path: item for item in manifest.items}
    with store.staging(outputs_dir) as staged, believing():
        for member, content in members(path, format_of(path)):
            item = items.get(member.name)
            if item is None:
                continue
            if item.kind == "directory":
                store.make_directory(staged, item)
            elif item.kind == "file" and store.write_member(staged, item, content, progress) != item.sha256:
                raise ArchiveError(f"{item.path} is not what its manifest says")
        for item in reversed(manifest.items):
            if item.kind == "link":
                store.make_link(staged, item)
            elif item.kind == "directory":
                store.dress_directory(staged, item)
        store.move_in(staged, manifest.items[0].path, outputs_dir, experiment)


def format_of(path: str) -> str:
    """Tell the format of an archive by its name.

    Raises:
        ArchiveError: it is called otherwise.
    """
    for form in FORMATS:
        if path.endswith(f".tar.{form}"):
            return form
    raise ArchiveError("is not called *.tar.zst or *.tar.gz")


def members(path: str, form: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield what is in an archive, in order; only plain names of files, directories and links get past.

    Raises:
        ArchiveError: it holds anything else.
        Exception: what the libraries say of damage (`believing` tells it in one way).
    """
    with (
        open(scan.open_plain(path), "rb") as file,
        _reader(file, form) as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        for member in tar:
            _refuse(member)
            content = tar.extractfile(member) if member.isreg() else None
            yield member, content or io.BytesIO()


@contextlib.contextmanager
def believing() -> Iterator[None]:
    """Tell in one way what the libraries say of a damaged archive.

    Raises:
        ArchiveError: it is damaged.
    """
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, UnicodeError, ValueError, RecursionError) as error:
        raise ArchiveError(f"is damaged or cut off: {error}") from None
    except OSError as error:
        if error.errno is not None:  # gzip's own errors have none
            raise
        raise ArchiveError(f"is damaged or cut off: {error}") from None
    except Exception as error:
        if type(error).__name__ != "ZstdError":  # its module differs between the ways in which zstandard is built
            raise
        raise ArchiveError(f"is damaged or cut off: {error}") from None


# --- inside ----------------------------------------------------------------------------------------------------------


def _write(place: Place, items: tuple[Item, ...], created: str, file: BinaryIO, progress: Progress) -> Manifest:
    with (
        _writer(file, place.format) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        held = tuple(_add(tar, place.root, item, progress) for item in items)
        source, names = os.path.realpath(place.outputs_dir), (place.experiment,)
        manifest = Manifest(created, source, place.format, complete=True, experiments=names, items=held)
        content = to_json(manifest).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return manifest


def _add(tar: tarfile.TarFile, root: str, item: Item, progress: Progress) -> Item:
    info = tarfile.TarInfo(item.path)
    info.mode, info.mtime, info.linkname = item.mode, item.mtime_ns // 10**9, item.link
    info.type = {"directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}.get(item.kind, tarfile.REGTYPE)
    if item.kind != "file":
        tar.addfile(info)
        return item
    info.size = item.size
    with scan.open_file(root, item.path) as file:
        reader = _Hashing(file, progress)
        try:
            tar.addfile(info, reader)  # type: ignore[arg-type] # any object with read
        except OSError as error:
            if error.errno is not None:
                raise
            raise ArchiveError(f"{item.path} has changed while it was packed") from None
    return item._replace(sha256=reader.digest.hexdigest())


class _Hashing:
    """An open file that notes what is read of it."""

    def __init__(self, file: int, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer where the file ends."""
        chunk = os.read(self._file, count)
        self.digest.update(chunk)
        self._progress(len(chunk))
        return chunk


def _seen(member: tarfile.TarInfo, content: IO[bytes], progress: Progress) -> Item:
    """Return what a member is, without mode and time: these are those of the manifest."""
    if not member.isreg():
        kind: Any = "directory" if member.isdir() else "link"
        return Item(member.name, kind, 0, 0, 0, link=member.linkname if member.issym() else "")
    digest = hashlib.sha256()
    while chunk := content.read(scan.CHUNK):
        digest.update(chunk)
        progress(len(chunk))
    return Item(member.name, "file", member.size, 0, 0, sha256=digest.hexdigest())


def _manifest(content: IO[bytes]) -> Manifest:
    try:
        manifest = from_json(content.read(LONGEST_MANIFEST).decode("utf-8"))
    except ManifestError as error:
        raise ArchiveError(f"its manifest: {error}") from None
    if len(manifest.experiments) != 1 or not manifest.items or "/" in manifest.items[0].path:
        raise ArchiveError("its manifest: is not that of one experiment")
    if fault := unsafe_path(manifest.experiments[0]):
        raise ArchiveError(f"its manifest: the experiment {fault}")
    return manifest


def _refuse(member: tarfile.TarInfo) -> None:
    fault = unsafe_path(member.name)
    if fault or not (member.isreg() or member.isdir() or member.issym()):
        raise ArchiveError(f"holds {member.name!r}, which {fault or 'is neither a file nor a directory nor a link'}")


def _library() -> Any:
    """Return the library for zstd.

    Raises:
        ArchiveError: it is not installed.
    """
    try:
        import zstandard
    except ImportError:
        raise ArchiveError("needs zstd: pip install 'ckptrules[archive]', or take format=gz") from None
    return zstandard


@contextlib.contextmanager
def _writer(file: BinaryIO, form: str) -> Iterator[Any]:
    if form == "gz":
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            yield packed
    else:
        with _library().ZstdCompressor(level=LEVEL, threads=-1).stream_writer(file, closefd=False) as packed:
            yield packed


@contextlib.contextmanager
def _reader(file: BinaryIO, form: str) -> Iterator[Any]:
    if form == "gz":
        with gzip.GzipFile(fileobj=file, mode="rb") as plain:
            yield plain
    else:
        with _library().ZstdDecompressor().stream_reader(file, closefd=False) as plain:
            yield plain


def needed_library(form: str) -> None:
    """Find out whether a format can be written and read here.

    Raises:
        ArchiveError: its library is not installed.
    """
    if form == "zst":
        _library()
