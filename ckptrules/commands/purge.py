"""`doit purge`: empty the trash. Only this, and `doit migrate` after ``trash_days``, remove bytes for good."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ckptrules import stopping
from ckptrules.commands.trash import stranger_notes
from ckptrules.engine.measures import count_of, human_size, seconds
from ckptrules.engine.state_folder import TRASH
from ckptrules.report.style import Style, table
from ckptrules.run import records
from ckptrules.run.asking import confirmed, on_terminal
from ckptrules.run.hints import quoted
from ckptrules.run.options import Common, as_time, flag, option
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.trash import Emptied, TrashUse, empty_trash, run_started, trash_use

SHOWN = 10  # runs in a table of the trash
REMEDIES: Mapping[int, str] = {
    errno.EACCES: "somebody else owns it: let them or root remove it (rm -r {0})",
    errno.EPERM: "somebody else owns it, or it is immutable (lsattr): root can end that (chattr -R -i {0})",
    errno.EBUSY: "something is mounted there: end that (umount {1})",
    errno.EROFS: "its file system is read-only: see dmesg",
    errno.EINTR: "nothing is wrong with it",
    errno.ENOTEMPTY: "somebody writes into it: end that",
}


class Options(Common, takes="wait"):
    """The options of `doit purge`."""

    changes = True
    older_than: str | None = option(None, as_time, "free only what has been in the trash for so long: 7d, 12h")
    yes: bool = flag("free it without asking (it asks only on a terminal)")


def prepare(session: Session, options: Options) -> Prepared:
    """Find the runs whose trash is to be freed; on a terminal, ask first.

    Raises:
        SystemExit: Ctrl-C or SIGTERM came.
    """
    days = seconds(options.older_than) / records.DAY if options.older_than else 0
    runs = records.waiting_runs(options.outputs_dir, days)
    shown = trash_text(options, session.style(options), runs)
    if runs and on_terminal() and not (options.yes or options.dry_run):
        print(shown, end="")
        if not confirmed("Free it for good?", "nothing was freed"):
            return Prepared(partial(Done, "Nothing was freed.\n"))
        shown = ""
    return Prepared(partial(free, session, options, runs, shown))


def trash_text(options: Options, style: Style, runs: Sequence[str]) -> str:
    """Return the folder of the trash, and a table of what these runs left in it, the oldest first."""
    place = os.path.join(options.outputs_dir, TRASH)
    every = ((run, trash_use(Disk(options.outputs_dir), [run])) for run in runs)
    used = [(run, use) for run, use in every if use.items]
    shown = used if len(used) <= SHOWN + 1 else [*used[: SHOWN // 2], *used[-SHOWN // 2 :]]
    days = {run: time.strftime("%Y-%m-%d", time.localtime(run_started(run))) for run, _ in shown}
    rows = [(run, days[run], count_of(use.items, "item"), human_size(use.size)) for run, use in shown]
    if len(shown) < len(used):
        rows.insert(SHOWN // 2, (f"{len(used) - len(shown)} runs between them", "", "", ""))
    text = table((), [("", *row) for row in rows], right=(3, 4)) if rows else ""
    text += "".join(f"{note}\n" for note in stranger_notes(options.outputs_dir, style))
    return f"Trash: {style.name(place)}\n{text}"


def free(session: Session, options: Options, runs: Sequence[str], shown: str) -> Done:
    """Free the trash of these runs; an item that cannot be freed is a problem, and does not stop the others."""
    if options.dry_run:
        use = trash_use(Disk(options.outputs_dir), runs)
        return Done(f"{shown}Would free: {amount(use)}\n")
    emptied, unrecorded = empty(session, options, runs)
    nothing = emptied.left and not emptied.freed.items
    lines = [shown + ("The trash cannot be emptied." if nothing else f"Freed: {amount(emptied.freed)}"), *unrecorded]
    lines += [f"Problem: {line}" for line in left_lines(options, session.style(options), emptied.left)]
    return Done("\n".join([*lines, ""]), failed=bool(emptied.left or unrecorded))


def free_expired(session: Session, options: Common, runs: Sequence[str]) -> Done:
    """Free what has waited for ``trash_days``; an item that cannot be freed is only a note."""
    emptied, unrecorded = empty(session, options, runs)
    lines = [f"Freed: {amount(emptied.freed)}"] if emptied.freed.items else []
    lines += unrecorded
    if lines or not options.quiet:
        lines += [f"Note: {line}" for line in left_lines(options, session.style(options), emptied.left)]
    return Done("\n".join([*lines, ""]), failed=bool(unrecorded))


def empty(session: Session, options: Common, runs: Sequence[str]) -> tuple[Emptied, list[str]]:
    """Empty the trash of these runs, and journal that; the second value is the error if it cannot be journalled."""
    emptied = empty_trash(Disk(options.outputs_dir), runs, stopping.stopped)
    if runs and (emptied.freed.items or not emptied.left):
        try:
            records.open_journal(session, "purge", options).purged(runs, sorted(emptied.left))
        except OSError as error:
            return emptied, [f"The trash is empty, but the journal cannot be written: {why_of(error)}"]
    return emptied, []


def amount(use: TrashUse) -> str:
    """Return the number of items and bytes as text."""
    return "nothing" if not use.items else f"{count_of(use.items, 'item')} from the trash, {human_size(use.size)}"


def left_lines(options: Common, style: Style, left: Mapping[str, OSError]) -> Iterator[str]:
    """Yield a text for each item that could not be freed: the path, the error, and a hint."""
    for below, error in sorted(left.items()):
        path = os.path.join(options.outputs_dir, below)
        inside = os.path.join(os.path.dirname(path), error.filename or os.path.basename(path))
        paths = [quoted(os.path.abspath(path)), quoted(os.path.abspath(inside))]
        remedy = REMEDIES.get(error.errno or 0, "look at it: ls -la {0}").format(*paths)
        fact = f"{style.name(path)} cannot be freed: {why_of(error)}"
        yield f"{fact}\n    hint: {remedy}; 'doit purge' tries again"
