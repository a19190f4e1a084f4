"""Pure: journals → what was done by which run, and what of it still stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ckptrules.journal import Intent, Record, UnitRef, refs
from ckptrules.model import Unit

IN_TRASH = ("trash", "fix")  # what can be taken back only with what lies in the trash


class Run(NamedTuple):
    """One run, of all its processes. ``standing`` are the units that were done and not taken back since, nor freed.

    ``interrupted`` says that its end is not known.
    """

    id: str
    header: Mapping[str, Any]
    intents: tuple[tuple[Record, Intent], ...]
    done: frozenset[UnitRef]
    standing: frozenset[UnitRef]
    freed: bool
    interrupted: bool

    @property
    def takes_back(self) -> str:
        """The run that this one took back, or an empty text."""
        return str(self.header.get("takes_back") or "")

    @property
    def units(self) -> list[Unit]:
        """What was done, also if it was taken back later."""
        return [
            unit
            for r, intent in self.intents
            for ref, unit in zip(refs(r, intent), intent.units, strict=True)
            if ref in self.done
        ]


class TakeBack(NamedTuple):
    """What is to be taken back in one checkpoint directory, in this order, and which units that undoes."""

    experiment: str
    directory: str
    units: tuple[Unit, ...]
    undoes: tuple[UnitRef, ...]


def read_history(records: Iterable[Record]) -> list[Run]:
    """Replay journals, oldest run first."""
    by_run: dict[str, list[Record]] = {}
    for record in records:
        by_run.setdefault(record.run, []).append(record)
    ordered = sorted(by_run, key=lambda run: (min(_started(record) for record in by_run[run]), run))
    stands: dict[UnitRef, bool] = {}
    takes_back: dict[UnitRef, UnitRef] = {}
    done: dict[str, set[UnitRef]] = {run: set() for run in ordered}
    freed: set[str] = set()
    for run in ordered:
        for record in by_run[run]:
            freed.update(record.purged)
            for intent in record.intents:
                for place, ref in enumerate(refs(record, intent)):
                    if place in (intent.failed or {}):
                        continue
                    done[run].add(ref)
                    stands[ref] = place not in intent.freed
                    if intent.takes_back:
                        takes_back[ref] = intent.takes_back[place]
                        _set(stands, takes_back, intent.takes_back[place], value=False)
    return [_run(run, by_run[run], done[run], stands, run in freed) for run in ordered]


def newest_standing(runs: Sequence[Run]) -> Run | None:
    """Return the newest run that is no undo and has something to take back."""
    return next((run for run in reversed(runs) if run.standing and not run.takes_back), None)


def take_back(run: Run, pattern: str | None = None) -> list[TakeBack]:
    """List what taking a run back means, for the experiments that a shell pattern fits; newest changes first."""
    found: dict[str, TakeBack] = {}
    for record, intent in reversed(run.intents):
        if pattern is not None and not fnmatchcase(intent.experiment, pattern):
            continue
        pairs = [pair for pair in zip(refs(record, intent), intent.units, strict=True) if pair[0] in run.standing]
        if not pairs:
            continue
        before = found.get(intent.directory, TakeBack(intent.experiment, intent.directory, (), ()))
        found[intent.directory] = before._replace(
            units=(*before.units, *(unit.inverse for _, unit in reversed(pairs))),
            undoes=(*before.undoes, *(ref for ref, _ in reversed(pairs))),
        )
    return sorted(found.values())


def _started(record: Record) -> int:
    started = record.header.get("started_ns")
    return started if isinstance(started, int) else 0


def _set(stands: dict[UnitRef, bool], takes_back: Mapping[UnitRef, UnitRef], ref: UnitRef, *, value: bool) -> None:
    """Note whether a unit stands; what it took back then is the other way round."""
    seen = set()
    while ref not in seen:
        seen.add(ref)
        stands[ref] = value
        if ref not in takes_back:
            return
        ref, value = takes_back[ref], not value


def _run(
    run: str,
    records: Sequence[Record],
    done: Iterable[UnitRef],
    stands: Mapping[UnitRef, bool],
    freed: bool,  # noqa: FBT001
) -> Run:
    intents = tuple((record, intent) for record in records for intent in record.intents)
    kinds = {
        ref: unit.kind
        for record, intent in intents
        for ref, unit in zip(refs(record, intent), intent.units, strict=True)
    }
    return Run(
        run,
        records[0].header,
        intents,
        frozenset(done),
        frozenset(ref for ref in done if stands[ref] and not (freed and kinds[ref] in IN_TRASH)),
        freed,
        any(intent.failed is None for _, intent in intents),
    )
