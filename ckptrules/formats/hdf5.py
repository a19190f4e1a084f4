"""Checks HDF5 by its superblock."""

from __future__ import annotations

from typing import BinaryIO

from ckptrules.formats.content import FileContent, Format, UnsoundError, check_size

MAGIC = b"\x89HDF\r\n\x1a\n"
# By version, the places of the width of an address, and of the first address
_SUPERBLOCKS = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}


def check_hdf5(file: BinaryIO, size: int, *_: object) -> FileContent:
    """Check the end-of-file address in the superblock (HDF5 File Format Specification 3.0, section II.A)."""
    block = file.read(64)
    version = block[8] if len(block) > len(MAGIC) else -1
    width_at, base_at = _SUPERBLOCKS.get(version, (len(block), 0))  # other versions are unknown
    width = block[width_at] if len(block) > width_at else 0
    end = base_at + 3 * width  # base address, free space or extension, end of file
    if width not in (2, 4, 8) or len(block) < end:
        raise UnsoundError("damaged", "has a damaged HDF5 superblock")
    return check_size("HDF5", size, int.from_bytes(block[end - width : end], "little"))


HDF5 = Format("HDF5", lambda head: head.startswith(MAGIC), check_hdf5, glance=check_hdf5)
