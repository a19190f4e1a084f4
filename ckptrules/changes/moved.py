"""Where a path leads today, by what the journals say was moved: what is pinned needs no other record of a rename."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

from ckptrules.changes.history import Run
from ckptrules.changes.journal import JOURNALS
from ckptrules.changes.journals import read_runs
from ckptrules.changes.kinds import KINDS
from ckptrules.changes.record import JournalError
from ckptrules.engine.values import TRASH


class Moved(NamedTuple):
    """Where a path has come to; ``archived_by`` is the run of `doit archive` that has put it into the trash."""

    path: str
    archived_by: str = ""


def moved(outputs_dir: str, path: str) -> Moved:
    """Follow a path, below ``outputs_dir``, through all that was moved, oldest first; also with a directory above it.

    Raises:
        OSError: the journals cannot be read.
    """
    try:
        return follow(read_runs(outputs_dir), path)
    except JournalError as error:
        raise OSError(errno.EBADMSG, f"{JOURNALS}/{error}") from None


def follow(runs: Sequence[Run], path: str) -> Moved:
    """Follow a path through what runs have moved."""
    steps = [step for run in runs for unit in run.units for step in unit.steps if KINDS[step.kind].moves]
    for step in steps:
        here = f"{step.directory}/{step.name}".lstrip("/")
        if f"{path}/".startswith(f"{here}/"):
            path = f"{step.to_directory}/{step.to}".lstrip("/") + path[len(here) :]
    commands = {run.id: run.header.get("command") for run in runs}
    by = path.split("/")[2] if path.startswith(f"{TRASH}/") else ""
    return Moved(path, by if commands.get(by) == "archive" else "")
