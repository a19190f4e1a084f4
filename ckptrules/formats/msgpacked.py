"""Checks files of msgpack that hold a map with texts as keys, as Flax writes them; no value is kept in memory.

Written after https://github.com/msgpack/msgpack/blob/master/spec.md, and after ``flax/serialization.py`` for arrays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from ckptrules.formats.content import FileContent, Format, Progress, UnsoundError, check_size
from ckptrules.formats.limits import MOST_SIDES, REPORT_EVERY, NotReadError, is_count

MOST_VALUES = 2_000_000  # a checkpoint with 10,000 tensors has some 50,000
ARRAYS = (1, 3)  # the extensions of Flax: an array, and a number of numpy
LONGEST_NAME = 100  # bytes of the name of a type
_BEGINS = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)[ -~]", re.DOTALL)
_TYPE = re.compile(rb"(?:bfloat|float|u?int|complex)(\d{1,3}).*")


class Head(NamedTuple):
    """The beginning of a value: how many bytes follow, how many values; its number, or the type of its extension."""

    own: int = 0
    values: int = 0
    number: int | None = None
    extension: int | None = None


_ALONE: Mapping[int, Head] = {
    **{code: Head(number=code) for code in range(0x80)},
    **{code: Head(values=2 * (code & 0x0F)) for code in range(0x80, 0x90)},  # maps
    **{code: Head(values=code & 0x0F) for code in range(0x90, 0xA0)},  # lists
    **{code: Head(own=code & 0x1F) for code in range(0xA0, 0xC0)},  # texts
    **dict.fromkeys((0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)), Head()),  # nothing, false, true, -32 to -1
    **{code: Head(own) for code, own in {0xCA: 4, 0xCB: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}.items()},  # with a sign
}
"""The beginnings that have one byte."""
# By the first byte, the width of what follows it: a number, or the length of bytes, a list, a map or an extension
_NUMBERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS, _MAPS, _EXTENSIONS = {0xDC: 2, 0xDD: 4}, {0xDE: 2, 0xDF: 4}, {0xC7: 1, 0xC8: 2, 0xC9: 4}
_WIDTHS = {**_NUMBERS, **_BYTES, **_LISTS, **_MAPS, **_EXTENSIONS}
_SHORT_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # bytes
CUT_OFF = "is cut off inside its values"
ARRAY = Head(values=3)  # shape, type, bytes


def check_msgpack(file: BinaryIO, size: int, progress: Progress, *_: object) -> FileContent:
    """Check that the values end where the file does, and that each array has the bytes of its shape and type."""
    left = 1
    for count in range(MOST_VALUES):
        if count % REPORT_EVERY == 0:
            progress(0)
        head = _begin(file)
        end = file.tell() + head.own
        left += head.values - 1
        if end + left > size:  # each value has at least one byte
            raise UnsoundError("truncated", CUT_OFF)
        if head.extension in ARRAYS:
            _check_array(file, end)
        if not left:
            return check_size("msgpack", size, end, exact=True)
        file.seek(end)
    raise NotReadError(f"msgpack of more than {MOST_VALUES // 10**6} million values is not read")


def _begin(file: BinaryIO) -> Head:
    code = _number(file, 1)
    if code in _ALONE:
        return _ALONE[code]
    number = _SHORT_EXTENSIONS.get(code) or _number(file, _WIDTHS[code])
    if code in _NUMBERS:
        return Head(number=number)
    if code in _BYTES:
        return Head(own=number)
    if code in _LISTS or code in _MAPS:
        return Head(values=number if code in _LISTS else 2 * number)
    return Head(own=number, extension=_number(file, 1))


def _number(file: BinaryIO, width: int) -> int:
    data = file.read(width)
    if len(data) < width:
        raise UnsoundError("truncated", CUT_OFF)
    return int.from_bytes(data, "big")


def _check_array(file: BinaryIO, end: int) -> None:
    """Compare the bytes of an array with its shape and type. Extensions of other programs are not checked."""
    if _begin(file) != ARRAY:
        return
    sides = [_begin(file).number for _ in range(min(_begin(file).values, MOST_SIDES))]
    name = file.read(min(_begin(file).own, LONGEST_NAME))
    own = _begin(file).own
    bits = 8 if name == b"bool" else int(match[1]) if (match := _TYPE.fullmatch(name)) else 0
    counts = [side for side in sides if is_count(side)]
    expected = math.prod(counts) * max(bits, 8) // 8  # an item has at least one byte
    if file.tell() + own != end or len(counts) < len(sides) or (bits and expected != own):
        raise UnsoundError("damaged", "it holds an array without the bytes that its shape asks for")


MSGPACK = Format("msgpack", lambda head: bool(_BEGINS.match(head)), check_msgpack, glance=check_msgpack)
