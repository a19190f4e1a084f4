"""Pure: the command line → the tasks that are asked for, with their options. Nothing unknown or said twice passes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ckptrules.engine.spelling import nearest
from ckptrules.run.declared import TASKS, declared
from ckptrules.run.options import Common, Option, OptionError

DEFAULT_TASK = "plan"
DOIT_COMMANDS = frozenset(
    "auto clean dumpdb forget help ignore info list reset-dep run strace tabcompletion".split(),
)
DOIT_FLAGS_WITH_VALUE = frozenset(
    "-f --file -d --dir --db-file --backend --check_file_uptodate -v --verbosity -r --reporter -o --output-file "
    "-n --process -P --parallel-type --failure-verbosity".split(),
)

RUNNING = ("run", "auto", "clean")  # what does the tasks that are usual, where none is named
TRUTH = frozenset("1 0 true false yes no on off".split())

Known = Mapping[str, Option]


class Word(NamedTuple):
    """A task asked for (``migrate`` or ``migrate:ocr_training``) with the flags behind it.

    ``typed`` is what was typed, where doit takes that for a variable: it has a ``=``.
    """

    task: str
    flags: MutableMapping[str, Any]
    typed: str = ""

    @property
    def base(self) -> str:
        """The task without the experiment."""
        return self.task.split(":", 1)[0]

    @property
    def experiments(self) -> str:
        """What stands behind the task, as it was typed; a ``*`` in the task may begin it: ``migr*01``."""
        word = self.typed or self.task
        start, colon, rest = word.partition(":")
        return rest if colon else f"*{start.partition('*')[2]}"

    def selects(self, task: str) -> bool:
        """Say whether it can select a task or one of its experiments; ``*`` fits any text, a colon too."""
        start, star, _ = self.task.partition("*")
        whole = f"{task}:"
        return (whole.startswith(start) or start.startswith(whole)) if star else self.base == task


class CommandLine(NamedTuple):
    """What the user asked for. ``command`` and ``flags`` are doit's own (``run``, ``list``; ``-n 2``).

    ``selected`` are those of our tasks that the words can select.
    """

    command: str
    words: tuple[Word, ...]
    variables: Mapping[str, Any]
    arguments: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...]
    selected: Collection[str]
    outputs_dir_by: Callable[[str | None], str | None] = lambda _: None  # what the rules of a folder say

    @property
    def has_foreign_words(self) -> bool:
        """Say whether it names something else than our tasks: a task of the user's own, say."""
        return any(not _selects_any(word) for word in self.words)

    def flag(self, short: str, long: str) -> str:
        """Return the value of a flag of doit's own (``-n 2``, ``-n2``, ``--process=2``), or nothing."""
        for flag, *value in reversed(self.flags):
            name, _, text = flag.partition("=") if flag.startswith("--") else (flag[:2], "", flag[2:])
            if name == short or (len(name) > len("--") and long.startswith(name)):  # doit takes a part of it, too
                return text or "".join(value)
        return ""

    def asks_for(self, task: str) -> bool:
        """Say whether a task is needed at all: doit calls every task creator on every command."""
        if self.command == "help" or (self.command == "list" and "--all" not in self.arguments):
            return False
        return not self.words or task in self.selected

    def asked(self) -> dict[str, Common]:
        """Return the tasks that are asked for, with their options."""
        return {task: self.options(task) for task in TASKS if self.asks_for(task)}

    def options(self, task: str, given: Mapping[str, Any] | None = None) -> Common:
        """Return the options of one task; ``given`` holds defaults from doit's own configuration.

        Raises:
            OptionError: an option is given twice, or two selections of one task differ in their flags.
        """
        flags: dict[str, Any] = {}
        for word in (word for word in self.words if word.selects(task)):
            for name, value in word.flags.items():
                if name in self.variables or flags.get(name, value) != value:
                    raise OptionError(f"option '{name}' is given twice", "give it once")
                flags[name] = value
        if any(word.flags != flags for word in self.words if word.base == task):
            hint = "run one after the other, or give the options as name=value for all"
            raise OptionError(f"the selections of '{task}' have different flags", hint)
        known = declared(task).known()
        texts = {name: str(value) for name, value in (given or {}).items() if value is not None}  # in TOML, a number
        defaults = {name: _read_value(known[name], text) for name, text in texts.items()}
        values = {**defaults, **self.variables, **flags}
        if "outputs_dir" not in values and declared(task).needs_outputs:
            said = self.outputs_dir_by(values.get("rules_dir"))
            values |= {"outputs_dir": said} if said else {}
        return declared(task)(**{name: value for name, value in values.items() if name in known})


def read_command_line(arguments: Sequence[str], usual: Iterable[str] = (DEFAULT_TASK,)) -> CommandLine:
    """Read the arguments as doit does: its own flags first, then tasks each with flags, ``name=value`` anywhere.

    Where no task is named, those that are ``usual`` are meant. Only the commands that are asked for need be declared,
    unless something is refused.

    Raises:
        OptionError: an unknown option, or a value that does not fit.
    """
    reader = _Reader()
    rest = list(arguments)
    while rest:
        reader.read(rest.pop(0), rest)
    if not reader.words and reader.command in RUNNING:
        reader.words = [Word(task, {}) for task in usual]
    return reader.finish(tuple(arguments))


def what_is_typed(arguments: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """Read the options as texts, and doit's own flags, each with its value, whatever else is wrong with the line."""
    reader, rest = _Reader(), list(arguments)
    while rest:
        with contextlib.suppress(OptionError):
            reader.read(rest.pop(0), rest)
    flags = {name: str(value) for word in reader.words for name, value in word.flags.items()}
    return dict(reader.texts) | flags, reader.own


class _Reader:
    """Reads one argument after the other. What a ``name=value`` means is known only when all tasks are."""

    def __init__(self) -> None:
        self.command = "run"
        self.words: list[Word] = []
        self.texts: list[tuple[str, str]] = []
        self.own: list[tuple[str, ...]] = []  # doit's own flags

    def read(self, argument: str, rest: list[str]) -> None:
        name, is_value, text = argument.partition("=")
        if argument.startswith("-"):
            if self.words and _selects_any(self.words[-1]):
                _refuse_short(argument, self.words[-1], self._known(self.words[-1:]))
                _set_once(self.words[-1].flags, *self._flag(argument, rest))
            elif not self.words:
                self.own.append((argument, rest.pop(0)) if _takes_value(argument) and rest else (argument,))
        elif is_value and selects_by_name(argument):
            self.words.append(Word(encode_word(argument), {}, typed=argument))
        elif is_value:
            self.texts.append((name, text))
        elif not self.words and self.command == "run" and argument in DOIT_COMMANDS:
            self.command = argument
        else:
            self.words.append(Word(argument, {}))

    def finish(self, arguments: tuple[str, ...]) -> CommandLine:
        """Give every ``name=value`` its meaning, and refuse what has none."""
        known = self._known(self.words)
        variables: dict[str, Any] = {}
        for name, text in self.texts:
            if name in known or name in (known := {**self._elsewhere(name), **known}):
                _set_once(variables, name, self._value(self.words, known[name], text))
            elif not self.words or any(_selects_any(word) for word in self.words):
                hint = _hint(name, known) if name else "write name=value, without spaces"
                raise OptionError(f"unknown option '{name}'", hint)
        for word in self.words:
            if (name := word.task.replace("-", "_")) in known and name not in TASKS:
                raise OptionError(f"'{word.task}' is an option, no task", f"write {name}=…")
        _refuse_mixed(self.words)
        if self.command == "run":
            self._refuse_foreign(variables)
        selected = frozenset(task for task in TASKS if any(word.selects(task) for word in self.words))
        return CommandLine(self.command, tuple(self.words), variables, arguments, tuple(self.own), selected)

    def _known(self, words: Iterable[Word]) -> Known:
        """Return what the commands that some words select may be told; what all may, where they select none."""
        return {name: one for known in self._selected(words) for name, one in known.items()} or Common.known()

    def _selected(self, words: Iterable[Word]) -> list[Known]:
        return [declared(task).known() for task in TASKS if any(word.selects(task) for word in words)]

    def _value(self, words: Iterable[Word], option: Option, text: str) -> Any:
        """Read a value as each command does that has the option: one may take less than another."""
        return [_read_value(known.get(option.name, option), text) for known in (self._selected(words) or [{}])][-1]

    def _elsewhere(self, name: str) -> Known:
        """Return an option that no selected command has, and some other one does."""
        ours = not self.words or any(map(_selects_any, self.words))
        every = [declared(task).known() for task in TASKS] if ours else []
        return next(({name: known[name]} for known in every if name in known), {})

    def _flag(self, argument: str, rest: list[str]) -> tuple[str, Any]:
        """Read a flag behind a task, and its value, which may be the next argument."""
        dashed, has_value, text = argument[2:].partition("=")
        flags = own = _by_flag(self._known(self.words[-1:]))
        full = _fitting(dashed, flags)
        if not full:
            every = _by_flag({name: one for task in TASKS for name, one in declared(task).known().items()})
            full, flags = _fitting(dashed, every), every | flags
        if len(full) != 1:
            fact = f"unknown option '--{dashed}'" if not full else f"'--{dashed}' is short for {', '.join(full)}"
            raise OptionError(fact, "" if full else _hint(dashed, flags, "--", own))
        found = flags[full[0]]
        text = text if has_value or not rest or rest[0].lower() not in TRUTH else rest[0]
        if found.is_flag and (has_value or text):
            raise OptionError(f"--{full[0]} takes no value", f"write {found.name}={text}")
        if found.is_flag:
            return found.name, not full[0].startswith("no-")
        if not has_value:
            if not rest:
                raise OptionError(f"--{full[0]} needs a value")
            text = rest.pop(0)
        return found.name, self._value(self.words[-1:], found, text)

    def _refuse_foreign(self, variables: Mapping[str, Any]) -> None:
        """Refuse an option that a task does not know: it would do without it what was meant to be done with it."""
        for word in (word for word in self.words if word.base in TASKS):
            for name in (*variables, *word.flags):
                if name not in declared(word.base).known():
                    tasks = [task for task in TASKS if name in declared(task).known()]
                    raise OptionError(f"option '{name}' is not for '{word.base}'", f"it is for: {', '.join(tasks)}")


def _takes_value(argument: str) -> bool:
    """Say whether a flag of doit's own has its value behind it; a long one may be shortened."""
    if argument.startswith("--") and argument != "--":
        return any(flag.startswith(argument) for flag in DOIT_FLAGS_WITH_VALUE)
    return argument in DOIT_FLAGS_WITH_VALUE


def _by_flag(known: Known) -> dict[str, Option]:
    return {one.dashed: one for one in known.values()} | {
        f"no-{one.dashed}": one for one in known.values() if one.is_flag
    }


def _fitting(dashed: str, flags: Iterable[str]) -> list[str]:
    """Return the flags that a flag means, which may be shortened."""
    return [dashed] if dashed in flags else [name for name in flags if dashed and name.startswith(dashed)]


def _selects_any(word: Word) -> bool:
    return any(word.selects(task) for task in TASKS)


def _refuse_mixed(words: Sequence[Word]) -> None:
    """Refuse selections of which doit would see some only: what has a ``=`` is a variable for it."""
    hidden = [word for word in words if word.typed]
    if hidden and len(hidden) < len(words):
        fact = f"doit reads '{hidden[0].typed}' as an option beside other tasks, because of its '='"
        raise OptionError(fact, f"write '{hidden[0].task}'")
    for word in hidden:
        if word.flags:
            flag = next(iter(word.flags))
            fact = f"doit sees no task before '--{flag.replace('_', '-')}', because of the '=' in '{word.typed}'"
            raise OptionError(fact, f"write '{word.task}'")


def _refuse_short(argument: str, word: Word, known: Known) -> None:
    """Refuse what doit would answer with a dump of its own objects."""
    if not argument.startswith("--"):
        near = nearest(argument[1:].partition("=")[0].replace("-", "_"), known) if argument[2:3].isalpha() else ""
        hint = f"did you mean '{near}='?" if near else ""
        hint = hint or f"doit's own flags come before the task: 'doit {argument} … {word.task}'"
        raise OptionError(f"unknown option '{argument}' behind '{word.task}'", hint)


def _read_value(option: Option, text: str) -> Any:
    try:
        return option.read(text)
    except ValueError as error:
        raise OptionError(f"{option.name}={text}: must be {error}") from None


def _set_once(values: MutableMapping[str, Any], name: str, value: Any) -> None:
    if name in values:
        raise OptionError(f"option '{name}' is given twice", "give it once")
    values[name] = value


def _hint(word: str, words: Iterable[str], dashes: str = "", own: Iterable[str] = ()) -> str:
    if near := nearest(word, words):
        return f"did you mean '{dashes}{near}'?"
    return f"there are: {', '.join(own or words)}"


_IN_NO_TASK = frozenset("=*")
_ENCODED = re.compile("%(?=[0-9A-Fa-f]{2})")  # what looks like it, and is not


def fits(word: str, task: str) -> bool:
    """Say whether a word of the command line selects a task: for doit it is a pattern where it has a ``*``."""
    return fnmatchcase(task, word) if "*" in word else task == word


def as_pattern(text: str | None, names: Collection[str]) -> str | None:
    """Return the shell pattern that ``experiments=`` means: an experiment's own name (``run[1]``) means that."""
    return re.sub(r"([*?[])", r"[\1]", text) if text is not None and text in names else text


def selects_by_name(argument: str) -> bool:
    """Say whether an argument is a task of ours with the name of an experiment behind it: ``migrate:lr=0.1``."""
    task, colon, _ = argument.partition("=")[0].partition(":")
    return bool(colon) and _selects_any(Word(task, {}))


def encode_word(argument: str) -> str:
    """Write a selection, as people type it, as doit wants it: ``migrate:*lr=0.1*`` → ``migrate:*lr%3D0.1*``.

    What is encoded already stays.
    """
    if "=" not in argument:
        return argument
    return "*".join(encode_task(part) for part in argument.split("*"))


def encode_task(experiment: str) -> str:
    """Write an experiment's name as a doit task name, which may hold no ``=``; ``*`` would select several.

    Like in a URL: ``lr=0.1`` becomes ``lr%3D0.1``. Bytes that are no text are encoded too, and a ``%`` where it would
    look like the beginning of such a code.
    """
    if experiment.isprintable() and _IN_NO_TASK.isdisjoint(experiment) and "%" not in experiment:
        return experiment
    return "".join(
        character
        if character.isprintable() and character not in _IN_NO_TASK
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in _ENCODED.sub("%25", experiment)
    )
