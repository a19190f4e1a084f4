"""How many processes are worth their start, and where they run."""

from __future__ import annotations

import contextlib
from typing import Any

from ckptrules.engine.measures import rate
from ckptrules.run.declared import module_of
from ckptrules.run.options import Common, OptionError
from ckptrules.run.session import Session
from ckptrules.workers.where import NONE, PROCESSES, read_executor, why_not
from ckptrules.workers.workers import cores

SHARE = 40  # directories, below which a process of its own is not worth its start
AT_ONCE = 32  # directories in hand, where it is not known how many workers there will be


def choose_workers(session: Session) -> None:
    """Find out where the work is to be done; processes that are asked for begin to read what they need.

    Raises:
        OptionError: the workers that are asked for cannot be had.
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
    if workers.needed and workers.executor == PROCESSES:
        workers.prepare()


def processes(session: Session) -> int:
    """Return how many processes are worth their start, where ``-n`` does not say it; 0 is this one alone."""
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
    number = min(count_of_asked(session, *sharing[0]) // SHARE, cores() + 1)  # one more: each waits for the disk
    return number if number > 1 else 0


def _sharing(session: Session) -> list[tuple[str, Common]]:
    """Return the tasks that are asked for whose work can be shared, unless doit does more than ours."""
    every = session.line.asked().items() if not session.line.has_foreign_words else ()
    return [(task, options) for task, options in every if options.shares]


def count_of_asked(session: Session, task: str, options: Common) -> int:
    """Count the directories, or what else is shared, that a task is asked for; none where it will be refused."""
    from ckptrules.run.jobs import count_asked_for

    with contextlib.suppress(OptionError, OSError):
        count: Any = getattr(module_of(task), "count_shared", count_asked_for)
        number: int = count(session, task, options)
        return number
    return 0
