"""Pure: the commands in messages → the same commands as they work when they are copied.

A message names a command as ``'doit TASK name=value'``. What leaves the program has the program's own name in it, and
the options in force: without them, ``'doit purge'`` would empty the trash of another tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from ckptrules.run.declared import declared
from ckptrules.run.options import Common, Migrating
from ckptrules.run.words import DOIT_COMMANDS, what_is_typed

OUTPUTS_DIR = "outputs_dir"  # by default, the rules may say another than we do
CARRIED = (OUTPUTS_DIR, "rules_dir", "policy", "keep_min_epoch", "keep_last")
WHERE_TO = CARRIED[:2]
DECIDING = (
    *("delete_old", "policy", "keep_min_epoch", "keep_last", "experiments", "max_delete", "on_conflict", "settle"),
    *("verified", "leave_links", "fix_state", "path", "resumed", "best", "run"),
)  # options that say what goes
OURS = "ckptrules"
ITS_OWN = ("init", "completion", "help", "--help", "--version")  # what only our program knows
_WHERE = re.compile("-[fd]|--file|--dir|-k$|--seek-file$")  # doit's own flags: which dodo.py, and which folder
_PLAIN = frozenset("@%+=:,./_-")
_COMMAND = re.compile(r"(?<![\w'])'(doit|ckptrules)((?: [^'\n]+)?)'(?![\w'])|`(doit|ckptrules)( [^`\n]+)`")
_WORD = re.compile(r"(?:\"[^\"]*\"|'[^']*'|\S)+")


class InForce(NamedTuple):
    """What a command needs to work here as this run does: the words that start the program, and the options given.

    ``encoding`` is that of what the command is shown on.
    """

    program: tuple[str, ...] = ("doit",)
    options: Mapping[str, str] = {}
    encoding: str = "utf-8"


def in_force(words: Sequence[str], encoding: str) -> InForce:
    """Read what was typed, also where it is refused: an unknown option does not change where the outputs are."""
    program = PurePath(words[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    known, (typed, flags) = Migrating.known(), what_is_typed(words[1:])
    where = [word for flag in flags if _WHERE.match(flag[0]) for word in flag]
    given = {key: value for key, value in typed.items() if key in CARRIED and value}
    options = {key: value for key, value in given.items() if key == OUTPUTS_DIR or value != known[key].default}
    return InForce((OURS,) if name == OURS else ("doit", *where), options, encoding or "ascii")


def command(task: str, **values: object) -> str:
    """Name a command in a message, with options of its own; `complete` adds those in force."""
    said = {name: value for name, value in values.items() if value or (value == 0 and value is not False)}
    given = {name: int(value) if isinstance(value, bool) else value for name, value in said.items()}
    words = " ".join([f"doit {task}", *(f"{name}={quoted(str(value))}" for name, value in given.items())])
    return as_named(words)


def named(task: str, selected: Iterable[str]) -> str:
    """Write a task for the experiments that are selected by such words; without any, for all."""
    return " ".join(quoted(f"{task}:{one}") for one in selected) or task


def as_named(words: str) -> str:
    """Put quotes around a command, as messages name it."""
    return f"`{words}`" if "'" in words else f"'{words}'"


def complete(text: str, force: InForce) -> str:
    """Write every command that is named in a text so that it can be copied."""
    if "doit" not in text and OURS not in text:
        return text
    return _COMMAND.sub(lambda found: _completed(found[1] or found[3], found[2] or found[4] or "", force), text)


def command_with(tasks: str, options: Common, force: InForce) -> str:
    """Write the command that does some tasks with these options only; of those in force it says where to work."""
    typed = options.typed()
    words = [f"{name}={quoted(typed[name])}" for name in DECIDING if name in typed]
    where = {name: value for name, value in force.options.items() if name in WHERE_TO}
    return _completed("doit", " ".join(["", tasks, *words]), force._replace(options=where))[1:-1]


def quoted(value: str, encoding: str = "utf-8") -> str:
    """Quote a value for a shell, if it needs that; what cannot be shown is written in bytes (``$'...'``)."""
    if all(letter.isalnum() or letter in _PLAIN for letter in value) and _can_be_shown(value, encoding):
        return value
    if value.isprintable() and "`" not in value and _can_be_shown(value, encoding):
        return "'" + value.replace("'", "'\"'\"'") + "'"
    return "$'" + "".join(_in_bytes(letter) for letter in value) + "'"


def _completed(program: str, rest: str, force: InForce) -> str:
    start = [quoted(word, force.encoding) for word in force.program]
    rest = rest.removeprefix("".join(f" {word}" for word in start[1:]))  # it was completed before
    words = _WORD.findall(rest)
    task = _task_of(words)
    if program == OURS and task in ITS_OWN:
        return f"'{program}{rest}'"
    known = {word.partition("=")[0] for word in words}
    more = [f"{n}={quoted(v, force.encoding)}" for n, v in force.options.items() if n not in known and _takes(task, n)]
    return as_named(" ".join([*start, *rest.split(" ")[1:], *more]))


def _task_of(words: Sequence[str]) -> str:
    """Return the task that a command names; doit's own flags before it have a value each."""
    rest = list(words)
    while rest and re.fullmatch("-[a-zA-Z]", rest[0]):
        del rest[:2]
    return rest[0].partition(":")[0] if rest else "plan"


def _takes(task: str, name: str) -> bool:
    if task.isupper() or task in DOIT_COMMANDS - {"list"}:
        return False
    return name in Common.known() or name in declared(task).known()


def _can_be_shown(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _in_bytes(letter: str) -> str:
    if letter.isascii() and letter.isprintable() and letter not in "\\'`":
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
