"""How much room there is for copies and archives, and what would not fit."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable

from ckptrules.engine.entries import Item
from ckptrules.engine.measures import human_size
from ckptrules.storage.posix import Disk

SPARE = 1 << 20  # bytes that are left over


def free(folder: str) -> int:
    """Return the bytes that are free in a folder, as `Storage.free`; where there is no limit, more than anybody needs.

    Raises:
        OSError: that is not known.
    """
    there = Disk(_there(folder)).free()
    return sys.maxsize if there is None else there


def room(folder: str) -> int:
    """Return the bytes that files may take in a folder, a few left over; errors as of `free`."""
    return max(0, free(folder) - SPARE)


def block(folder: str) -> int:
    """Return the step in which the file system of a folder gives space away."""
    return os.statvfs(_there(folder)).f_frsize or 1


def _there(folder: str) -> str:
    """Return a folder, or the one above it where it is still to be made."""
    return folder if os.path.lexists(folder) else os.path.dirname(os.path.abspath(folder))


def taken(size: int, block: int) -> int:
    """Return the bytes of a disk that a file of some bytes takes, or a directory or a link of none."""
    return -(-size // block) * block or block


def needed(items: Iterable[Item], folder: str) -> int:
    """Add up the bytes that copies take in a folder; holes take none."""
    step = block(folder)
    return sum(taken(item.size - item.holes, step) for item in items)


def refuse_more(needed: int, there: int, folder: str) -> None:
    """Refuse what needs more bytes than are there.

    Raises:
        OSError: ENOSPC, with how much is needed, and how much there is.
    """
    if needed > there:
        fact = f"needs {human_size(needed)} in {folder}, but only {human_size(there)} are free"
        raise OSError(errno.ENOSPC, fact)
