"""Reads pickles without running anything: nothing is imported, called or unpickled."""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from ckptrules.machine import LONGEST_NUMBER, Machine, Made, Storage, TooLongError, UnreadableError

LONGEST_PICKLE = 32 * 2**20  # bytes; that of a checkpoint with 10,000 tensors has 2 MB
LONGEST_LINE = 4096  # of the opcodes of protocol 0, whose values end with a line


class Contents(NamedTuple):
    """What one pickle holds.

    ``names`` are all that a real unpickler would import; ``states`` are the dictionaries that objects would have
    been filled with and that have a ``relative_path`` (the shards of torch.distributed.checkpoint).
    """

    value: object
    names: frozenset[str]
    storages: Mapping[str, Storage]
    states: tuple[Mapping[object, object], ...]

    @property
    def fields(self) -> Mapping[object, object]:
        """The entries of the value, where it is a dictionary or what stands for one."""
        value = self.value.items if isinstance(self.value, Made) else self.value
        return value if isinstance(value, dict) else {}

    def number(self, key: str) -> int | None:
        """Return an entry that is a whole number of 0 or more and fits in 63 bits, else None."""
        value = self.fields.get(key)
        return value if type(value) is int and value >= 0 and value.bit_length() <= LONGEST_NUMBER else None


class Limited:
    """A file that gives no more than a number of bytes, and no long lines; ``pickletools`` reads from it.

    Raises:
        TooLongError: more was asked for.
        UnreadableError: a line is too long.
    """

    def __init__(self, file: BinaryIO, limit: int = LONGEST_PICKLE) -> None:
        self._file = file
        self._left = limit

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer where the file ends."""
        if not 0 <= count <= self._left:
            raise TooLongError(f"a pickle of more than {LONGEST_PICKLE >> 20} MB is not read")
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        """Read a line."""
        line = self._file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise UnreadableError(f"a line in it is longer than {LONGEST_LINE} bytes")
        self._left -= len(line)
        return line


def read_pickle(file: Limited) -> Contents:
    """Read one pickle; the file is left behind its end.

    Raises:
        UnreadableError: see there.
    """
    machine = Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in protocol 0
            for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type] # any object with read and readline
                machine.run(opcode.name, argument)
    except UnreadableError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError):
        raise UnreadableError("its pickle is damaged or cut off") from None
    return Contents(machine.value, frozenset(machine.names), machine.storages, tuple(machine.states))
