"""What files beside and inside the checkpoints know of them: ``pointers`` name some."""

from __future__ import annotations

from collections.abc import Sequence

from ckptrules.engine.shapes import Choice, Either, ListOf, Record, Text
from ckptrules.engine.values import PointerPattern
from ckptrules.rules.shape import Value

TRUTH = {"true": True, "false": False}
SHAPES = {
    "pointers": ListOf(
        "Shell patterns of text files beside the checkpoints that name some; these stay, and the files follow them.",
        Either(
            (
                Text("a shell pattern"),
                Record(
                    "A shell pattern, and whether what the files name stays.",
                    {
                        "match": Text("a shell pattern"),
                        "protects": Choice("Whether what such a file names is never deleted.", TRUTH),
                    },
                    ("match", "protects"),
                ),
            )
        ),
    ),
}


def compile_pointers(values: Sequence[Value]) -> tuple[PointerPattern, ...]:
    """Compile the patterns of pointer files."""
    return tuple(_pointer(value) for value in values)


def pointer_pattern(value: Value) -> str:
    """Return the shell pattern of an entry of ``pointers``."""
    return _pointer(value).text


def _pointer(value: Value) -> PointerPattern:
    if isinstance(value.data, str):
        return PointerPattern(value.data, value.place)
    said = {key: item.data for key, item in value.items()}
    return PointerPattern(said.get("match", ""), value.place, said.get("protects", True))
