"""Writes the compressed tar stream of an archive, and reads it, forwards only, safe from hostile content."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Generator, Iterator
from types import SimpleNamespace
from typing import Any, BinaryIO

from ckptrules import zstd
from ckptrules.engine.measures import human_size
from ckptrules.storage import streams
from ckptrules.storage.believing import open_plain
from ckptrules.storage.reading import Progress
from ckptrules.vault.manifest import unsafe_path
from ckptrules.workers import side_by_side

FORMATS = ("zst", "gz")
ENDINGS = tuple(f".tar.{form}" for form in FORMATS)
LEVEL = 3  # the default of zstd; weights hardly shrink further
WINDOW_LOG = 23  # 8 MiB: every reader of zstd should have as much (RFC 8878, section 3.1.1.1.2); we write 2 MiB
BEGINS = {"zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL), "gz": re.compile(rb"\x1f\x8b")}
HEADERS = 1 << 15  # bytes between the contents of two members: enough for the longest path and link
MEMBER = 1024  # bytes of memory that a member takes until the manifest is checked
MEMBERS = 1 << 28  # bytes of memory that the members of any archive may take
MEMBERS_RATIO = 128  # and so many more for each byte of the archive; a member takes some 20 bytes at the least
DAMAGE = (tarfile.TarError, EOFError, zlib.error, ValueError, RecursionError)  # errors of the libraries


class ArchiveError(Exception):
    """An archive cannot be made, read or unpacked; the message is one fact."""


def format_of(path: str) -> str:
    """Return the format of an archive by its name; ArchiveError if the name has none."""
    for form in FORMATS:
        if path.endswith(f".tar.{form}"):
            return form
    raise ArchiveError("is not called " + " or ".join(f"*{ending}" for ending in ENDINGS))


def members(path: str, form: str, progress: Progress) -> Generator[tuple[tarfile.TarInfo, Iterator[bytes]], None, None]:
    """Yield the members of an archive, in order, each with its content; nothing is kept of earlier ones.

    Raises:
        ArchiveError: a member has an unsafe name, or is no file, directory or link; or there are more members than an
            archive of this size can hold.
        Exception: errors of the libraries for a damaged archive; see `damage_as_error`.
    """
    with (
        open(open_plain(path), "rb", buffering=0) as file,
        contextlib.closing(_unpacked(file, form)) as plain,
        contextlib.closing(side_by_side.ahead(plain)) as pieces,
    ):
        head = os.pread(file.fileno(), 4, 0)
        if head and not BEGINS[form].match(head):
            raise ArchiveError(f"is no .tar.{form} file")
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
def damage_as_error() -> Iterator[None]:
    """Turn the errors of the libraries for a damaged archive into ArchiveError."""
    try:
        yield
    except Exception as error:
        of_gzip = isinstance(error, OSError) and error.errno is None
        of_zstd = type(error).__name__ == "ZstdError"  # by name, so that its module need not be imported
        if not (of_gzip or of_zstd or isinstance(error, DAMAGE)):
            raise
        raise ArchiveError(f"is damaged or cut off: {error}") from None


class _Stream:
    """The tar stream of an archive, forwards only. It bounds how much tarfile may read as headers, which may lie."""

    def __init__(self, pieces: Iterator[bytes], progress: Progress) -> None:
        self._pieces, self._progress = pieces, progress
        self._rest, self._at, self._left = b"", 0, HEADERS

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._at

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer at the end; ArchiveError if a header is longer than any of ours."""
        self._left -= count
        if self._left < 0:
            raise ArchiveError(f"is damaged: a header in it is longer than {human_size(HEADERS)}")
        return b"".join(self._take(count))

    def content(self, size: int) -> Iterator[bytes]:
        """Yield so many bytes in pieces, then skip the rest of the last block; ReadError if the archive is cut off."""
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


def _refuse(member: tarfile.TarInfo) -> None:
    fault = unsafe_path(member.name)
    plain = (member.isreg() and not member.issparse()) or member.isdir() or member.issym()
    if fault or not plain or member.size < 0:
        raise ArchiveError(f"holds {member.name!r}, which {fault or 'is neither a file nor a directory nor a link'}")


def zstd_library() -> Any:
    """Return the module for zstd; ArchiveError if it is not installed."""
    try:
        return zstd.library()
    except ImportError:
        raise ArchiveError("needs zstd: pip install 'ckptrules[archive]', or take format=gz") from None


@contextlib.contextmanager
def writer(file: BinaryIO, form: str, threads: int) -> Iterator[Any]:
    """Give a stream that compresses into a file, with so many threads if the format can.

    Raises:
        ArchiveError: the library is not installed, or gets too little memory.
    """
    if form == "gz":
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            yield packed
    else:
        library, key = zstd_library(), zstd_library().CompressionParameter
        options = {key.compression_level: LEVEL, key.nb_workers: threads}
        try:
            with library.ZstdFile(file, "wb", options=options) as packed:
                yield packed
        except library.ZstdError as error:
            raise ArchiveError(f"cannot be packed: {error}") from None


def _unpacked(file: BinaryIO, form: str) -> Generator[bytes, None, None]:
    """Yield the uncompressed content of a file, in pieces.

    zstd gets 256 KiB at once: `ZstdFile` would read 8 KiB, and wait for other threads each time.
    """
    if form == "gz":
        plain: Any = gzip.GzipFile(fileobj=file, mode="rb")
    else:
        library = zstd_library()
        large = SimpleNamespace(read=lambda _: file.read(streams.STREAM))
        plain = library.ZstdFile(large, "rb", options={library.DecompressionParameter.window_log_max: WINDOW_LOG})
    with plain:
        yield from iter(lambda: plain.read(streams.STREAM), b"")
