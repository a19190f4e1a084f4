"""Pure: the command line → options. Nothing unknown, ill-typed or said twice gets past this file."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

import re
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ckptrules.engine.conflicts import WAYS, OnConflict
from ckptrules.engine.measures import max_delete, seconds

DEFAULT_TASK = "plan"
TRASH_TASK = "%00trash"  # among the tasks of migrate; no experiment can be encoded so, as no name holds the byte 0
PLANNING = ("plan", "migrate")
CHANGING = ("migrate", "undo", "purge", "fix_state", "drop_links", "refs", "archive", "unarchive")
SELECTING = ("migrate", "fix_state", "drop_links")
LOCKING = (*CHANGING, "backup", "restore", "drop_backup")
REPORTING = (*PLANNING, "undo", "verify", "fix_state", "drop_links", "explain")
MIGRATING = (*PLANNING, "schedule")
DECIDING = (*PLANNING, "explain", "usage", "schedule")
VERIFYING = ("verify",)
CATALOG = ("catalog",)
FORMATS: Mapping[str, tuple[str, ...]] = {"catalog": ("table", "json", "csv"), "archive": ("zst", "gz")}  # by task
CHOOSING = (
    *PLANNING,
    "verify",
    "undo",
    "backup",
    "restore",
    "fix_state",
    "drop_links",
    "archive",
    "explain",
    "usage",
    "catalog",
)
COPY_MODES = ("auto", "copy", "link")
DOIT_COMMANDS = frozenset(
    "auto clean dumpdb forget help ignore info list reset-dep run strace tabcompletion".split(),
)
DOIT_FLAGS_WITH_VALUE = frozenset(
    "-f --file -d --dir --db-file --backend --check_file_uptodate -v --verbosity -r --reporter -o --output-file "
    "-n --process -P --parallel-type --failure-verbosity".split(),
)


class OptionError(Exception):
    """A command line that is refused; the message is place, fact and hint."""


class Option(NamedTuple):
    """One option: ``name=value``, or ``--name value`` with dashes; a flag stands alone (``--delete-old``).

    ``tasks`` are the only tasks that it is for; none means all.
    """

    name: str
    read: Callable[[str], Any]
    default: Any
    help: str
    flag: bool = False
    tasks: tuple[str, ...] = ()

    @property
    def dashed(self) -> str:
        """The name as a flag is written, without the two dashes in front."""
        return self.name.replace("_", "-")


class Options(NamedTuple):
    """The options in force; None means that it was not given and something else decides."""

    outputs_dir: str = "outputs"
    rules_dir: str | None = None
    dry_run: bool = False
    delete_old: bool = False
    keep_min_epoch: int | None = None
    policy: str = "default"
    on_conflict: OnConflict = "report"
    settle: int | None = None
    verified: bool = False
    leave_links: bool = False
    fix_state: bool = False
    max_delete: str | None = None
    verbose: bool = False
    quiet: bool = False
    name: str | None = None
    older_than: str | None = None
    archive_dir: str | None = None
    keep_source: bool = False
    archive: str | None = None
    json: str | None = None
    run: str | None = None
    paths: str | None = None
    apply: bool = False
    experiments: str | None = None
    wait: int = 0
    quick: bool = False
    load: bool = False
    unsafe: bool = False
    format: str = "table"
    out: str | None = None
    to: str | None = None
    mode: str = "auto"
    backup: str | None = None
    force: bool = False
    verify: bool = False
    yes: bool = False


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
    tasks: frozenset[str] = frozenset()

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

    def options(self, task: str, given: Mapping[str, Any] | None = None) -> Options:
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
        defaults = {
            name: _read_value(BY_NAME[name], value) if isinstance(value, str) else value
            for name, value in (given or {}).items()
            if value is not None
        }
        return Options(**{**defaults, **self.variables, **flags})


def whole_number(text: str) -> int:
    """Read a number of 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError("a whole number, 0 or more")
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


def a_file(text: str) -> str:
    """Read the path of a file to write. Elsewhere ``-`` is the screen; here it would be a file of that name."""
    if text in ("", "-"):
        raise ValueError("the path of a file, such as report.json")
    return text


def as_time(text: str) -> str:
    """Read a time such as ``7d``."""
    seconds(text)
    return text


def one_of(words: Sequence[str]) -> Callable[[str], str]:
    """Return a reader of one of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


OPTIONS: tuple[Option, ...] = (
    Option("outputs_dir", some_text, "outputs", "folder that holds the experiments"),
    Option("rules_dir", some_text, "rules", "folder with the rule files (*.yaml)"),
    Option("dry_run", yes_or_no, "0", "show what would happen, change nothing", flag=True),
    Option(
        "delete_old",
        yes_or_no,
        "0",
        "also delete what the retention policy does not keep",
        flag=True,
        tasks=MIGRATING,
    ),
    Option(
        "keep_min_epoch",
        whole_number,
        "10",
        "keep this epoch and later ones (overrides the policy's min_epoch)",
        tasks=DECIDING,
    ),
    Option("policy", some_text, "default", "retention policy to go by", tasks=DECIDING),
    Option(
        "max_delete",
        max_delete,
        "",
        "the most that this run may delete: 25 checkpoints, or 20% of them (in place of max_delete in the rules)",
        tasks=MIGRATING,
    ),
    Option(
        "on_conflict",
        one_of(WAYS),
        "report",
        f"when checkpoints want one name: {', '.join(WAYS)}",
        tasks=MIGRATING,
    ),
    Option(
        "settle", whole_number, "0", "seconds that a checkpoint must be unchanged (overrides rules)", tasks=MIGRATING
    ),
    Option(
        "verified", yes_or_no, "0", "delete only where a checkpoint that stays is verified", flag=True, tasks=MIGRATING
    ),
    Option("leave_links", yes_or_no, "0", "leave a link under each old name", flag=True, tasks=MIGRATING),
    Option(
        "fix_state",
        yes_or_no,
        "0",
        "also bring the paths inside the checkpoints up to date",
        flag=True,
        tasks=MIGRATING,
    ),
    Option("verbose", yes_or_no, "0", "list also what stays, with the reason and the rule", flag=True),
    Option(
        "quiet",
        yes_or_no,
        "0",
        "print nothing where nothing was done and no problem is left",
        flag=True,
        tasks=MIGRATING,
    ),
    Option("name", some_text, "", "the names to explain: a shell pattern, or a path", tasks=("explain",)),
    Option("older_than", as_time, "", "free only what has waited for so long: 7d, 12h", tasks=("purge",)),
    Option("archive_dir", some_text, "", "the folder of the archives", tasks=("usage", "archive")),
    Option("keep_source", yes_or_no, "0", "leave the experiment where it is", flag=True, tasks=("archive",)),
    Option("archive", some_text, "", "the archive to bring back", tasks=("unarchive",)),
    Option("json", a_file, "", "write the plan, or what came of it, to this file", tasks=REPORTING),
    Option("run", some_text, "", "the run in question, as 'doit history' has it", tasks=("undo", "log", "refs")),
    Option(
        "experiments",
        some_text,
        "",
        "only the experiments that this pattern fits",
        tasks=CHOOSING,
    ),
    Option("paths", some_text, "", "files and folders to look in, with spaces between", tasks=("refs",)),
    Option("apply", yes_or_no, "0", "rewrite the files", flag=True, tasks=("refs",)),
    Option("wait", whole_number, "0", "seconds to wait for another run to finish", tasks=LOCKING),
    Option("quick", yes_or_no, "0", "leave the checksums out", flag=True, tasks=VERIFYING),
    Option("load", yes_or_no, "0", "really load each with torch, running no code of it", flag=True, tasks=VERIFYING),
    Option(
        "unsafe",
        yes_or_no,
        "0",
        "with load=1: RUN the code that a checkpoint names where it needs that to load",
        flag=True,
        tasks=VERIFYING,
    ),
    Option(
        "format",
        some_text,
        "table",
        "catalog: table, json or csv; archive: zst (otherwise) or gz",
        tasks=(*CATALOG, "archive"),
    ),
    Option("out", a_file, "", "write it to this file", tasks=(*CATALOG, "log")),
    Option("to", some_text, "", "folder of the backups; otherwise beside outputs_dir", tasks=("backup", "backups")),
    Option(
        "mode", one_of(COPY_MODES), "auto", "auto: clones where possible; copy; link: hard links", tasks=("backup",)
    ),
    Option("backup", some_text, "", "the backup to work with", tasks=("restore", "drop_backup")),
    Option("force", yes_or_no, "0", "also where that replaces something", flag=True, tasks=("restore", "refs")),
    Option("verify", yes_or_no, "0", "check every file against its checksum", flag=True, tasks=("backups",)),
    Option("yes", yes_or_no, "0", "free it without asking", flag=True, tasks=("purge",)),
)
BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}


def read_command_line(arguments: Sequence[str], tasks: Iterable[str]) -> CommandLine:
    """Read the arguments as doit does: its own flags first, then tasks each with flags, ``name=value`` anywhere.

    Raises:
        OptionError: an unknown option, or a value that does not fit.
    """
    known = set(tasks)
    variables: dict[str, Any] = {}
    words: list[Word] = []
    unknown: list[str] = []
    command = "run"
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        ours = bool(words) and _selects_any(words[-1], known)
        if argument.startswith("-"):
            if ours:
                _refuse_short(argument, words[-1])
                name, value = _read_flag(argument, rest)
                _set_once(words[-1].flags, name, value)
            elif not words and argument in DOIT_FLAGS_WITH_VALUE and rest:
                rest.pop(0)
        elif "=" in argument:
            name, text = argument.split("=", 1)
            if name in BY_NAME:
                _set_once(variables, name, _read_value(BY_NAME[name], text))
            elif selects_by_name(argument, known):
                words.append(Word(encode_word(argument), {}, typed=argument))
            else:
                unknown.append(argument)
        elif not words and command == "run" and argument in DOIT_COMMANDS:
            command = argument
        else:
            words.append(Word(argument, {}))
    if unknown and (not words or any(_selects_any(word, known) for word in words)):
        raise _unknown(unknown[0])
    for word in words:
        if word.task in BY_NAME and word.task not in known:
            raise OptionError(f"command line: '{word.task}' is an option, no task\n    hint: write {word.task}=…")
    _refuse_mixed(words)
    if command == "run":
        _refuse_foreign(words or [Word(DEFAULT_TASK, {})], variables, known)
    return CommandLine(command, tuple(words), variables, tuple(arguments), frozenset(known))


def _selects_any(word: Word, tasks: Iterable[str]) -> bool:
    return any(word.selects(task) for task in tasks)


def _refuse_foreign(words: Iterable[Word], variables: Mapping[str, Any], tasks: set[str]) -> None:
    """Refuse an option that a task does not know: it would do without it what was meant to be done with it.

    Raises:
        OptionError: with the tasks that the option is for.
    """
    for word in words:
        for option in (BY_NAME[name] for name in (*variables, *word.flags)):
            if word.base in tasks and option.tasks and word.base not in option.tasks:
                fact = f"option '{option.name}' is not for '{word.base}'"
                raise OptionError(f"command line: {fact}\n    hint: it is for: {', '.join(option.tasks)}")
        form = variables.get("format") or word.flags.get("format")
        if form and word.base in FORMATS and form not in FORMATS[word.base]:
            raise OptionError(
                f"command line: format={form}: must be one of {', '.join(FORMATS[word.base])} for {word.base}"
            )


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
            fact = f"doit sees no task before '--{BY_NAME[flag].dashed}', because of the '=' in '{word.typed}'"
            raise OptionError(f"command line: {fact}\n    hint: write '{word.task}'")


def _refuse_short(argument: str, word: Word) -> None:
    """Refuse what doit would answer with a dump of its own objects.

    Raises:
        OptionError: with the right place of doit's own flags.
    """
    if not argument.startswith("--"):
        hint = f"doit's own flags come before the task: doit {argument} … {word.task}"
        raise OptionError(f"command line: unknown option '{argument}' behind '{word.task}'\n    hint: {hint}")


def _read_flag(argument: str, rest: list[str]) -> tuple[str, Any]:
    dashed, has_value, text = argument[2:].partition("=")
    dashes = {option.dashed: option for option in OPTIONS} | {f"no-{o.dashed}": o for o in OPTIONS if o.flag}
    full = [dashed] if dashed in dashes else [name for name in dashes if name.startswith(dashed)]
    if len(full) != 1:
        fact = f"unknown option '--{dashed}'" if not full else f"'--{dashed}' is short for {', '.join(full)}"
        raise OptionError(f"command line: {fact}" + _hint(dashed, dashes, "--"))
    option = dashes[full[0]]
    if option.flag and has_value:
        fact = f"--{full[0]} takes no value"
        raise OptionError(f"command line: {fact}\n    hint: write {option.name}={text}")
    if option.flag:
        return option.name, not full[0].startswith("no-")
    if not has_value:
        if not rest:
            raise OptionError(f"command line: --{full[0]} needs a value")
        text = rest.pop(0)
    return option.name, _read_value(option, text)


def _unknown(argument: str) -> OptionError:
    name, _, _ = argument.partition("=")
    return OptionError(f"command line: unknown option '{name}'" + _hint(name, BY_NAME))


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
