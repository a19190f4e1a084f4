"""Tells a file's format by its first bytes and checks it; nothing of it is executed."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from typing import BinaryIO

from ckptrules.formats.content import Facts, Tell, UnsoundError, of_size, told_as_fault
from ckptrules.formats.machine import TooLongError, UnreadableError, is_count
from ckptrules.formats.numpyfile import MAGIC, check_numpy
from ckptrules.formats.plainjson import LONGEST_JSON, parse
from ckptrules.formats.torchfile import check_legacy, check_zip

HEAD = 16
LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
MOST_SIDES = 64  # of a tensor; the limit of torch
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip # of one number, by its type in safetensors
_SUPERBLOCKS = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}  # where the width of an address is, and the first
HDF5 = b"\x89HDF\r\n\x1a\n"


def open_file(directory: int, path: str) -> BinaryIO:
    """Open a file below a directory for reading. A link is refused, a pipe does not block."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, dir_fd=directory), "rb")


def check_file(file: BinaryIO, size: int, tell: Tell, *, quick: bool) -> Facts:
    """Check one file. What that costs is bounded by its bytes, whatever they say.

    ``tell`` takes the bytes read, and may end the reading by raising something; ``quick`` leaves the checksums out.

    Raises:
        UnsoundError: it is no whole file of a known format; ``unknown_format`` where the first bytes fit none,
            ``not_read`` where it is too long to be understood.
    """
    with told_as_fault(tell) as heard:
        head = file.read(HEAD)
        file.seek(0)
        if head.startswith(b"PK\x03\x04"):
            return check_zip(file, heard, quick=quick)
        for fits, check in _FORMATS:
            if fits(head):
                facts = check(file, size, heard)
                heard(size)
                return facts
        if not head.strip(b"\0"):
            raise UnsoundError("damaged", "begins with nothing but zeros: a crash or a bad disk leaves such files")
        raise UnsoundError(
            "unknown_format", "is in no format that is known: neither torch nor safetensors, HDF5, numpy, pickle"
        )


def check_safetensors(file: BinaryIO, size: int, _: Tell) -> Facts:
    """Check header and size (https://huggingface.co/docs/safetensors, "Format"); there are no checksums.

    The tensors must fill what is behind the header without a gap, each with as many bytes as its shape asks for.
    """
    length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise UnsoundError("truncated", "is cut off inside its header")
    if length > LONGEST_JSON:
        raise TooLongError(f"a header of more than {LONGEST_JSON >> 20} MB is not read")
    try:
        header: dict[str, dict[str, object]] = dict(parse(file.read(length), names_once=True))  # type: ignore[call-overload] # raises where it is none
        places = sorted(_place(entry) for name, entry in header.items() if name != "__metadata__")
    except TooLongError:
        raise
    except (ValueError, TypeError, LookupError):
        raise UnreadableError("its header is damaged") from None
    if any(end != start for (_, end), (start, _) in itertools.pairwise([(0, 0), *places])):
        raise UnsoundError("damaged", "its tensors overlap, or leave a gap")
    return of_size("safetensors", size, 8 + length + (places[-1][1] if places else 0), exact=True)


def _place(entry: dict[str, object]) -> tuple[int, int]:
    """Return where the bytes of a tensor begin and end: whole numbers, as many as type and shape ask for."""
    begin, end = _counts(entry["data_offsets"])
    shape = _counts(entry["shape"])
    bits = BITS.get(str(entry["dtype"]))  # None: a type that is younger than this
    if begin > end or (bits is not None and bits * math.prod(shape) != 8 * (end - begin)):
        raise ValueError
    return begin, end


def _counts(value: object) -> list[int]:
    if not isinstance(value, list) or len(value) > MOST_SIDES or not all(map(is_count, value)):
        raise TypeError
    return value


def check_hdf5(file: BinaryIO, size: int, _: Tell) -> Facts:
    """Check the end-of-file address in the superblock (HDF5 File Format Specification 3.0, section II.A)."""
    block = file.read(64)
    version = block[8] if len(block) > len(HDF5) else None
    if version not in _SUPERBLOCKS:
        raise UnsoundError("damaged", "its HDF5 superblock is damaged")
    width_at, base_at = _SUPERBLOCKS[version]
    width = block[width_at] if len(block) > width_at else 0
    end = base_at + 3 * width  # base address, another, end of file
    if width not in (2, 4, 8) or len(block) < end:
        raise UnsoundError("damaged", "its HDF5 superblock is damaged")
    return of_size("HDF5", size, int.from_bytes(block[end - width : end], "little"))


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int, Tell], Facts]], ...] = (
    (lambda head: head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER, check_safetensors),
    (lambda head: head.startswith(HDF5), check_hdf5),
    (lambda head: head.startswith(MAGIC), check_numpy),
    (lambda head: head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05", check_legacy),
)
