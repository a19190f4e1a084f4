"""Opens zip files, with limits on the length of their directory and on the bytes to which they unpack."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from ckptrules.formats.limits import Bounded, NotReadError

LONGEST_DIRECTORY = 8 * 2**20  # bytes; an entry has some 70, and takes 700 in memory: 100,000 tensors
UNPACKS_TO = 32  # times the bytes of the file; trained numbers hardly shrink
UNPACKS_ALWAYS = 64 * 2**20  # bytes, however small the file is
BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError, ImportError,
)  # fmt: skip
"""What `zipfile` raises over damaged files."""


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip file and read its directory. If no entry has a checksum, as torch can write it, none are compared.

    Raises:
        NotReadError: the directory is too long.
        zipfile.BadZipFile: the directory is missing or damaged; or another one of `BROKEN_ZIP`.
    """
    fact = f"a directory of more than {LONGEST_DIRECTORY >> 20} MB is not read"
    bounded = Bounded(file, LONGEST_DIRECTORY, fact, lambda _: None)
    archive = zipfile.ZipFile(bounded)
    bounded.read = file.read
    if not any(entry.CRC for entry in archive.infolist()):
        for entry in archive.infolist():
            entry.CRC = None  # type: ignore[assignment] # then `zipfile` compares none
    return archive


def open_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> BinaryIO:
    """Open an entry for a reader of many small pieces."""
    return io.BufferedReader(archive.open(entry))  # type: ignore[type-var] # readinto is there


def state_of(archive: zipfile.ZipFile) -> zipfile.ZipInfo | None:
    """Return the entry of the pickle in a torch file; torch takes that in the folder of the first entry."""
    names = archive.namelist() or [""]
    root, slash, _ = names[0].partition("/")
    state = f"{root}{slash}data.pkl"
    return archive.getinfo(state) if slash and state in names else None


def refuse_bomb(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse a zip file whose entries unpack to far more than its bytes. No entry gives more than it announces.

    Raises:
        NotReadError: it is such a file, or is packed in a way that `zipfile` does not unpack piece by piece.
    """
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise NotReadError("only what is stored or deflated is unpacked")
    if sum(entry.file_size for entry in entries) > UNPACKS_ALWAYS + UNPACKS_TO * archive.start_dir:
        raise NotReadError(f"what unpacks to more than {UNPACKS_TO} times its bytes is not unpacked")
