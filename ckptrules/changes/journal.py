"""The append-only record of every change: what was intended, then what came of it. One JSON object a line.

One file belongs to one process of one run. Each line says at its end what it is, so that the last few bytes of a
file tell whether it ended in the middle of something.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.engine.values import STATE, EntryKind, Identity, Step, Unit
from ckptrules.storage.base import Storage

JOURNALS = f"{STATE}/journal"
VERSION = 2
NAME = re.compile(r"(?P<run>\d{8}T\d{6}Z-\d+)\.(?P<process>\d+)\.jsonl")
TAIL_BYTES = 32
TORN = '{"line": "torn"}\n'  # whatever stands in the line before it was cut off
STOPPED = '{"line": "stopped"}\n'
_ENTRY_KINDS = get_args(EntryKind)
_FINISHED = re.compile(rb'"line": "(?:run|outcome|purged|stopped|torn)"}\n\Z')


class JournalError(Exception):
    """A journal that cannot be believed; the message is ``file:line: fact``."""


class UnitRef(NamedTuple):
    """Where a unit stands: the run, the process, the number of the intent, the place in it."""

    run: str
    process: str
    intent: int
    place: int


class Intent(NamedTuple):
    """What was about to happen in one directory.

    ``takes_back`` are the units that an undo takes back, in the order of ``units``. ``failed`` tells what came of them:
    the places of the units that were not done, and why; None where the run ended before it could say. ``freed`` are the
    places of those whose space was freed at once. ``kept`` is the number of checkpoints that were to stay.
    """

    number: int
    experiment: str
    directory: str
    units: tuple[Unit, ...]
    takes_back: tuple[UnitRef, ...] = ()
    failed: Mapping[int, str] | None = None
    freed: tuple[int, ...] = ()
    kept: int = 0


class Record(NamedTuple):
    """One journal file, read. ``header`` is what the run said of itself, ``purged`` the runs whose trash it emptied.

    ``left`` are the paths below ``outputs_dir`` of what it could not free of that. ``stopped`` says that the run ended
    before its time: by Ctrl-C, or by a crash that another run has seen. ``own`` says that the journal lies in the
    user's own state, and has power over texts.
    """

    run: str
    process: str
    header: Mapping[str, Any]
    intents: tuple[Intent, ...]
    purged: tuple[str, ...]
    own: bool = False
    left: tuple[str, ...] = ()
    stopped: bool = False


class Journal:
    """The journal of one process in one run.

    Args:
        storage: where it lies, in the state.
        run: the name of the run.
        process: what tells its processes apart.
        header: what the first line tells of the run: its id, options, rules.
    """

    def __init__(self, storage: Storage, run: str, process: int, header: Mapping[str, Any]) -> None:
        self._storage = storage
        self._path = f"{JOURNALS}/{run}.{process}.jsonl"
        self._header: Mapping[str, Any] | None = header
        self._number = 0
        self._due = ""
        self._torn = self._stopped = False

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
            "units": units,
        }
        if takes_back:
            row["takes_back"] = [list(ref) for ref in takes_back]
        if kept:
            row["kept"] = kept
        nothing = _outcome(self._number, dict.fromkeys(range(len(units)), "not begun, as it could not be recorded"))
        self._write(_line(row, "intent"), instead=nothing, durable=True)
        return self._number

    def conclude(self, intent: int, failed: Mapping[int, str], freed: Sequence[int] = ()) -> None:
        """Record that a directory is finished: which units were not done and why, and which were freed at once.

        What is to be freed is on the disk on return. Otherwise the next intent makes this durable: after a power cut
        the disk itself tells what was done. What is recorded again replaces what was said before.

        Raises:
            OSError: it could not be recorded; the next thing that is recorded makes up for it.
        """
        self._write(_outcome(intent, failed, freed), durable=bool(freed))

    def purged(self, runs: Sequence[str], left: Sequence[str] = ()) -> None:
        """Record that what these runs had left in the trash is gone, but for some paths (below ``outputs_dir``).

        Raises:
            OSError: it could not be recorded.
        """
        row = {"runs": list(runs), "left": list(left)} if left else {"runs": list(runs)}
        self._write(_line(row, "purged"), durable=True)

    def stopped(self) -> None:
        """Record, once, that the run is ended before its time. Where nothing was begun there is nothing to tell.

        Raises:
            OSError: it could not be recorded.
        """
        if self._number and not self._stopped:
            self._stopped = True
            self._write(STOPPED)

    def _write(self, line: str, *, instead: str = "", durable: bool = False) -> None:
        """Append a line. Where that fails, what is true then (``instead``) goes before the next one."""
        if self._header is not None:
            self._due += _line({"journal": VERSION, **self._header}, "run")
            self._header = None
        torn, self._torn = self._torn, True
        due, self._due = self._due, self._due + (instead or line)
        start = "\n" + TORN if torn else ""
        self._storage.append(self._path, f"{start}{due}{line}".encode(), durable=durable)
        self._torn, self._due = False, ""


def is_finished(tail: bytes) -> bool:
    """Say whether a journal with these last bytes (`TAIL_BYTES` are enough) ended between two directories."""
    return _FINISHED.search(tail) is not None


def rewrites_texts(unit: Unit) -> bool:
    """Say whether a unit changes a text outside of the tree: only the user's own state has power over those."""
    return any(KINDS[step.kind].beyond_tree for step in unit.steps)


def closing(text: str, intent: Intent | None, failed: Mapping[int, str]) -> str:
    """Return what to append to an unfinished journal so that it is finished."""
    start = "" if text.endswith("\n") else "\n" + TORN
    return start + (_outcome(intent.number, failed) + STOPPED if intent else "")


def read(file: str, text: str, *, own: bool = False) -> Record | None:
    """Read a journal file; None where it has not even its first line. A line cut off by a crash is passed over.

    Args:
        file: its name, which tells run and process.
        text: its content.
        own: whether it lies in the user's own state.

    Raises:
        JournalError: it holds anything else than what this version writes.
    """
    named = NAME.fullmatch(file)
    if named is None:
        raise JournalError(f"{file}:1: is not named like a journal")
    run, process = named["run"], named["process"]
    header: Mapping[str, Any] | None = None
    intents: dict[int, Intent] = {}
    purged: list[str] = []
    left: list[str] = []
    stopped = False
    lines = text.split("\n")
    torn = {number for number, line in enumerate(lines) if f"{line}\n" == TORN}
    passed_over = torn | {number - 1 for number in torn} | {len(lines) - 1}
    for number, line in enumerate(lines):
        if number in passed_over:
            continue
        try:
            row = json.loads(line)
            kind = row["line"]
            if header is None:
                header = _checked_header(row)
            elif kind == "intent":
                intents[row["intent"]] = _intent(row, run)
            elif kind == "outcome":
                failed = {int(place): str(why) for place, why in row["failed"].items()}
                freed = tuple(int(place) for place in row["freed"])
                if row["outcome"] in intents:  # else its intent was cut off, and nothing was begun
                    intents[row["outcome"]] = intents[row["outcome"]]._replace(failed=failed, freed=freed)
            elif kind == "purged":
                purged += map(str, row["runs"])
                left += map(str, row.get("left", ()))
            stopped |= kind == "stopped"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise JournalError(f"{file}:{number + 1}: is damaged: {error}") from None
    if header is None:
        return None
    return Record(run, process, header, tuple(intents.values()), tuple(purged), own, tuple(left), stopped)


def refs(record: Record, intent: Intent) -> Iterable[UnitRef]:
    """Yield where the units of an intent stand."""
    return (UnitRef(record.run, record.process, intent.number, place) for place in range(len(intent.units)))


def _checked_header(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if row["line"] != "run" or row["journal"] != VERSION:
        raise ValueError(f"this version reads journals of version {VERSION}")
    return row


def _line(row: Mapping[str, Any], line: str) -> str:
    return json.dumps({**row, "line": line}, check_circular=False) + "\n"


def _outcome(intent: int, failed: Mapping[int, str], freed: Sequence[int] = ()) -> str:
    return _line({"outcome": intent, "failed": failed, "freed": list(freed)}, "outcome")


def _intent(row: Mapping[str, Any], run: str) -> Intent:
    units = tuple(_unit(*unit) for unit in row["units"])
    takes_back = tuple(UnitRef(str(r), str(p), int(i), int(place)) for r, p, i, place in row.get("takes_back", ()))
    if takes_back and (len(takes_back) != len(units) or any(ref.run == run for ref in takes_back)):
        raise ValueError("'takes_back' does not fit the units")
    kept = int(row.get("kept", 0))
    return Intent(int(row["intent"]), str(row["experiment"]), str(row["directory"]), units, takes_back, kept=kept)


def _unit(kind: str, size: int, steps: Sequence[Sequence[Any]]) -> Unit:
    if kind not in ACTIONS or type(size) is not int or not steps:
        raise ValueError("no such unit")
    return Unit(kind, size, tuple(_step(*step) for step in steps))


def _step(*row: Any) -> Step:
    *texts, (entry_kind, size, mtime_ns) = row
    plain = all(type(text) is str and "\0" not in text for text in texts)
    if not plain or texts[0] not in KINDS or entry_kind not in _ENTRY_KINDS:
        raise ValueError("no such step")
    if (type(size), type(mtime_ns)) != (int, int):
        raise ValueError("no such step")
    kind, directory, name, to_directory, to, was = texts
    return Step(kind, directory, name, to_directory, to, was, Identity(entry_kind, size, mtime_ns))
