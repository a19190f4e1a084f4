"""`doit plan`: what `doit migrate` would do."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.engine.values import Directory
from ckptrules.run.experiments import Done, experiments, in_tally
from ckptrules.run.jobs import Job
from ckptrules.run.options import EXPERIMENTS, HTML, JSON, Migrating, flag
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict


class Options(Migrating):
    """What `doit plan` may be told."""

    shares = True
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    html: str | None = HTML
    summary: bool = flag("one line an experiment, the one that loses most first")


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one previewing task for each checkpoint directory."""
    return experiments(session, "plan", options.but(dry_run=True), work_on, understood=in_tally)


def work_on(job: Job, found: Directory) -> Done:
    """Plan one checkpoint directory, and for `doit migrate` carry the plan out."""
    from ckptrules.run import working  # not above: where all is up to date, nothing needs it

    return working.work_on(job, found)
