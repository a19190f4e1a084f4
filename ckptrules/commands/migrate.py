"""`doit plan` and `doit migrate`."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.commands import purge as commands_purge
from ckptrules.run.command_line import command_line
from ckptrules.run.experiments import backups_first, experiments, in_tally
from ckptrules.run.jobs import (
    load,
    style,
    waiting_days,
)
from ckptrules.run.options import TRASH_TASK, Options
from ckptrules.run.startup import TaskDict
from ckptrules.storage.waiting import trash_runs


def plan(options: Options) -> Iterator[TaskDict]:
    """Make one previewing task for each checkpoint directory."""
    return experiments("plan", options._replace(dry_run=True), understood=in_tally)


def purge(options: Options) -> Iterator[TaskDict]:
    """Make the task that empties the trash."""
    return commands_purge.purge(options)


def migrate(options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, and one for what has waited in the trash long enough."""
    yield from experiments("migrate", options, understood=in_tally)
    days = load(options.rules_dir, options.outputs_dir).trash_days
    waiting = trash_runs(options.outputs_dir) if days else []
    expired = [run for run in waiting if waiting_days(options.outputs_dir, run) >= days]
    if expired and not options.dry_run and command_line().command == "run":
        yield {
            "name": TRASH_TASK,
            "actions": [(commands_purge.free_expired, [options, style(options), expired])],
            "task_dep": backups_first(),
        }
