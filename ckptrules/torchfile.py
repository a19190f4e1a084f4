"""Checks the two formats of ``torch.save`` without torch: a zip file, or (before torch 1.6) pickles and raw numbers.

Written after ``torch/serialization.py`` of torch 2.13 (``_save``, ``_legacy_load``) and seen on files of it.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from ckptrules.content import CHUNK, Facts, Tell, UnsoundError, facts_of
from ckptrules.machine import Storage, TooLongError, UnreadableError
from ckptrules.pickled import LONGEST_PICKLE, Contents, Limited, read_pickle

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
ELEMENT_BYTES: Mapping[str, int] = {
    "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "UntypedStorage": 1, "QInt8Storage": 1, "QUInt8Storage": 1,
    "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "QInt32Storage": 4,
    "LongStorage": 8, "DoubleStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
BROKEN_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError, ImportError,
)  # fmt: skip


def check_zip(file: BinaryIO, tell: Tell, *, quick: bool) -> Facts:
    """Check a zip file: its directory, its checksums unless ``quick``, and what a torch file must have.

    Raises:
        UnsoundError: it is cut off, damaged, or not all there.
        OSError: it cannot be read.
    """
    try:
        archive = zipfile.ZipFile(file)
        entries = archive.infolist()
    except BROKEN_ZIP:
        raise UnsoundError(
            "truncated", "is cut off, or was never finished: the directory at its end is missing"
        ) from None
    _check_directory(archive, entries)
    checksums = any(entry.CRC for entry in entries)
    if not checksums:
        for entry in entries:
            entry.CRC = None  # type: ignore[assignment] # written by torch without; zipfile then compares none
    if not quick:
        _read_all(archive, entries, tell)
    contents = _torch_contents(archive, entries)
    return facts_of(_kind(entries), contents, checksums=checksums and not quick)


def check_legacy(file: BinaryIO, size: int) -> Facts:
    """Check a file of pickles: that of old torch has its tensors' bytes behind them; there are no checksums.

    Raises:
        UnsoundError: it is cut off or damaged.
        OSError: it cannot be read.
    """
    limited = Limited(file)
    try:
        contents = read_pickle(limited)
        if contents.value != MAGIC_NUMBER:
            return facts_of("pickle", contents)
        for _ in ("protocol version", "system"):
            read_pickle(limited)
        contents, keys = read_pickle(limited), read_pickle(limited).value
    except TooLongError:
        return _too_long(file, size)
    except UnreadableError as error:
        raise UnsoundError("damaged", str(error)) from None
    expected = file.tell() + _raw_size(keys, contents.storages)
    if size < expected:
        raise UnsoundError("truncated", f"is cut off: it has {size} bytes and should have {expected}")
    return facts_of("torch before 1.6", contents)


def _check_directory(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.header_offset < 0 or entry.header_offset + entry.compress_size > archive.start_dir:
            raise UnsoundError("truncated", "is cut off: an entry of its directory lies outside of it")
        key = entry.filename.lower()  # torch asks for names without regard to case
        if key in seen:
            raise UnsoundError("damaged", "has two entries of one name: readers may disagree on what it holds")
        seen.add(key)


def _read_all(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], tell: Tell) -> None:
    """Read every entry to its end, where zipfile compares the checksum."""
    for entry in entries:
        try:
            with archive.open(entry) as content:
                while chunk := content.read(CHUNK):
                    tell(len(chunk))
        except BROKEN_ZIP:
            hint = "its bytes have changed since it was written: take it from a copy"
            raise UnsoundError("damaged", f"is damaged in '{entry.filename[:80]}'", hint) from None


def _kind(entries: Sequence[zipfile.ZipInfo]) -> str:
    if _root(entries) is not None:
        return "torch"
    return "numpy" if entries and all(entry.filename.endswith(".npy") for entry in entries) else "zip"


def _root(entries: Sequence[zipfile.ZipInfo]) -> str | None:
    """Return the folder inside a torch file: that of its first entry, which torch itself goes by."""
    root, slash, _ = entries[0].filename.partition("/") if entries else ("", "", "")
    return root if slash and any(entry.filename == f"{root}/data.pkl" for entry in entries) else None


def _torch_contents(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> Contents | None:
    """Read ``data.pkl`` and see that the bytes of every tensor that it speaks of are there."""
    root = _root(entries)
    if root is None:
        return None
    try:
        with archive.open(f"{root}/data.pkl") as content:
            data = content.read(LONGEST_PICKLE + 1)
        contents = read_pickle(Limited(io.BytesIO(data)))
    except TooLongError:
        return None
    except (UnreadableError, *BROKEN_ZIP) as error:
        fact = str(error) if isinstance(error, UnreadableError) else f"is damaged in '{root[:80]}/data.pkl'"
        raise UnsoundError("damaged", fact) from None
    sizes = {entry.filename: entry.file_size for entry in entries}
    for storage in contents.storages.values():
        size = sizes.get(f"{root}/data/{storage.key}")
        if size is None or size < storage.elements * _element_bytes(storage):
            fact = "lacks" if size is None else "has too few bytes for"
            raise UnsoundError("incomplete", f"{fact} the tensor data '{storage.key[:80]}'")
    return contents


def _element_bytes(storage: Storage) -> int:
    """Return the bytes of one element, 0 where the type is not known."""
    return ELEMENT_BYTES.get(storage.type.rpartition(".")[2], 0)


def _raw_size(keys: object, storages: Mapping[str, Storage]) -> int:
    """Return how many bytes stand behind the pickles: for each tensor its number of elements (8 bytes), then these."""
    if not isinstance(keys, list):
        raise UnsoundError("damaged", "its list of tensors is damaged")
    found = [storages.get(key) for key in keys if isinstance(key, str)]
    return sum(8 + storage.elements * _element_bytes(storage) for storage in found if storage)


def _too_long(file: BinaryIO, size: int) -> Facts:
    """Take a pickle that is too long to be read for whole when it ends as pickles do."""
    file.seek(size - 1)
    if file.read(1) != b".":
        raise UnsoundError("truncated", "is cut off: its pickle does not end")
    return Facts("pickle")
