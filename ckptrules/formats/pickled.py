"""Reads pickles without running anything: nothing is imported, called or unpickled.

A pickle of 32 MB takes seconds and at most some 350 MB of memory, whatever it holds. The opcodes of torch have 4 bytes
on average and a tensor takes 40 opcodes, so there is room for 75,000 tensors.
"""

from __future__ import annotations

import os
import pickletools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from ckptrules.formats.content import FileContent, Progress, UnsoundError
from ckptrules.formats.limits import REPORT_EVERY, NotReadError, is_count
from ckptrules.formats.machine import Machine, TensorData, entries_of

LONGEST_PICKLE = 32 * 2**20  # bytes, without values that are skipped; a checkpoint with 10,000 tensors has 2 MB
MOST_OPCODES = 3_000_000  # each may leave some 80 bytes in memory; a checkpoint with 10,000 tensors has 400,000
LONGEST_LINE = 4096  # bytes; the values of protocol 0 end with a line feed
LONGEST_VALUE = 2**20  # bytes; longer values, such as the numbers of an array, are skipped
USUAL = ("torch.", "collections.OrderedDict")  # every checkpoint of torch imports these
MODULES_THAT_ACT = frozenset("os posix nt sys subprocess shutil socket importlib runpy pty ctypes".split())
ROOTS_THAT_ACT = MODULES_THAT_ACT | {"pdb", "pickle", "webbrowser", "urllib", "requests"}
BUILTINS_THAT_ACT = frozenset("eval exec compile open __import__ input breakpoint execfile apply".split())
OF_JOBLIB = "joblib.numpy_pickle"  # the module of a class that joblib writes before an array

_BY_CODE = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


class Contents(NamedTuple):
    """What one pickle holds.

    Attributes:
        value: the object itself, with stand-ins for all that `pickle` would import or call.
        names: what `pickle` would import, as ``module.attribute``.
        storages: the data of tensors, by their keys.
        states: the states of objects that have a ``relative_path`` (the shards of torch.distributed.checkpoint).
    """

    value: object
    names: frozenset[str]
    storages: Mapping[str, TensorData]
    states: tuple[Mapping[object, object], ...]

    @property
    def fields(self) -> Mapping[object, object]:
        """The entries of the value, if it is a dictionary or the stand-in for one."""
        return entries_of(self.value)

    def number(self, key: str) -> int | None:
        """Return an entry if it is a number as for `is_count`, else None."""
        value = self.fields.get(key)
        return value if is_count(value) else None


class Limited:
    """A file from which ``pickletools`` reads, with limits on bytes, opcodes and the length of lines.

    Several pickles in one file share the limits. ``progress`` takes the number of bytes read, after every few thousand
    opcodes and before every mebibyte of a long value.

    Raises:
        NotReadError: a limit is reached.
        UnsoundError: a line is too long.
    """

    def __init__(self, file: BinaryIO, progress: Progress = lambda _: None) -> None:
        self._file, self._progress = file, progress
        self._left = LONGEST_PICKLE
        self._opcodes = self._unreported = 0

    def next_opcode(self) -> bytes:
        """Read the byte of the next opcode; an empty one at the end of the file."""
        if self._opcodes % REPORT_EVERY == 0:
            self._progress(self._unreported)
            self._unreported = 0
        self._opcodes += 1
        if self._opcodes > MOST_OPCODES:
            raise NotReadError(f"a pickle of more than {MOST_OPCODES // 10**6} million opcodes is not read")
        return self.read(1)

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer at the end of the file."""
        if count > LONGEST_VALUE:
            self._skip(count)
        if not 0 <= count <= self._left:
            raise NotReadError(f"a pickle of more than {LONGEST_PICKLE >> 20} MB is not read")
        self._left -= count
        self._unreported += count
        return self._file.read(count)

    def readline(self) -> bytes:
        """Read a line."""
        line = self._file.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            raise UnsoundError("damaged", f"a line in it is longer than {LONGEST_LINE} bytes")
        self._left -= len(line)
        self._unreported += len(line)
        return line

    def _skip(self, count: int) -> None:
        """Read a long value in pieces, without keeping it.

        Raises:
            _SkippedError: always, at the end of the value.
            EOFError: the file ends before.
        """
        while count:
            self._progress(self._unreported)
            piece = self._file.read(min(count, LONGEST_VALUE))
            if not piece:
                raise EOFError
            self._unreported = len(piece)
            count -= len(piece)
        raise _SkippedError


class _Skimmed(Limited):
    """A `Limited` that does not read long values: if one is cut off, no opcode follows it anyway."""

    def _skip(self, count: int) -> None:
        self._file.seek(count, os.SEEK_CUR)
        raise _SkippedError


class _SkippedError(Exception):
    """A value was too long to be kept."""


def is_cut_off(file: BinaryIO) -> bool:
    """Say whether a file ends before the pickle at its beginning does; other bytes may follow the pickle."""
    try:
        for _ in _opcodes(_Skimmed(file)):
            pass
    except (UnsoundError, ValueError, IndexError, KeyError, EOFError):
        return not file.read(1)
    except NotReadError:
        pass
    return False


def read_pickle(file: Limited) -> Contents:
    """Read one pickle; the file is left at its end.

    Raises:
        UnsoundError: it is damaged, cut off, or uses opcodes that no checkpoint needs.
        NotReadError: a limit is reached.
    """
    machine = Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in protocol 0
            for name, argument in _opcodes(file):
                machine.run(name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError):
        raise UnsoundError("damaged", "its pickle is damaged or cut off") from None
    return Contents(machine.value, frozenset(machine.names), machine.storages, tuple(machine.states))


def _opcodes(file: Limited) -> Iterator[tuple[str, object]]:
    """Yield the name and the argument of each opcode, up to the end of a pickle; None for a long argument.

    Raises:
        UnsoundError: a line that is no text is too long.
        NotReadError: a limit is reached, or arrays of joblib stand between the opcodes.
    """
    name = ""
    while name != "STOP":
        opcode = _BY_CODE[file.next_opcode()]
        name = opcode.name
        try:
            argument = opcode.arg.reader(file) if opcode.arg else None  # type: ignore[arg-type] # has read and readline
        except _SkippedError:
            argument = None
        except UnsoundError:
            if name in ("STRING", "UNICODE"):
                raise NotReadError(f"a text of more than {LONGEST_LINE} bytes in protocol 0 is not read") from None
            raise
        if isinstance(argument, str) and argument.startswith(OF_JOBLIB):
            raise NotReadError("the arrays that joblib writes between the opcodes of a pickle are not read")
        yield name, argument


def content_of(kind: str, contents: Contents | None, *, checksums: bool = False) -> FileContent:
    """Return what a pickle says of its checkpoint; None stands for a file without a pickle.

    Raises:
        UnsoundError: loading the pickle would run code that no checkpoint needs.
    """
    if contents is None:
        return FileContent(kind, checksums=checksums)
    refuse_code(contents.names)
    version = contents.fields.get("pytorch-lightning_version")
    return FileContent(
        kind,
        epoch=contents.number("epoch"),
        step=contents.number("global_step"),
        lightning=version[:20] if isinstance(version, str) else "",
        checksums=checksums,
        names=tuple(sorted(name[:200] for name in contents.names if not name.startswith(USUAL))),
        ranks=contents.number("dp_world_size"),
        counts=next(_counts_of_engines(contents), ()),
    )


def _counts_of_engines(contents: Contents) -> Iterator[tuple[int, ...]]:
    """Yield the counts of each engine of PyTorch-Ignite. Users choose the keys of their states, so try every entry."""
    for value in contents.fields.values():
        state = entries_of(value)
        if not state.keys().isdisjoint(("max_epochs", "max_iters")):
            done, length = state.get("iteration"), state.get("epoch_length")
            if is_count(done):
                yield (done, done // length) if is_count(length) and length and done % length == 0 else (done,)


def refuse_code(names: Iterable[str]) -> None:
    """Refuse a pickle that imports what can act on the machine. The list of such names can never be complete.

    Raises:
        UnsoundError: there is such a name; the fact has the first one.
    """
    for name in sorted(names):
        root, *rest = name.split(".")
        by_builtin = root in ("builtins", "__builtin__") and not BUILTINS_THAT_ACT.isdisjoint(rest)
        if root in ROOTS_THAT_ACT or by_builtin or not MODULES_THAT_ACT.isdisjoint(rest):
            hint = "do not load it, and find out where it comes from; reading it here has run nothing"
            raise UnsoundError("runs_code", f"would run '{name[:80]}' when it is loaded", hint)
