"""The append-only record of every change: first the intent, then the outcome. Each line is a JSON object.

Each process of each run has a file of its own. Each line ends with its kind, so that the last bytes of a file show
whether a change was left unfinished.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.actions import Unit
from ckptrules.engine.state_folder import JOURNALS
from ckptrules.storage.base import Storage

VERSION = 2
NAME = re.compile(r"(?P<run>\d{8}T\d{6}Z-\d+)\.(?P<process>\d+)\.jsonl")
TAIL_BYTES = 32
TORN = '{"line": "torn"}\n'  # the line before it was cut off, and does not count
HALF_DONE = "is half done"
STOPPED = '{"line": "stopped"}\n'
FINISHED = re.compile(rb'"line": "(?:run|outcome|purged|stopped|torn)"}\n\Z')  # fits the last `TAIL_BYTES`


class JournalError(OSError):
    """A damaged journal; the message is the file, the line, and one fact."""

    def __init__(self, file: str, line: int, fact: str) -> None:
        super().__init__(errno.EBADMSG, f"{JOURNALS}/{file}:{line}: {fact}")


class UnitRef(NamedTuple):
    """The place of a unit in the journals: the run, the process, the number of the intent, the index in it.

    ``own`` says that the journal is in the user's own state: there it may have the same name as one in the tree.
    """

    run: str
    process: str
    intent: int
    place: int
    own: bool = False


class Journal:
    """The journal of one process of one run; ``header`` is its first line: id, options, rules."""

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
        """Record durably what is about to happen in one directory; return a number for `conclude`.

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
            row["takes_back"] = [list(ref[:4]) for ref in takes_back]  # of journals beside this one
        if kept:
            row["kept"] = kept
        nothing = outcome_of(self._number, dict.fromkeys(range(len(units)), "not begun, as it could not be recorded"))
        self._write(line_of(row, "intent"), instead=nothing, durable=True)
        return self._number

    def conclude(self, intent: int, failed: Mapping[int, str], freed: Sequence[int] = ()) -> None:
        """Record the outcome of an intent: which units were not done, and why; and which are freed at once.

        The last outcome of an intent counts. It is durable on return if it frees something, else with the next intent:
        after a power cut, the disk itself shows what was done.

        Raises:
            OSError: it could not be recorded; it is written again before the next line.
        """
        self._write(outcome_of(intent, failed, freed), durable=bool(freed))

    def purged(self, runs: Sequence[str], left: Sequence[str] = ()) -> None:
        """Record that the trash of some runs was emptied, but for the paths ``left`` (below ``outputs_dir``)."""
        row = {"runs": list(runs), "left": list(left)} if left else {"runs": list(runs)}
        self._write(line_of(row, "purged"), durable=True)

    def leave_open(self) -> None:
        """Record nothing more, as after a crash: the next run finishes the last intent."""
        self._is_left = True

    def _write(self, line: str, *, instead: str = "", durable: bool = False) -> None:
        """Append a line. If that fails, write it, or ``instead``, before the next one."""
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
    """Return a line that ends with its kind."""
    return json.dumps({**row, "line": line}, check_circular=False) + "\n"


def outcome_of(intent: int, failed: Mapping[int, str], freed: Sequence[int] = ()) -> str:
    """Return the line for the outcome of an intent; see `Journal.conclude`."""
    return line_of({"outcome": intent, "failed": failed, "freed": list(freed)}, "outcome")
