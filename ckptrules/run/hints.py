"""Complete the commands in messages, so that they work when they are copied. Pure.

Code writes a command as ``'doit TASK name=value'``. When the text leaves the program, it gets the name of the program
and the options in force. Without them, a copied ``'doit purge'`` would empty the trash of another tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from ckptrules.run.declared import declared
from ckptrules.run.options import Common, Migrating
from ckptrules.run.words import DOIT_COMMANDS, what_is_typed

OUTPUTS_DIR = "outputs_dir"  # carried also if it is our default, as the rules may have another
CARRIED = (OUTPUTS_DIR, "rules_dir", "policy", "keep_min_epoch", "keep_last")
WHERE_TO = CARRIED[:2]
DECIDING = (
    *("delete_old", "policy", "keep_min_epoch", "keep_last", "experiments", "max_delete", "on_conflict", "settle"),
    *("verified", "leave_links", "fix_state", "path", "resumed", "best", "run"),
)  # options that change which checkpoints are deleted
OURS = "ckptrules"
ITS_OWN = ("init", "completion", "help", "--help", "--version")  # words that only the program `ckptrules` knows
_WHERE = re.compile("-[fd]|--file|--dir|-k$|--seek-file$")  # doit's flags for the dodo.py and the folder
_PLAIN = frozenset("@%+=:,./_-")
_COMMAND = re.compile(r"(?<![\w'])'(doit|ckptrules)((?: [^'\n]+)?)'(?![\w'])|`(doit|ckptrules)( [^`\n]+)`")
_WORD = re.compile(r"(?:\"[^\"]*\"|'[^']*'|\S)+")


class InForce(NamedTuple):
    """What a command must repeat to work as this call does: the words that start the ``program``, and ``options``.

    ``encoding`` is that of the terminal on which the command is shown.
    """

    program: tuple[str, ...] = ("doit",)
    options: Mapping[str, str] = {}
    encoding: str = "utf-8"


def in_force(words: Sequence[str], encoding: str) -> InForce:
    """Read the words of a call, also of one that is refused: in spite of an unknown option, ``outputs_dir`` holds."""
    program = PurePath(words[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    known, (typed, flags) = Migrating.known(), what_is_typed(words[1:])
    where = [word for flag in flags if _WHERE.match(flag[0]) for word in flag]
    given = {key: value for key, value in typed.items() if key in CARRIED and value}
    options = {key: value for key, value in given.items() if key == OUTPUTS_DIR or value != known[key].default}
    return InForce((OURS,) if name == OURS else ("doit", *where), options, encoding or "ascii")


def command(task: str, **values: object) -> str:
    """Write a command for a message, with options of its own; `complete` adds those in force."""
    given = {name: value for name, value in values.items() if value or (value == 0 and value is not False)}
    typed = {name: int(value) if isinstance(value, bool) else value for name, value in given.items()}
    words = " ".join([f"doit {task}", *(f"{name}={quoted(str(value))}" for name, value in typed.items())])
    return as_named(words)


def named(task: str, selected: Iterable[str]) -> str:
    """Write a task with the experiments that are selected; without any, it is for all."""
    return " ".join(quoted(f"{task}:{pattern}") for pattern in selected) or task


def as_named(words: str) -> str:
    """Put quotes around a command, as in messages."""
    return f"`{words}`" if "'" in words else f"'{words}'"


def complete(text: str, force: InForce) -> str:
    """Complete every command in a text."""
    if "doit" not in text and OURS not in text:
        return text
    return _COMMAND.sub(lambda found: _completed(found[1] or found[3], found[2] or found[4] or "", force), text)


def command_with(tasks: str, options: Common, force: InForce) -> str:
    """Write the command for tasks with these options, without those in force except the folders."""
    typed = options.typed()
    words = [f"{name}={quoted(typed[name])}" for name in DECIDING if name in typed]
    where = {name: value for name, value in force.options.items() if name in WHERE_TO}
    return _completed("doit", " ".join(["", tasks, *words]), force._replace(options=where))[1:-1]


def quoted(value: str, encoding: str = "utf-8") -> str:
    """Quote a value for a shell, if needed; as bytes (``$'...'``) if it has letters that cannot be shown."""
    if all(letter.isalnum() or letter in _PLAIN for letter in value) and _can_be_shown(value, encoding):
        return value
    if value.isprintable() and "`" not in value and _can_be_shown(value, encoding):
        return "'" + value.replace("'", "'\"'\"'") + "'"
    return "$'" + "".join(_in_bytes(letter) for letter in value) + "'"


def _completed(program: str, rest: str, force: InForce) -> str:
    start = [quoted(word, force.encoding) for word in force.program]
    rest = rest.removeprefix("".join(f" {word}" for word in start[1:]))  # in case the text was completed before
    words = _WORD.findall(rest)
    task = _task_of(words)
    if program == OURS and task in ITS_OWN:
        return f"'{program}{rest}'"
    known = {word.partition("=")[0] for word in words}
    more = [f"{n}={quoted(v, force.encoding)}" for n, v in force.options.items() if n not in known and _takes(task, n)]
    return as_named(" ".join([*start, *rest.split(" ")[1:], *more]))


def _task_of(words: Sequence[str]) -> str:
    """Return the task of a command; doit's own flags before it have a value each."""
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
