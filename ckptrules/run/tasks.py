"""The work of a command as tasks of doit, and what comes of it handed to doit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ckptrules.run.options import Common
from ckptrules.run.outcome import Done, Output
from ckptrules.run.refusing import refuse_missing_outputs
from ckptrules.run.selecting import is_selected, selects_by_word
from ckptrules.run.session import Session
from ckptrules.run.words import encode_task
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.workers.pieces import Lost

if TYPE_CHECKING:
    from doit.exceptions import TaskFailed
    from doit.task import Task

Given = TypeVar("Given", bound=Common)
TaskDict = dict[str, Any]


class Prepared(NamedTuple):
    """What a command is to do, and the experiments that words of the command line may select, if they may."""

    work: Callable[[], Done]
    experiments: Collection[str] = ()


def one_task(
    session: Session, name: str, prepare: Callable[[Session, Given], Prepared], options: Given
) -> Iterator[TaskDict]:
    """Make the one task of a command; where it is really to be run (doit asks also to list it), prepare it first.

    Where words name experiments, doit wants a task for each: the first does the work of all.
    """
    line = session.line
    asked_for = any(word.base == name or fnmatchcase(name, word.task) for word in line.words)
    if not (line.command == "run" and asked_for):
        yield {"basename": name, "actions": []}
        return
    if options.finds_outputs:
        refuse_missing_outputs(options)
    work, experiments = prepare(session, options)
    actions = [(hand_over, [work])]
    if not selects_by_word(session, name):
        yield {"basename": name, "actions": actions}
        return
    selected = (encode_task(one) for one in experiments if is_selected(session, name, one))
    for number, one in enumerate(dict.fromkeys(selected)):
        yield {"basename": name, "name": one, "actions": [] if number else actions}


def hand_over(work: Callable[[], Done | Lost], task: Task) -> TaskFailed | None:
    """Do work, in this process or by another, and hand to doit what comes of it."""
    from doit.exceptions import TaskFailed  # not above: processes at work need no doit

    from ckptrules.run.reporter import WorkerKilled

    try:
        done = work()
    except KilledError as error:
        done = Done(Output(""), killed=error)
    except StoppedError:
        done = Done(Output(""), failed=True)
    if isinstance(done, Lost):
        return TaskFailed(done.why, report=False)
    task.meta, task.values = {**(task.meta or {}), "output": done.output}, dict(done.values)
    if done.killed:
        return WorkerKilled(str(done.killed), report=False)
    return TaskFailed("problems left", report=False) if done.failed else None
