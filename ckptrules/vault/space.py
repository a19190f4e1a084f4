"""Compares the free space of disks with the needs of copies and archives."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable

from ckptrules.engine.entries import Item
from ckptrules.engine.measures import human_size
from ckptrules.storage.posix import Disk

SPARE = 1 << 20  # bytes that must stay free


def free(folder: str) -> int:
    """Return the bytes that are free in a folder, as `Storage.free`; `sys.maxsize` if no limit is known."""
    there = Disk(_existing(folder)).free()
    return sys.maxsize if there is None else there


def room(folder: str) -> int:
    """Return the bytes that files may take in a folder: the free ones but `SPARE`."""
    return max(0, free(folder) - SPARE)


def block(folder: str) -> int:
    """Return the block size of the file system of a folder."""
    return os.statvfs(_existing(folder)).f_frsize or 1


def _existing(folder: str) -> str:
    """Return a folder, or the one above if it is still to be made."""
    return folder if os.path.lexists(folder) else os.path.dirname(os.path.abspath(folder))


def allocated(size: int, block: int) -> int:
    """Return the bytes that a file takes on a disk, in whole blocks; at least one, as directories and links do."""
    return -(-size // block) * block or block


def needed(items: Iterable[Item], folder: str) -> int:
    """Return the bytes that copies take in a folder; holes take none."""
    step = block(folder)
    return sum(allocated(item.size - item.holes, step) for item in items)


def refuse_more(needed: int, there: int, folder: str) -> None:
    """Raise ENOSPC, with both numbers, if more bytes are needed than are there."""
    if needed > there:
        fact = f"needs {human_size(needed)} in {folder}, but only {human_size(there)} are free"
        raise OSError(errno.ENOSPC, fact)
