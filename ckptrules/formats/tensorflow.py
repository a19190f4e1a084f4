"""Checks checkpoints of TensorFlow: ``X.index`` says where each tensor lies in ``X.data-NNNNN-of-NNNNN``.

The index is a table of LevelDB (https://github.com/google/leveldb/blob/main/doc/table_format.md). Its values are
messages of ``tensorflow/core/protobuf/tensor_bundle.proto``. ``X.meta``, of TensorFlow 1, is one message.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from ckptrules.formats.content import FileContent, Format, Progress, UnsoundError, check_size, errors_as_faults
from ckptrules.formats.files import HEAD, open_file
from ckptrules.formats.limits import NotReadError

LONGEST = 8 * 2**20  # bytes; a tensor takes some 100 of an index
MOST_BLOCKS = 10_000  # of 256 KB or less each
MOST_TENSORS = 200_000
MOST_SHARDS = 99_999  # their names have five digits
LONGEST_VARINT = 10  # bytes
FOOTER = 48  # bytes: where the last two blocks are, and how a table ends
END = bytes.fromhex("57fb808b247547db")
TRAILER = 5  # bytes after each block: how it is packed, and a checksum
POLYNOMIAL = 0x82F63B78  # of CRC-32C (RFC 3720, appendix B.4), bits reversed
_BEGINS = re.compile(rb"\0\0[\x06-\x20]\x08.{1,8}\x1a\x02\x08", re.DOTALL)  # the number of shards, the version
_BESIDE_INDEX = re.compile(r"(.+)\.(?:meta|data-\d{5}-of-\d{5})", re.DOTALL)


def check_index(file: BinaryIO, size: int, progress: Progress, quick: bool) -> FileContent:  # noqa: FBT001 - as `Format.check`
    """Check that an index is whole and, unless ``quick``, its checksums."""
    _read_index(file, size, progress, quick=quick)
    return FileContent("TensorFlow", checksums=not quick)


def shards_of(directory: int, stem: str, progress: Progress, *, quick: bool) -> Mapping[str, int]:
    """Return the data files that an index names: by the ending behind the stem, the bytes that each must have.

    Empty, if the file is no index of TensorFlow.

    Raises:
        UnsoundError: the index is cut off or damaged.
        FileNotFoundError: there is no index.
    """
    with open_file(directory, f"{stem}.index") as file:
        if not INDEX.fits(file.read(HEAD)):
            return {}
        file.seek(0)
        count, ends = _read_index(file, os.fstat(file.fileno()).st_size, progress, quick=quick)
    return {f".data-{shard:05d}-of-{count:05d}": ends.get(shard, 0) for shard in range(count)}


def check_beside_index(directory: int, path: str, size: int, progress: Progress) -> FileContent | None:
    """Check a data file or graph by the index beside it; None, if the path is neither.

    The checksums of the index are left out, as the index is checked as a file of its own.

    Raises:
        UnsoundError: the file or the index is cut off or damaged.
    """
    if not (match := _BESIDE_INDEX.fullmatch(path)):
        return None
    ending = path.removeprefix(match[1])
    with contextlib.suppress(FileNotFoundError), errors_as_faults(progress) as guarded:
        shards = shards_of(directory, match[1], guarded, quick=True)
        if ending in shards:
            return check_size("TensorFlow", size, shards[ending])
        if shards and ending == ".meta":
            with open_file(directory, path) as file:
                _numbers_in(_whole(file, size))
            return FileContent("TensorFlow")
    return None


def _whole(file: BinaryIO, size: int) -> bytes:
    if size > LONGEST:
        raise NotReadError(f"an index, or a graph, of more than {LONGEST >> 20} MB is not read")
    return file.read(size)


def _read_index(file: BinaryIO, size: int, progress: Progress, *, quick: bool) -> tuple[int, Mapping[int, int]]:
    """Return the number of data files, and where the last tensor of each ends."""
    data = _whole(file, size)
    if not data.endswith(END):
        raise UnsoundError("truncated", "is cut off: the end of its index is missing")
    names_at, names, blocks_at, blocks = _varints(data[-FOOTER : -len(END)].rstrip(b"\0"))
    values = itertools.islice(_values(data, blocks_at, blocks), MOST_BLOCKS)
    places = [tuple(_varints(value)) for value in values]
    at = 0
    for start, length in (*places, (names_at, names), (blocks_at, blocks)):
        progress(0)
        if start != at:
            raise UnsoundError("damaged", "its index has blocks that overlap, or leave a gap")
        at += length + TRAILER
        if not quick and _checksum(data[start : at - 4]) != int.from_bytes(data[at - 4 : at], "little"):
            raise UnsoundError("damaged", "its index has a block of another checksum")
    if at != len(data) - FOOTER:
        raise UnsoundError("damaged", "its index has blocks that overlap, or leave a gap")
    return _ends(_numbers_in(value) for start, length in places for value in _values(data, start, length))


def _ends(messages: Iterator[Mapping[int, int]]) -> tuple[int, Mapping[int, int]]:
    """Read the header (``BundleHeaderProto``) and the tensors (``BundleEntryProto``) of an index."""
    count = next(messages, {}).get(1, 0)
    if not 0 < count <= MOST_SHARDS:
        raise UnsoundError("damaged", "its index speaks of data that cannot be")
    ends: dict[int, int] = {}
    for read, entry in enumerate(messages):
        shard, end = entry.get(3, 0), entry.get(4, 0) + entry.get(5, 0)
        if read == MOST_TENSORS:
            raise NotReadError(f"an index of more than {MOST_TENSORS} tensors is not read")
        if shard >= count:
            raise UnsoundError("damaged", "its index speaks of data that cannot be")
        ends[shard] = max(ends.get(shard, 0), end)
    return count, ends


def _values(data: bytes, start: int, length: int) -> Iterator[bytes]:
    """Yield the values in a block of a table, without their keys."""
    if data[start + length] != 0:
        raise NotReadError("an index that is packed is not read")
    end = start + length - 4
    end -= 4 * int.from_bytes(data[end : end + 4], "little")  # without the restart points
    at = start
    while at < end:
        _, at = _varint(data, at)
        key, at = _varint(data, at)
        size, at = _varint(data, at)
        at += key + size
        yield data[at - size : at]
    if at != end:
        raise UnsoundError("damaged", "its index has a damaged block")


def _numbers_in(message: bytes) -> Mapping[int, int]:
    """Return the integers in a message, by the numbers of their fields."""
    found: dict[int, int] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number = 0
        if key & 7 in (0, 2):  # an integer, or the length of a value
            number, at = _varint(message, at)
        at += {0: 0, 1: 8, 2: number, 5: 4}[key & 7]
        if key & 7 == 0:
            found[key >> 3] = number
    if at > len(message):
        raise UnsoundError("truncated", "is cut off: a message in it is longer than what is there")
    return found


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        number, at = _varint(data, at)
        yield number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return an integer with seven bits a byte, and where it ends."""
    number = 0
    for place in range(LONGEST_VARINT):
        byte = data[at + place]
        number |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return number, at + place + 1
    raise UnsoundError("damaged", "it holds a damaged number")


def _checksum(data: bytes) -> int:
    """Return CRC-32C as LevelDB stores it: rotated, and with a constant added."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _table() -> list[int]:
    """Return the CRC-32C of each byte."""
    table = list(range(256))
    for _ in range(8):
        table = [row >> 1 ^ POLYNOMIAL * (row & 1) for row in table]
    return table


INDEX = Format("TensorFlow", lambda head: bool(_BEGINS.match(head)), check_index, glance=check_index)
