"""`doit drop_backup`: remove one backup, but no folder that holds anything else."""

from __future__ import annotations

import os
from functools import partial

from ckptrules.commands.backup import chosen_backup, lock
from ckptrules.report.style import Style, few
from ckptrules.run import refusing
from ckptrules.run.asking import confirmed, on_terminal
from ckptrules.run.options import BACKUP, Common, OptionError, flag
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.stopping import StoppedError, heed
from ckptrules.storage import unfinished
from ckptrules.storage.reading import why_of
from ckptrules.vault import backups, report
from ckptrules.vault.manifest import Manifest


class Options(Common, takes="wait"):
    """The options of `doit drop_backup`."""

    finds_outputs = False
    backup: str | None = BACKUP
    yes: bool = flag("remove it without asking (it asks only on a terminal)")


def prepare(session: Session, options: Options) -> Prepared:
    """Find the backup to remove, and refuse a folder that is more than a backup; on a terminal, ask first.

    Raises:
        SystemExit: Ctrl-C or SIGTERM came.
        OptionError: the folder is ``outputs_dir``, lies in it or around it, or holds files that are not of the backup.
    """
    path, manifest, _ = chosen_backup(options.backup, "drop_backup")
    if refusing.is_inside(options.outputs_dir, path) or refusing.is_inside(path, options.outputs_dir):
        fact = f"backup '{path}': is outputs_dir itself, or inside it, or around it"
        raise OptionError(fact, "a backup that has become outputs is no backup any more")
    if os.path.isdir(options.outputs_dir):
        lock(session, options)
    try:
        foreign = backups.foreign_names(path, manifest)
    except OSError as error:
        raise OptionError(f"backup '{path}': cannot be read: {why_of(error)}") from None
    style = session.style(options)
    if foreign:
        fact = f"backup '{path}': holds what is not of the backup: {few([*map(style.name, foreign)])}"
        raise OptionError(fact, "move it away; it would be lost with the backup")
    if on_terminal() and not (options.yes or options.dry_run):
        print(f"Backup: {style.name(path)} ({report.contents(manifest)})")
        if not confirmed("Remove it for good?", "nothing was removed"):
            return Prepared(partial(Done, "Nothing was removed.\n"))
    return Prepared(partial(drop, style, path, manifest))


def drop(style: Style, path: str, manifest: Manifest) -> Done:
    """Remove a backup, or report that it would be removed."""
    try:
        if not style.preview:
            place = os.path.abspath(path)
            unfinished.remove_backup(place, backups.hidden_path(place), lambda _: heed())
    except StoppedError:
        rest = style.name(backups.hidden_path(os.path.normpath(path)))
        return Done(f"Not finished: backup '{style.name(path)}'. What is left of it: {rest}\n", failed=True)
    except OSError as error:
        return Done(report.failed_text(f"backup '{style.name(path)}'", why_of(error)), failed=True)
    return Done(report.dropped_text(path, manifest, style))
