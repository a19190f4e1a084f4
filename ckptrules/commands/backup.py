"""`doit backup`: copy experiments; and what the commands for backups and archives share."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from functools import partial

from ckptrules.engine.measures import visible
from ckptrules.run import finding, locking, refusing
from ckptrules.run.finding import names_of
from ckptrules.run.hints import command
from ckptrules.run.options import BACKUPS, Common, OneOf, OptionError, option
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.records import expected_time
from ckptrules.run.session import Session
from ckptrules.run.tasks import chosen_of, selects
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.storage.base import FULL
from ckptrules.storage.reading import why_of
from ckptrules.vault import backing_up, report
from ckptrules.vault import backups as vault_backups
from ckptrules.vault.backing_up import Order
from ckptrules.vault.backups import NoBackupError
from ckptrules.vault.manifest import Manifest

LISTED = "'doit backups' lists them"


class Options(Common, takes="experiments wait executor max_rate"):
    """The options of `doit backup`."""

    to: str | None = BACKUPS
    mode: str = option("auto", OneOf(("auto", "copy", "link")), "auto: clones where possible; copy; link: hard links")

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the outputs and of the backups."""
        return (self.outputs_dir, vault_backups.backups_folder(self.outputs_dir, self.to))


# --- what is refused before anything is touched ----------------------------------------------------------------------


def prepare(session: Session, options: Options) -> Prepared:
    """Choose the experiments and the place, and take the lock."""
    chosen_of(session, "backup", options, names_of(session, options))  # refuses before anything is written
    now = datetime.now().astimezone()
    folder = vault_backups.backups_folder(options.outputs_dir, options.to)
    path = os.path.normpath(os.path.join(folder, vault_backups.backup_name(options.outputs_dir, now)))
    refuse_place(folder, path, options)
    if not os.statvfs(options.outputs_dir).f_flag & os.ST_RDONLY:  # on a read-only disk nobody can change it
        lock(session, options)
        if not options.dry_run:
            finding.note_proof(session, options)
    chosen = chosen_of(session, "backup", options, names_of(session, options))
    whole, created = not selects(session, "backup", options), now.isoformat(timespec="seconds")
    order = Order(options.outputs_dir, path, options.mode, vault_backups.paths_of(chosen), whole, created)
    return Prepared(partial(make, session, options, order), chosen)


def chosen_backup(backup: str | None, task: str) -> tuple[str, Manifest, bool]:
    """Return the path of the named backup, its manifest, and whether nobody else could have written that.

    Raises:
        OptionError: no backup was named, or the path is none.
    """
    if backup is None:
        raise OptionError(f"{task} needs backup=DIR", LISTED)
    path = os.path.normpath(backup)
    try:
        return path, *vault_backups.read_backup(path)
    except NoBackupError as error:
        hint = f"only what 'doit backup' made can be taken; {LISTED}"
        raise OptionError(f"backup '{path}': {visible(str(error))}", hint) from None


def refuse_place(folder: str, path: str, options: Options) -> None:
    """Refuse a place where no backup can be made.

    Raises:
        OptionError: the folder does not exist, is inside ``outputs_dir``, or cannot be reached by hard links; or the
            name is taken.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise OptionError(f"to={folder}: {why_of(error)}", "the folder for the backups must be there already") from None
    if refusing.is_inside(folder, options.outputs_dir):
        fact = f"'{folder}' is inside outputs_dir '{options.outputs_dir}'"
        raise OptionError(fact, "name another folder with to=DIR")
    if {os.path.basename(path), os.path.basename(vault_backups.hidden_path(path))} & set(names):
        raise OptionError(f"'{path}' is there already", "names of backups change every second; run again")
    if options.mode == "link" and os.stat(folder).st_dev != os.stat(options.outputs_dir).st_dev:
        fact = f"mode=link: '{folder}' is on another file system than '{options.outputs_dir}'"
        raise OptionError(fact, "hard links do not reach there; take mode=copy")


def lock(session: Session, options: Common, make: Callable[[str], object] | None = None) -> None:
    """Take the lock of ``outputs_dir``, which is created by ``make`` if it does not exist.

    A dry run takes and creates nothing, and refuses what the run would.

    Raises:
        OptionError: another run holds the lock, or ``outputs_dir`` is a backup or cannot be made.
    """
    refusing.refuse_backup(options)
    outputs_dir = options.outputs_dir
    if make and not os.path.lexists(outputs_dir):
        try:
            if options.dry_run:
                os.stat(os.path.dirname(os.path.abspath(outputs_dir)))
                return
            make(outputs_dir)
        except OSError as error:
            raise OptionError(f"outputs_dir '{outputs_dir}' cannot be made: {why_of(error)}", place="") from None
    refusing.refuse_missing_outputs(outputs_dir)
    if options.dry_run:
        return
    locking.take_lock(session, outputs_dir, options.wait)
    locking.recover_first(session, outputs_dir)


# --- what the tasks do -----------------------------------------------------------------------------------------------


def make(session: Session, options: Options, order: Order) -> Done:
    """Make a backup, or report what it would hold."""
    style = session.style(options)
    what = f"backup '{style.name(order.path)}'"
    lost: dict[str, tuple[str, ...]] = {}
    try:
        if options.dry_run:
            items, problems = backing_up.collect(order)
            if order.mode == "copy":
                backing_up.check_space(items, order.path)
            manifest = Manifest(order.created, order.outputs_dir, order.mode, complete=True, items=tuple(items))
        else:
            manifest, problems = backing_up.make_backup(order, session.each, lost.__setitem__)
    except (StoppedError, KilledError) as error:
        hidden = vault_backups.hidden_path(order.path)
        left = "Nothing of it is left"
        if os.path.lexists(hidden):
            left = f"{command('drop_backup', backup=hidden)} removes what is there of it"
        return stopped(f"Not finished: {what}. {left}.\n", error)
    except OSError as error:
        hint = "make room, or name another folder with to=DIR" * (error.errno in FULL)
        return Done(report.failed_text(what, why_of(error), hint), failed=True)
    text = report.backup_text(order.path, manifest, problems, style, lost)
    outside = report.outside_lines(backing_up.leading_out(options.outputs_dir, "", manifest.items), style)
    text += "".join(f"{line}\n" for line in outside)
    return Done(text + expected(options, "backup", manifest.size), failed=bool(problems))


def expected(options: Common, command: str, size: int) -> str:
    """Return lines on how long ``size`` bytes take, in a preview; else an empty text."""
    return "".join(f"{line}\n" for line in expected_time(command, options, size)) if options.dry_run else ""


def stopped(text: str, error: StoppedError | KilledError) -> Done:
    """Return the outcome of a command that ended early; the reporter prints the error if no worker is left."""
    return Done(text, failed=True, killed=error if isinstance(error, KilledError) else None)
