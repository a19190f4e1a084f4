"""Where a path leads today, by what the journals say was moved: what is pinned needs no other record of a rename."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ckptrules.changes.history import Run
from ckptrules.changes.journal import JOURNALS
from ckptrules.changes.journals import read_runs
from ckptrules.changes.kinds import KINDS
from ckptrules.changes.record import JournalError
from ckptrules.engine.state_folder import TRASH


class Moved(NamedTuple):
    """Where a path has come to; ``archived_by`` is the run of `doit archive` that has put it into the trash."""

    path: str
    archived_by: str = ""


def follower(outputs_dir: str) -> Callable[[str], Moved]:
    """Return what follows a path, below ``outputs_dir``, through all that was moved, also with a directory above it.

    The journals are read once, when it is first asked; it raises OSError where they cannot be read.
    """
    runs = functools.cache(functools.partial(_runs, outputs_dir))
    return lambda path: follow(runs(), path)


def _runs(outputs_dir: str) -> Sequence[Run]:
    try:
        return read_runs(outputs_dir)
    except JournalError as error:
        raise OSError(errno.EBADMSG, f"{JOURNALS}/{error}") from None


def follow(runs: Sequence[Run], path: str) -> Moved:
    """Follow a path through what runs have moved, oldest first."""
    steps = [step for run in runs for unit in run.units for step in unit.steps if KINDS[step.kind].moves]
    for step in steps:
        here = f"{step.directory}/{step.name}".lstrip("/")
        if f"{path}/".startswith(f"{here}/"):
            path = f"{step.to_directory}/{step.to}".lstrip("/") + path[len(here) :]
    commands = {run.id: run.header.get("command") for run in runs}
    by = path.split("/")[2] if path.startswith(f"{TRASH}/") else ""
    return Moved(path, by if commands.get(by) == "archive" else "")
