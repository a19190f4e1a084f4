"""Pure: what a command may be told, and the command line → that. Nothing unknown, ill-typed or said twice gets past."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self, dataclass_transform, get_args

from ckptrules.engine.measures import max_delete, rate, seconds
from ckptrules.engine.values import OnConflict

DEFAULT_TASK = "plan"
WAYS: tuple[OnConflict, ...] = get_args(OnConflict)
DOIT_COMMANDS = frozenset(
    "auto clean dumpdb forget help ignore info list reset-dep run strace tabcompletion".split(),
)
DOIT_FLAGS_WITH_VALUE = frozenset(
    "-f --file -d --dir --db-file --backend --check_file_uptodate -v --verbosity -r --reporter -o --output-file "
    "-n --process -P --parallel-type --failure-verbosity".split(),
)


EXECUTORS = ("none", "processes")


class OptionError(Exception):
    """A command line that is refused; the message is place, fact and hint."""


# --- what a value may be ---------------------------------------------------------------------------------------------


def whole_number(text: str) -> int:
    """Read a number of 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("a whole number, 0 or more")
    return int(text)


def one_or_more(text: str) -> int:
    """Read a number of 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError("a whole number, 1 or more")
    return int(text)


def yes_or_no(text: str) -> bool:
    """Read 1/true/yes/on and 0/false/no/off."""
    word = text.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("1/true/yes or 0/false/no")


def some_text(text: str) -> str:
    """Read text that is not empty."""
    if not text:
        raise ValueError("something, not an empty text")
    return text


def a_path(text: str) -> str:
    """Read the path of a file or a folder."""
    return some_text(text)


def a_file(text: str) -> str:
    """Read the path of a file to write. Elsewhere ``-`` is the screen; here it would be a file of that name."""
    if text in ("", "-"):
        raise ValueError("the path of a file, such as report.json")
    return text


def is_page(path: str) -> bool:
    """Say whether a path is that of a page, by its ending."""
    return path.endswith((".html", ".htm"))


def a_page(text: str) -> str:
    """Read the path of a page to write: by its ending nothing else can be meant, a checkpoint say."""
    if not is_page(text):
        raise ValueError("the path of a page, such as checkpoints.html")
    return text


def as_time(text: str) -> str:
    """Read a time such as ``7d``."""
    seconds(text)
    return text


def a_checkpoint(text: str) -> str:
    """Read the path of a checkpoint; a directory is one without its last slash, too."""
    return a_path(text).rstrip("/") or "/"


def an_executor(text: str) -> str:
    """Read where the work is done."""
    if text not in EXECUTORS:
        raise ValueError(f"one of {', '.join(EXECUTORS)}")
    return text


def a_rate(text: str) -> str:
    """Read a rate such as ``2GB/s``."""
    rate(text)
    return text


class OneOf:
    """Reads one of some words."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def __call__(self, text: str) -> str:
        """Read it."""
        if text not in self.words:
            raise ValueError(f"one of {', '.join(self.words)}")
        return text


# --- how a command declares what it may be told ----------------------------------------------------------------------


class Option(NamedTuple):
    """One option: ``name=value``, or ``--name value`` with dashes; a flag stands alone (``--delete-old``)."""

    default: Any
    read: Callable[[str], Any]
    help: str
    is_flag: bool = False
    name: str = ""

    @property
    def dashed(self) -> str:
        """The name as a flag is written, without the two dashes in front."""
        return self.name.replace("_", "-")

    @property
    def values(self) -> Sequence[str]:
        """The words that it may be, where only some are."""
        return self.read.words if isinstance(self.read, OneOf) else ()

    @property
    def is_path(self) -> bool:
        """Whether it is the path of a file or a folder."""
        return self.read in (a_path, a_file, a_checkpoint)

    @property
    def shown(self) -> str:
        """The default as it is typed; nothing where something else decides."""
        return "" if self.default is None else str(int(self.default) if self.is_flag else self.default)

    @property
    def described(self) -> str:
        """What it is for, with the default."""
        return self.help + f" [{self.shown}]" * bool(self.shown)


def option(default: Any, read: Callable[[str], Any], text: str) -> Any:
    """Declare an option in a class of options, where it is the value of a typed attribute."""
    return Option(default, read, text)


def flag(text: str, *, default: bool = False) -> Any:
    """Declare an option that is on or off; most are off unless they are given."""
    return Option(default, yes_or_no, text, is_flag=True)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Declared:
    """A frozen value made of the typed attributes of a class; those that are an `Option` can be given by the user.

    It is what a dataclass would be; but that compiles a page of code for each class, at every start.
    """

    attributes: ClassVar[Mapping[str, Option | None]] = MappingProxyType({})  # in their order

    def __init_subclass__(cls) -> None:
        own: dict[str, Option | None] = {}
        for name in (name for name, kind in cls.__annotations__.items() if "ClassVar" not in str(kind)):
            value = vars(cls)[name]
            own[name] = value._replace(name=name) if isinstance(value, Option) else None
            setattr(cls, name, value.default if isinstance(value, Option) else value)
        cls.attributes = {**cls.attributes, **own}

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - self.attributes.keys():
            raise TypeError(f"{type(self).__qualname__} has no {', '.join(sorted(unknown))}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"'{name}' cannot be changed; 'but' returns the same with a change")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.attributes)

    @classmethod
    def known(cls) -> Mapping[str, Option]:
        """Return the options by name."""
        return {name: option for name, option in cls.attributes.items() if option}

    def given(self) -> dict[str, Any]:
        """Return the value of each option."""
        return {name: getattr(self, name) for name in self.known()}

    def but(self, **changes: Any) -> Self:
        """Return the same with some attributes changed."""
        return type(self)(**{**vars(self), **changes})


class Common(Declared):
    """What every command may be told, and what is asked of every command; a command replaces what it has of its own."""

    needs_outputs: ClassVar[bool] = True  # so the rules may say where they are
    believes_state: ClassVar[bool] = True  # so it is refused where others could have written the state
    reads_journals: ClassVar[bool] = False  # of earlier runs, likewise
    changes: ClassVar[bool] = False  # so it takes the lock, and finishes first what a run before it left half done
    remembers: ClassVar[bool] = False  # what is up to date, so it needs a database that can be written
    shares: ClassVar[bool] = False  # its work with several processes where the tree is large

    outputs_dir: str = option(
        "outputs", a_path, "folder that holds the experiments; otherwise outputs_dir in the rules, if they have one"
    )
    rules_dir: str | None = option(None, a_path, "folder with the rule files (*.yaml); otherwise rules")
    dry_run: bool = flag("show what would happen, change nothing")
    verbose: bool = flag("list also what stays, with the reason and the rule")
    experiments: str | None = None
    json: str | None = None
    html: str | None = None
    quiet: bool = False
    summary: bool = False
    wait: int = 0
    executor: str | None = None
    max_rate: str | None = None

    @property
    def will_change(self) -> bool:
        """Whether this run is to change anything."""
        return self.changes and not self.dry_run

    @property
    def tells_data(self) -> bool:
        """Whether what is planned or done is wanted as data: for a JSON file, or for the page that is drawn from it."""
        return bool(self.json or self.html)


EXPERIMENTS = option(None, some_text, "only the experiments that this pattern fits")
JSON = option(None, a_file, "write the plan, or what came of it, to this file")
HTML = option(None, a_page, "draw it as a page: one HTML file, for a browser or to be sent round")
WAIT = option(0, whole_number, "seconds to wait for another run to finish")
POLICY = option("default", some_text, "retention policy to go by, where 'experiments' in the rules gives no other")
KEEP_MIN_EPOCH = option(None, whole_number, "keep this epoch and later ones (overrides the policy's min_epoch)")
KEEP_LAST = option(
    None, one_or_more, "keep so many of the newest (overrides the policy's keep_last, min_epoch and min_step)"
)
EXECUTOR = option(
    None, an_executor, "where the work is done: none (this process) or processes (else these where it pays)"
)
MAX_RATE = option(None, a_rate, "at most so many bytes a second, for all workers together: 2GB/s, say")
RUN = option(None, some_text, "the run in question, as 'doit history' has it")
ARCHIVE_DIR = option(None, a_path, "the folder of the archives")
BACKUP = option(None, some_text, "the backup to work with")
BACKUPS = option(None, a_path, "folder of the backups; otherwise beside outputs_dir")


class Planning(Common):
    """What a plan of a directory goes by; most commands leave it at that.

    Where there is a ``path``, only the directory of that checkpoint is meant.
    """

    policy: str = "default"
    keep_min_epoch: int | None = None
    keep_last: int | None = None
    delete_old: bool = False
    max_delete: str | None = None
    on_conflict: OnConflict = "report"
    settle: int | None = None
    verified: bool = False
    leave_links: bool = False
    fix_state: bool = False
    path: str | None = None
    resumed: str | None = None
    best: str | None = None


class Migrating(Planning):
    """What `doit migrate` goes by, and what shows it or repeats it."""

    delete_old: bool = flag("also delete what the retention policy does not keep")
    keep_min_epoch: int | None = KEEP_MIN_EPOCH
    keep_last: int | None = KEEP_LAST
    policy: str = POLICY
    max_delete: str | None = option(
        None,
        max_delete,
        "the most that this run may delete: 25 checkpoints, or 20% of them (in place of max_delete in the rules)",
    )
    on_conflict: OnConflict = option("report", OneOf(WAYS), f"when checkpoints want one name: {', '.join(WAYS)}")
    settle: int | None = option(
        None, whole_number, "seconds that a checkpoint must be unchanged (overrides settle in the rules)"
    )
    verified: bool = flag("delete only where a checkpoint that stays is verified")
    leave_links: bool = flag("leave a link under each old name")
    fix_state: bool = flag("also bring the paths inside the checkpoints up to date")
    quiet: bool = flag("print nothing where nothing was done and no problem is left")
    executor: str | None = EXECUTOR


# --- the command line ------------------------------------------------------------------------------------------------

Known = Mapping[str, Option]
Declarations = Callable[[str], type[Common]]  # of a command, by its name


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

    def selects(self, task: str) -> bool:
        """Say whether it can select a task or one of its experiments; ``*`` fits any text, a colon too."""
        start, star, _ = self.task.partition("*")
        whole = f"{task}:"
        return (whole.startswith(start) or start.startswith(whole)) if star else self.base == task


class CommandLine(NamedTuple):
    """What the user asked for. ``command`` is doit's own (``run``, ``list``, …)."""

    command: str
    words: tuple[Word, ...]
    variables: Mapping[str, Any]
    arguments: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    declared: Declarations = lambda _: Common
    outputs_dir_by: Callable[[str | None], str | None] = lambda _: None  # what the rules of a folder say

    @property
    def has_foreign_words(self) -> bool:
        """Say whether it names something else than our tasks: a task of the user's own, say."""
        return any(not _selects_any(word, self.tasks) for word in self.words)

    def asks_for(self, task: str) -> bool:
        """Say whether a task is needed at all: doit calls every task creator on every command."""
        if self.command == "help" or (self.command == "list" and "--all" not in self.arguments):
            return False
        if not self.words:
            return task == DEFAULT_TASK or self.command not in ("run", "clean")
        return any(word.selects(task) for word in self.words)

    def asked(self) -> dict[str, Common]:
        """Return the tasks that are asked for, with their options."""
        return {task: self.options(task) for task in self.tasks if self.asks_for(task)}

    def options(self, task: str, given: Mapping[str, Any] | None = None) -> Common:
        """Return the options of one task; ``given`` holds defaults from doit's own configuration.

        Raises:
            OptionError: an option is given twice, or two selections of one task differ in their flags.
        """
        flags: dict[str, Any] = {}
        for word in (word for word in self.words if word.selects(task)):
            for name, value in word.flags.items():
                if name in self.variables or flags.get(name, value) != value:
                    raise OptionError(f"command line: option '{name}' is given twice\n    hint: give it once")
                flags[name] = value
        if any(word.flags != flags for word in self.words if word.base == task):
            raise OptionError(
                f"command line: the selections of '{task}' have different flags\n"
                "    hint: run one after the other, or give the options as name=value for all"
            )
        known = self.declared(task).known()
        defaults = {
            name: _read_value(known[name], value) if isinstance(value, str) else value
            for name, value in (given or {}).items()
            if value is not None
        }
        values = {**defaults, **self.variables, **flags}
        if "outputs_dir" not in values and self.declared(task).needs_outputs:
            said = self.outputs_dir_by(values.get("rules_dir"))
            values |= {"outputs_dir": said} if said else {}
        return self.declared(task)(**{name: value for name, value in values.items() if name in known})


def read_command_line(arguments: Sequence[str], tasks: Iterable[str], declared: Declarations) -> CommandLine:
    """Read the arguments as doit does: its own flags first, then tasks each with flags, ``name=value`` anywhere.

    Only the commands that are asked for need be declared, unless something is refused.

    Raises:
        OptionError: an unknown option, or a value that does not fit.
    """
    reader = _Reader(tuple(tasks), declared)
    rest = list(arguments)
    while rest:
        reader.read(rest.pop(0), rest)
    return reader.finish(tuple(arguments))


class _Reader:
    """Reads one argument after the other. What a ``name=value`` means is known only when all tasks are."""

    def __init__(self, tasks: tuple[str, ...], declared: Declarations) -> None:
        self.tasks, self.declared = tasks, declared
        self.command = "run"
        self.words: list[Word] = []
        self.texts: list[tuple[str, str]] = []

    def read(self, argument: str, rest: list[str]) -> None:
        name, is_value, text = argument.partition("=")
        if argument.startswith("-"):
            if self.words and _selects_any(self.words[-1], self.tasks):
                _refuse_short(argument, self.words[-1])
                _set_once(self.words[-1].flags, *self._flag(argument, rest))
            elif not self.words and argument in DOIT_FLAGS_WITH_VALUE and rest:
                rest.pop(0)
        elif is_value and selects_by_name(argument, self.tasks):
            self.words.append(Word(encode_word(argument), {}, typed=argument))
        elif is_value:
            self.texts.append((name, text))
        elif not self.words and self.command == "run" and argument in DOIT_COMMANDS:
            self.command = argument
        else:
            self.words.append(Word(argument, {}))

    def finish(self, arguments: tuple[str, ...]) -> CommandLine:
        """Give every ``name=value`` its meaning, and refuse what has none."""
        words = self.words or [Word(DEFAULT_TASK, {})] if self.command == "run" else self.words
        known = self._known(words)
        variables: dict[str, Any] = {}
        for name, text in self.texts:
            if name in known or name in (known := {**self._elsewhere(words, name), **known}):
                _set_once(variables, name, self._value(words, known[name], text))
            elif not self.words or any(_selects_any(word, self.tasks) for word in self.words):
                raise OptionError(f"command line: unknown option '{name}'" + _hint(name, known))
        for word in self.words:
            if word.task in known and word.task not in self.tasks:
                raise OptionError(f"command line: '{word.task}' is an option, no task\n    hint: write {word.task}=…")
        _refuse_mixed(self.words)
        if self.command == "run":
            self._refuse_foreign(words, variables)
        return CommandLine(self.command, tuple(self.words), variables, arguments, self.tasks, self.declared)

    def _known(self, words: Iterable[Word]) -> Known:
        """Return what the commands that some words select may be told; what all may, where they select none."""
        return {name: one for known in self._selected(words) for name, one in known.items()} or Common.known()

    def _selected(self, words: Iterable[Word]) -> list[Known]:
        return [self.declared(task).known() for task in self.tasks if any(word.selects(task) for word in words)]

    def _value(self, words: Iterable[Word], option: Option, text: str) -> Any:
        """Read a value as each command does that has the option: one may take less than another."""
        return [_read_value(known.get(option.name, option), text) for known in (self._selected(words) or [{}])][-1]

    def _elsewhere(self, words: Iterable[Word], name: str) -> Known:
        """Return an option that no selected command has, and some other one does."""
        ours = [word for word in words if _selects_any(word, self.tasks)]
        every = [self.declared(task).known() for task in self.tasks] if ours or not words else []
        return next(({name: known[name]} for known in every if name in known), {})

    def _flag(self, argument: str, rest: list[str]) -> tuple[str, Any]:
        """Read a flag behind a task, and its value, which may be the next argument."""
        dashed, has_value, text = argument[2:].partition("=")
        flags = _by_flag(self._known(self.words[-1:]))
        full = _fitting(dashed, flags)
        if not full:
            every = _by_flag({name: one for task in self.tasks for name, one in self.declared(task).known().items()})
            full, flags = _fitting(dashed, every), every | flags
        if len(full) != 1:
            fact = f"unknown option '--{dashed}'" if not full else f"'--{dashed}' is short for {', '.join(full)}"
            raise OptionError(f"command line: {fact}" + _hint(dashed, flags, "--"))
        found = flags[full[0]]
        if found.is_flag and has_value:
            fact = f"--{full[0]} takes no value"
            raise OptionError(f"command line: {fact}\n    hint: write {found.name}={text}")
        if found.is_flag:
            return found.name, not full[0].startswith("no-")
        if not has_value:
            if not rest:
                raise OptionError(f"command line: --{full[0]} needs a value")
            text = rest.pop(0)
        return found.name, self._value(self.words[-1:], found, text)

    def _refuse_foreign(self, words: Iterable[Word], variables: Mapping[str, Any]) -> None:
        """Refuse an option that a task does not know: it would do without it what was meant to be done with it.

        Raises:
            OptionError: with the tasks that the option is for.
        """
        for word in (word for word in words if word.base in self.tasks):
            for name in (*variables, *word.flags):
                if name not in self.declared(word.base).known():
                    tasks = [task for task in self.tasks if name in self.declared(task).known()]
                    fact = f"option '{name}' is not for '{word.base}'"
                    raise OptionError(f"command line: {fact}\n    hint: it is for: {', '.join(tasks)}")


def _by_flag(known: Known) -> dict[str, Option]:
    return {one.dashed: one for one in known.values()} | {
        f"no-{one.dashed}": one for one in known.values() if one.is_flag
    }


def _fitting(dashed: str, flags: Iterable[str]) -> list[str]:
    """Return the flags that a flag means, which may be shortened."""
    return [dashed] if dashed in flags else [name for name in flags if name.startswith(dashed)]


def _selects_any(word: Word, tasks: Iterable[str]) -> bool:
    return any(word.selects(task) for task in tasks)


def _refuse_mixed(words: Sequence[Word]) -> None:
    """Refuse selections of which doit would see some only: what has a ``=`` is a variable for it.

    Raises:
        OptionError: with how to write them.
    """
    hidden = [word for word in words if word.typed]
    if hidden and len(hidden) < len(words):
        fact = f"doit reads '{hidden[0].typed}' as an option beside other tasks, because of its '='"
        raise OptionError(f"command line: {fact}\n    hint: write '{hidden[0].task}'")
    for word in hidden:
        if word.flags:
            flag = next(iter(word.flags))
            fact = f"doit sees no task before '--{flag.replace('_', '-')}', because of the '=' in '{word.typed}'"
            raise OptionError(f"command line: {fact}\n    hint: write '{word.task}'")


def _refuse_short(argument: str, word: Word) -> None:
    """Refuse what doit would answer with a dump of its own objects.

    Raises:
        OptionError: with the right place of doit's own flags.
    """
    if not argument.startswith("--"):
        hint = f"doit's own flags come before the task: doit {argument} … {word.task}"
        raise OptionError(f"command line: unknown option '{argument}' behind '{word.task}'\n    hint: {hint}")


def _read_value(option: Option, text: str) -> Any:
    try:
        return option.read(text)
    except ValueError as error:
        raise OptionError(f"command line: {option.name}={text}: must be {error}") from None


def _set_once(values: MutableMapping[str, Any], name: str, value: Any) -> None:
    if name in values:
        raise OptionError(f"command line: option '{name}' is given twice\n    hint: give it once")
    values[name] = value


def _hint(word: str, words: Iterable[str], dashes: str = "") -> str:
    import difflib

    near = difflib.get_close_matches(word, list(words), n=1)
    if near:
        return f"\n    hint: did you mean '{dashes}{near[0]}'?"
    return f"\n    hint: there are: {', '.join(words)}"


_IN_NO_TASK = frozenset("=*")
_ENCODED = re.compile("%(?=[0-9A-Fa-f]{2})")  # what looks like it, and is not


def fits(word: str, task: str) -> bool:
    """Say whether a word of the command line selects a task: for doit it is a pattern where it has a ``*``."""
    return fnmatchcase(task, word) if "*" in word else task == word


def as_pattern(text: str | None, names: Collection[str]) -> str | None:
    """Return the shell pattern that ``experiments=`` means: an experiment's own name (``run[1]``) means that."""
    return re.sub(r"([*?[])", r"[\1]", text) if text is not None and text in names else text


def selects_by_name(argument: str, tasks: Collection[str]) -> bool:
    """Say whether an argument is a task of ours with the name of an experiment behind it: ``migrate:lr=0.1``."""
    task, colon, _ = argument.partition("=")[0].partition(":")
    return bool(colon) and _selects_any(Word(task, {}), tasks)


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
