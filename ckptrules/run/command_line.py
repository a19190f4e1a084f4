"""Read the command line of this process, and write to its terminal."""

from __future__ import annotations

import functools
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from ckptrules import stopping
from ckptrules.engine.measures import visible_lines
from ckptrules.run.declared import declared
from ckptrules.run.hints import InForce, complete, in_force
from ckptrules.run.options import Common
from ckptrules.run.words import DEFAULT_TASK, CommandLine, read_command_line


def params_of(task: str) -> list[dict[str, Any]]:
    """Return the options of a task in the form of doit's ``params``."""
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


def outputs_dir_in_rules(rules_dir: str | None) -> str | None:
    """Return the ``outputs_dir`` that the rules give, or None.

    Raises:
        RuleError: the rules are broken, and they mention ``outputs_dir``, or the default folder does not exist.
    """
    from ckptrules.rules.shipped import may_have_outputs_dir, rule_texts

    texts = rule_texts(rules_dir)
    if not may_have_outputs_dir(texts) and os.path.isdir(Common.outputs_dir):
        return None
    from ckptrules.rules.load import outputs_dir_of

    return outputs_dir_of(texts)


def command_line(arguments: Sequence[str], usual: Sequence[str] = (DEFAULT_TASK,)) -> CommandLine:
    """Read the command line, with the ``outputs_dir`` that the rules give."""
    return read_command_line(arguments, usual)._replace(outputs_dir_by=functools.cache(outputs_dir_in_rules))


def program() -> tuple[str, ...]:
    """Return the words that started this program: ``ckptrules``, or ``doit`` with its dodo.py (``-f``)."""
    return force_of(sys.argv[1:]).program


def completed(text: str) -> str:
    """Complete the commands in a text, so that they work here when they are copied."""
    return complete(text, force_of(sys.argv[1:]))


def force_of(arguments: Sequence[str]) -> InForce:
    """Return the program and the options that a command must repeat to work as this call does."""
    encoding = getattr(sys.__stdout__, "encoding", None) or "ascii"
    return in_force([sys.argv[0], *arguments], encoding)


def make_output_safe() -> None:
    """Make stdout and stderr safe to print to, also if they are closed or their encoding lacks letters."""
    if sys.stdout is None or sys.stderr is None:  # the caller has closed it
        from ckptrules.storage.writing import nowhere

        sys.stdout, sys.stderr = sys.stdout or nowhere(), sys.stderr or nowhere()
    escape_missing_letters(sys.stdout, sys.stderr)


def escape_missing_letters(*streams: TextIO) -> None:
    """Let streams write escapes for letters that their encoding lacks (`LC_ALL=C`), instead of failing."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print the output of a call that runs no task.

    Raises:
        SystemExit: with 2 if the output cannot be written (a full disk).
    """
    try:
        print(text, end="", flush=True)
    except OSError as error:
        be_silent(sys.stdout, error)
        raise SystemExit(stopping.FAILED) from None


def be_silent(stream: TextIO, error: OSError) -> None:
    """Print an error that a stream cannot be written, and discard all that is written to it later."""
    from ckptrules.storage import reading, writing  # not above: it is rare

    print(f"ERROR: the output cannot be written: {reading.why_of(error)}", file=sys.stderr)
    writing.silence(stream)


def refusal(text: str) -> str:
    """Return the text of a refusal with complete commands, in which no name can begin a line or move the cursor."""
    return completed(visible_lines(re.sub(r"\n(?!    )", r"\\n", text)))
