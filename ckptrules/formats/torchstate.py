"""The paths inside a torch file: where they stand, and the recipe for a file with others in their place.

Nothing is unpickled: the strings of ``data.pkl`` are found by its opcodes. The recipe is a list of parts: bytes, or
ranges of the old file. The tensors' bytes are never looked at, and each stays at a multiple of the alignment that torch
gave it, so that it can be mapped into memory. Written after ``torch/serialization.py`` of torch 2.13,
``caffe2/serialize/inline_container.cc`` and APPNOTE.TXT 6.3.10 of the zip format, and seen on files of torch.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import BinaryIO

from ckptrules.engine.actions import Piece, Rewrite
from ckptrules.formats.machine import TooLongError, UnreadableError
from ckptrules.formats.pickled import LONGEST_PICKLE, MOST_OPCODES, Contents, Limited, read_pickle
from ckptrules.formats.zips import BROKEN_ZIP, open_entry, open_zip

ALIGNMENT = 64  # bytes, where a file does not say
LOCAL, DESCRIPTOR, CENTRAL, END64, LOCATOR64, END = (
    b"PK\x03\x04", b"PK\x07\x08", b"PK\x01\x02", b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06",
)  # fmt: skip
LOCAL_SIZE, CENTRAL_SIZE = 30, 46
HAS_DESCRIPTOR = 0x8
IN_ZIP64 = 0xFFFFFFFF
PADDING = b"FB"  # the id of the extra field that torch pads with
PADDING_HEAD, LONGEST_PADDING = 4, 0xFFFF
_LENGTHS = {"SHORT_BINUNICODE": "<B", "BINUNICODE": "<I", "BINUNICODE8": "<Q"}
_DAMAGED = (*BROKEN_ZIP, LookupError, TypeError)


class NotRewritableError(Exception):
    """A file whose paths cannot be edited; the message is one fact."""


def read_state(file: BinaryIO) -> Contents:
    """Read the pickle of a torch file, and nothing else of it.

    Raises:
        UnreadableError: it is no torch zip file, or damaged, or longer than is read.
    """
    try:
        archive = open_zip(file)
        state = next(entry for entry in archive.infolist() if _is_state(entry.filename))
        with open_entry(archive, state) as content:
            return read_pickle(Limited(content))
    except UnreadableError:
        raise
    except StopIteration:
        raise UnreadableError("it is no zip file of torch") from None
    except _DAMAGED:
        raise UnreadableError("it is no zip file of torch, or damaged") from None


def rewrite(file: BinaryIO, change: Callable[[str], str | None]) -> Rewrite:
    """Return how to write a torch file anew with some of its texts changed.

    Args:
        file: the torch file.
        change: returns what is to stand in place of a text, or None where that stays.

    Raises:
        NotRewritableError: it is no torch zip file, or not written as torch does.
    """
    try:
        archive = open_zip(file)
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        at = next(n for n, entry in enumerate(entries) if _is_state(entry.filename))
        state = entries[at]
        if state.compress_type != zipfile.ZIP_STORED or state.file_size > LONGEST_PICKLE:
            raise NotRewritableError("its state is compressed, or too long to be read")
        old = archive.read(state)
        new, changes = edit(old, change)
        if not changes:
            return Rewrite((), {})
        alignment = _alignment(archive, state.filename)
        return Rewrite(_parts(file, archive.start_dir, entries, at, new, alignment), changes)
    except StopIteration:
        raise NotRewritableError("is no zip file of torch") from None
    except TooLongError:
        raise NotRewritableError("its state is compressed, or too long to be read") from None
    except _DAMAGED:
        raise NotRewritableError("is no zip file of torch, or damaged") from None


def edit(data: bytes, change: Callable[[str], str | None]) -> tuple[bytes, dict[str, str]]:
    """Change texts in a pickle, and return the new one with what was changed: old → new.

    Raises:
        NotRewritableError: it is framed, as no checkpoint of torch is.
        TooLongError: it has more opcodes than are read.
        ValueError: it is damaged.
    """
    changes: dict[str, str] = {}
    parts: list[bytes] = []
    done = 0
    for number, (opcode, argument, at) in enumerate(pickletools.genops(io.BytesIO(data))):
        if number == MOST_OPCODES:
            raise TooLongError
        if opcode.name == "FRAME":
            raise NotRewritableError("its state is framed (pickle protocol 4), which torch does not write")
        if opcode.name in _LENGTHS and at is not None and isinstance(argument, str):
            other = change(argument)
            if other is not None and other != argument:
                head = 1 + struct.calcsize(_LENGTHS[opcode.name])
                length = struct.unpack_from(_LENGTHS[opcode.name], data, at + 1)[0]
                parts += [data[done:at], _text(other)]
                done = at + head + length
                changes[argument] = other
    return b"".join([*parts, data[done:]]), changes


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _is_state(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _alignment(archive: zipfile.ZipFile, state: str) -> int:
    """Return what the tensors' places are multiples of: a small number, as its padding must fit between entries."""
    try:
        with archive.open(state.removesuffix("data.pkl") + ".storage_alignment") as content:
            said = int(content.read(len(str(LONGEST_PADDING)) + 1))
    except KeyError:
        return ALIGNMENT
    if not 0 <= said <= LONGEST_PADDING // 2:
        raise NotRewritableError("was not written by torch: its tensors' places are multiples of too large a number")
    return max(1, said)


def _parts(
    file: BinaryIO, directory: int, entries: list[zipfile.ZipInfo], at: int, new: bytes, alignment: int
) -> tuple[Piece, ...]:
    """List the parts: what is before the pickle, the pickle, the next header with other padding, all the rest."""
    state, follower = entries[at], entries[at + 1]
    head, start = _local_header(file, state)
    old_end = start + state.file_size
    descriptor = _descriptor(file, old_end, follower.header_offset, new, state)
    flags = struct.unpack_from("<H", head, 6)[0]
    if not flags & HAS_DESCRIPTOR:
        head = head[:14] + struct.pack("<III", _checksum(new, state), len(new), len(new)) + head[26:]
    next_head, next_start = _local_header(file, follower)
    name_length, extra_length = struct.unpack_from("<HH", next_head, 26)
    extra = next_head[LOCAL_SIZE + name_length :]
    if extra and (extra[:2] != PADDING or struct.unpack_from("<H", extra, 2)[0] != extra_length - 4):
        raise NotRewritableError("was not written by torch: an entry has other fields than padding")
    next_at = start + len(new) + len(descriptor)
    bare = next_head[:28] + b"\0\0" + next_head[LOCAL_SIZE : LOCAL_SIZE + name_length]
    shift = _shift(next_start - (next_at + len(bare)), alignment)
    padding = next_start + shift - next_at - len(bare)
    padded = bare[:28] + struct.pack("<H", padding) + bare[LOCAL_SIZE:] + _padding(padding)
    offsets = {entry.header_offset: entry.header_offset + shift for entry in entries[at + 2 :]}
    offsets[follower.header_offset] = next_at
    end = _end(file, directory, offsets, state, new, shift)
    return ((0, state.header_offset), head, new, descriptor, padded, (next_start, directory), end)


def _shift(room: int, alignment: int) -> int:
    """Return by how much the rest of the file moves: by nothing where the padding can take up the difference."""
    if room < PADDING_HEAD:
        return -(-(PADDING_HEAD - room) // alignment) * alignment
    return min(0, (LONGEST_PADDING - room) // alignment * alignment)


def _padding(length: int) -> bytes:
    return PADDING + struct.pack("<H", length - PADDING_HEAD) + b"Z" * (length - PADDING_HEAD)


def _local_header(file: BinaryIO, entry: zipfile.ZipInfo) -> tuple[bytes, int]:
    """Return an entry's header, and where its bytes begin."""
    file.seek(max(0, entry.header_offset))
    head = file.read(LOCAL_SIZE)
    if head[:4] != LOCAL:
        raise zipfile.BadZipFile
    head += file.read(sum(struct.unpack_from("<HH", head, 26)))
    return head, entry.header_offset + len(head)


def _descriptor(file: BinaryIO, start: int, end: int, new: bytes, state: zipfile.ZipInfo) -> bytes:
    """Return what stands behind the pickle's bytes and says their number again."""
    file.seek(start)
    old = file.read(end - start) if 0 <= end - start <= 24 else b"?"  # noqa: PLR2004 - the longest there is
    if not old:
        return b""
    form = {16: "<III", 24: "<IQQ"}.get(len(old))
    if old[:4] != DESCRIPTOR or form is None:
        raise NotRewritableError("was not written by torch: something stands between its entries")
    return DESCRIPTOR + struct.pack(form, _checksum(new, state), len(new), len(new))


def _checksum(new: bytes, state: zipfile.ZipInfo) -> int:
    """Return the checksum; none where torch was told to write none."""
    return zlib.crc32(new) if state.CRC else 0


def _end(
    file: BinaryIO, directory: int, offsets: dict[int, int], state: zipfile.ZipInfo, new: bytes, shift: int
) -> bytes:
    """Return the directory at the end of the file and what follows it, with the new places."""
    file.seek(directory)
    data = bytearray(file.read())
    at = 0
    while data[at : at + 4] == CENTRAL:
        name, extra, comment = struct.unpack_from("<HHH", data, at + 28)
        fields = slice(at + CENTRAL_SIZE + name, at + CENTRAL_SIZE + name + extra)
        if data[at + CENTRAL_SIZE : fields.start].decode("utf-8") == state.filename:
            struct.pack_into("<III", data, at + 16, _checksum(new, state), len(new), len(new))
        _move(data, at, fields, offsets)
        at = fields.stop + comment
    if data[at : at + 4] == END64:
        (start,) = struct.unpack_from("<Q", data, at + 48)
        struct.pack_into("<Q", data, at + 48, start + shift)
        at += 12 + struct.unpack_from("<Q", data, at + 4)[0]
        if data[at : at + 4] != LOCATOR64:
            raise zipfile.BadZipFile
        (start,) = struct.unpack_from("<Q", data, at + 8)
        struct.pack_into("<Q", data, at + 8, start + shift)
        at += 20
    if data[at : at + 4] != END:
        raise zipfile.BadZipFile
    (start,) = struct.unpack_from("<I", data, at + 16)
    if start != IN_ZIP64:
        struct.pack_into("<I", data, at + 16, start + shift)
    return bytes(data)


def _move(data: bytearray, at: int, fields: slice, offsets: dict[int, int]) -> None:
    """Give one record of the directory its new place, which may stand in its zip64 field."""
    compressed, size = struct.unpack_from("<II", data, at + 20)
    (offset,) = struct.unpack_from("<I", data, at + 42)
    if offset != IN_ZIP64:
        struct.pack_into("<I", data, at + 42, offsets.get(offset, offset))
        return
    field = fields.start
    while field < fields.stop:
        identity, length = struct.unpack_from("<HH", data, field)
        if identity == 1:
            place = field + 4 + 8 * ((size == IN_ZIP64) + (compressed == IN_ZIP64))
            (offset,) = struct.unpack_from("<Q", data, place)
            struct.pack_into("<Q", data, place, offsets.get(offset, offset))
            return
        field += 4 + length
    raise zipfile.BadZipFile
