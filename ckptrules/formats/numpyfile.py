"""Checks arrays of numpy, alone (``.npy``) or in a zip file (``.npz``).

Written after https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Iterable
from typing import BinaryIO

from ckptrules.formats.content import FileContent, Format, Progress, UnsoundError, check_size
from ckptrules.formats.limits import LONGEST_NUMBER, MOST_SIDES, NotReadError, is_count
from ckptrules.formats.pickled import Limited, content_of, read_pickle

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # bytes; the limit of numpy, as a long Python literal may overflow the stack
_ITEM = re.compile(r"[<>|=]?([a-zA-Z])([0-9]{1,9})(\[\w+\])?")


def check_numpy(file: BinaryIO, size: int, progress: Progress, *_: object) -> FileContent:
    """Check the header, and the size that follows from it; of an array of Python objects, the pickle."""
    width = 4 if file.read(8)[6:7] > b"\x01" else 2
    length = int.from_bytes(file.read(width), "little")
    if length > LONGEST_HEADER:
        raise NotReadError(f"a numpy header of more than {LONGEST_HEADER} bytes is not read")
    text = file.read(length)
    if len(text) < length:
        raise UnsoundError("truncated", "is cut off inside its header")
    try:
        item, count = _parse(text)
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError):
        raise UnsoundError("damaged", "its numpy header is damaged") from None
    if item is None:
        return content_of("numpy", read_pickle(Limited(file, progress)))
    return check_size("numpy", size, 8 + width + length + item * count)


def _parse(text: bytes) -> tuple[int | None, int]:
    """Return the bytes of one item (None for Python objects), and the number of items."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes
        header = ast.literal_eval(text.decode("latin-1").strip())
    return _bytes_of(header["descr"]), _product(header["shape"])


def _bytes_of(dtype: object) -> int | None:
    """Return the bytes of an item of one type, or of fields that each have a name, a type and maybe a shape."""
    if isinstance(dtype, list):
        fields = [(_bytes_of(field[1]), _product(field[2]) if field[2:] else 1) for field in dtype]
        return None if any(one is None for one, _ in fields) else sum((one or 0) * count for one, count in fields)
    if isinstance(dtype, tuple):  # a type with metadata
        return _bytes_of(dtype[0])
    if dtype in ("|O", "O"):
        return None
    match = _ITEM.fullmatch(str(dtype))
    if match is None:
        raise ValueError
    return int(match[2]) * (4 if match[1] == "U" else 1)


def _product(sides: Iterable[object]) -> int:
    """Return the number of items in an array of this shape."""
    whole = [side for side in sides if is_count(side)]
    if not isinstance(sides, tuple) or len(whole) != len(sides) or len(whole) > MOST_SIDES:
        raise TypeError
    product = math.prod(whole)
    if product.bit_length() > LONGEST_NUMBER:
        raise ValueError
    return product


NUMPY = Format("numpy", lambda head: head.startswith(MAGIC), check_numpy, glance=check_numpy)
