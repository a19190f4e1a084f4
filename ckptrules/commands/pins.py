"""`doit pins`: list the pins, with their notes, and those whose checkpoint is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from ckptrules.engine.measures import count_of, human_size
from ckptrules.engine.pins import Found
from ckptrules.report.style import INDENT, Style, with_texts
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
    """Return names, sizes and notes as a table."""
    rows = [(style.name(one.name), human_size(one.pin.size), style.name(one.pin.note)) for one in found]
    return with_texts((), rows, (1,), style.width, INDENT)
