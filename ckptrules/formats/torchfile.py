"""Checks the two formats of ``torch.save`` without torch: a zip file or, before torch 1.6, pickles and raw numbers.

Written after ``torch/serialization.py`` of torch 2.13 (``_save``, ``_legacy_load``), and tried on its files.
"""

from __future__ import annotations

import itertools
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

from ckptrules.formats.content import (
    CHUNK,
    FileContent,
    Format,
    Progress,
    UnsoundError,
    check_size,
    errors_as_faults,
    faults_of_part,
)
from ckptrules.formats.machine import TensorData
from ckptrules.formats.numpyfile import check_numpy
from ckptrules.formats.pickled import Contents, Limited, content_of, is_cut_off, read_pickle
from ckptrules.formats.zips import BROKEN_ZIP, open_entry, open_zip, refuse_bomb, state_of

PICKLE = re.compile(
    rb"\x80[\2-\5]"
    rb"|\([dl]p\d+\n|[}\]]q\0"  # a dictionary or a list in protocol 0, and in protocol 1
    rb"|c(?:argparse|collections|copy_reg|numpy|torch|__main__)[\w.]*\n\w+\n[()pq]"  # an object in these
)
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
ELEMENT_BYTES: Mapping[str, int] = {
    "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "UntypedStorage": 1, "QInt8Storage": 1, "QUInt8Storage": 1,
    "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
    "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "QInt32Storage": 4,
    "LongStorage": 8, "DoubleStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
MASKED = 0x2000  # a flag of an entry: the directory hides its size and checksum
IS_FOLDER = 0x10  # an attribute of an entry
LOCAL_HEADER = 30  # bytes before each entry, at least
NO_END = "is cut off, or was never finished: the directory at its end is missing"


def check_zip(file: BinaryIO, _: int, progress: Progress, quick: bool) -> FileContent:  # noqa: FBT001 - as `Format.check`
    """Check a zip file: its directory, its checksums unless ``quick``, its arrays or the tensors of torch."""
    try:
        archive = open_zip(file)
        entries = archive.infolist()
    except BROKEN_ZIP:
        raise UnsoundError("truncated", NO_END) from None
    state = state_of(archive)
    _check_directory(archive, entries)
    names = [entry.filename.lower() if state else entry.filename for entry in entries]  # torch ignores case
    if len({*names}) < len(names):
        raise UnsoundError("damaged", "has two entries of one name: readers may disagree on what it holds")
    _check_end(file, archive)
    refuse_bomb(archive, entries)
    checksums = any(entry.CRC for entry in entries)
    _read_all(archive, filter(None, [state]) if quick else entries, progress)
    is_numpy = all(entry.filename.endswith(".npy") for entry in entries)
    kind = "torch" if state else "numpy" if is_numpy else "zip"
    if kind == "numpy":
        _check_arrays(archive, entries, progress)
    elif state and state.filename.replace("data.pkl", "constants.pkl") in names:
        kind = "TorchScript"
    contents = _torch_contents(archive, entries, state, progress) if state else None
    return content_of(kind, contents, checksums=checksums and not quick)


def glance_at_zip(file: BinaryIO, *_: object) -> None:
    """Check that there is a directory at the end."""
    if not zipfile.is_zipfile(file):
        raise UnsoundError("truncated", NO_END)


def glance_at_pickle(file: BinaryIO, *_: object) -> None:
    """Check that the pickle at the beginning has an end."""
    if is_cut_off(file):
        raise UnsoundError("truncated", "is cut off: its pickle has no end")


def check_legacy(file: BinaryIO, size: int, progress: Progress, *__: object) -> FileContent:
    """Check a pickle, or a file of torch before 1.6: pickles, then the bytes of the tensors. Neither has checksums."""
    limited = Limited(file, progress)
    contents = read_pickle(limited)
    if contents.value != MAGIC_NUMBER:
        return content_of("pickle", contents)
    for _ in ("protocol version", "system"):
        read_pickle(limited)
    contents, keys = read_pickle(limited), read_pickle(limited).value
    check_size("torch before 1.6", size, _end_of_tensors(file, size, keys, contents.storages, progress))
    return content_of("torch before 1.6", contents)


def _check_directory(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Check that every entry has a place of its own in the file."""
    if not entries:
        raise UnsoundError("damaged", "holds nothing: its directory is empty")
    for entry in entries:
        if entry.header_offset < 0 or entry.header_offset + entry.compress_size > archive.start_dir:
            raise UnsoundError("truncated", "is cut off: an entry of its directory lies outside of it")
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise UnsoundError("damaged", "has an entry that is stored as it is, with two sizes")
        if entry.volume or entry.flag_bits & MASKED or (entry.file_size and entry.external_attr & IS_FOLDER):
            raise UnsoundError("damaged", f"has a damaged directory, at '{entry.filename[:80]}'")
    by_place = sorted(entries, key=lambda entry: entry.header_offset)
    for entry, following in itertools.pairwise(by_place):
        if entry.header_offset + LOCAL_HEADER + entry.compress_size > following.header_offset:
            raise UnsoundError("damaged", "has entries that overlap")


def _check_end(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Compare the end record with the directory as read: a damaged length in a directory may hide entries."""
    file.seek(archive.start_dir)
    data, start, count = file.read(), archive.start_dir, len(archive.infolist())
    end = data.rfind(b"PK\x05\x06")
    size = end - 76 if data[end - 20 : end].startswith(b"PK\x06\x07") else end  # of large files
    longer = struct.pack("<2L4Q4sLQL", 0, 0, count, count, size, start, b"PK\x06\x07", 0, start + size, 1)
    numbers = struct.unpack_from("<4H2L", data, end + 4)
    pairs = zip(numbers, (0, 0, count, count, size, start), (0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2), strict=True)
    if data[size + 16 : end] not in (b"", longer) or any(one not in (real, most) for one, real, most in pairs):
        raise UnsoundError("damaged", "has a damaged directory: its end disagrees with it")


def _read_all(archive: zipfile.ZipFile, entries: Iterable[zipfile.ZipInfo], progress: Progress) -> None:
    """Read every entry to its end, and compare its checksum four times as fast as `zipfile` does."""
    from isal.isal_zlib import crc32  # here, as most commands compare no checksums

    for entry in entries:
        progress(0)
        expected, entry.CRC = entry.CRC, None  # type: ignore[assignment] # then `zipfile` computes none
        read = checksum = 0
        try:
            with archive.open(entry) as content:
                while chunk := content.read(CHUNK):
                    read += len(chunk)
                    checksum = crc32(chunk, checksum)
                    progress(len(chunk))
        except BROKEN_ZIP:
            read = -1
        if read != entry.file_size or expected not in (None, checksum):
            hint = "its bytes have changed since it was written: take it from a copy"
            raise UnsoundError("damaged", f"is damaged in '{entry.filename[:80]}'", hint)


def _check_arrays(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], progress: Progress) -> None:
    """Check that every array of numpy is as long as its header says."""
    for entry in entries:
        with faults_of_part(entry.filename[:80]), errors_as_faults(progress) as guarded:
            check_numpy(open_entry(archive, entry), entry.file_size, guarded)


def _torch_contents(
    archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], state: zipfile.ZipInfo, progress: Progress
) -> Contents:
    """Read ``data.pkl``, and check that all tensors are there that it names."""
    with open_entry(archive, state) as content:
        contents = read_pickle(Limited(content, progress))
    folder = f"{state.filename.removesuffix('data.pkl')}data/"
    sizes = {e.filename.removeprefix(folder): e.file_size for e in entries if e.filename.startswith(folder)}
    for storage in contents.storages.values():
        size = sizes.get(storage.key)
        if size is None or size < storage.elements * _element_bytes(storage):
            fact = "lacks" if size is None else "has too few bytes for"
            raise UnsoundError("incomplete", f"{fact} the tensor data '{storage.key[:80]}'")
    return contents


def _element_bytes(storage: TensorData) -> int:
    """Return the bytes of one element; 0 if its type is unknown."""
    return ELEMENT_BYTES.get(storage.type.rpartition(".")[2], 0)


def _end_of_tensors(
    file: BinaryIO, size: int, keys: object, storages: Mapping[str, TensorData], progress: Progress
) -> int:
    """Return where the file should end. The pickles are followed, for each tensor, by a count and its elements.

    The count has 8 bytes, and stands in the pickle as well.
    """
    at = file.tell()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len({*keys}) != len(keys):
        raise UnsoundError("damaged", "its list of tensors is damaged")
    if {*keys} != storages.keys():
        raise UnsoundError("incomplete", "its list of tensors is not that of its pickle")
    for key in keys:
        progress(0)
        if at + 8 <= size:
            file.seek(at)
            if int.from_bytes(file.read(8), "little") != storages[key].elements:
                fact = f"has another number of elements for the tensor '{key[:80]}' than it says"
                raise UnsoundError("damaged", fact)
        at += 8 + storages[key].elements * _element_bytes(storages[key])
    return at


ZIP = Format("torch", lambda head: head.startswith(b"PK\x03\x04"), check_zip, glance_at_zip)
LEGACY = Format("pickle", lambda head: bool(PICKLE.match(head)), check_legacy, glance_at_pickle)
