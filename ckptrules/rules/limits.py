"""What rule files say of deletion beyond policies: ``leftovers``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckptrules.engine import measures
from ckptrules.engine.shapes import Either, ListOf, Record, Shape, Text, fault_of
from ckptrules.engine.values import Leftover
from ckptrules.rules.shape import Value


def _pattern_fault(text: str) -> str:
    return "'*' would take every name for a leftover" if not text.strip("*") else ""


_PATTERN = Text("a shell pattern", _pattern_fault)
_LEFTOVER = Record(
    "Shell patterns, and how old what they fit must be to go.",
    {
        "match": Either((_PATTERN, ListOf("Shell patterns.", _PATTERN, empty=False))),
        "after": Text("How old: 7d, by the newest time inside.", fault_of(measures.seconds)),
    },
    ("match", "after"),
)
SHAPES: Mapping[str, Shape] = {
    "leftovers": Either((_LEFTOVER, ListOf("Several, each with its own age.", _LEFTOVER, empty=False)))
}


def compile_leftovers(values: Sequence[Value]) -> tuple[Leftover, ...]:
    """Turn checked YAML into one pattern each; an entry of which a part was refused is left out."""
    return tuple(one for value in values for one in _leftovers(value))


def _leftovers(value: Value) -> Iterator[Leftover]:
    match, after = value.get("match"), value.get("after")
    if match and after:
        for pattern in several(match):
            yield Leftover(pattern.data, measures.seconds(after.data), after.data, pattern.place)


def several(value: Value) -> list[Value]:
    """Return the values of a list, or the one that stands in its place."""
    return value.data if isinstance(value.data, list) else [value]
