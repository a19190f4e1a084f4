"""Make a command a task of doit, hand its outcome to doit, and choose the experiments that are selected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from ckptrules.engine.measures import visible
from ckptrules.engine.spelling import nearest
from ckptrules.report.style import few
from ckptrules.run.hints import quoted
from ckptrules.run.options import Common, OptionError
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session
from ckptrules.run.words import as_pattern, encode_task, fits
from ckptrules.stopping import KilledError, StoppedError
from ckptrules.workers.pieces import Lost

if TYPE_CHECKING:
    from doit.exceptions import TaskFailed
    from doit.task import Task

Given = TypeVar("Given", bound=Common)
TaskDict = dict[str, Any]
MOST = 8  # experiments that are listed if an unknown one was asked for


def one_task(
    session: Session, name: str, prepare: Callable[[Session, Given], Prepared], options: Given
) -> Iterator[TaskDict]:
    """Make the one task of a command; prepare it first, unless doit only lists the tasks.

    If words select experiments, doit needs a task for each: the first does the work of all.
    """
    if session.line.command != "run":
        yield {"basename": name, "actions": []}
        return
    work, experiments = prepare(session, options)
    actions = [(hand_over, [work])]
    if not session.selected(name):
        yield {"basename": name, "actions": actions}
        return
    for number, one in enumerate(dict.fromkeys(map(encode_task, experiments))):
        yield {"basename": name, "name": one, "actions": [] if number else actions}


def hand_over(work: Callable[[], Done | Lost], task: Task) -> TaskFailed | None:
    """Do the work of a task, and hand its outcome to doit."""
    from doit.exceptions import TaskFailed  # not above: workers import this file, and need no doit

    try:
        done = work()
    except KilledError as error:
        done = Done("", killed=error)
    except StoppedError:
        done = Done("", failed=True)
    if isinstance(done, Lost):
        return TaskFailed(done.why, report=False)
    task.meta = {**(task.meta or {}), "done": done}
    task.values = dict(done.values)
    return TaskFailed("problems left", report=False) if done.failed or done.killed else None


# --- which experiments are selected -----------------------------------------------------------------------------------


def selects(session: Session, base: str, options: Common) -> bool:
    """Say whether only some experiments are selected: by words (``usage:ocr``, not ``usage``), or ``experiments=``."""
    return options.experiments is not None or bool(session.selected(base))


def refuse_unknown_experiments(
    session: Session, task: str, options: Common, names: Collection[str], listed: str
) -> None:
    """Refuse a selection that fits no experiment: a run that does nothing would look like success.

    Raises:
        OptionError: with the nearest name; if no name is near, with the text ``listed``, or the first experiments.
    """
    line = session.line
    words = [word for word in line.words if line.command == "run" and word.base == task != word.task]
    if not words and options.experiments is None:
        return
    listed = listed or first_of(list(names))
    known = [f"{task}:{encode_task(name)}" for name in names]
    for word in words:
        if not any(fits(word.task, name) for name in known):
            typed = word.experiments.replace("%3D", "=")  # as it is typed, whatever has encoded it
            near = nearest(typed.replace("*", ""), names)
            hint = f"did you mean {in_quotes(f'{task}:{encode_task(near)}')}?" if near else listed
            if any(fnmatchcase(name, typed) for name in names):  # doit takes only a word with a * for a pattern
                hint = f"did you mean experiments={quoted(typed)}?"
            raise OptionError(f"no experiment '{typed}'", hint)
    pattern = as_pattern(options.experiments, names)
    if pattern is not None and not any(fnmatchcase(name, pattern) for name in names):
        near = nearest(pattern.replace("*", ""), names)
        hint = f"did you mean experiments={quoted(near)}?" if near else listed
        raise OptionError(f"no experiment '{options.experiments}'", hint)


def first_of(names: Sequence[str]) -> str:
    """List the first experiments, and the command that lists all of them."""
    shown = few([f"'{visible(name)}'" if "," in name else visible(name) for name in names], MOST)
    return f"there are: {shown or 'none'}" + "; 'doit usage' lists all" * (len(names) > MOST)


def in_quotes(word: str) -> str:
    """Quote a word for a shell, also where that is not needed."""
    text = quoted(word)
    return f"'{text}'" if text == word else text


def chosen_of(session: Session, base: str, options: Common, names: Collection[str], listed: str = "") -> list[str]:
    """Return the experiments that are selected: by words of the command line (``usage:ocr``) and by ``experiments=``.

    Raises:
        OptionError: one of the two fits no name (`refuse_unknown_experiments`), or no name fits both.
    """
    refuse_unknown_experiments(session, base, options, names, listed)
    pattern = as_pattern(options.experiments, names)
    by_option = list(names if pattern is None else (name for name in names if fnmatchcase(name, pattern)))
    if not session.selected(base):
        return by_option
    both = [name for name in by_option if any(fits(word, f"{base}:{encode_task(name)}") for word in session.chosen)]
    if pattern is not None and not both:
        fact = f"none of '{', '.join(session.selected(base))}' fits experiments={options.experiments}"
        raise OptionError(fact, "leave one of the two out")
    return both
