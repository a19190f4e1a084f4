"""The limits within which all readers of files stay, and the error of files beyond them."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, TypeGuard

REPORT_EVERY = 4096  # values or opcodes between two reports of progress: some milliseconds
LONGEST_NUMBER = 63  # bits
MOST_SIDES = 64  # of an array: the limit of numpy and of torch


class NotReadError(Exception):
    """A file beyond the limits of what is read, so nobody knows whether it is whole; the message says why."""


class Bounded:
    """A file of which at most so many bytes are read: `zipfile` and `tarfile` take headers of any length into memory.

    To end that, set ``read`` to that of the file itself. ``progress`` is called with 0 before each read. ``fact`` is
    the text of the error.

    Raises:
        NotReadError: more bytes are read.
    """

    def __init__(self, file: BinaryIO, most: int, fact: str, progress: Callable[[int], object]) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._file, self._left, self._fact, self._progress = file, most, fact, progress
        self.read: Callable[..., bytes] = self._read

    def _read(self, count: int = -1) -> bytes:
        self._progress(0)
        data = self._file.read(self._left + 1 if count < 0 else min(count, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise NotReadError(self._fact)
        return data


def is_count(value: object) -> TypeGuard[int]:
    """Say whether a value is a whole number of 0 or more that fits in 63 bits; true and false are not."""
    return type(value) is int and value >= 0 and value.bit_length() <= LONGEST_NUMBER
