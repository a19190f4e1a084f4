"""Pure: the word that somebody may have meant, and hints that say it."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the word that is nearest to a mistyped one, whatever the case of its letters; or nothing."""
    import difflib

    there = {one.lower(): one for one in words}
    near = difflib.get_close_matches(word.lower(), there, n=1)
    return there[near[0]] if near else ""


def closest(word: str, words: Iterable[str]) -> str:
    """Return the hint for a mistyped word, or an empty text where nothing is near."""
    near = nearest(word, words)
    return f"did you mean '{near}'?" if near else ""


def one_of(word: str, words: Collection[str]) -> str:
    """Return the hint for a mistyped word: the nearest one, or all that there are."""
    return closest(word, words) or f"there are: {', '.join(words) or 'none'}"
