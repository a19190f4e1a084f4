"""Pure: the word that somebody may have meant."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the word that is nearest to a mistyped one, whatever the case of its letters; or nothing."""
    import difflib

    there = {one.lower(): one for one in words}
    near = difflib.get_close_matches(word.lower(), there, n=1)
    return there[near[0]] if near else ""
