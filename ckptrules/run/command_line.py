"""What the user asked for: the command line, read once."""

from __future__ import annotations

import functools
import io
import re
import sys
from typing import TextIO

from ckptrules.engine.measures import visible_lines
from ckptrules.run.hints import complete, in_force
from ckptrules.run.options import CommandLine, read_command_line

TASKS = (
    "plan",
    "migrate",
    "verify",
    "catalog",
    "check",
    "history",
    "undo",
    "purge",
    "explain",
    "trash",
    "usage",
    "archive",
    "unarchive",
    "schedule",
    "fix_state",
    "drop_links",
    "refs",
    "log",
    "backup",
    "backups",
    "restore",
    "drop_backup",
    "demo",
)


@functools.cache
def command_line() -> CommandLine:
    """Read the command line, once."""
    return read_command_line(sys.argv[1:], TASKS)


@functools.cache
def chosen() -> frozenset[str]:
    """Return the tasks that were named as they are."""
    return frozenset(word.task for word in command_line().words)


def program() -> str:
    """Return the program that runs: ``doit``, or ``ckptrules``."""
    return in_force(sys.argv, "utf-8").program[0]


def completed(text: str) -> str:
    """Write the commands that a text names so that they work here when they are copied."""
    return complete(text, in_force(sys.argv, getattr(sys.__stdout__, "encoding", None) or "ascii"))


def escape_what_has_no_letter(*streams: TextIO) -> None:
    """Let streams write escapes for what their encoding has no letters for (`LC_ALL=C`), and not fail."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def refusal(text: str) -> str:
    """Return the text of a refusal, in which no name that was given or found begins a line or moves the cursor."""
    return completed(visible_lines(re.sub(r"\n(?!    )", r"\\n", text)))
