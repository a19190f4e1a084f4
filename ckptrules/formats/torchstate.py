"""Finds the paths inside a torch file, and says how to write the file with other paths in their place.

Nothing is unpickled: the opcodes of ``data.pkl`` show its texts. A new ``data.pkl`` and a new directory are written
behind all other entries. None of these moves, so tensors can still be mapped into memory. All readers of zip files go
by the directory, torch too (``caffe2/serialize/inline_container.cc``).
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from collections.abc import Callable
from typing import BinaryIO

from ckptrules.engine.actions import Piece, Recipe
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.limits import NotReadError
from ckptrules.formats.pickled import LONGEST_PICKLE, MOST_OPCODES, Contents, Limited, read_pickle
from ckptrules.formats.zips import BROKEN_ZIP, open_entry, open_zip, state_of

_LENGTHS = {"SHORT_BINUNICODE": "<B", "BINUNICODE": "<I", "BINUNICODE8": "<Q"}
_DAMAGED = (*BROKEN_ZIP, LookupError, TypeError)


class NotRewritableError(Exception):
    """The paths inside a file cannot be changed; the message is one fact."""


def read_state(file: BinaryIO) -> Contents:
    """Read the pickle of a torch file, and nothing else of it.

    Raises:
        UnsoundError: it is no torch zip file, or damaged.
        NotReadError: its pickle is too long.
    """
    try:
        archive = open_zip(file)
        if state := state_of(archive):
            with open_entry(archive, state) as content:
                return read_pickle(Limited(content))
    except _DAMAGED:
        raise UnsoundError("damaged", "it is no zip file of torch, or damaged") from None
    raise UnsoundError("damaged", "it is no zip file of torch")


def rewrite(file: BinaryIO, change: Callable[[str], str | None]) -> Recipe:
    """Return how to write a torch file with some of its texts changed.

    ``change`` takes a text, and returns the new one; None if it stays.

    Raises:
        NotRewritableError: it is no torch zip file, or is written otherwise than torch does.
    """
    try:
        archive = open_zip(file)
        state = state_of(archive)
        if state is None:
            raise NotRewritableError("is no zip file of torch")
        if state.compress_type != zipfile.ZIP_STORED or state.file_size > LONGEST_PICKLE:
            raise NotRewritableError("its state is compressed, or too long to be read")
        new, changes = edit(archive.read(state), change)
        return Recipe(_parts(archive, state, new) if changes else (), changes)
    except NotReadError:
        raise NotRewritableError("its state is compressed, or too long to be read") from None
    except _DAMAGED:
        raise NotRewritableError("is no zip file of torch, or damaged") from None


def edit(data: bytes, change: Callable[[str], str | None]) -> tuple[bytes, dict[str, str]]:
    """Change texts in a pickle; return the new pickle, and the new texts by the old ones.

    Raises:
        NotRewritableError: the pickle is framed, as no checkpoint of torch is.
        NotReadError: it has too many opcodes.
        ValueError: it is damaged.
    """
    changes: dict[str, str] = {}
    parts: list[bytes] = []
    done = 0
    for number, (opcode, argument, at) in enumerate(pickletools.genops(io.BytesIO(data))):
        if number == MOST_OPCODES:
            raise NotReadError
        if opcode.name == "FRAME":
            raise NotRewritableError("its state is framed (pickle protocol 4), which torch does not write")
        if opcode.name in _LENGTHS and at is not None and isinstance(argument, str):
            other = change(argument)
            if other is not None and other != argument:
                head = 1 + struct.calcsize(_LENGTHS[opcode.name])
                length = struct.unpack_from(_LENGTHS[opcode.name], data, at + 1)[0]
                encoded = other.encode("utf-8", "surrogatepass")
                parts += [data[done:at], b"X", struct.pack("<I", len(encoded)), encoded]
                done = at + head + length
                changes[argument] = other
    return b"".join([*parts, data[done:]]), changes


class _Behind(io.BytesIO):
    """The end of a file, from byte ``start`` on, in memory; `zipfile` sees places in the whole file."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def tell(self) -> int:
        """Return the place in the whole file."""
        return self.start + super().tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place in the whole file."""
        return self.start + super().seek(offset - self.start, whence)


def _parts(archive: zipfile.ZipFile, old: zipfile.ZipInfo, new: bytes) -> tuple[Piece, ...]:
    """Return the parts of the new file: the old one up to its directory, or its pickle if that is last; new bytes."""
    entries = archive.infolist()
    is_last = all(entry.header_offset <= old.header_offset for entry in entries)
    behind = _Behind(old.header_offset if is_last else archive.start_dir)
    with zipfile.ZipFile(behind, "w") as whole:
        whole.comment = archive.comment
        whole.writestr(zipfile.ZipInfo(old.filename, old.date_time), new)
        whole.infolist()[:] = [whole.infolist()[0] if entry is old else entry for entry in entries]
        if old.CRC is None:  # torch wrote no checksums
            for entry in whole.infolist():
                entry.CRC = 0
    return (0, behind.start), behind.getvalue()
