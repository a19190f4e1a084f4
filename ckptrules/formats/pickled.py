"""Reads pickles without running anything: nothing is imported, called or unpickled.

What it costs is bounded: a pickle of 32 MB takes seconds and at most some 350 MB of memory, whatever it holds. The
opcodes of torch have 4 bytes on average and a tensor takes 40, so there is room for 75,000 tensors.
"""

from __future__ import annotations

import os
import pickletools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from ckptrules.formats.machine import Machine, TensorData, TooLongError, UnreadableError, entries_of, is_count

LONGEST_PICKLE = 32 * 2**20  # bytes, without what is passed over; that of a checkpoint with 10,000 tensors has 2 MB
MOST_OPCODES = 3_000_000  # each may leave some 80 bytes in memory; a checkpoint with 10,000 tensors has 400,000
LONGEST_LINE = 4096  # of the opcodes of protocol 0, whose values end with a line
LONGEST_VALUE = 2**20  # bytes; longer ones, such as the numbers of an array, are passed over
OF_JOBLIB = "joblib.numpy_pickle"  # the module of what stands before an array
TELL_EVERY = 4096  # opcodes, some milliseconds

_BY_CODE = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class Contents(NamedTuple):
    """What one pickle holds.

    ``names`` are all that a real unpickler would import; ``states`` are the dictionaries that objects would have
    been filled with and that have a ``relative_path`` (the shards of torch.distributed.checkpoint).
    """

    value: object
    names: frozenset[str]
    storages: Mapping[str, TensorData]
    states: tuple[Mapping[object, object], ...]

    @property
    def fields(self) -> Mapping[object, object]:
        """The entries of the value, where it is a dictionary or what stands for one."""
        return entries_of(self.value)

    def number(self, key: str) -> int | None:
        """Return an entry that is a whole number of 0 or more and fits in 63 bits, else None."""
        value = self.fields.get(key)
        return value if is_count(value) else None


class Limited:
    """A file that gives no more than a number of bytes, of opcodes, and no long lines; ``pickletools`` reads from it.

    Several pickles in one file share the bounds. ``tell`` takes the bytes read, each few thousand opcodes and before
    each mebibyte; what it raises ends the reading.

    Raises:
        TooLongError: more was asked for.
        UnreadableError: a line is too long.
    """

    def __init__(self, file: BinaryIO, tell: Callable[[int], object] = lambda _: None) -> None:
        self._file, self._tell = file, tell
        self._left = LONGEST_PICKLE
        self._opcodes = self._untold = 0

    def next_opcode(self) -> bytes:
        """Read the byte that says which opcode comes; nothing where the file ends."""
        if self._opcodes % TELL_EVERY == 0:
            self._tell(self._untold)
            self._untold = 0
        self._opcodes += 1
        if self._opcodes > MOST_OPCODES:
            raise TooLongError(f"a pickle of more than {MOST_OPCODES // 10**6} million opcodes is not read")
        return self.read(1)

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer where the file ends."""
        if count > LONGEST_VALUE:
            self._pass_over(count)
        if not 0 <= count <= self._left:
            raise TooLongError(f"a pickle of more than {LONGEST_PICKLE >> 20} MB is not read")
        self._left -= count
        self._untold += count
        return self._file.read(count)

    def readline(self) -> bytes:
        """Read a line."""
        line = self._file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise UnreadableError(f"a line in it is longer than {LONGEST_LINE} bytes")
        self._left -= len(line)
        self._untold += len(line)
        return line

    def _pass_over(self, count: int) -> None:
        """Read what is too long to be kept, in pieces: it must be there.

        Raises:
            _PassedOverError: it is.
        """
        while count:
            self._tell(self._untold)
            piece = self._file.read(min(count, LONGEST_VALUE))
            if not piece:
                raise EOFError
            self._untold = len(piece)
            count -= len(piece)
        raise _PassedOverError


class _Skimmed(Limited):
    """As `Limited`; what is too long to be kept is not even read: where it is not there, nothing comes behind it."""

    def _pass_over(self, count: int) -> None:
        self._file.seek(count, os.SEEK_CUR)
        raise _PassedOverError


class _PassedOverError(Exception):
    """A value was too long to be kept, and is all there."""


def is_cut_off(file: BinaryIO) -> bool:
    """Say whether a file ends before the pickle does that it begins with; other bytes may stand behind that."""
    try:
        for _ in _opcodes(_Skimmed(file)):
            pass
    except TooLongError:
        return False
    except (ValueError, IndexError, KeyError, EOFError):
        return not file.read(1)
    return False


def read_pickle(file: Limited) -> Contents:
    """Read one pickle; the file is left behind its end.

    Raises:
        UnreadableError: see there.
    """
    machine = Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in protocol 0
            for name, argument in _opcodes(file):
                machine.run(name, argument)
    except UnreadableError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError):
        raise UnreadableError("its pickle is damaged or cut off") from None
    return Contents(machine.value, frozenset(machine.names), machine.storages, tuple(machine.states))


def _opcodes(file: Limited) -> Iterator[tuple[str, object]]:
    """Yield opcodes and arguments as ``pickletools.genops`` does; None for an argument that was passed over.

    Raises:
        TooLongError: there are more than are read, or bytes that are no opcodes stand between them.
    """
    name = ""
    while name != "STOP":
        opcode = _BY_CODE[file.next_opcode()]
        name = opcode.name
        try:
            argument = opcode.arg.reader(file) if opcode.arg else None  # type: ignore[arg-type] # has read and readline
        except _PassedOverError:
            argument = None
        if isinstance(argument, str) and argument.startswith(OF_JOBLIB):
            raise TooLongError("the arrays that joblib writes between the opcodes of a pickle are not read")
        yield name, argument
