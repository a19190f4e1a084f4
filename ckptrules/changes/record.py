"""Reads a journal, and refuses all that this version does not write."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from ckptrules.changes.journal import NAME, STOPPED, TORN, VERSION, JournalError, UnitRef, outcome_of
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import EntryKind, HardLinks, Identity

NOT_REACHED = "not begun, as the run was interrupted"
_ENTRY_KINDS = get_args(EntryKind)


class Intent(NamedTuple):
    """What was about to happen in one directory, and the outcome.

    ``first`` is the place of its first unit, if it has any. ``takes_back`` are the units that an undo takes back, in
    the order of ``units``. ``failed`` maps the indices of the units that were not done to the reasons; None if the run
    ended before its outcome. ``freed`` are the indices of units whose space was freed at once. ``kept`` is the number
    of checkpoints that were to stay.
    """

    first: UnitRef
    experiment: str
    directory: str
    units: tuple[Unit, ...]
    takes_back: tuple[UnitRef, ...] = ()
    failed: Mapping[int, str] | None = None
    freed: tuple[int, ...] = ()
    kept: int = 0

    @property
    def refs(self) -> list[UnitRef]:
        """The places of its units."""
        run, process, intent, _, own = self.first
        return [UnitRef(run, process, intent, place, own) for place in range(len(self.units))]


class RunRecord(NamedTuple):
    """One journal file.

    ``header`` is its first line. ``purged`` are the runs whose trash it emptied, ``left`` the paths below
    ``outputs_dir`` that it could not free. ``stopped`` says that the run ended early: by Ctrl-C, or by a crash that
    another run has seen. ``interrupted`` says that no run has seen its crash yet, so only the disk shows what became of
    its units. ``own`` says that the journal is in the user's own state, and may rewrite texts.
    """

    run: str
    header: Mapping[str, Any]
    intents: tuple[Intent, ...]
    purged: tuple[str, ...]
    own: bool = False
    left: tuple[str, ...] = ()
    stopped: bool = False
    interrupted: bool = False


def closing(text: str, intent: Intent | None, failed: Mapping[int, str]) -> str:
    """Return the lines that finish an unfinished journal."""
    start = "" if text.endswith("\n") else "\n" + TORN
    return start + (outcome_of(intent.first.intent, failed) + STOPPED if intent else "")


def read(file: str, text: str, *, own: bool = False) -> RunRecord | None:
    """Read a journal file; None if not even its first line is whole. Lines that a crash cut off are passed over.

    Args:
        file: its name, from which run and process are read.
        text: its content.
        own: whether it is in the user's own state.

    Raises:
        JournalError: it holds anything that this version does not write.
    """
    named = NAME.fullmatch(file)
    if named is None:
        raise JournalError(file, 1, "is not named like a journal")
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
                intents[row["intent"]] = _intent(row, UnitRef(run, process, int(row["intent"]), 0, own))
            elif kind == "outcome":
                failed = {int(place): str(why) for place, why in row["failed"].items()}
                freed = tuple(int(place) for place in row["freed"])
                if row["outcome"] in intents:  # else the line of its intent was cut off, and nothing was begun
                    intents[row["outcome"]] = intents[row["outcome"]]._replace(failed=failed, freed=freed)
            elif kind == "purged":
                purged += map(str, row["runs"])
                left += map(str, row.get("left", ()))
            stopped |= kind == "stopped"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise JournalError(file, number + 1, f"is damaged: {error}") from None
    if header is None:
        return None
    return RunRecord(run, header, tuple(intents.values()), tuple(purged), own, tuple(left), stopped)


def _checked_header(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if row["line"] != "run" or row["journal"] != VERSION:
        raise ValueError(f"this version reads journals of version {VERSION}")
    return row


def _intent(row: Mapping[str, Any], first: UnitRef) -> Intent:
    shared = row.get("shared") or [()] * len(row["units"])
    units = tuple(_unit(*unit)._replace(shared=_links(links)) for unit, links in zip(row["units"], shared, strict=True))
    back = row.get("takes_back", ())
    takes_back = tuple(UnitRef(str(run), str(p), int(i), int(place), first.own) for run, p, i, place in back)
    if takes_back and (len(takes_back) != len(units) or any(ref.run == first.run for ref in takes_back)):
        raise ValueError("'takes_back' does not fit the units")
    kept = int(row.get("kept", 0))
    return Intent(first, str(row["experiment"]), str(row["directory"]), units, takes_back, kept=kept)


def _links(rows: Iterable[Iterable[int]]) -> tuple[HardLinks, ...]:
    return tuple(HardLinks._make(map(int, row)) for row in rows)


def _unit(kind: str, size: int, steps: Sequence[Sequence[Any]], parts: int = 0) -> Unit:
    if kind not in ACTIONS or (type(size), type(parts)) != (int, int) or abs(parts) >= len(steps):
        raise ValueError("no such unit")
    return Unit(kind, size, tuple(_step(*step) for step in steps), parts)


def _step(*row: Any) -> Step:
    *texts, (entry_kind, size, mtime_ns) = row
    plain = all(type(text) is str and "\0" not in text for text in texts)
    if not plain or texts[0] not in KINDS or entry_kind not in _ENTRY_KINDS:
        raise ValueError("no such step")
    if (type(size), type(mtime_ns)) != (int, int):
        raise ValueError("no such step")
    kind, directory, name, to_directory, to, was = texts
    return Step(kind, directory, name, to_directory, to, was, Identity(entry_kind, size, mtime_ns))
