"""Adds up over a tree what would go by other options, or without one line of the rules; returns JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.entries import HardLinks
from ckptrules.engine.measures import freed
from ckptrules.engine.what_if import LineInUse


class Weight(NamedTuple):
    """What goes by a plan: the number of checkpoints, the bytes of all names, and the files with several names."""

    deleted: int
    size: int
    links: tuple[HardLinks, ...] = ()


class Used(NamedTuple):
    """The number of checkpoints that a line keeps in a directory, and what would go without the line."""

    keeps: int
    without: Weight


class Weighed(NamedTuple):
    """What would go in one directory: by its own policy, by each of the other options, and without each line."""

    base: Weight
    rows: tuple[Weight, ...]
    lines: Mapping[LineInUse, Used]


def added(weights: Iterable[Weight]) -> tuple[int, int]:
    """Return the sum of checkpoints and of bytes that go; a file with names in several directories counts once."""
    found = list(weights)
    links = [link for one in found for link in one.links]
    return sum(one.deleted for one in found), freed(sum(one.size for one in found), links)


def rows_as_data(rows: Sequence[Mapping[str, Any]], weighed: Sequence[Weighed]) -> list[dict[str, Any]]:
    """Return each row with what would go by it."""
    totals = [added(one.rows[number] for one in weighed) for number in range(len(rows))]
    return [
        {**row, "bytes_deleted": size, "deleted": deleted} for row, (deleted, size) in zip(rows, totals, strict=True)
    ]


def lines_as_data(weighed: Sequence[Weighed]) -> list[dict[str, Any]]:
    """Return how much each line keeps, and how much would go without it, in the order of the rules."""
    base = added(one.base for one in weighed)
    uses = dict.fromkeys(use for one in weighed for use in one.lines)
    return [_line(use, weighed, base) for use in sorted(uses, key=_order)]


def _line(use: LineInUse, weighed: Sequence[Weighed], base: tuple[int, int]) -> dict[str, Any]:
    deleted, size = added(one.lines[use].without if use in one.lines else one.base for one in weighed)
    return {
        "key": use.line.key,
        "value": str(use.line.value),
        "policy": use.policy,
        "rule": use.line.place.file_line if use.line.place else None,
        "keeps": sum(one.lines[use].keeps for one in weighed if use in one.lines),
        "alone": deleted - base[0],
        "bytes_alone": size - base[1],
    }


def _order(use: LineInUse) -> tuple[object, ...]:
    return use.line.place or (), use.policy or "", use.line.key
