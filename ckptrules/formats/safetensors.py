"""safetensors: a JSON header, and the tensors one behind the other."""

from __future__ import annotations

import itertools
import math
from typing import BinaryIO

from ckptrules.engine.checkpoints import number
from ckptrules.formats.content import FileContent, Format, UnsoundError, of_size
from ckptrules.formats.machine import TooLongError, UnreadableError, is_count
from ckptrules.formats.plainjson import LONGEST_JSON, parse

LONGEST_HEADER = 100_000_000  # bytes; the limit of safetensors itself
LONGEST_NUMBER = 18  # digits of an epoch or step
MOST_SIDES = 64  # of a tensor; the limit of torch
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip # of one number, by its type in safetensors


def check_safetensors(file: BinaryIO, size: int, *_: object) -> FileContent:
    """Check header and size (https://huggingface.co/docs/safetensors, "Format"); there are no checksums.

    The tensors must fill what is behind the header without a gap, each with as many bytes as its shape asks for.
    """
    length = int.from_bytes(file.read(8), "little")
    if length + 8 > size:
        raise UnsoundError("truncated", "is cut off inside its header")
    if length > LONGEST_JSON:
        raise TooLongError(f"a header of more than {LONGEST_JSON >> 20} MB is not read")
    try:
        header: dict[str, dict[str, object]] = dict(parse(file.read(length), names_once=True))  # type: ignore[call-overload] # raises where it is none
        places = sorted(_place(entry) for name, entry in header.items() if name != "__metadata__")
    except TooLongError:
        raise
    except (ValueError, TypeError, LookupError):
        raise UnreadableError("its header is damaged") from None
    if any(end != start for (_, end), (start, _) in itertools.pairwise([(0, 0), *places])):
        raise UnsoundError("damaged", "its tensors overlap, or leave a gap")
    content = of_size("safetensors", size, 8 + length + (places[-1][1] if places else 0), exact=True)
    told = header.get("__metadata__", {})  # of kohya's sd-scripts, train_network.py
    return content._replace(epoch=_number(told, "ss_epoch"), step=_number(told, "ss_steps"))


def _number(told: object, key: str) -> int | None:
    text = told.get(key) if isinstance(told, dict) else None
    return number(text) if isinstance(text, str) and len(text) <= LONGEST_NUMBER else None


def _place(entry: dict[str, object]) -> tuple[int, int]:
    """Return where the bytes of a tensor begin and end: whole numbers, as many as type and shape ask for."""
    begin, end = _counts(entry["data_offsets"])
    shape = _counts(entry["shape"])
    bits = BITS.get(str(entry["dtype"]))  # None: a type that is younger than this
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
