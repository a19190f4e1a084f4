"""The append-only record of every change: what was intended, then what came of it. One JSON object a line.

One file belongs to one process of one run. Each line says at its end what it is, so that the last few bytes of a
file tell whether it ended in the middle of something.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.actions import Unit
from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import Storage

JOURNALS = f"{STATE}/journal"
VERSION = 2
NAME = re.compile(r"(?P<run>\d{8}T\d{6}Z-\d+)\.(?P<process>\d+)\.jsonl")
TAIL_BYTES = 32
TORN = '{"line": "torn"}\n'  # whatever stands in the line before it was cut off
HALF_DONE = "is half done"
STOPPED = '{"line": "stopped"}\n'
# what the last bytes (`TAIL_BYTES` are enough) of a journal hold that ended between two directories
FINISHED = re.compile(rb'"line": "(?:run|outcome|purged|stopped|torn)"}\n\Z')


class JournalError(OSError):
    """A journal that cannot be believed; it says of a line of a file of `JOURNALS` one fact."""

    def __init__(self, file: str, line: int, fact: str) -> None:
        super().__init__(errno.EBADMSG, f"{JOURNALS}/{file}:{line}: {fact}")


class UnitRef(NamedTuple):
    """Where a unit stands: the run, the process, the number of the intent, the place in it."""

    run: str
    process: str
    intent: int
    place: int


class Journal:
    """The journal of one process in one run; ``header`` is what its first line tells: its id, options, rules."""

    def __init__(self, storage: Storage, run: str, process: int, header: Mapping[str, Any]) -> None:
        self._storage, self.run = storage, run
        self._path = f"{JOURNALS}/{run}.{process}.jsonl"
        self._header: Mapping[str, Any] | None = header
        self._number = 0
        self._due = ""
        self._torn = self._is_left = False

    def intend(
        self, experiment: str, directory: str, units: Sequence[Unit], takes_back: Sequence[UnitRef] = (), kept: int = 0
    ) -> int:
        """Record what is about to happen in one directory, and return the number to conclude it by.

        Raises:
            OSError: it could not be recorded, so it must not happen.
        """
        self._number += 1
        row = {
            "intent": self._number,
            "experiment": experiment,
            "directory": directory,
            "units": [unit[: 4 if unit.parts else 3] for unit in units],  # as versions that knew no more wrote them
        }
        if any(unit.shared for unit in units):
            row["shared"] = [unit.shared for unit in units]
        if takes_back:
            row["takes_back"] = [list(ref) for ref in takes_back]
        if kept:
            row["kept"] = kept
        nothing = outcome_of(self._number, dict.fromkeys(range(len(units)), "not begun, as it could not be recorded"))
        self._write(line_of(row, "intent"), instead=nothing, durable=True)
        return self._number

    def conclude(self, intent: int, failed: Mapping[int, str], freed: Sequence[int] = ()) -> None:
        """Record that a directory is finished: which units were not done and why, and which were freed at once.

        What is to be freed is on the disk on return. Otherwise the next intent makes this durable: after a power cut
        the disk itself tells what was done. What is recorded again replaces what was said before.

        Raises:
            OSError: it could not be recorded; the next thing that is recorded makes up for it.
        """
        self._write(outcome_of(intent, failed, freed), durable=bool(freed))

    def purged(self, runs: Sequence[str], left: Sequence[str] = ()) -> None:
        """Record that what these runs had left in the trash is gone, but for some paths (below ``outputs_dir``)."""
        row = {"runs": list(runs), "left": list(left)} if left else {"runs": list(runs)}
        self._write(line_of(row, "purged"), durable=True)

    def leave_open(self) -> None:
        """Record nothing more, as after a crash: the next run finishes what was intended last."""
        self._is_left = True

    def _write(self, line: str, *, instead: str = "", durable: bool = False) -> None:
        """Append a line. Where that fails, what is true then (``instead``) goes before the next one."""
        if self._is_left:
            raise OSError(errno.EBUSY, f"a change of this run {HALF_DONE}, and comes first")
        if self._header is not None:
            self._due += line_of({"journal": VERSION, **self._header}, "run")
            self._header = None
        torn, self._torn = self._torn, True
        due, self._due = self._due, self._due + (instead or line)
        start = "\n" + TORN if torn else ""
        self._storage.append(self._path, f"{start}{due}{line}".encode(), durable=durable)
        self._torn, self._due = False, ""


def line_of(row: Mapping[str, Any], line: str) -> str:
    """Write a line, which says at its end what it is."""
    return json.dumps({**row, "line": line}, check_circular=False) + "\n"


def outcome_of(intent: int, failed: Mapping[int, str], freed: Sequence[int] = ()) -> str:
    """Write what came of an intent; see `Journal.conclude`."""
    return line_of({"outcome": intent, "failed": failed, "freed": list(freed)}, "outcome")
