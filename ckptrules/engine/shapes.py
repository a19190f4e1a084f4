"""Describe the values of a rule file; the checker and the JSON Schema for editors are both made from this."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Text(NamedTuple):
    """A text. ``fault`` returns what is wrong with it, or an empty text; ``empty`` is whether it may be empty."""

    doc: str
    fault: Callable[[str], str] = lambda _: ""
    empty: bool = False


class Number(NamedTuple):
    """A whole number from ``minimum`` to ``maximum`` (None: no limit), or the single value ``also`` outside of that."""

    doc: str
    minimum: int
    maximum: int | None = None
    also: int | None = None


class Choice(NamedTuple):
    """One of several words, mapped to their values."""

    doc: str
    words: Mapping[str, Any]


class ListOf(NamedTuple):
    """A list of items of one shape; ``empty`` is whether it may have none."""

    doc: str
    item: "Shape"
    empty: bool = True


class MapOf(NamedTuple):
    """A mapping with any keys, and values of one shape."""

    doc: str
    item: "Shape"


class Keys(NamedTuple):
    """A mapping with known keys, of which the ``required`` ones must be present."""

    doc: str
    keys: Mapping[str, "Shape"]
    required: tuple[str, ...] = ()


class Either(NamedTuple):
    """One of several shapes; whether the value is single, a list or a mapping decides which."""

    shapes: "tuple[Shape, ...]"

    def meant(self, kind: type) -> "Shape":
        """Return the shape for a mapping (``dict``), a ``list`` or a single value; else the first shape."""
        wanted = (Keys, MapOf) if kind is dict else (ListOf,) if kind is list else (Text, Number, Choice)
        return next((shape for shape in self.shapes if isinstance(shape, wanted)), self.shapes[0])


Shape = Text | Number | Choice | ListOf | MapOf | Keys | Either
TRUTH = {"true": True, "false": False}
MODE = Choice("Whether the highest is best, or the lowest.", {word: word for word in ("max", "min")})


def in_yaml(text: str) -> str:
    """Write a printable text as YAML in single quotes."""
    return "'" + text.replace("'", "''") + "'"


def in_line(text: str) -> str:
    """Write a text as YAML inside a line, in quotes where needed."""
    return text if re.fullmatch(r"[\w.][\w./()@%-]*", text) else in_yaml(text)


def fault_of(read: Callable[[str], object]) -> Callable[[str], str]:
    """Return a ``fault`` function for a reader that raises ValueError with what a text must be."""

    def fault(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            return f"'{text}' must be {error}"
        return ""

    return fault
