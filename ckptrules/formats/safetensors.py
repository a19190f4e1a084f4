"""Checks safetensors: a JSON header, and the tensors one after the other."""

from __future__ import annotations

import itertools
import math
from typing import BinaryIO

from ckptrules.engine.checkpoints import number
from ckptrules.formats.content import FileContent, Format, UnsoundError, check_size
from ckptrules.formats.limits import MOST_SIDES, NotReadError, is_count
from ckptrules.formats.plainjson import LONGEST_JSON, parse

LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
MOST_DIGITS = 18  # of an epoch or step
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip # of one element, by its type


def check_safetensors(file: BinaryIO, size: int, *_: object) -> FileContent:
    """Check header and size (https://huggingface.co/docs/safetensors, "Format"); the format has no checksums.

    The tensors must fill the rest of the file without a gap, each with the bytes of its shape and type.
    """
    length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise UnsoundError("truncated", "is cut off inside its header")
    if length > LONGEST_JSON:
        raise NotReadError(f"a header of more than {LONGEST_JSON >> 20} MB is not read")
    try:
        header: dict[str, dict[str, object]] = dict(parse(file.read(length), names_once=True))  # type: ignore[call-overload] # raises if it is no mapping
        places = sorted(_place(entry) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, TypeError, LookupError):
        raise UnsoundError("damaged", "its header is damaged") from None
    if any(end != start for (_, end), (start, _) in itertools.pairwise([(0, 0), *places])):
        raise UnsoundError("damaged", "its tensors overlap, or leave a gap")
    content = check_size("safetensors", size, 8 + length + (places[-1][1] if places else 0), exact=True)
    metadata = header.get("__metadata__", {})  # of kohya's sd-scripts, train_network.py
    return content._replace(epoch=_number(metadata, "ss_epoch"), step=_number(metadata, "ss_steps"))


def _number(metadata: object, key: str) -> int | None:
    text = metadata.get(key) if isinstance(metadata, dict) else None
    return number(text) if isinstance(text, str) and len(text) <= MOST_DIGITS else None


def _place(entry: dict[str, object]) -> tuple[int, int]:
    """Return where a tensor begins and ends; raise if that does not fit its type and shape."""
    begin, end = _counts(entry["data_offsets"])
    shape = _counts(entry["shape"])
    bits = BITS.get(str(entry["dtype"]))  # None for types that are newer than this list
    if begin > end or (bits is not None and bits * math.prod(shape) != 8 * (end - begin)):
        raise ValueError
    return begin, end


def _counts(value: object) -> list[int]:
    if not isinstance(value, list) or len(value) > MOST_SIDES or not all(map(is_count, value)):
        raise TypeError
    return value


SAFETENSORS = Format(
    "safetensors",
    lambda head: head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER,
    check_safetensors,
    glance=check_safetensors,
)
