"""Which experiments are meant: by words of the command line (``usage:ocr``) and by ``experiments=``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase

from ckptrules.engine.spelling import nearest
from ckptrules.run.hints import quoted
from ckptrules.run.options import Common, OptionError
from ckptrules.run.session import Session
from ckptrules.run.words import DEFAULT_TASK, as_pattern, encode_task, fits

LISTED = "'doit plan' shows those that there are"


def is_selected(session: Session, base: str, experiment: str) -> bool:
    """Say whether the command line asks for an experiment, by the name of the task or with all the others."""
    words = session.chosen or {DEFAULT_TASK}
    return base in words or any(fits(word, f"{base}:{encode_task(experiment)}") for word in words)


def selects_by_word(session: Session, base: str) -> bool:
    """Say whether a command is asked for by words with experiments only: ``usage:ocr``, not ``usage``."""
    words = [word.task for word in session.line.words if word.base == base]
    return bool(words) and base not in words


def refuse_unknown_experiments(
    session: Session, task: str, options: Common, names_of: Callable[[], Iterable[str]]
) -> None:
    """Refuse a selection that fits no experiment: to do nothing, and say nothing, would look like success.

    ``names_of`` gives the experiments that there are; it is asked only where there is a selection.

    Raises:
        OptionError: with the name that is nearest.
    """
    line = session.line
    words = [word for word in line.words if word.base == task != word.task and line.command == "run"]
    if not words and options.experiments is None:
        return
    names = list(names_of())
    known = [f"{task}:{encode_task(name)}" for name in names]
    for word in words:
        if not any(fits(word.task, name) for name in known):
            near = nearest(word.task.partition(":")[2].replace("*", ""), map(encode_task, names))
            typed = word.task.partition(":")[2].replace("%3D", "=")  # as it is typed, whatever has encoded it
            raise _no_experiment(typed, near and f"did you mean {in_quotes(f'{task}:{near}')}?")
    pattern = as_pattern(options.experiments, names)
    if pattern is not None and not any(fnmatchcase(name, pattern) for name in names):
        near = nearest(pattern.replace("*", ""), names)
        raise _no_experiment(str(options.experiments), near and f"did you mean experiments={quoted(near)}?")


def in_quotes(word: str) -> str:
    """Write a word with quotes around it, as a shell takes it."""
    text = quoted(word)
    return f"'{text}'" if text == word else text


def _no_experiment(word: str, hint: str) -> OptionError:
    return OptionError(f"no experiment '{word}'", hint or LISTED)


def chosen_of(session: Session, base: str, options: Common, names: Collection[str]) -> list[str]:
    """Return the experiments that are meant: by words of the command line (``usage:ocr``) and by ``experiments=``.

    Raises:
        OptionError: one of the two fits none of the names.
    """
    refuse_unknown_experiments(session, base, options, lambda: names)
    pattern = as_pattern(options.experiments, names)
    return [
        name
        for name in names
        if (pattern is None or fnmatchcase(name, pattern))
        and (not selects_by_word(session, base) or is_selected(session, base, name))
    ]
