"""Checks GGUF, the format of llama.cpp: key-value pairs, a list of the tensors, and the tensors.

Written after https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "File Structure".
"""

from __future__ import annotations

import itertools
import math
from typing import BinaryIO

from ckptrules.formats.content import FileContent, Format, Progress, UnsoundError, check_size
from ckptrules.formats.limits import REPORT_EVERY, NotReadError

VERSIONS = (2, 3)  # version 1 had counts of 32 bits; llama.cpp no longer reads it
MOST_VALUES = 2_000_000  # lengths and numbers; a vocabulary of 250,000 words and as many merges have 500,000
MOST_SIDES = 4  # of a tensor: GGML_MAX_DIMS
DEEPEST = 4  # lists in lists; nobody writes any
ALIGNMENT = 32  # bytes, unless the file says otherwise
TEXT, LIST = 8, 9  # kinds of values
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of all other kinds: numbers
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
    40: (64, 36), 41: (128, 18),
}  # fmt: skip # by the type of a tensor: how many numbers are one block, and its bytes (gguf-py, GGML_QUANT_SIZES)


def check_gguf(file: BinaryIO, size: int, progress: Progress, *_: object) -> FileContent:
    """Check the header, that no tensors overlap, and that all are there; the format has no checksums."""
    header = _Header(file, size, progress)
    places = sorted(header.read())
    if any(begin < end for (_, end), (begin, _) in itertools.pairwise(places)):
        raise UnsoundError("damaged", "its tensors overlap")
    start = -(-header.place // header.alignment) * header.alignment
    return check_size("GGUF", size, start + places[-1][1] if places else header.place)


class _Header:
    """Reads the header of a file from its beginning; ``place`` is the number of bytes read so far."""

    def __init__(self, file: BinaryIO, size: int, progress: Progress) -> None:
        self.place, self.alignment = 0, ALIGNMENT
        self._file, self._size, self._progress, self._order, self._values = file, size, progress, "little", 0

    def read(self) -> list[tuple[int, int]]:
        """Read the whole header, and return where each tensor begins and ends, in bytes from its own end.

        A tensor of an unknown type counts as empty.
        """
        self._skip(4)  # the magic bytes
        version = self._number(4)
        if version > 0xFFFF:  # noqa: PLR2004 - the file is big-endian
            version, self._order = int.from_bytes(version.to_bytes(4, "little"), "big"), "big"
        if version not in VERSIONS:
            raise NotReadError(f"version {version} of GGUF is not known")
        tensors, pairs = self._number(8), self._number(8)
        for _ in range(pairs):
            name = self._text()
            value = self._value(self._number(4))
            if name == b"general.alignment":
                self.alignment = value or 0
        if not self.alignment:
            raise UnsoundError("damaged", "its alignment is 0")
        return [self._tensor() for _ in range(tensors)]

    def _tensor(self) -> tuple[int, int]:
        self._text()
        count = self._number(4)
        if count > MOST_SIDES:
            raise UnsoundError("damaged", f"a tensor has more than {MOST_SIDES} sides")
        sides = [self._number(8) for _ in range(count)]
        numbers, block = BLOCKS.get(self._number(4), (1, 0))
        begin = self._number(8)
        if begin % self.alignment or (sides[0] if sides else 1) % numbers:
            raise UnsoundError("damaged", "a tensor is not aligned, or ends in the middle of a block")
        return begin, begin + math.prod(sides) // numbers * block

    def _value(self, kind: int, depth: int = 0) -> int | None:
        """Read a value; return it if it is a number."""
        if kind in WIDTHS:
            return self._number(WIDTHS[kind])
        if kind == TEXT:
            self._text()
        elif kind == LIST and depth < DEEPEST:
            inner, count = self._number(4), self._number(8)
            if inner in WIDTHS:
                self._skip(count * WIDTHS[inner])
            else:
                for _ in range(count):
                    self._value(inner, depth + 1)
        else:
            raise UnsoundError("damaged", "its header is damaged")
        return None

    def _text(self) -> bytes:
        """Read a text; return its beginning."""
        length = self._number(8)
        head = self._file.read(min(length, 64))
        self.place += len(head)
        self._skip(length - len(head))
        return head

    def _number(self, width: int) -> int:
        self._values += 1
        if self._values > MOST_VALUES:
            raise NotReadError(f"a header of more than {MOST_VALUES // 10**6} million values is not read")
        if self._values % REPORT_EVERY == 0:
            self._progress(0)
        self._skip(0, width)
        self.place += width
        return int.from_bytes(self._file.read(width), self._order)  # type: ignore[arg-type] # one of two

    def _skip(self, count: int, needed: int = 0) -> None:
        """Skip so many bytes, after which ``needed`` more must follow in the file."""
        if self.place + count + needed > self._size:
            raise UnsoundError("truncated", "is cut off inside its header")
        if count:
            self.place += count
            self._file.seek(self.place)


GGUF = Format("GGUF", lambda head: head.startswith(b"GGUF"), check_gguf, check_gguf)
