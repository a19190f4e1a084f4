"""Compare the numbers in the names of checkpoints with those inside, where the content was read. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ckptrules.engine.checkpoints import Checkpoint, numbers_told

NumbersInside = Mapping[str, int | None]
"""Numbers inside a checkpoint: ``epoch`` and ``step``, or `COUNTS`; None where unknown."""
COUNTS = ("iterations", "epochs")  # of PyTorch-Ignite: the number in a name is one of the two

T = TypeVar("T")


class Compared(NamedTuple):
    """How many checkpoints were compared, in how many the numbers are equal, and in how many the name is one less."""

    opened: int = 0
    equal: int = 0
    one_less: int = 0

    @property
    def agrees(self) -> bool:
        """Whether all numbers are equal, or all are one less."""
        return self.opened in (self.equal, self.one_less)

    @property
    def text(self) -> str:
        """The comparison in words; empty where nothing could be compared."""
        if self.opened == 0:
            return ""
        if self.opened == self.one_less:
            return f"{self.one_less} of {self.opened} numbers inside are one higher"
        return f"{self.equal} of {self.opened} numbers agree with those inside"


def compare(rows: Iterable[tuple[Mapping[str, str], NumbersInside]]) -> Compared:
    """Compare the fields of names with the numbers inside, for checkpoints that have both."""
    every = [pairs.values() for fields, inside in rows if (pairs := _pairs(fields, inside))]
    return Compared(
        len(every),
        sum(all(named == inside for named, inside in pairs) for pairs in every),
        sum(all(named + 1 == inside for named, inside in pairs) for pairs in every),
    )


def in_words(fields: Mapping[str, str], inside: NumbersInside) -> str:
    """Write the numbers inside a checkpoint, and whether its name agrees; empty if nothing inside is known."""
    text = ", ".join(f"{key} {value}" for key, value in inside.items() if value is not None)
    compared = compare([(fields, inside)])
    if not compared.opened:
        return text
    if compared.equal:
        return f"{text}, as its name says"
    return f"{text}, one higher than its name says" if compared.one_less else f"{text}, NOT as its name says"


def first_middle_last(rows: Sequence[T]) -> list[T]:
    """Return the first, the middle and the last row, or all rows if there are fewer than three."""
    return [rows[place] for place in sorted({0, len(rows) // 2, len(rows) - 1})] if rows else []


def misleading(checkpoints: Iterable[Checkpoint], inside: Mapping[str, NumbersInside]) -> str:
    """Return a sentence on the checkpoint whose name differs most from the number inside; empty where names are right.

    Names that all differ by the same are right, as their order is. So are names that are sometimes one less: some
    programs count from 1 inside.
    """
    differs: dict[str, dict[int, str]] = defaultdict(dict)
    for one in checkpoints:
        for key, (named, held) in _pairs(one.fields, inside.get(one.entry.name, {})).items():
            differs[key].setdefault(held - named, f"{one.entry.name} says {key} {named} and holds {held}")
    found = (texts[max(texts, key=abs)] for texts in differs.values() if len(texts) > 1 and texts.keys() - {0, 1})
    return next(found, "")


def _pairs(fields: Mapping[str, str], inside: NumbersInside) -> dict[str, tuple[int, int]]:
    named = numbers_told(fields)
    if named.get("number", -1) in [inside.get(key) for key in COUNTS]:
        return {"number": (named["number"], named["number"])}
    return {key: (named[key], value) for key, value in inside.items() if key in named and value is not None}
