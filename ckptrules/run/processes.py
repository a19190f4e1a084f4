"""How many processes are worth their start, and where they run."""

from __future__ import annotations

import contextlib
from typing import Any

from ckptrules.engine.measures import rate
from ckptrules.run.command_line import module_of
from ckptrules.run.options import Common, OptionError
from ckptrules.run.session import Session
from ckptrules.workers.where import NONE, read_executor, why_not
from ckptrules.workers.workers import cores

SHARE = 40  # directories, below which a process of its own is not worth its start
AT_ONCE = 32  # directories in hand, where it is not known how many workers there will be


def processes(session: Session) -> int:
    """Return how many processes are worth their start, where ``-n`` does not say it; 0 is this one alone.

    Raises:
        OptionError: the workers that are asked for cannot be had.
    """
    line, asked = session.line, session.line.asked().items()
    session.workers.executor = next((options.executor for _, options in asked if options.executor), None)
    cluster = read_executor(session.workers.executor or NONE)
    if cluster:
        session.workers.folders = tuple({folder: None for _, options in asked for folder in options.folders})
        if why := why_not(cluster):
            raise OptionError(f"executor={session.workers.executor}: {why}")
    if max_rate := next((options.max_rate for _, options in asked if options.max_rate), None):
        session.workers.limit(rate(max_rate))
    sharing = [(task, options) for task, options in asked if options.shares]
    if not sharing or line.has_foreign_words or session.workers.executor == NONE:
        return 0
    session.workers.needed = (module_of(sharing[0][0]).__name__,)
    if cluster:
        number = count_of_asked(session, *sharing[0])
        return min(number, cluster.workers + 1 if cluster.workers else AT_ONCE) if number > 1 else 0
    if session.workers.executor:
        session.workers.begin()
        return cores() + 1
    if cores() == 1:
        return 0
    number = min(count_of_asked(session, *sharing[0]) // SHARE, cores() + 1)  # one more: each waits for the disk
    return number if number > 1 else 0


def count_of_asked(session: Session, task: str, options: Common) -> int:
    """Count the directories, or what else is shared, that a task is asked for; none where it will be refused."""
    from ckptrules.run.jobs import count_asked_for

    with contextlib.suppress(OptionError):
        count: Any = getattr(module_of(task), "count_shared", count_asked_for)
        number: int = count(session, task, options)
        return number
    return 0
