"""`doit backups`: which backups there are, and whether they are whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules.commands.backup import one_task, tell
from ckptrules.report.style import Style
from ckptrules.run import jobs
from ckptrules.run.options import BACKUPS, EXECUTOR, MAX_RATE, Common, flag
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict
from ckptrules.stopping import StoppedError
from ckptrules.storage.reading import why_of
from ckptrules.vault import report
from ckptrules.vault.backups import Held, backups_folder, check_backup, find_backups


class Options(Common):
    """What `doit backups` may be told."""

    believes_state = False
    to: str | None = BACKUPS
    verify: bool = flag("check every file against its checksum")
    max_rate: str | None = MAX_RATE
    executor: str | None = EXECUTOR

    @property
    def folders(self) -> tuple[str, ...]:
        """The backups alone."""
        return (backups_folder(self.outputs_dir, self.to),)


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make the task that lists the backups."""
    return one_task(
        session, "backups", lambda *_: ((show, [session, options, jobs.style(session, options)]), ()), options
    )


def show(session: Session, options: Options, style: Style, task: Task) -> TaskFailed | None:
    """List the backups, and check them where that is asked for."""
    folder = backups_folder(options.outputs_dir, options.to)
    try:
        held = find_backups(folder, options.outputs_dir)
    except OSError as error:
        return tell(task, report.failed_text(f"'{style.name(folder)}'", why_of(error)), failed=True)
    if options.verify:
        try:
            held = checked(session, folder, held)
        except StoppedError:
            return tell(task, "Not finished: the backups are not checked.\n", failed=True)
    text = report.backups_table(held, folder, style, verified=options.verify)
    return tell(task, text, failed=any(backup.damage for backup in held))


def checked(session: Session, folder: str, held: Sequence[Held]) -> list[Held]:
    """Check every file of the backups that are whole."""
    found = []
    with session.shown(sum(backup.manifest.size for backup in held if backup.manifest)) as progress:
        for backup in held:
            damage = backup.damage
            if backup.manifest and backup.manifest.complete:
                damage = check_backup(os.path.join(folder, backup.name), backup.manifest, progress, session.each)
            found.append(backup._replace(damage=damage))
    return found
