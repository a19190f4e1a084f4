"""Pure: names that count themselves (``model-00001-of-00003.safetensors``), and how many of them are missing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from ckptrules.engine.shapes import in_yaml

_NTH = re.compile(r"(.*?)(\d+)([-_. ]?of[-_. ]?)(\d+)(.*)", re.ASCII | re.DOTALL)


def why_too_few(texts: Iterable[str]) -> str:
    """Say how many parts are there of those that their own texts count (``00001-of-00003``); nothing where all are."""
    found: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for text in texts:
        if match := _NTH.fullmatch(text):
            before, nth, of, count, behind = match.groups()
            found[before, of, count, behind].add(int(nth))
    for (before, of, count, behind), there in sorted(found.items()):
        if len(there) < int(count):
            return f"{len(there)} of {int(count)} parts {in_yaml(f'{before}*{of}{count}{behind}')}"
    return ""
