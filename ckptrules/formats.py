"""Tells a file's format by its first bytes and checks it; nothing of it is executed."""

from __future__ import annotations

import ast
import json
import math
import os
import re
from collections.abc import Callable
from typing import BinaryIO

from ckptrules.content import Facts, Tell, UnsoundError
from ckptrules.torchfile import check_legacy, check_zip

HEAD = 16
LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
LONGEST_NUMPY_HEADER = 100_000
_SUPERBLOCKS = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}  # where the width of an address is, and the first
HDF5 = b"\x89HDF\r\n\x1a\n"


def open_file(directory: int, path: str) -> BinaryIO:
    """Open a file below a directory for reading. A link is refused, a pipe does not block.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, dir_fd=directory), "rb")


def check_file(file: BinaryIO, size: int, tell: Tell, *, quick: bool) -> Facts:
    """Check one file. Args: ``size`` in bytes, ``quick`` leaves the checksums out.

    Raises:
        UnsoundError: it is no whole file of a known format; ``unknown_format`` where the first bytes fit none.
        OSError: it cannot be read.
    """
    head = file.read(HEAD)
    file.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return check_zip(file, tell, quick=quick)
    for fits, check in _FORMATS:
        if fits(head):
            facts = check(file, size)
            tell(size)
            return facts
    if not head.strip(b"\0"):
        raise UnsoundError("damaged", "begins with nothing but zeros: a crash or a bad disk leaves such files")
    raise UnsoundError(
        "unknown_format", "is in no format that is known: neither torch nor safetensors, HDF5, numpy, pickle"
    )


def check_safetensors(file: BinaryIO, size: int) -> Facts:
    """Check header and size (https://huggingface.co/docs/safetensors, "Format"); there are no checksums."""
    length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise UnsoundError("truncated", "is cut off inside its header")
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise UnsoundError("damaged", "its header is damaged") from None
    return _of_size("safetensors", size, expected, exact=True)


def check_hdf5(file: BinaryIO, size: int) -> Facts:
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
    return _of_size("HDF5", size, int.from_bytes(block[end - width : end], "little"))


def check_numpy(file: BinaryIO, size: int) -> Facts:
    """Check the header and the size that follows from it (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""
    wide = file.read(8)[6:7] > b"\x01"
    length = int.from_bytes(file.read(4 if wide else 2), "little")
    if not 0 < length <= LONGEST_NUMPY_HEADER:
        raise UnsoundError("damaged", "its numpy header is damaged")
    try:
        header = ast.literal_eval(file.read(length).decode("latin-1").strip())
        item = re.fullmatch(r"[<>|=]?[a-zA-Z](\d+)", str(header["descr"]))
        count = math.prod(int(side) for side in header["shape"])
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError):
        raise UnsoundError("damaged", "its numpy header is damaged") from None
    characters = 4 if "U" in str(header["descr"]) else 1
    return _of_size("numpy", size, file.tell() + (count * characters * int(item[1]) if item else 0))


def _of_size(kind: str, size: int, expected: int, *, exact: bool = False) -> Facts:
    if size < expected:
        raise UnsoundError("truncated", f"is cut off: it has {size} bytes and should have {expected}")
    if exact and size > expected:
        raise UnsoundError("damaged", f"has {size - expected} bytes too many")
    return Facts(kind)


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], Facts]], ...] = (
    (lambda head: head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER, check_safetensors),
    (lambda head: head.startswith(HDF5), check_hdf5),
    (lambda head: head.startswith(b"\x93NUMPY"), check_numpy),
    (lambda head: head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05", check_legacy),
)
