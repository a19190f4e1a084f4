"""What all tasks of one call of doit share. It is made once and handed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ckptrules.run.command_line import TASKS
from ckptrules.run.options import CommandLine


class Session(NamedTuple):
    """One call: what was typed, when it began, in nanoseconds since 1970, and what stands in the dodo.py."""

    line: CommandLine
    started_ns: int
    dodo: Mapping[str, Any]


def lacking(dodo: Mapping[str, Any]) -> list[str]:
    """List the commands of ours that a dodo.py does not have, by what stands in it."""
    creators = {name: getattr(value, "create_doit_tasks", None) for name, value in dodo.items()}
    there = {getattr(creator, "basename", name) for name, creator in creators.items() if creator}
    there |= {name.removeprefix("task_") for name in dodo if name.startswith("task_")}
    return [task for task in TASKS if task not in there]
