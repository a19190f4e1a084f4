"""Read command lines: the tasks that are asked for, and their options; refuse what is unknown or given twice. Pure."""

from __future__ import annotations

import contextlib
import re
import shlex
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

RUNNING = ("run", "auto", "clean")  # commands of doit that take the default tasks where none is named
TRUTH = frozenset("1 0 true false yes no on off".split())

Known = Mapping[str, Option]


class Word(NamedTuple):
    """A word that names a task (``migrate``, ``migrate:ocr_training``), with the flags behind it.

    ``typed`` is the word as it was typed, if doit would take it for a variable because of a ``=``; else it is empty.
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
        """The pattern of experiments behind the task, as typed."""
        return (self.typed or self.task).partition(":")[2]


class CommandLine(NamedTuple):
    """A command line as doit would read it.

    ``command`` is that of doit (``run``, ``list``). ``words`` name tasks. ``variables`` are the values of
    ``name=value``. ``arguments`` are the words as they came. ``flags`` are doit's own, each with its value
    (``-n 2``). ``outputs_dir_by`` returns the ``outputs_dir`` in the rules of a folder.
    """

    command: str
    words: tuple[Word, ...]
    variables: Mapping[str, Any]
    arguments: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...]
    outputs_dir_by: Callable[[str | None], str | None] = lambda _: None

    @property
    def has_foreign_words(self) -> bool:
        """Whether a word names no task of ckptrules; it may be one of the user's own."""
        return any(word.base not in TASKS for word in self.words)

    def flag(self, short: str, long: str) -> str:
        """Return the value of a flag of doit's own (``-n 2``, ``-n2``, ``--process=2``), or an empty text."""
        for flag, *value in reversed(self.flags):
            name, _, text = flag.partition("=") if flag.startswith("--") else (flag[:2], "", flag[2:])
            if name == short or (len(name) > len("--") and long.startswith(name)):  # or shortened, as doit allows
                return text or "".join(value)
        return ""

    def asks_for(self, task: str) -> bool:
        """Say whether a task is needed: doit calls the creators of all tasks, whatever is asked for."""
        if self.command == "help" or (self.command == "list" and "--all" not in self.arguments):
            return False
        return not self.words or any(word.base == task for word in self.words)

    def asked(self) -> dict[str, Common]:
        """Return the tasks that are asked for, with their options."""
        return {task: self.options(task) for task in TASKS if self.asks_for(task)}

    def options(self, task: str, given: Mapping[str, Any] | None = None) -> Common:
        """Return the options of one task; ``given`` are those that doit has read, also from its own configuration.

        Raises:
            OptionError: an option is given twice, or two selections of one task differ in their flags.
        """
        flags: dict[str, Any] = {}
        for word in (word for word in self.words if word.base == task):
            for name, value in word.flags.items():
                if name in self.variables or flags.get(name, value) != value:
                    raise OptionError(f"option '{name}' is given twice", "give it once")
                flags[name] = value
        if any(word.flags != flags for word in self.words if word.base == task):
            hint = "run one after the other, or give the options as name=value for all"
            raise OptionError(f"the selections of '{task}' have different flags", hint)
        known = declared(task).known()
        texts = {name: str(value) for name, value in (given or {}).items() if value is not None}  # TOML has numbers
        defaults = {name: _read_value(known[name], text) for name, text in texts.items()}
        values = {**defaults, **self.variables, **flags}
        if "outputs_dir" not in values and declared(task).needs_outputs:
            outputs_dir = self.outputs_dir_by(values.get("rules_dir"))
            values |= {"outputs_dir": outputs_dir} if outputs_dir else {}
        return declared(task)(**{name: value for name, value in values.items() if name in known})


def read_command_line(arguments: Sequence[str], usual: Iterable[str] = (DEFAULT_TASK,)) -> CommandLine:
    """Read the arguments as doit does: its own flags first, then tasks each with flags, ``name=value`` anywhere.

    Without a task, the ``usual`` ones are asked for. Only the files of commands that are asked for are imported, unless
    something is refused.

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
    """Return the options as texts, and doit's own flags, each with its value; pass over whatever is wrong."""
    reader, rest = _Reader(), list(arguments)
    while rest:
        with contextlib.suppress(OptionError):
            reader.read(rest.pop(0), rest)
    flags = {name: str(value) for word in reader.words for name, value in word.flags.items()}
    return dict(reader.texts) | flags, reader.doit_flags


class _Reader:
    """Reads one argument after the other; the meaning of ``name=value`` depends on all tasks, so it is found last."""

    def __init__(self) -> None:
        self.command = "run"
        self.words: list[Word] = []
        self.texts: list[tuple[str, str]] = []
        self.doit_flags: list[tuple[str, ...]] = []

    def read(self, argument: str, rest: list[str]) -> None:
        name, is_value, text = argument.partition("=")
        if argument.startswith("-"):
            if self.words and self.words[-1].base in TASKS:
                _refuse_short(argument, self.words[-1], self._known(self.words[-1:]))
                _set_once(self.words[-1].flags, *self._flag(argument, rest))
            elif not self.words:
                self.doit_flags.append((argument, rest.pop(0)) if _takes_value(argument) and rest else (argument,))
        elif is_value and selects_by_name(argument):
            self.words.append(Word(encode_word(argument), {}, typed=argument))
        elif is_value:
            self.texts.append((name, text))
        elif not self.words and self.command == "run" and argument in DOIT_COMMANDS:
            self.command = argument
        else:
            self.words.append(Word(argument, {}))

    def finish(self, arguments: tuple[str, ...]) -> CommandLine:
        """Read the value of every ``name=value``, and refuse unknown options."""
        known = self._known(self.words)
        variables: dict[str, Any] = {}
        for name, text in self.texts:
            if name in known or name in (known := {**self._elsewhere(name), **known}):
                _set_once(variables, name, self._value(self.words, known[name], text))
            elif not self.words or any(word.base in TASKS for word in self.words):
                hint = (_line_hint(name) or _hint(name, known)) if name else "write name=value, without spaces"
                if name and "name" in known and not nearest(name, known):
                    hint = f"for a checkpoint that is called so: name={shlex.quote(f'{name}={text}')}"
                raise OptionError(f"unknown option '{name}'", hint)
        for word in self.words:
            if (name := word.task.replace("-", "_")) in known and name not in TASKS:
                raise OptionError(f"'{word.task}' is an option, no task", f"write {name}=…")
        _refuse_mixed(self.words)
        if self.command == "run":
            self._refuse_foreign(variables)
        return CommandLine(self.command, tuple(self.words), variables, arguments, tuple(self.doit_flags))

    def _known(self, words: Iterable[Word]) -> Known:
        """Return the options of all commands that some words select; where they select none, the common ones."""
        return {name: one for known in self._selected(words) for name, one in known.items()} or Common.known()

    def _selected(self, words: Iterable[Word]) -> list[Known]:
        bases = {word.base for word in words}
        return [declared(task).known() for task in TASKS if task in bases]

    def _value(self, words: Iterable[Word], option: Option, text: str) -> Any:
        """Read a value as each selected command does that has the option: one may refuse what another takes."""
        return [_read_value(known.get(option.name, option), text) for known in (self._selected(words) or [{}])][-1]

    def _elsewhere(self, name: str) -> Known:
        """Return an option that only commands have which are not selected; empty if there is none."""
        ours = not self.words or any(word.base in TASKS for word in self.words)
        every = [declared(task).known() for task in TASKS] if ours else []
        return next(({name: known[name]} for known in every if name in known), {})

    def _flag(self, argument: str, rest: list[str]) -> tuple[str, Any]:
        """Read a flag behind a task, and its value, which may be the next argument."""
        dashed, has_value, text = argument[2:].partition("=")
        flags = own = _by_flag(self._known(self.words[-1:]))
        if dashed not in flags:
            every = {name: one for task in TASKS for name, one in declared(task).known().items()}
            flags = {**_by_flag(every), **flags}
        if dashed not in flags:  # doit would also take a shortened one
            raise OptionError(f"unknown option '--{dashed}'", _hint(dashed, flags, "--", own))
        found = flags[dashed]
        text = text if has_value or not rest or rest[0].lower() not in TRUTH else rest[0]
        if found.is_flag and (has_value or text):
            raise OptionError(f"--{dashed} takes no value", f"write {found.name}={text}")
        if found.is_flag:
            return found.name, not dashed.startswith("no-")
        if not has_value:
            if not rest:
                raise OptionError(f"--{dashed} needs a value")
            text = rest.pop(0)
        return found.name, self._value(self.words[-1:], found, text)

    def _refuse_foreign(self, variables: Mapping[str, Any]) -> None:
        """Refuse an option that a named task does not have: the task would run without it."""
        for word in (word for word in self.words if word.base in TASKS):
            for name in (*variables, *word.flags):
                if name not in declared(word.base).known():
                    tasks = [task for task in TASKS if name in declared(task).known()]
                    raise OptionError(f"option '{name}' is not for '{word.base}'", f"it is for: {', '.join(tasks)}")


def _takes_value(argument: str) -> bool:
    """Say whether the next argument is the value of a flag of doit's own; a long flag may be shortened."""
    if argument.startswith("--") and argument != "--":
        return any(flag.startswith(argument) for flag in DOIT_FLAGS_WITH_VALUE)
    return argument in DOIT_FLAGS_WITH_VALUE


def _by_flag(known: Known) -> dict[str, Option]:
    return {one.dashed: one for one in known.values()} | {
        f"no-{one.dashed}": one for one in known.values() if one.is_flag
    }


def _refuse_mixed(words: Sequence[Word]) -> None:
    """Refuse names with a ``=`` beside other tasks, or with flags: doit takes them for variables, and drops them."""
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
    """Refuse a short flag behind a task, for which doit would print a dump of its own objects."""
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


def _line_hint(name: str) -> str:
    """Return the hint on a line of a policy that was typed as an option; empty for other words."""
    from ckptrules.engine.policy.lines import IN_POLICIES

    is_line = name in IN_POLICIES or name == "keep_at_least"
    return f"it is a line of a policy: write it below 'retention' in a file of rules/, as {name}: …" * is_line


def _hint(word: str, words: Iterable[str], dashes: str = "", own: Iterable[str] = ()) -> str:
    if near := nearest(word, words):
        return f"did you mean '{dashes}{near}'?"
    return f"there are: {', '.join(own or words)}"


_IN_NO_TASK = frozenset("=*")
_ENCODED = re.compile("%(?=[0-9A-Fa-f]{2})")  # a % in a name that would be read as the beginning of a code


def fits(word: str, task: str) -> bool:
    """Say whether a word of the command line selects a task; as in doit, a word with a ``*`` is a pattern."""
    return fnmatchcase(task, word) if "*" in word else task == word


def as_pattern(text: str | None, names: Collection[str]) -> str | None:
    """Return the shell pattern of ``experiments=``; the name of an experiment (``run[1]``) fits only itself."""
    return re.sub(r"([*?[])", r"[\1]", text) if text is not None and text in names else text


def selects_by_name(argument: str) -> bool:
    """Say whether an argument is a task of ckptrules with an experiment that has a ``=``: ``migrate:lr=0.1``."""
    task, colon, _ = argument.partition("=")[0].partition(":")
    return bool(colon) and task in TASKS


def encode_word(argument: str) -> str:
    """Encode a word with a ``=`` for doit: ``migrate:*lr=0.1*`` → ``migrate:*lr%3D0.1*``; leave others as they are."""
    if "=" not in argument:
        return argument
    return "*".join(encode_task(part) for part in argument.split("*"))


def encode_task(experiment: str) -> str:
    """Return the name of an experiment as a doit task name, which cannot have ``=`` or ``*``.

    The code is that of URLs: ``lr=0.1`` becomes ``lr%3D0.1``. Letters that cannot be printed are encoded too, and a
    ``%`` that would look like the beginning of a code.
    """
    if experiment.isprintable() and _IN_NO_TASK.isdisjoint(experiment) and "%" not in experiment:
        return experiment
    return "".join(
        character
        if character.isprintable() and character not in _IN_NO_TASK
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in _ENCODED.sub("%25", experiment)
    )
