"""What the user asked for: the command line, read once."""

from __future__ import annotations

import functools
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from ckptrules.engine.measures import visible_lines
from ckptrules.run.hints import InForce, complete, in_force
from ckptrules.run.options import Common
from ckptrules.run.words import CommandLine, read_command_line

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "commands")
COMMANDS = "ckptrules.commands"  # each file of it is a command, by its name
TASKS = tuple(sorted(name.removesuffix(".py") for name in os.listdir(FOLDER) if name[0] not in "_."))


def module_of(task: str) -> Any:
    """Import the file of a command: its class ``Options``, and ``prepare``, or ``tasks`` where it has several."""
    return importlib.import_module(f"{COMMANDS}.{task}")


def declared(task: str) -> type[Common]:
    """Return what a command may be told; what every command may, where it is none of ours."""
    options: type[Common] = module_of(task).Options if task in TASKS else Common
    return options


def params_of(task: str) -> list[dict[str, Any]]:
    """Return the options of a task as doit wants them told."""
    return [
        {
            "name": option.name,
            "long": option.dashed,
            "type": bool if option.is_flag else str,
            "default": None,
            "inverse": f"no-{option.dashed}" if option.is_flag else "",
            "help": option.described.replace("%", "%%"),
        }
        for option in declared(task).known().values()
    ]


def said_outputs_dir(rules_dir: str | None) -> str | None:
    """Return the ``outputs_dir`` that the rules say; broken rules may say any, so they are refused without a default.

    Raises:
        RuleError: they cannot be read.
    """
    from ckptrules.rules.shipped import rule_texts, says_outputs_dir

    texts = rule_texts(rules_dir)
    if not says_outputs_dir(texts) and os.path.isdir(Common.outputs_dir):
        return None
    from ckptrules.rules.load import outputs_dir_of

    return outputs_dir_of(texts)


def command_line(arguments: Sequence[str]) -> CommandLine:
    """Read the command line; what the rules say to it is read once."""
    return read_command_line(arguments, TASKS, declared)._replace(outputs_dir_by=functools.cache(said_outputs_dir))


def program() -> str:
    """Return the program that runs: ``doit``, or ``ckptrules``."""
    return in_force(sys.argv, "utf-8", TASKS, declared).program[0]


def completed(text: str) -> str:
    """Write the commands that a text names so that they work here when they are copied."""
    return complete(text, force_of(sys.argv[1:]))


def force_of(arguments: Sequence[str]) -> InForce:
    """Return what a command needs to work as one with these arguments does."""
    encoding = getattr(sys.__stdout__, "encoding", None) or "ascii"
    return in_force([sys.argv[0], *arguments], encoding, TASKS, declared)


def escape_what_has_no_letter(*streams: TextIO) -> None:
    """Let streams write escapes for what their encoding has no letters for (`LC_ALL=C`), and not fail."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def refusal(text: str) -> str:
    """Return the text of a refusal, in which no name that was given or found begins a line or moves the cursor."""
    return completed(visible_lines(re.sub(r"\n(?!    )", r"\\n", text)))
