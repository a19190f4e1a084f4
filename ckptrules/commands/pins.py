"""`doit pins`: list the pins, with their notes, and those whose checkpoint is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from ckptrules.engine.measures import human_size
from ckptrules.engine.pins import Found
from ckptrules.report.style import NARROW, Style, columns, count_of, table, wrapped
from ckptrules.report.text import problem_lines
from ckptrules.run import pinning
from ckptrules.run.options import Common
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session


class Options(Common):
    """The options of `doit pins`."""


def prepare(session: Session, options: Options) -> Prepared:
    """Find all pinned checkpoints."""
    return Prepared(partial(show, options, session.style(options), pinning.all_pinned(session, options)))


def show(options: Options, style: Style, found: Sequence[Found]) -> Done:
    """List the pins by directory; a lost pin is a problem, unless its checkpoint is archived."""
    archived = {pinned.path: run for pinned in found if (run := pinning.archived_by(options.outputs_dir, pinned))}
    lost = [pinned for pinned in found if pinned.fault and pinned.path not in archived]
    by_directory: dict[str, list[Found]] = defaultdict(list)
    for pinned in found:
        by_directory[pinned.directory].append(pinned)
    lines = [f"{style.paint(style.name(d), 'bold')}\n{as_table(rows, style)}" for d, rows in by_directory.items()]
    lines += [f"Archived by run {run}: {style.name(path)}\n" for path, run in archived.items()]
    lines += [f"{line}\n" for one in lost for line in problem_lines(pinning.problem_of(one), {}, style)]
    end = f"{count_of(len({one.pin for one in found}), 'pin')}\n" if found else "Nothing is pinned.\n"
    return Done("".join(lines) + end, failed=bool(lost))


def as_table(found: Sequence[Found], style: Style) -> str:
    """Return names, sizes and notes as a table; a terminal wraps long notes, a narrow one below the name."""
    names = [style.name(pinned.name) for pinned in found]
    sizes = [human_size(pinned.pin.size) for pinned in found]
    notes = [style.name(pinned.pin.note) for pinned in found]
    room = style.width - sum(max(map(columns, cells)) + 2 for cells in (names, sizes)) - 2
    if style.width and max(map(columns, notes)) > room < NARROW:
        below = [wrapped(f"{size}  {note}", style.width - 4) for size, note in zip(sizes, notes, strict=True)]
        return "".join(
            f"  {name}\n" + "".join(f"    {line}\n" for line in one) for name, one in zip(names, below, strict=True)
        )
    lined: list[tuple[str, ...]] = []
    for name, size, note in zip(names, sizes, notes, strict=True):
        first, *others = (wrapped(note, room) if style.width else [note]) or [""]
        lined += [("", name, size, first), *(("", "", "", more) for more in others)]
    return table((), lined, right=(2,))
