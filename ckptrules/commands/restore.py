"""`doit restore`: bring back from a backup what is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from ckptrules.changes.transaction import JournalledTree
from ckptrules.commands.backup import chosen_backup, expected, lock, stopped
from ckptrules.engine.entries import Entry
from ckptrules.engine.measures import visible
from ckptrules.engine.pins import Found, is_it
from ckptrules.run import pinning, records
from ckptrules.run.hints import command
from ckptrules.run.options import BACKUP, Common, OptionError, flag
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.run.tasks import chosen_of, selects
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.storage import making
from ckptrules.storage.reading import why_of
from ckptrules.vault import backups, report, restoring
from ckptrules.vault.manifest import Manifest
from ckptrules.vault.restoring import RestoreStep


class Options(Common, takes="experiments wait executor max_rate"):
    """The options of `doit restore`."""

    finds_outputs = False
    backup: str | None = BACKUP
    force: bool = flag("bring back what differs as well; what is replaced goes to the trash")

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the outputs and of the backup."""
        return (self.outputs_dir, os.path.dirname(os.path.abspath(self.backup or "")))


def prepare(session: Session, options: Options) -> Prepared:
    """Find the backup to restore, and create an ``outputs_dir`` that does not exist."""
    path, stated, is_trusted = chosen_backup(options.backup, "restore")
    if not stated.complete:
        hint = f"{command('drop_backup', backup=path)} removes it"
        raise OptionError(f"backup '{path}': was interrupted before it was whole", hint)
    there = sorted(set(stated.experiments))
    names = chosen_of(session, "restore", options, there, f"there are: {visible(', '.join(there)) or 'none'}")
    chosen = backups.paths_of(names) if selects(session, "restore", options) else None
    lock(session, options, partial(making.make_like, like=path))
    pinned = pinning.all_pinned(session, options)  # a damaged file of pins is refused before anything is brought back
    manifest = stated if is_trusted else stated.disbelieved
    notes = report.doubt_lines(stated, manifest, "this backup", os.geteuid())
    return Prepared(partial(bring_back, session, options, path, manifest, chosen, pinned, notes), names)


def bring_back(
    session: Session,
    options: Options,
    path: str,
    manifest: Manifest,
    chosen: tuple[str, ...] | None,
    pinned: Sequence[Found],
    notes: list[str],
) -> Done:
    """Restore a backup, or report what that would do."""
    outputs_dir, each, style = options.outputs_dir, session.each, session.style(options)
    lost: dict[str, tuple[str, ...]] = {}
    try:
        steps = restoring.plan_restore(outputs_dir, manifest, chosen, force=options.force, each=each)
        steps = [unless_pinned(step, pinned) for step in steps]
        if not options.dry_run:
            tree = JournalledTree(outputs_dir, records.open_journal(session, "restore", options))
            steps = restoring.restore(tree, path, steps, each, lost.__setitem__)
    except (StoppedError, KilledError) as error:
        return stopped("Not finished: what was brought back so far is whole; the same command goes on.\n", error)
    except OSError as error:
        return Done(report.failed_text(f"'{style.name(outputs_dir)}'", why_of(error)), failed=True)
    steps = [with_place(step, path, outputs_dir) for step in steps]
    text = report.restore_text(steps, style, [*notes, *report.lost_lines(lost, style)])
    size = sum(step.item.size for step in steps if step.verdict in ("bring", "replace"))
    return Done(text + expected(options, "restore", size), failed=any(step.problem for step in steps))


def with_place(step: RestoreStep, path: str, outputs_dir: str) -> RestoreStep:
    """Add the folder of the backups to the hint of a problem, if it is not the default folder."""
    folder = os.path.dirname(os.path.normpath(path)) or os.curdir
    if step.problem is None or os.path.realpath(folder) == os.path.realpath(backups.backups_folder(outputs_dir, None)):
        return step
    check = command("backups", to=folder, verify=1)
    return step._replace(problem=step.problem._replace(hint=step.problem.hint.replace(restoring.LOOK_AT_ALL, check)))


def unless_pinned(step: RestoreStep, pinned: Sequence[Found]) -> RestoreStep:
    """Refuse a step that would replace a pinned checkpoint, unless by the very one that was pinned."""
    item = step.item
    found = pinning.first_in(pinned, [item.path]) if step.verdict == "replace" else None
    if found is None:
        return step
    restored = Entry(found.name, item.kind, item.size, item.mtime_ns)
    if found.path == item.path and is_it(found.pin, restored):
        return step
    return step._replace(verdict="failed", problem=pinning.refused(found))
