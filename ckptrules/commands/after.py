"""`doit after`: migrate one checkpoint directory, from the hook of a training run after each save."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.commands.plan import work
from ckptrules.run import hook
from ckptrules.run.experiments import experiments
from ckptrules.run.options import Migrating, OptionError, a_checkpoint, a_path, option
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict


class Options(Migrating, takes="json wait"):
    """The options of `doit after`: those of `doit migrate`, except ``fix_state``, and the checkpoints to spare."""

    changes = True
    path: str | None = option(None, a_path, "the checkpoint that was just saved; only what lies beside it is touched")
    resumed: str | None = option(None, a_checkpoint, "the checkpoint that the run was resumed from: it stays as it is")
    best: str | None = option(None, a_checkpoint, "the best checkpoint of the run: it stays as it is")
    fix_state: bool = False


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task, for the checkpoint directory of the checkpoint that was just saved.

    Raises:
        OptionError: no checkpoint is named, or one that does not exist or is none by the rules.
    """
    if options.path is None:
        if any(word.base == "after" for word in session.line.words):
            raise OptionError("after needs the checkpoint that was just saved", "path=PATH")
        return
    hook.refuse_gone(options)
    yield from experiments(session, "after", options, work)
