"""What the user asked for: the command line, read once."""

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


def command_line(arguments: Sequence[str], usual: Sequence[str] = (DEFAULT_TASK,)) -> CommandLine:
    """Read the command line; what the rules say to it is read once."""
    return read_command_line(arguments, usual)._replace(outputs_dir_by=functools.cache(said_outputs_dir))


def program() -> tuple[str, ...]:
    """Return the words that start the program that runs: ``ckptrules``, or ``doit`` with its dodo.py (``-f``)."""
    return force_of(sys.argv[1:]).program


def completed(text: str) -> str:
    """Write the commands that a text names so that they work here when they are copied."""
    return complete(text, force_of(sys.argv[1:]))


def force_of(arguments: Sequence[str]) -> InForce:
    """Return what a command needs to work as one with these arguments does."""
    encoding = getattr(sys.__stdout__, "encoding", None) or "ascii"
    return in_force([sys.argv[0], *arguments], encoding)


def let_output_be_written() -> None:
    """Let what is printed go nowhere where the output was closed by who started us, and fail on no letter."""
    if sys.stdout is None or sys.stderr is None:
        from ckptrules.storage.writing import nowhere

        sys.stdout, sys.stderr = sys.stdout or nowhere(), sys.stderr or nowhere()
    escape_what_has_no_letter(sys.stdout, sys.stderr)


def escape_what_has_no_letter(*streams: TextIO) -> None:
    """Let streams write escapes for what their encoding has no letters for (`LC_ALL=C`), and not fail."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print what a call has to tell besides any run.

    Raises:
        SystemExit: with 2 where it cannot be written (a full disk).
    """
    try:
        print(text, end="", flush=True)
    except OSError as error:
        be_silent(sys.stdout, error)
        raise SystemExit(stopping.FAILED) from None


def be_silent(stream: TextIO, error: OSError) -> None:
    """Say, once, that an output cannot be written, and let go nowhere what else is written to it."""
    from ckptrules.storage import reading, writing  # not above: mostly it can be

    print(f"ERROR: the output cannot be written: {reading.why_of(error)}", file=sys.stderr)
    writing.silence(stream)


def refusal(text: str) -> str:
    """Return the text of a refusal, in which no name that was given or found begins a line or moves the cursor."""
    return completed(visible_lines(re.sub(r"\n(?!    )", r"\\n", text)))
