"""How values in a rule file are written: one description gives the checker, and the JSON Schema for editors."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Text(NamedTuple):
    """Text, ``empty`` only where that is said; ``fault`` returns what is wrong with it, or nothing."""

    doc: str
    fault: Callable[[str], str] = lambda _: ""
    empty: bool = False


class Number(NamedTuple):
    """A whole number, ``minimum`` or more, up to ``maximum`` where there is one; or ``also``, no part of that."""

    doc: str
    minimum: int
    maximum: int | None = None
    also: int | None = None


class Choice(NamedTuple):
    """One of a few words, each of which stands for a value."""

    doc: str
    words: Mapping[str, Any]


class ListOf(NamedTuple):
    """A list of one shape."""

    doc: str
    item: "Shape"
    empty: bool = True


class MapOf(NamedTuple):
    """A mapping with keys of the user's choice."""

    doc: str
    item: "Shape"


class Keys(NamedTuple):
    """A mapping with known keys; ``required`` names those that must be there."""

    doc: str
    keys: Mapping[str, "Shape"]
    required: tuple[str, ...] = ()


class Either(NamedTuple):
    """One of several shapes, told apart by what stands there: a single value, a list or a mapping."""

    shapes: "tuple[Shape, ...]"

    def meant(self, kind: type) -> "Shape":
        """Return the shape for a mapping (``dict``), a ``list`` or a single value; the first where there is none."""
        wanted = (Keys, MapOf) if kind is dict else (ListOf,) if kind is list else (Text, Number, Choice)
        return next((shape for shape in self.shapes if isinstance(shape, wanted)), self.shapes[0])


Shape = Text | Number | Choice | ListOf | MapOf | Keys | Either
TRUTH = {"true": True, "false": False}
MODE = Choice("Whether the highest is best, or the lowest.", {word: word for word in ("max", "min")})


def in_yaml(text: str) -> str:
    """Write a text as YAML has it in single quotes; it must be printable."""
    return "'" + text.replace("'", "''") + "'"


def in_line(text: str) -> str:
    """Write a text as YAML has it among others of one line: in quotes where it needs some."""
    return text if re.fullmatch(r"[\w.][\w./()@%-]*", text) else in_yaml(text)


def fault_of(read: Callable[[str], object]) -> Callable[[str], str]:
    """Turn a reader that raises ValueError with what a text must be into a function that says what is wrong with it."""

    def fault(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            return f"'{text}' must be {error}"
        return ""

    return fault
