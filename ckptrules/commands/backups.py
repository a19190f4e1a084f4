"""`doit backups`: list the backups, and check whether they are whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ckptrules.commands.backup import stopped
from ckptrules.report.style import few
from ckptrules.run.options import BACKUPS, Common, flag
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.storage.reading import why_of
from ckptrules.vault import report
from ckptrules.vault.backups import FoundBackup, backups_folder, check_backups, find_backups


class Options(Common, takes="executor max_rate"):
    """The options of `doit backups`."""

    finds_outputs = False
    believes_state = False
    to: str | None = BACKUPS
    verify: bool = flag("check every file against its checksum")

    @property
    def folders(self) -> tuple[str, ...]:
        """The folder of the backups."""
        return (backups_folder(self.outputs_dir, self.to),)


def prepare(session: Session, options: Options) -> Prepared:
    """Return the work: `show`."""
    return Prepared(partial(show, session, options))


def show(session: Session, options: Options) -> Done:
    """List the backups; with ``verify=1`` check them."""
    style, folder = session.style(options), backups_folder(options.outputs_dir, options.to)
    try:
        held = [*find_backups(folder, options.outputs_dir)]
    except OSError as error:
        return Done(report.failed_text(f"'{style.name(folder)}'", why_of(error)), failed=True)
    if options.verify:
        try:
            for number, backup in checked(session, folder, held):
                held[number] = backup
        except (StoppedError, KilledError) as error:
            left = [style.name(one.name) for one in held if not one.checked and one.manifest and one.manifest.complete]
            table = report.backups_table(held, folder, style)
            return stopped(f"{table}Not finished, still to be checked: {few(left)}\n", error)
    return Done(report.backups_table(held, folder, style), failed=any(backup.damage for backup in held))


def checked(session: Session, folder: str, held: Sequence[FoundBackup]) -> Iterator[tuple[int, FoundBackup]]:
    """Check every file of the complete backups, and yield each with its index in the list.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
        KilledError: no worker is left.
    """
    complete = {number: backup for number, backup in enumerate(held) if backup.manifest and backup.manifest.complete}
    for number, damage in zip(complete, check_backups(folder, [*complete.values()], session.each), strict=True):
        yield number, complete[number]._replace(damage=damage, checked=True)
