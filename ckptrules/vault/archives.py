"""Packs one experiment into one compressed tar file and brings it back, each proved by a manifest of checksums.

The manifest is the last member of the archive; a copy of it lies beside, so that an unchanged experiment is recognised
without reading the archive. gzip is Python's own, and so is zstd from 3.14 on (before: the extra ``archive``).
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from ckptrules.engine.measures import human_size
from ckptrules.engine.values import Identity, Item
from ckptrules.storage import copying, dressing, reading, writing
from ckptrules.storage.attributes import UNKNOWN, disbelieved
from ckptrules.storage.believing import is_trusted, open_plain
from ckptrules.storage.checksums import Checksum, algorithm_of
from ckptrules.storage.copying import Tell, untold
from ckptrules.storage.reading import Progress, SourceError, why_of
from ckptrules.vault.manifest import Manifest, ManifestError, from_json, longest, to_json, unsafe_path
from ckptrules.workers import side_by_side

FORMATS = ("zst", "gz")
MANIFEST = ".ckptrules-manifest.json"
OTHER = "{} is there already, and holds something else; it is not overwritten"
LEVEL = 3  # what zstd itself takes; weights hardly shrink further
SPARE = 1 << 20
BESIDE: Mapping[str, Any] = {"uid": -1, "gid": -1, "attributes": {}, "holes": 0}  # stands in the manifest alone
WINDOW_LOG = 23  # 8 MiB; RFC 8878, section 3.1.1.1.2, asks every reader of zstd for as much; we write 2 MiB
HEADERS = 1 << 15  # bytes between the contents of two members: the longest path and link, and what is read ahead
MEMBER = 1024  # bytes of memory that a member takes until its manifest is checked
MEMBERS = 1 << 28  # bytes of memory that the members of any archive may take
MEMBERS_RATIO = 128  # and as many more for each byte of it; a member takes some 20 bytes at the least


class ArchiveError(Exception):
    """An archive that cannot be made, believed or brought back; the message is one fact."""


class Packing(NamedTuple):
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


class Ready(NamedTuple):
    """An experiment that is to be packed, or, where that was done ``before``, to be compared with its archive."""

    place: Packing
    items: tuple[Item, ...]
    created: str
    before: bool = False

    @property
    def size(self) -> int:
        """The bytes that pass on the way there, and on the way back."""
        return 2 * sum(item.size for item in self.items)

    @property
    def needed(self) -> int:
        """The bytes that an archive takes at the most; zeros are packed into next to nothing."""
        return 0 if self.before else sum(item.size - item.holes for item in self.items) + SPARE


def listing(place: Packing) -> tuple[Item, ...]:
    """List the experiment, directories before what is in them.

    Raises:
        ArchiveError: a part of it cannot be read, or is nothing that can be packed.
    """
    items, unreadable = reading.read_tree(place.root, place.top)
    for path, error in unreadable.items():
        raise ArchiveError(f"{path} cannot be read: {why_of(error)}")
    for item in items:
        if item.kind == "other":
            raise ArchiveError(f"{item.path} is neither a file nor a directory nor a link")
    own = reading.look(place.root, place.top)
    if own is None:
        raise ArchiveError("is gone")
    return (own, *items)


def refuse_other(place: Packing, items: tuple[Item, ...], manifest: Manifest) -> None:
    """Refuse a tree that is not, by names, sizes, times and modes, the one that an archive's manifest tells of.

    Raises:
        ArchiveError: it is another one.
    """
    if _plain(items) != _plain(item._replace(checksum="") for item in manifest.items):
        raise ArchiveError(OTHER.format(place.path))


def pack_apart(threads: int, ready: Ready, progress: Progress) -> str:
    """Pack an experiment, or compare it with its archive; return why that could not be, or nothing.

    Args: ``threads`` is how many of them compress.
    """
    try:
        if ready.before:
            prove(ready.place, ready.items, progress)
        else:
            pack(ready, threads, progress)
    except ArchiveError as error:
        return str(error)
    except OSError as error:
        return why_of(error)
    return ""


def free(folder: str) -> int:
    """Return the bytes that are free for archives."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def pack(ready: Ready, threads: int, progress: Progress) -> Manifest:
    """Write the archive, read it back, and only then give it its name.

    Raises:
        ArchiveError: it would not fit, the experiment has changed meanwhile, or something else was read back.
        OSError: it cannot be read or written. Nothing of the archive is left.
    """
    place, items, there = ready.place, ready.items, free(ready.place.folder)
    if ready.needed > there:
        needed, less = human_size(ready.needed), human_size(there)
        raise ArchiveError(f"needs up to {needed} in {place.folder}, but only {less} are free")
    with copying.new_archive(place.path) as (file, partial):
        manifest = _write(ready, file, threads, progress)
        file.flush()
        with copying.syncing() as sync:
            sync(file.fileno())
            if check(partial, place.format, progress) != manifest:
                raise ArchiveError("what was read back is not what was packed")
        if _plain(listing(place)) != _plain(items):
            raise ArchiveError("has changed while it was packed")
        writing.refuse_taken(beside(place.path))
        writing.write_beside(beside(place.path), to_json(manifest))
    return manifest


def beside(path: str) -> str:
    """Return where the copy of an archive's manifest lies."""
    return f"{path}.manifest.json"


def packed_before(place: Packing, items: tuple[Item, ...], progress: Progress) -> Manifest | None:
    """Return the manifest of the archive that is there already, or None where none is.

    The copy beside is believed where it is no longer than that of these items would be, else the archive is read.

    Raises:
        ArchiveError: it cannot be believed.
    """
    if not os.path.lexists(place.path):
        return None
    try:
        folder, name = os.path.split(beside(place.path))
        with reading.open_file(folder, name) as file, open(file, encoding="utf-8", closefd=False) as text:
            if os.fstat(file).st_size <= longest(items):
                return from_json(text.read(), len(items))
    except (SourceError, ManifestError, UnicodeDecodeError):
        pass
    return check(place.path, place.format, progress, sum(item.size for item in items))


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


def prove(place: Packing, items: tuple[Item, ...], progress: Progress) -> None:
    """Read an archive that is there already, and the experiment, and refuse any difference between the two.

    Raises:
        ArchiveError: the archive is damaged, or holds something else.
    """
    manifest = check(place.path, place.format, progress, sum(item.size for item in items))
    refuse_other(place, items, manifest)
    for item, here in zip(manifest.items, items, strict=True):
        if item.kind == "file" and reading.checksum(place.root, item.path, progress, item.checksum) != item.checksum:
            raise ArchiveError(f"{OTHER.format(place.path)}: {item.path} differs")
        if item.kind != "link" and _noted(place.root, item).attributes != item.attributes:
            raise ArchiveError(f"{OTHER.format(place.path)}: {item.path} has other attributes")
        if item.uid != UNKNOWN and (item.uid, item.gid) != (here.uid, here.gid):
            raise ArchiveError(f"{OTHER.format(place.path)}: {item.path} has another owner")


@contextlib.contextmanager
def unpacked(path: str, outputs_dir: str, progress: Progress) -> Iterator[tuple[str, Manifest]]:
    """Read an archive once: unpack it into a folder of the workplace, and compare what came with its manifest.

    Gives that folder, below ``outputs_dir``, and the manifest. Nothing is dressed yet, and links are not made. What is
    left in the folder at the end, or where anything is wrong, is removed.

    Raises:
        ArchiveError: it would not fit, or as `check`.
    """
    with copying.staging(outputs_dir) as staged:
        root, there = os.path.join(outputs_dir, staged), room(outputs_dir)
        with copying.syncing() as sync:
            unpacking = _Unpacking(root, outputs_dir, there, progress, sync)
            manifest, found = _read(path, format_of(path), progress, there, unpacking.take)
        unpacking.refuse_full()
        old = _some_checksum(manifest)
        if algorithm_of(old) != algorithm_of(""):
            for item in (item for item in found.values() if item.kind == "file"):
                found[item.path] = item._replace(checksum=reading.checksum(root, item.path, progress, old))
        _refuse_difference(manifest, found)
        yield staged, manifest


def dress(outputs_dir: str, staged: str, manifest: Manifest, progress: Progress, tell: Tell = untold) -> Identity:
    """Give what was unpacked all that a manifest says, see it on the disk, and return what tells the experiment apart.

    ``tell`` is called with what could not be given to what was brought back.

    Raises:
        OSError: it cannot be written.
    """
    root = os.path.join(outputs_dir, staged)
    files = [item for item in manifest.items if item.kind == "file"]
    every = side_by_side.each(lambda item, step: copying.dress_file(root, item, step), files, progress)
    for item, lost in zip(files, every, strict=True):
        if lost:
            tell(item.path, lost)
    for item in reversed(manifest.items):
        if item.kind == "link":
            copying.make_link(root, item, tell)
        elif item.kind == "directory":
            copying.dress_directory(root, item, tell)
    with reading.open_below(outputs_dir, staged) as directory:
        return reading.identify(directory, manifest.items[0].path)


def believed(path: str, manifest: Manifest) -> Manifest:
    """Return the manifest of an archive without owners and access lists if somebody else could have written it."""
    real = os.path.realpath(path)
    if all(is_trusted(os.stat(place)) for place in (real, os.path.dirname(real))):
        return manifest
    return manifest._replace(items=tuple(map(disbelieved, manifest.items)))


def room(folder: str) -> int:
    """Return the bytes that files may take in a folder; a file system in memory may set no limit, and reports none.

    Raises:
        OSError: that is not known.
    """
    disk = os.statvfs(folder)
    return sys.maxsize if disk.f_blocks == 0 else max(0, disk.f_bavail * disk.f_frsize - SPARE)


def refuse_full(folder: str, items: Iterable[Item]) -> None:
    """Refuse what would not fit into a folder.

    Raises:
        ArchiveError: with how much is needed, and how much there is.
    """
    block = _block(folder)
    _refuse_more(sum(_taken(item.size - item.holes, block) for item in items), room(folder), folder)


def format_of(path: str) -> str:
    """Tell the format of an archive by its name.

    Raises:
        ArchiveError: it is called otherwise.
    """
    for form in FORMATS:
        if path.endswith(f".tar.{form}"):
            return form
    raise ArchiveError("is not called *.tar.zst or *.tar.gz")


def members(path: str, form: str, progress: Progress) -> Generator[tuple[tarfile.TarInfo, Iterator[bytes]], None, None]:
    """Yield what is in an archive, in order, and its content; only plain names of files, directories, links get past.

    Nothing is held of those before. There may be so many as an archive of its size can hold.

    Raises:
        ArchiveError: it holds anything else.
        Exception: what the libraries say of damage (`believing` tells it in one way).
    """
    with (
        open(open_plain(path), "rb", buffering=0) as file,
        contextlib.closing(_unpacked(file, form)) as plain,
        contextlib.closing(side_by_side.ahead(plain)) as pieces,
    ):
        left = MEMBERS + MEMBERS_RATIO * os.fstat(file.fileno()).st_size
        stream = _Stream(pieces, progress)
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload] # it has what tarfile uses
            while member := tar.next():
                progress(0)
                _refuse(member)
                left -= MEMBER + len(member.name) + len(member.linkname)
                if left < 0 or tar.pax_headers:
                    raise ArchiveError("tells of more names than an archive of its size can hold")
                tar.members.clear()
                content = stream.content(member.size if member.isreg() else 0)
                yield member, content
                for _ in content:
                    pass


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
        if type(error).__name__ != "ZstdError":  # where nobody uses zstd, its module is not imported for this
            raise
        raise ArchiveError(f"is damaged or cut off: {error}") from None


# --- inside ----------------------------------------------------------------------------------------------------------


def _read(
    path: str,
    form: str,
    progress: Progress,
    most: int | None,
    take: Callable[[tarfile.TarInfo, Iterator[bytes]], Item],
) -> tuple[Manifest, dict[str, Item]]:
    """Read an archive to its end, and return its manifest, and by path what ``take`` made of each member.

    Raises:
        ArchiveError: it is damaged, cut off or no archive of ours, or its files have more bytes than ``most``.
    """
    found: dict[str, Item] = {}
    manifest, size = None, 0
    with believing(), contextlib.closing(members(path, form, progress)) as every:
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
                raise ArchiveError(f"holds more than {human_size(most)}")
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


class _Unpacking:
    """Takes the members of an archive into a folder, for the owner alone, as long as there is room for them.

    Links are not made before all is proved: no later member is written through one.
    """

    def __init__(self, root: str, folder: str, room: int, progress: Progress, sync: Callable[[int], None]) -> None:
        self._root, self._folder, self._room, self._progress, self._sync = root, folder, room, progress, sync
        self._block, self._needed = _block(folder), 0
        self._directories = {""}

    def take(self, member: tarfile.TarInfo, content: Iterator[bytes]) -> Item:
        """Write a member, and return what it is. Where there is no more room, it is only read: to know how much it is.

        Raises:
            ArchiveError: it cannot be written, or comes before its directory.
        """
        self._needed += _taken(member.size, self._block)
        if self._needed > self._room:
            return _seen(member, content, self._progress, "")
        if os.path.dirname(member.name) not in self._directories:
            raise ArchiveError(f"{member.name} comes before the directory that it lies in")
        item = _item(member)
        try:
            if item.kind == "directory":
                copying.make_directory(self._root, item)
                self._directories.add(item.path)
            elif item.kind == "file":
                checksum = copying.write_member(self._root, item.path, content, self._progress, self._sync)
                return item._replace(checksum=checksum)
        except OSError as error:
            if error.errno is None:  # of gzip: the archive is damaged
                raise
            raise ArchiveError(f"cannot be unpacked: {why_of(error)}") from None
        return item

    def refuse_full(self) -> None:
        """Refuse what did not fit.

        Raises:
            ArchiveError: with how much is needed, and how much there is.
        """
        _refuse_more(self._needed, self._room, self._folder)


def _block(folder: str) -> int:
    return os.statvfs(folder).f_frsize or 1


def _taken(size: int, block: int) -> int:
    """Return the bytes of a disk that a file of some bytes takes, or a directory or a link of none."""
    return -(-size // block) * block or block


def _refuse_more(needed: int, there: int, folder: str) -> None:
    if needed > there:
        raise ArchiveError(f"needs {human_size(needed)} in {folder}, but only {human_size(there)} are free")


def _write(ready: Ready, file: BinaryIO, threads: int, progress: Progress) -> Manifest:
    place = ready.place
    with (
        _writer(file, place.format, threads) as packed,
        tarfile.open(fileobj=packed, mode="w:", format=tarfile.PAX_FORMAT) as tar,
    ):
        tar.copybufsize = reading.CHUNK  # type: ignore[attr-defined] # zstd is called for each; if not, it takes longer
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
    info.mode, info.mtime, info.linkname = item.mode, item.mtime_ns // 10**9, item.link
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
    """Return a file or directory with its attributes.

    Raises:
        ArchiveError: they cannot be read.
    """
    try:
        return item._replace(attributes=dressing.described_below(root, item).attributes)
    except SourceError as error:
        raise ArchiveError(f"{item.path} cannot be read: {why_of(error)}") from None


def _plain(items: Iterable[Item]) -> list[Item]:
    """Return items by what every archive tells of them; earlier ones knew no owners."""
    return [item._replace(**BESIDE) for item in items]


class _Stream:
    """The tar stream of an archive, forwards only. tarfile reads the headers, of which only so much: they may lie."""

    def __init__(self, pieces: Iterator[bytes], progress: Progress) -> None:
        self._pieces, self._progress = pieces, progress
        self._rest, self._at, self._left = b"", 0, HEADERS

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._at

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer at the end.

        Raises:
            ArchiveError: a header is longer than any of ours.
        """
        self._left -= count
        if self._left < 0:
            raise ArchiveError(f"is damaged: a header in it is longer than {human_size(HEADERS)}")
        return b"".join(self._take(count))

    def content(self, size: int) -> Iterator[bytes]:
        """Yield so many bytes in pieces, as they come, and go behind what fills up their last block.

        Raises:
            ReadError: the archive is cut off.
        """
        filling = -size % tarfile.BLOCKSIZE
        behind = self._at + size + filling
        yield from self._take(size)
        for _ in self._take(filling):
            pass
        if self._at < behind:
            raise tarfile.ReadError("unexpected end of data")
        self._left = HEADERS

    def _take(self, count: int) -> Iterator[bytes]:
        while count and (piece := self._rest or self._next()):
            self._rest, piece = piece[count:], piece[:count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def _next(self) -> bytes:
        self._progress(0)
        return next(self._pieces, b"")


class _Hashing:
    """An open file that notes what is read of it."""

    def __init__(self, file: int, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.digest = Checksum()

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer where the file ends."""
        chunk = os.read(self._file, count)
        self.digest.update(chunk)
        self._progress(len(chunk))
        return chunk


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
    if len(manifest.experiments) != 1 or not manifest.items or "/" in manifest.items[0].path:
        raise ArchiveError("its manifest: is not that of one experiment")
    if fault := unsafe_path(manifest.experiments[0]):
        raise ArchiveError(f"its manifest: the experiment {fault}")
    return manifest


def _refuse(member: tarfile.TarInfo) -> None:
    fault = unsafe_path(member.name)
    plain = (member.isreg() and not member.issparse()) or member.isdir() or member.issym()
    if fault or not plain or member.size < 0:
        raise ArchiveError(f"holds {member.name!r}, which {fault or 'is neither a file nor a directory nor a link'}")


def _zstd() -> Any:
    """Return the module for zstd.

    Raises:
        ArchiveError: it is not installed.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise ArchiveError("needs zstd: pip install 'ckptrules[archive]', or take format=gz") from None
    return zstd


@contextlib.contextmanager
def _writer(file: BinaryIO, form: str, threads: int) -> Iterator[Any]:
    if form == "gz":
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            yield packed
    else:
        zstd, key = _zstd(), _zstd().CompressionParameter
        options = {key.compression_level: LEVEL, key.nb_workers: threads}
        with zstd.ZstdFile(file, "wb", options=options) as packed:
            yield packed


def _unpacked(file: BinaryIO, form: str) -> Generator[bytes, None, None]:
    """Yield what a compressed file holds, in pieces.

    zstd gets 256 KiB at once: a file of its library would read 8 KiB, and wait for other threads each time.
    """
    if form == "gz":
        with gzip.GzipFile(fileobj=file, mode="rb") as plain:
            yield from iter(lambda: plain.read(reading.STREAM), b"")
        return
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    frame = zstd.ZstdDecompressor(options=options)
    data = file.read(reading.STREAM)
    while data:
        if frame.eof:
            frame = zstd.ZstdDecompressor(options=options)
        while piece := frame.decompress(data, reading.STREAM):
            yield piece
            data = b""
            if frame.eof:
                break
        data = frame.unused_data or file.read(reading.STREAM)
    if not frame.eof:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def needed_library(form: str) -> None:
    """Find out whether a format can be written and read here.

    Raises:
        ArchiveError: its library is not installed.
    """
    if form == "zst":
        _zstd()
