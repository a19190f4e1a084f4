"""Keeps a dodo.py of earlier versions at work, in which each command was a function below ``@with_options``.

Only the name and the docstring of such a function still count.
"""

from __future__ import annotations

from types import FunctionType

from ckptrules.run import command, doit_config

__all__ = ["doit_config", "with_options"]


def with_options(function: FunctionType) -> command:
    """Return the command for a function ``task_NAME``, with its docstring as the sentence."""
    return command(function.__name__.removeprefix("task_"), (function.__doc__ or "").strip(), function.__globals__)
