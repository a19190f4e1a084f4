"""Pure: the numbers in the names of checkpoints against those inside them, as far as somebody has looked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ckptrules.engine.checkpoints import Checkpoint, numbers_told

Inside = Mapping[str, int | None]
"""What stands in a checkpoint: ``epoch`` and ``step``, or `COUNTS`, each if anything is known of it."""
COUNTS = ("iterations", "epochs")  # of PyTorch-Ignite: a number in a name is either of the two

T = TypeVar("T")


class Compared(NamedTuple):
    """How the numbers in names compare with those inside: of how many, how many are equal, how many one less."""

    opened: int = 0
    equal: int = 0
    one_less: int = 0

    @property
    def agrees(self) -> bool:
        """Whether all of them are equal, or all one less."""
        return self.opened in (self.equal, self.one_less)

    @property
    def text(self) -> str:
        """It in words; nothing where nothing could be compared."""
        if self.opened == 0:
            return ""
        if self.opened == self.one_less:
            return f"{self.one_less} of {self.opened} numbers inside are one higher"
        return f"{self.equal} of {self.opened} numbers agree with those inside"


def compare(rows: Iterable[tuple[Mapping[str, str], Inside]]) -> Compared:
    """Compare the fields of names with what stands inside, where both tell a number."""
    every = [pairs.values() for fields, inside in rows if (pairs := _pairs(fields, inside))]
    return Compared(
        len(every),
        sum(all(said == other for said, other in pairs) for pairs in every),
        sum(all(said + 1 == other for said, other in pairs) for pairs in every),
    )


def in_words(fields: Mapping[str, str], inside: Inside) -> str:
    """Say what stands inside a checkpoint, and whether its name says so; nothing where nothing is known of it."""
    text = ", ".join(f"{key} {value}" for key, value in inside.items() if value is not None)
    compared = compare([(fields, inside)])
    if not compared.opened:
        return text
    if compared.equal:
        return f"{text}, as its name says"
    return f"{text}, one higher than its name says" if compared.one_less else f"{text}, NOT as its name says"


def first_middle_last(rows: Sequence[T]) -> list[T]:
    """Return three of some rows, or all where these are fewer."""
    return [rows[place] for place in sorted({0, len(rows) // 2, len(rows) - 1})] if rows else []


def misleading(checkpoints: Iterable[Checkpoint], inside: Mapping[str, Inside]) -> str:
    """Tell of a checkpoint whose number is not the one inside; nothing where there is no such.

    Some count from 1 inside, also only now and then. Where all differ by as much, their order is right.
    """
    differs: dict[str, dict[int, str]] = defaultdict(dict)
    for one in checkpoints:
        for key, (said, other) in _pairs(one.fields, inside.get(one.entry.name, {})).items():
            differs[key].setdefault(other - said, f"{one.entry.name} says {key} {said} and holds {other}")
    found = (texts[max(texts, key=abs)] for texts in differs.values() if len(texts) > 1 and texts.keys() - {0, 1})
    return next(found, "")


def _pairs(fields: Mapping[str, str], inside: Inside) -> dict[str, tuple[int, int]]:
    said = numbers_told(fields)
    if said.get("number", -1) in [inside.get(key) for key in COUNTS]:
        return {"number": (said["number"], said["number"])}
    return {key: (said[key], value) for key, value in inside.items() if key in said and value is not None}
