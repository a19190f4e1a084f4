"""For a dodo.py that was written when each command was a function: it goes on working.

``with_options`` made a command of a function of its options. The function's name and docstring are what counts of it.
"""

from __future__ import annotations

from types import FunctionType

from ckptrules.run import command, doit_config

__all__ = ["doit_config", "with_options"]


def with_options(function: FunctionType) -> command:
    """Return the command that a function ``task_NAME`` stands for, with its docstring as the sentence."""
    return command(function.__name__.removeprefix("task_"), (function.__doc__ or "").strip(), function.__globals__)
