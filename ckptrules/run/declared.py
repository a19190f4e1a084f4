"""List the commands, and find the options of each. Each file of ``ckptrules/commands`` is the command of its name."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ckptrules.run.options import Common

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "commands")
TASKS = tuple(sorted(name.removesuffix(".py") for name in os.listdir(FOLDER) if name[0] not in "_."))


def module_of(task: str) -> Any:
    """Import the file of a command: it has a class ``Options``, and ``prepare``, or ``tasks`` if it makes several."""
    return importlib.import_module(f"ckptrules.commands.{task}")


def declared(task: str) -> type[Common]:
    """Return the options of a command; for a task that is none of ours, the common options."""
    options: type[Common] = module_of(task).Options if task in TASKS else Common
    return options
