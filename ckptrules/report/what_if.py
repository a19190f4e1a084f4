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
