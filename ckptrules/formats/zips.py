"""Opens zip files within bounds: neither their directory nor what they unpack to may cost much more than they weigh."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from ckptrules.formats.machine import TooLongError

LONGEST_DIRECTORY = 8 * 2**20  # bytes; an entry has some 70, and takes 700 in memory: 100,000 tensors
UNPACKS_TO = 32  # times the bytes of the file; numbers that were trained hardly shrink, others do
UNPACKS_ALWAYS = 64 * 2**20  # bytes; so much costs nothing worth a look
BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError, ImportError,
)  # fmt: skip
"""What `zipfile` raises over damaged files."""


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip file; its directory is read whole. Where torch was told to write no checksums, none are compared.

    Raises:
        TooLongError: the directory is longer than is read.
        zipfile.BadZipFile: there is none, or it is damaged; or another one of `BROKEN_ZIP`.
    """
    archive = zipfile.ZipFile(_InPieces(file))
    if not any(entry.CRC for entry in archive.infolist()):
        for entry in archive.infolist():
            entry.CRC = None  # type: ignore[assignment] # zipfile then compares none
    return archive


def open_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> BinaryIO:
    """Open an entry for what reads it byte by byte."""
    return io.BufferedReader(archive.open(entry))  # type: ignore[type-var] # readinto is there


def state_of(archive: zipfile.ZipFile) -> zipfile.ZipInfo | None:
    """Return the pickle of a torch file: in the folder of its first entry, which torch itself goes by."""
    names = archive.namelist() or [""]
    root, slash, _ = names[0].partition("/")
    state = f"{root}{slash}data.pkl"
    return archive.getinfo(state) if slash and state in names else None


def refuse_bomb(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse what unpacks to far more than the file has, by what the entries say; none gives more than it says.

    Raises:
        TooLongError: it does, or it is packed as no checkpoint is: by other ways than `zipfile` lets one unpack piece
            by piece.
    """
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise TooLongError("only what is stored or deflated is unpacked")
    if sum(entry.file_size for entry in entries) > UNPACKS_ALWAYS + UNPACKS_TO * archive.start_dir:
        raise TooLongError(f"what unpacks to more than {UNPACKS_TO} times its bytes is not unpacked")


class _InPieces:
    """A file that is read in pieces only: `zipfile` would take a directory of any length into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, count: int = -1) -> bytes:
        """Read so many bytes; all that follow only where `zipfile` looks for the end of a comment: 64 KB."""
        if count > LONGEST_DIRECTORY:
            raise TooLongError(f"a directory of more than {LONGEST_DIRECTORY >> 20} MB is not read")
        return self._file.read(count)
