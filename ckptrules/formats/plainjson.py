"""Reads JSON of other programs, with limits on its length and depth."""

from __future__ import annotations

import json

from ckptrules.formats.limits import NotReadError

LONGEST_JSON = 16 * 2**20  # bytes; an index or header of 100,000 tensors
MOST_VALUES = 2_000_000  # each may take some 90 bytes in memory; a vocabulary of 250,000 words has 1,500,000 at most
LONGEST_INTEGER = 19  # digits; longer integers are rounded, as JavaScript does


def parse(data: bytes, *, names_once: bool = False) -> object:
    """Return the value of a JSON text in UTF-8, 16 or 32; ``names_once`` refuses an object with a name twice.

    Raises:
        NotReadError: the text is too long.
        ValueError: it is no JSON, or nested too deeply.
    """
    if len(data) > LONGEST_JSON:
        raise NotReadError(f"JSON of more than {LONGEST_JSON >> 20} MB is not read")
    if sum(data.count(mark) for mark in (b",", b":", b"[", b"{")) > MOST_VALUES:
        raise NotReadError(f"JSON of more than {MOST_VALUES // 10**6} million values is not read")
    try:
        return json.loads(data, parse_int=_integer, object_pairs_hook=_once if names_once else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found
