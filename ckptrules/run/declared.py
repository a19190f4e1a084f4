"""The commands that there are, and what each may be told: each file of ``ckptrules/commands`` is one, by its name."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ckptrules.run.options import Common

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "commands")
TASKS = tuple(sorted(name.removesuffix(".py") for name in os.listdir(FOLDER) if name[0] not in "_."))


def module_of(task: str) -> Any:
    """Import the file of a command: its class ``Options``, and ``prepare``, or ``tasks`` where it has several."""
    return importlib.import_module(f"ckptrules.commands.{task}")


def declared(task: str) -> type[Common]:
    """Return what a command may be told; what every command may, where it is none of ours."""
    options: type[Common] = module_of(task).Options if task in TASKS else Common
    return options
