"""What other options would come to, and what each line of the rules keeps: added up over a tree, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.what_if import InUse
from ckptrules.report.text import Several, Tally, by_file


class Weight(NamedTuple):
    """What goes by a plan, and the files with several names among it."""

    total: Tally = Tally()
    links: Several = Several()


class Used(NamedTuple):
    """How many checkpoints a line keeps in a directory, and what would go there without it."""

    keeps: int
    without: Weight


class Weighed(NamedTuple):
    """What would go in one directory: as its policy deletes, by each of the other options, and without each line."""

    base: Weight
    rows: tuple[Weight, ...]
    lines: Mapping[InUse, Used]

    @property
    def adds_up(self) -> bool:
        """Whether it can be added to others: no file in it has several names, which count once in a tree."""
        every = [self.base, *self.rows, *(used.without for used in self.lines.values())]
        return all(weight.links == Several() for weight in every)

    def __add__(self, other: Weighed) -> Weighed:  # type: ignore[override]
        return Weighed(
            _sum(self.base, other.base),
            tuple(map(_sum, self.rows, other.rows)),
            {use: _both(use, self, other) for use in {**self.lines, **other.lines}},
        )


def _sum(one: Weight, other: Weight) -> Weight:
    return Weight(one.total + other.total)


def _both(use: InUse, one: Weighed, other: Weighed) -> Used:
    mine, others = (some.lines.get(use, Used(0, some.base)) for some in (one, other))
    return Used(mine.keeps + others.keeps, _sum(mine.without, others.without))


class Weighings:
    """What was weighed in directories, added up as it comes: ten thousand of them mostly leave one value."""

    def __init__(self) -> None:
        self._sum: Weighed | None = None
        self._others: list[Weighed] = []

    def add(self, one: Weighed) -> None:
        """Hear of one more."""
        if not one.adds_up:
            self._others.append(one)
        else:
            self._sum = self._sum + one if self._sum else one

    def all(self) -> list[Weighed]:
        """Return what comes to the same as all that was heard of."""
        return [*([self._sum] if self._sum else []), *self._others]


def added(weights: Iterable[Weight]) -> Tally:
    """Add up what goes; a file with names in several directories counts once."""
    found = list(weights)
    return by_file(sum((one.total for one in found), Tally()), [one.links for one in found])


def rows_as_data(rows: Sequence[Mapping[str, Any]], weighed: Sequence[Weighed]) -> list[dict[str, Any]]:
    """Add to each row what would go."""
    totals = [added(one.rows[number] for one in weighed) for number in range(len(rows))]
    return [
        {**row, "bytes_deleted": total.bytes_deleted, "deleted": total.deleted}
        for row, total in zip(rows, totals, strict=True)
    ]


def lines_as_data(weighed: Sequence[Weighed]) -> list[dict[str, Any]]:
    """Say of each line how much it keeps, and how much would go without it: in the order of the rules."""
    base = added(one.base for one in weighed)
    uses = dict.fromkeys(use for one in weighed for use in one.lines)
    return [_line(use, weighed, base) for use in sorted(uses, key=_order)]


def _line(use: InUse, weighed: Sequence[Weighed], base: Tally) -> dict[str, Any]:
    less = added(one.lines[use].without if use in one.lines else one.base for one in weighed)
    return {
        "key": use.line.key,
        "value": str(use.line.value),
        "policy": use.policy,
        "rule": use.line.place.file_line if use.line.place else None,
        "keeps": sum(one.lines[use].keeps for one in weighed if use in one.lines),
        "alone": less.deleted - base.deleted,
        "bytes_alone": less.bytes_deleted - base.bytes_deleted,
    }


def _order(use: InUse) -> tuple[object, ...]:
    return use.line.place or (), use.policy or "", use.line.key
