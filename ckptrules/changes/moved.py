"""Finds by the journals where a file is today: so a pin needs no other record of renames."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ckptrules.engine.entries import lies_in
from ckptrules.engine.state_folder import TRASH

if TYPE_CHECKING:
    from ckptrules.changes.history import Run


class Moved(NamedTuple):
    """Where the files that had a path at some time may be today; several, as names are used again.

    ``archived_by`` is the run of `doit archive` that moved the path to the trash, if nothing came back there since.
    """

    paths: tuple[str, ...]
    archived_by: str = ""


def follower(outputs_dir: str) -> Callable[[str], Moved]:
    """Return a function that follows a path below ``outputs_dir`` through all moves of it and of folders above it.

    Its first call reads the journals; it raises OSError if they cannot be read.
    """

    @functools.cache
    def runs() -> Sequence[Run]:
        from ckptrules.changes.undoing import read_runs  # not above: most runs have no pins to follow

        return read_runs(outputs_dir)

    return lambda path: follow(runs(), path)


def follow(runs: Sequence[Run], path: str) -> Moved:
    """Follow a path through the moves of runs, oldest first, starting anew from each file that had the path."""
    from ckptrules.changes.kinds import KINDS  # likewise

    ways: tuple[str, ...] = ()
    archived_by = ""
    for run in runs:
        for step in (step for unit in run.units for step in unit.steps if KINDS[step.kind].moves):
            here, there = step.here.path, step.there.path
            ways = tuple(
                dict.fromkeys(f"{there}{one[len(here) :]}" if lies_in(one, here) else one for one in (*ways, path))
            )
            if lies_in(path, here):
                archives = run.header.get("command") == "archive" and there.startswith(f"{TRASH}/")
                archived_by = run.id if archives else ""
            elif lies_in(path, there):
                archived_by = ""
    return Moved(tuple(one for one in ways if one != path), archived_by)
