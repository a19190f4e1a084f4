"""The limits within which all readers of files stay, and the errors of files that they cannot read."""

from __future__ import annotations

from typing import TypeGuard

REPORT_EVERY = 4096  # values or opcodes between two reports of progress: some milliseconds
LONGEST_NUMBER = 63  # bits
MOST_SIDES = 64  # of an array: the limit of numpy and of torch


class UnreadableError(ValueError):
    """A file that is damaged, cut off, too long, or holds what no checkpoint needs; the message is one fact."""


class TooLongError(UnreadableError):
    """A file beyond the limits of what is read. Nobody knows whether it is whole."""


def is_count(value: object) -> TypeGuard[int]:
    """Say whether a value is a whole number of 0 or more that fits in 63 bits; true and false are not."""
    return type(value) is int and value >= 0 and value.bit_length() <= LONGEST_NUMBER
