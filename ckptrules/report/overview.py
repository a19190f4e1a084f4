"""Sums a plan up in one sentence, and one line for each experiment. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from ckptrules.engine.measures import count_of, human_size
from ckptrules.engine.names.drafting import drafted
from ckptrules.report.page.verdict import ended, of_bytes
from ckptrules.report.style import Style, table
from ckptrules.report.text import Outlook, Tally

HEADINGS = ("experiment", "goes", "to delete", "stays", "kept", "to rename", "needs you")
DROPS = ("to rename", "kept", "to delete", "stays")
RIGHT = range(1, 6)  # columns of numbers


def overview(every: Iterable[Outlook], total: Tally, style: Style) -> str:
    """Return the first sentence of the page, and a line for each experiment; the one that loses most comes first."""
    found = sorted(every, key=lambda one: (-one.total.bytes_deleted, -one.total.bytes_kept, one.experiment))
    unread = _drafts(found)
    many, held = (sum(one.held[which] for one in found) for which in (0, 1))
    start = of_bytes(total.bytes_deleted, total.bytes_kept, held, total.kept + many, would=True)
    sentence = "".join(text for text, _ in ended(start, total.problems + unread, held))
    wrapped = textwrap.wrap(sentence, style.width) if style.width else [sentence]
    lines = [style.paint(line, "bold") for line in wrapped]
    cells = [_cells(style.name(one.experiment), one.total, _drafts([one])) for one in found]
    cells.append(_cells("all", total, unread))
    return "\n".join([*lines, "", table(HEADINGS, cells, RIGHT, style.width, DROPS)])


def _drafts(some: Iterable[Outlook]) -> int:
    """Return how many drafts of formats would read all names that no rule knows."""
    return len({tuple(lines) for one in some if one.unread for lines in drafted(one.unread)} - {()})


def _cells(name: str, total: Tally, unread: int) -> Sequence[str]:
    needs = [count_of(total.problems, "problem")] * bool(total.problems)
    needs += [f"{count_of(unread, 'kind')} unread"] * bool(unread)
    deleted, kept, renamed = (
        str(number or "") for number in (total.deleted + total.leftovers, total.kept, total.renamed)
    )
    goes = human_size(total.bytes_deleted) if deleted else ""
    return (name, goes, deleted, human_size(total.bytes_kept), kept, renamed, ", ".join(needs))
