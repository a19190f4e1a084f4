"""`doit after`: what the hook of a training run calls after each save. It looks at one checkpoint directory only."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.commands.plan import work
from ckptrules.run import hook
from ckptrules.run.experiments import experiments
from ckptrules.run.options import JSON, WAIT, Migrating, OptionError, a_checkpoint, a_path, option
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict


class Options(Migrating):
    """What `doit after` may be told: what `doit migrate` may, but for what would change the newest checkpoint."""

    changes = True
    path: str | None = option(None, a_path, "the checkpoint that was just saved; only what lies beside it is touched")
    resumed: str | None = option(None, a_checkpoint, "the checkpoint that the run was resumed from: it stays as it is")
    best: str | None = option(None, a_checkpoint, "the best checkpoint of the run: it stays as it is")
    fix_state: bool = False
    json: str | None = JSON
    wait: int = WAIT


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task: for the checkpoint directory that a checkpoint was just saved in.

    Raises:
        OptionError: no checkpoint is named, or one that cannot be meant.
    """
    if options.path is None:
        if any(word.base == "after" for word in session.line.words):
            raise OptionError("after needs the checkpoint that was just saved", "path=PATH")
        return
    hook.refuse_gone(options)
    yield from experiments(session, "after", options, work)
