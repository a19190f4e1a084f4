"""Pure: text files that name checkpoints (``last_checkpoint``, ``latest``): which ones, and others in their place."""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST = 16 * 1024  # bytes; such files have a few lines
_NO_TEXT = re.compile(rb"[^\t\n\f\r\x20-\x7e\x80-\xff]")


def is_text(content: bytes) -> bool:
    """Say whether this can be the content of a pointer file: text of some kB, without control bytes."""
    return len(content) <= LONGEST and _NO_TEXT.search(content) is None


def mentions(content: bytes, name: str) -> bool:
    """Say whether a file names a checkpoint: as a word, or as the last part of a path."""
    return _as_word(name).search(content) is not None


def mentioned(content: bytes, names: Iterable[str]) -> tuple[str, ...]:
    """Return which of some checkpoints a file names."""
    return tuple(name for name in names if mentions(content, name))


def with_other_name(content: bytes, name: str, other: str) -> bytes:
    """Put another name in the place of one; everything else stays as it is, byte by byte."""
    return _as_word(name).sub(_bytes(other).replace(b"\\", b"\\\\"), content)


def _as_word(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"(?<![\w.=+\-])" + re.escape(_bytes(name)) + rb"(?![\w=+\-]|\.\w)")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
