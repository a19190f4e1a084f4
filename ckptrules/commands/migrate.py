"""`doit migrate`: rename and delete checkpoints, and free what has waited in the trash long enough."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ckptrules.commands import plan
from ckptrules.run.experiments import backups_first, experiments, in_tally
from ckptrules.run.finding import load
from ckptrules.run.records import waiting_runs
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict, hand_over

TRASH_TASK = "%00trash"  # no experiment is encoded so, as no name has the byte 0


class Options(plan.Options, takes="wait"):
    """The options of `doit migrate`."""

    changes = True
    remembers = True
    summary: bool = False


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, and one to free what has waited in the trash long enough."""
    yield from experiments(session, "migrate", options, plan.work, understood=in_tally)
    days = load(session, options).trash_days
    expired = waiting_runs(options.outputs_dir, days) if days else []
    if expired and not options.dry_run and session.line.command == "run":
        from ckptrules.commands.purge import free_expired

        yield {
            "name": TRASH_TASK,
            "actions": [(hand_over, [partial(free_expired, session, options, expired)])],
            "task_dep": backups_first(session),
        }
