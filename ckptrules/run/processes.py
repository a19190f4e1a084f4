"""Choose where the work is done, and by how many processes."""

from __future__ import annotations

import contextlib
from typing import Any

from ckptrules.engine.measures import rate
from ckptrules.run.declared import module_of
from ckptrules.run.options import Common, OptionError
from ckptrules.run.session import Session
from ckptrules.workers.where import NONE, read_executor, why_not
from ckptrules.workers.workers import cores

SHARE = 40  # directories; with fewer, another process takes longer to start than it saves
AT_ONCE = 32  # directories at the same time, if the number of workers is not known


def choose_workers(session: Session) -> None:
    """Set the executor, folders and rate of the workers by the options.

    Raises:
        OptionError: the executor cannot be used.
    """
    workers, asked = session.workers, session.line.asked().items()
    workers.executor = next((options.executor for _, options in asked if options.executor), None)
    if cluster := read_executor(workers.executor or NONE):
        workers.folders = tuple({folder: None for _, options in asked for folder in options.folders})
        if why := why_not(cluster):
            raise OptionError(f"executor={workers.executor}: {why}")
    if max_rate := next((options.max_rate for _, options in asked if options.max_rate), None):
        workers.limit(rate(max_rate))
    workers.needed = tuple(module_of(task).__name__ for task, _ in _sharing(session))


def processes(session: Session) -> int:
    """Return how many threads doit gets if ``-n`` does not say it, each to wait for a worker; 0 for no workers."""
    sharing, executor = _sharing(session), session.workers.executor
    if not sharing or executor == NONE:
        return 0
    if cluster := read_executor(executor or NONE):
        number = count_of_asked(session, *sharing[0])
        return min(number, cluster.workers + 1 if cluster.workers else AT_ONCE) if number > 1 else 0
    if executor:
        session.workers.begin()
        return cores() + 1
    if cores() == 1:
        return 0
    number = min(count_of_asked(session, *sharing[0]) // SHARE, cores() + 1)  # one more, as each waits for the disk
    return number if number > 1 else 0


def _sharing(session: Session) -> list[tuple[str, Common]]:
    """Return the asked tasks whose work can be shared; none if there are tasks of the user's own among them."""
    every = session.line.asked().items() if not session.line.has_foreign_words else ()
    return [(task, options) for task, options in every if options.shares]


def count_of_asked(session: Session, task: str, options: Common) -> int:
    """Count the directories of a task, or what else it shares; 0 if the task will be refused."""
    from ckptrules.run.jobs import count_asked_for

    with contextlib.suppress(OptionError, OSError):
        count: Any = getattr(module_of(task), "count_shared", count_asked_for)
        number: int = count(session, task, options)
        return number
    return 0
