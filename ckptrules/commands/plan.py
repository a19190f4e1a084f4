"""`doit plan`: what `doit migrate` would do."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.engine.entries import Directory
from ckptrules.run.experiments import experiments, in_tally
from ckptrules.run.jobs import Job
from ckptrules.run.options import EXPERIMENTS, HTML, JSON, Migrating, flag
from ckptrules.run.outcome import Done
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict


class Options(Migrating):
    """What `doit plan` may be told."""

    shares = True
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    html: str | None = HTML
    summary: bool = flag("one line for each experiment, the one that loses most first")


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one previewing task for each checkpoint directory."""
    return experiments(session, "plan", options.but(dry_run=True), work, understood=in_tally)


def work(job: Job, found: Directory) -> Done:
    """Do the work of a plan, or of a migration, on one checkpoint directory."""
    from ckptrules.run.working import work_on  # not above: a run that has nothing to do needs none of it

    return work_on(job, found)
