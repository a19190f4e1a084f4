"""Pure: what a plan comes to, in one sentence and one line an experiment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.drafting import drafts
from ckptrules.engine.entries import Entry
from ckptrules.engine.measures import human_size
from ckptrules.report.page.verdict import ended, of_bytes
from ckptrules.report.style import Style, count_of, table
from ckptrules.report.text import Tally

HEADINGS = ("experiment", "goes", "to delete", "stays", "kept", "to rename", "needs you")
DROPS = ("to rename", "kept", "to delete", "stays")
NUMBERS = range(1, 6)
UNSOUND = ("empty", "ambiguous", "bad_target")  # problems of what is a checkpoint by its name only


class Row(NamedTuple):
    """One experiment: its numbers, how many checkpoints it has, and the formats that would read what is not read.

    ``held`` are the bytes of what a problem holds; they count neither as kept nor as deleted.
    """

    experiment: str
    total: Tally
    checkpoints: int = 0
    drafts: frozenset[tuple[str, ...]] = frozenset()
    held: int = 0


def row_of(plan: Plan, entries: Sequence[Entry], total: Tally) -> Row:
    """Make the line of an experiment."""
    unread = {row.name for row in plan.skipped if row.kind == "unrecognised"}
    drafted = drafts((entry.name, entry.kind == "directory") for entry in entries if entry.name in unread)
    trashed = sum(action.kind == "trash" for action in plan.actions)
    unsound = sum(len(problem.names) for problem in plan.problems if problem.id in UNSOUND)
    settled = {row.name for row in plan.kept} | {action.name for action in plan.actions}
    names = {name for problem in plan.problems for name in problem.names} - settled
    held = sum(entry.size for entry in entries if entry.name in names)
    formats = frozenset(map(tuple, drafted.values()))
    return Row(plan.experiment, total, plan.remaining + trashed + unsound, formats, held)


def verdict(total: Tally, checkpoints: int, needs: int, held: int = 0) -> str:
    """Say what goes, what stays, and how much needs a person: the sentence that stands first in a page, too."""
    start = of_bytes(total.bytes_deleted, total.bytes_kept, held, checkpoints, would=True)
    return "".join(text for text, _ in ended(start, needs, held))


def overview(rows: Iterable[Row], total: Tally, style: Style) -> str:
    """Show the verdict, and below it a line an experiment, what loses most first, and their sums."""
    found = sorted(rows, key=lambda row: (-row.total.bytes_deleted, -row.total.bytes_kept, row.experiment))
    unread = frozenset[tuple[str, ...]]().union(*(row.drafts for row in found))
    checkpoints = sum(row.checkpoints for row in found)
    said = verdict(total, checkpoints, total.problems + len(unread), sum(row.held for row in found))
    lines = [style.paint(line, "bold") for line in (textwrap.wrap(said, style.width) if style.width else [said])]
    cells = [_cells(style.name(row.experiment), row.total, len(row.drafts)) for row in found]
    cells.append(_cells("all", total, len(unread)))
    return "\n".join([*lines, "", table(HEADINGS, cells, NUMBERS, style.width, DROPS)])


def _cells(name: str, total: Tally, unread: int) -> Sequence[str]:
    needs = [count_of(total.problems, "problem")] * bool(total.problems)
    needs += [f"{unread} unread"] * bool(unread)
    deleted, kept, renamed = (
        str(number or "") for number in (total.deleted + total.leftovers, total.kept, total.renamed)
    )
    goes = human_size(total.bytes_deleted) if deleted else ""
    return (name, goes, deleted, human_size(total.bytes_kept), kept, renamed, ", ".join(needs))
