"""`doit plan`: what `doit migrate` would do."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.run.experiments import experiments, in_tally
from ckptrules.run.options import EXPERIMENTS, HTML, JSON, Migrating, flag
from ckptrules.run.outcome import later
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict

WORK = later("ckptrules.run.working", "work_on")


class Options(Migrating):
    """What `doit plan` may be told."""

    shares = True
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    html: str | None = HTML
    summary: bool = flag("one line an experiment, the one that loses most first")


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one previewing task for each checkpoint directory."""
    return experiments(session, "plan", options.but(dry_run=True), WORK, understood=in_tally)
