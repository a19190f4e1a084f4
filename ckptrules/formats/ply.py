"""Checks PLY, the format of 3D Gaussian Splatting: a header in text, and rows of numbers.

Written after https://paulbourke.net/dataformats/ply/.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from ckptrules.formats.content import FileContent, Format, Progress, UnsoundError, check_size
from ckptrules.formats.limits import NotReadError, is_count

LONGEST_HEADER = 64 << 10  # bytes; that of Gaussians has 62 properties in 1.5 KB
BINARY = ("binary_little_endian", "binary_big_endian")
WIDTHS = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
_END = re.compile(rb"\nend_header\r?\n")


def check_ply(file: BinaryIO, size: int, _: Progress, *__: object) -> FileContent:
    """Check the header, and the length that follows from it. Lists are not read, as their lengths vary."""
    begin = file.read(min(size, LONGEST_HEADER))
    end = _END.search(begin)
    if end is None:
        if size > LONGEST_HEADER:
            raise NotReadError(f"a PLY header of more than {LONGEST_HEADER} bytes is not read")
        raise UnsoundError("truncated", "is cut off inside its header")
    length, count = end.end(), 0
    for line in begin[: end.start()].decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["format", kind, *_] if kind not in BINARY:
                raise NotReadError("it is a PLY that is text")
            case ["element", _, text] if is_count(count := int(text) if text.isdecimal() else -1):
                pass
            case ["property", "list", *_]:
                raise NotReadError("it is a PLY with lists")
            case ["property", kind, _] if kind in WIDTHS:
                length += count * WIDTHS[kind]
            case ["format" | "comment" | "obj_info", *_] | []:
                pass
            case _:
                raise UnsoundError("damaged", "its PLY header is damaged")
    return check_size("PLY", size, length)


PLY = Format("PLY", lambda head: head.startswith((b"ply\n", b"ply\r\n")), check_ply, check_ply)
