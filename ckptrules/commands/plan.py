"""`doit plan`: show what `doit migrate` would do."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.engine.entries import Directory
from ckptrules.run.experiments import experiments, in_tally
from ckptrules.run.jobs import Job
from ckptrules.run.options import Migrating, flag
from ckptrules.run.outcome import Done
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict


class Options(Migrating, takes="experiments json html"):
    """The options of `doit plan`."""

    shares = True
    summary: bool = flag("one line for each experiment, the one that loses most first")


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, which only previews."""
    return experiments(session, "plan", options.but(dry_run=True), work, understood=in_tally)


def work(job: Job, found: Directory) -> Done:
    """Plan one checkpoint directory; in a migration, carry the plan out."""
    from ckptrules.run.working import work_on  # not above: a run with nothing to do does without

    return work_on(job, found)
