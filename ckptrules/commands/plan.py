"""`doit plan`: what `doit migrate` would do."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.run.experiments import experiments, in_tally, work_on
from ckptrules.run.options import EXPERIMENTS, JSON, Migrating
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict


class Options(Migrating):
    """What `doit plan` may be told."""

    shares = True
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one previewing task for each checkpoint directory."""
    return experiments(session, "plan", options.but(dry_run=True), work_on, understood=in_tally)
