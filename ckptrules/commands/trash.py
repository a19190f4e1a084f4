"""`doit trash`: list the items in the trash, with the day on which each is freed, and how to bring them back."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ckptrules.changes.history import Run
from ckptrules.changes.units import head_of, parts_of
from ckptrules.engine.measures import count_of, human_size
from ckptrules.engine.state_folder import JOURNALS, pointer_of
from ckptrules.report.style import Style, by_numbers, few, table
from ckptrules.report.text import files_of
from ckptrules.run import finding, records
from ckptrules.run.hints import quoted
from ckptrules.run.options import Common
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.past import runs_of, ways_back
from ckptrules.run.session import Session
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.trash import TrashItem, foreign_paths, trash_items

HEADINGS = ("run", "directory", "name", "size", "freed on")
DROPS = ("run",)
LATER = ("size", "freed on")


class Options(Common):
    """The options of `doit trash`."""


def prepare(session: Session, options: Options) -> Prepared:
    """Return the work: `show_trash`, with the ``trash_days`` of the rules."""
    days = finding.load(session, options).trash_days
    return Prepared(partial(show_trash, options.outputs_dir, days, session.style(options)))


def show_trash(outputs_dir: str, days: int, style: Style) -> Done:
    """List the items in the trash, the oldest first."""
    try:
        items = trash_items(Disk(outputs_dir))
    except OSError as error:
        return Done(f"The trash cannot be read: {why_of(error)}\n", failed=True)
    notes = "".join(f"{note}\n" for note in stranger_notes(outputs_dir, style))
    if not items:
        return Done(f"The trash is empty.\n{notes}")
    runs: Sequence[Run] = ()
    with contextlib.suppress(OSError):
        runs = runs_of(outputs_dir)
    place_of = {run: place for place, run in enumerate(dict.fromkeys(item.run for item in items))}

    def order(row: tuple[TrashItem, int]) -> tuple[Any, ...]:
        return place_of[row[0].run], row[0].directory, by_numbers(row[0].name)

    rows = [
        (
            item.run,
            style.name(item.directory),
            style.name(f"{pointer} (its old text)" if (pointer := pointer_of(item.name)) else item.name)
            + files_of(others),
            human_size(item.size),
            freed_on(outputs_dir, item.run, days),
        )
        for item, others in sorted(by_checkpoint(items, runs), key=order)
    ]
    size = sum(item.size for item in items)
    text = table(HEADINGS, rows, right=(3,), width=style.width, drops=DROPS, later=LATER)
    back = ways_back(runs, items)
    end = f"{count_of(sum(not pointer_of(item.name) for item in items), 'item')}, {human_size(size)}. "
    end += f"{next(iter(back.by))} brings back, " if len(back.by) == 1 else ""
    end += "'doit purge' frees.\n"
    end += "".join(f"{line}\n" for line in back.sentences()) if len(back.by) > 1 else ""
    return Done(text + end + by_hand(outputs_dir, back.lost, style) + notes)


def by_checkpoint(items: Sequence[TrashItem], runs: Sequence[Run]) -> Iterator[tuple[TrashItem, int]]:
    """Join the files of one checkpoint to one item, by the journals; the number is that of the other files."""
    heads: dict[str, str] = {}
    for unit in (unit for run in runs for unit in run.units if unit.parts):
        head = head_of(unit)
        heads.update((step.there.path, head.there.path) for step in parts_of(unit))
    paths = {item.path for item in items}
    parts: dict[str, list[TrashItem]] = defaultdict(list)
    for item in items:
        if heads.get(item.path) in paths:
            parts[heads[item.path]].append(item)
    for item in items:
        if heads.get(item.path) not in paths:
            own = parts[item.path]
            yield item._replace(size=item.size + sum(part.size for part in own)), len(own)


def stranger_notes(outputs_dir: str, style: Style) -> Iterator[str]:
    """Yield a note on files in the trash that no run has put there."""
    if paths := [os.path.join(outputs_dir, path) for path in foreign_paths(Disk(outputs_dir))]:
        yield f"Left alone, as no run has put it into the trash: {few([*map(style.name, paths)])}"


def by_hand(outputs_dir: str, items: Sequence[TrashItem], style: Style) -> str:
    """Return the text on items that no undo can bring back, and the command to do it by hand."""
    if not items:
        return ""
    first = items[0]
    source = os.path.join(outputs_dir, first.path)
    target = os.path.join(outputs_dir, first.directory, first.name)
    what = f"No journal in {style.name(os.path.join(outputs_dir, JOURNALS))} tells of {count_of(len(items), 'item')}"
    how = "it back; by hand:" if len(items) == 1 else "them back; by hand, each like the first:"
    move = " ".join(["mv -n", quoted(source, style.encoding), quoted(target, style.encoding)])
    return f"{what}, so undo does not bring {how}\n    {move}\n"


def freed_on(outputs_dir: str, run: str, days: int) -> str:
    """Return the day (local time) from which `doit migrate` frees the trash of a run."""
    if not days:
        return "when purged"
    since = records.waits_since(outputs_dir, run)
    return (records.zoned(since + days * records.DAY) or "never").partition(" ")[0]
