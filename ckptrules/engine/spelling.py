"""Suggest the right word for a mistyped one. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the word that is nearest to a mistyped one, regardless of case; empty if none is near.

    The only word that goes on as the mistyped one begins is nearest: ``delete`` is ``delete_old``, not ``max_delete``.
    """
    import difflib

    by_lower = {one.lower(): one for one in words}
    longer = [one for one in by_lower if one.startswith(f"{word.lower()}_")]
    near = longer if len(longer) == 1 else difflib.get_close_matches(word.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else ""


def closest(word: str, words: Iterable[str]) -> str:
    """Return the hint for a mistyped word; empty if no word is near."""
    near = nearest(word, words)
    return f"did you mean '{near}'?" if near else ""


def one_of(word: str, words: Collection[str]) -> str:
    """Return the hint for a mistyped word: the nearest word, or else all words."""
    return closest(word, words) or f"there are: {', '.join(words) or 'none'}"
