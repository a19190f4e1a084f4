"""Pure: journals → which run did what, and what of it still stands (was not undone since)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.changes.journal import UnitRef
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.changes.record import Intent, RunRecord
from ckptrules.changes.units import inverse_of
from ckptrules.engine.actions import Unit
from ckptrules.engine.entries import Identity, Spot, folders_above, lies_in
from ckptrules.engine.state_folder import TRASH

STOPS = ("the run was stopped", "the run was interrupted")  # how the reasons for units not done may end


class Run(NamedTuple):
    """One run, with all its processes.

    ``done`` are the units that were done. ``standing`` are those that were not taken back since and can be; each with
    the unit that did the same last: itself, or one of an undo of an undo. ``gone`` cannot be taken back, as their part
    of the trash was freed. ``barred`` are not taken back, as they rewrote texts, by a journal that others could have
    written. ``interrupted``: nobody knows yet how the run ended; ``stopped``: it ended early.
    """

    id: str
    header: Mapping[str, Any]
    intents: tuple[Intent, ...]
    done: Mapping[UnitRef, Unit]
    standing: Mapping[UnitRef, tuple[UnitRef, Unit]]
    gone: frozenset[UnitRef]
    interrupted: bool
    barred: frozenset[UnitRef] = frozenset()
    stopped: bool = False

    @property
    def takes_back(self) -> str:
        """The run that this one took back, or an empty text."""
        return str(self.header.get("takes_back") or "")

    @property
    def units(self) -> list[Unit]:
        """The units that were done, also those that were taken back later."""
        return list(self.done.values())


class TakeBack(NamedTuple):
    """What is to be taken back in one directory and below it, in this order.

    ``undoes`` are the units of the run. ``units`` are, from `standing`, those that did the same last; from `inverted`,
    those that take them back. ``own`` says that the journal is in the user's own state, and may rewrite texts.
    """

    experiment: str
    directory: str
    units: tuple[Unit, ...]
    undoes: tuple[UnitRef, ...]
    own: bool = False


def read_history(records: Iterable[RunRecord], emptied: Iterable[str] = ()) -> list[Run]:
    """Replay journals, oldest run first; the runs ``emptied`` have nothing in the trash.

    Runs are ordered by the numbers that they got under the lock. Runs of earlier versions, which had no numbers, come
    first, ordered by their start.
    """
    by_run: dict[str, list[RunRecord]] = {}
    for record in records:
        by_run.setdefault(record.run, []).append(record)
    ordered = sorted(by_run, key=lambda run: (min(map(_place, by_run[run])), run))
    replay = _Replay()
    for run in ordered:
        for record in by_run[run]:
            replay.read(record)
    replay.end(emptied)
    return [replay.run(by_run[run]) for run in ordered]


class _Replay:
    """Reads journals in the order of their runs, and finds which units were done and which still stand."""

    def __init__(self) -> None:
        self._units: dict[UnitRef, Unit] = {}  # all that were done, in their order
        self._barred: set[UnitRef] = set()
        self._standing: dict[UnitRef, tuple[UnitRef, Unit]] = {}  # set by `end`, like ``_gone``
        self._gone: set[UnitRef] = set()
        self._stands: dict[UnitRef, bool] = {}
        self._takes_back: dict[UnitRef, UnitRef] = {}
        self._again: dict[UnitRef, UnitRef] = {}  # from a unit to the one that did the same again
        self._purged: dict[str, tuple[str, ...]] = {}  # from a run to the paths that could not be freed
        self._freed: set[UnitRef] = set()

    def read(self, record: RunRecord) -> None:
        """Read the next journal."""
        self._purged.update(dict.fromkeys(record.purged, record.left))
        for intent in record.intents:
            for ref in intent.refs:
                if ref.place not in (intent.failed or {}):
                    self._read_unit(intent, ref)

    def _read_unit(self, intent: Intent, ref: UnitRef) -> None:
        unit = self._units[ref] = intent.units[ref.place]
        self._stands[ref] = True
        if not ref.own and any(KINDS[step.kind].beyond_tree for step in unit.steps):
            self._barred.add(ref)
        if ref.place in intent.freed:
            self._freed.add(ref)
        if intent.takes_back:
            back = self._takes_back[ref] = intent.takes_back[ref.place]
            if back in self._takes_back:
                self._again[self._takes_back[back]] = ref
            self._set(back, stands=False)

    def _set(self, ref: UnitRef, *, stands: bool) -> None:
        """Note whether a unit stands. If it does not, the unit that it took back stands, and so on."""
        seen = set()
        while ref not in seen:
            seen.add(ref)
            self._stands[ref] = stands
            if ref not in self._takes_back:
                return
            ref, stands = self._takes_back[ref], not stands

    def end(self, emptied: Iterable[str]) -> None:
        """Find which units still stand, and which are gone; the trash of the runs ``emptied`` is gone in any case."""
        self._purged.update(dict.fromkeys(emptied, ()))
        last: dict[UnitRef, tuple[UnitRef, Unit]] = {}
        for ref in reversed(self._units):
            last[ref] = last.get(self._again.get(ref, ref), (ref, self._units[ref]))
        stands = {ref: pair for ref, pair in last.items() if self._stands[ref]}
        gone = self._gone = set(self._freed)
        if self._purged:
            gone |= {ref for ref, (_, unit) in stands.items() if _is_freed(unit, self._purged)}
        if gone:
            gone |= self._lost_with(gone, stands)
        barred = self._barred
        self._standing = {ref: p for ref, p in stands.items() if ref not in gone and barred.isdisjoint((ref, p[0]))}

    def _lost_with(self, gone: Collection[UnitRef], stands: Mapping[UnitRef, tuple[UnitRef, Unit]]) -> set[UnitRef]:
        """Return the units that are gone, with the earlier ones that moved the same files: nothing is left of these.

        A file that came to the same name later, by a restore say, is still there.
        """
        lost: set[UnitRef] = set()
        freed: set[tuple[Spot, Identity]] = set()
        there: set[tuple[Spot, Identity]] = set()
        when = {ref: number for number, ref in enumerate(self._units)}
        for ref in sorted(stands, key=lambda ref: when[stands[ref][0]], reverse=True):
            ways = _ways(stands[ref][1])
            if ref in gone or any(went in freed for _, went in ways):
                lost.add(ref)
                freed.update(came for came, _ in ways if came not in there)
            else:
                there.update(went for _, went in ways)
        return lost

    def run(self, records: Sequence[RunRecord]) -> Run:
        """Return one run, after `end`."""
        intents = tuple(intent for record in records for intent in record.intents)
        own = [ref for intent in intents for ref in intent.refs]
        return Run(
            records[0].run,
            records[0].header,
            intents,
            {ref: self._units[ref] for ref in own if ref in self._units},
            {ref: self._standing[ref] for ref in own if ref in self._standing},
            frozenset(self._gone.intersection(own)),
            any(record.interrupted for record in records),
            frozenset(self._barred.intersection(own)),
            any(record.stopped for record in records) or any(map(_was_stopped, intents)),
        )


def newest_standing(runs: Sequence[Run]) -> Run | None:
    """Return the run that is no undo and of which something stands that was done last, if by an undo of its undo."""
    place = {run.id: number for number, run in enumerate(runs)}
    able = [run for run in runs if run.standing and not run.takes_back]
    return max(able, key=lambda run: max(place[last.run] for last, _ in run.standing.values()), default=None)


def changed_since(runs: Sequence[Run], run: str) -> Run | None:
    """Return the newest run that has moved what stands of an earlier one, or has taken one of the old names of that.

    As long as it stands, those cannot be taken back. An undo is returned only for another undo: what was done once more
    stands with the run that did it first, and what came back is no run's to delete again.
    """
    old, new = set[str](), set[str]()
    newest, is_undo = None, False
    for one in runs:
        steps = [step for _, unit in one.standing.values() for step in unit.steps]
        if one.id == run:
            old, is_undo = {step.here.path for step in steps}, bool(one.takes_back)
            there = [step.there.path for step in steps]  # or the experiment was moved as a whole
            new = {one for path in there for one in (path, *folders_above(path))}
        elif one.takes_back and not is_undo:
            continue
        elif any(step.here.path in new or step.there.path in old for step in steps):
            newest = one
    return newest


def inverted(back: TakeBack, by: str) -> TakeBack:
    """Return the same with the inverse units.

    Args:
        back: a result of `standing`.
        by: the id of the undo: what it deletes goes to its own trash, and has its age.
    """
    return back._replace(units=tuple(in_trash_of(by, inverse_of(unit)) for unit in back.units))


def standing(run: Run, meant: Collection[str] | None = None) -> list[TakeBack]:
    """List what still stands of a run, in all or some experiments, the newest changes first.

    Changes within a folder that the run moved are listed with that folder, so that each result is independent.
    """
    rows = [
        (intent, pairs)
        for intent in reversed(run.intents)
        if (meant is None or intent.experiment in meant)
        and (pairs := [run.standing[ref] for ref in reversed(intent.refs) if ref in run.standing])
    ]
    moved = {path: intent for intent, _ in rows for path in _moved_folders(intent)}
    found: dict[tuple[bool, str], tuple[str, list[tuple[UnitRef, Unit]]]] = {}
    for intent, pairs in rows:
        places = (*folders_above(intent.directory), intent.directory)
        home = next((moved[place] for place in places if place in moved), intent)
        found.setdefault((intent.first.own, home.directory), (home.experiment, []))[1].extend(pairs)
    return sorted(
        TakeBack(experiment, directory, tuple(unit for _, unit in pairs), tuple(ref for ref, _ in pairs), own)
        for (own, directory), (experiment, pairs) in found.items()
    )


def _moved_folders(intent: Intent) -> Iterator[str]:
    """Yield the old and new paths of the folders that an intent moves."""
    for step in (step for unit in intent.units for step in unit.steps if KINDS[step.kind].moves):
        if step.identity.kind == "directory":
            yield from (step.here.path, step.there.path)


def in_trash_of(run: str, unit: Unit) -> Unit:
    """Return a unit that uses the trash of another run."""
    return unit._replace(steps=tuple(KINDS[step.kind].in_trash_of(step, run) for step in unit.steps))


def left_in_trash(unit: Unit) -> list[tuple[str, str]]:
    """List what a unit put into the trash, and needs to be taken back: the run whose trash it is, and the path."""
    if not ACTIONS[unit.kind].in_trash:
        return []
    spots = [spot for step in unit.steps for spot in (step.here, step.there) if spot.directory.startswith(f"{TRASH}/")]
    return [(spot.directory.split("/")[2], spot.path) for spot in spots]


def _is_freed(unit: Unit, purged: Mapping[str, Sequence[str]]) -> bool:
    """Return whether anything that a unit put into the trash was freed."""
    return any(
        run in purged and not any(lies_in(path, left) for left in purged[run]) for run, path in left_in_trash(unit)
    )


def _ways(unit: Unit) -> list[tuple[tuple[Spot, Identity], tuple[Spot, Identity]]]:
    """List the moves of a unit as (old, new) names with the identity; without directories of unknown identity."""
    moves = [step for step in unit.steps if KINDS[step.kind].moves and step.identity.mtime_ns]
    return [((step.here, step.identity), (step.there, step.identity)) for step in moves]


def _place(record: RunRecord) -> tuple[int, int]:
    """Return the number of a run; for a run of an earlier version, without one, 0 and when it started."""
    number, started = (record.header.get(key) for key in ("number", "started_ns"))
    if type(number) is int and number > 0:
        return number, 0
    return 0, started if isinstance(started, int) else 0


def _was_stopped(intent: Intent) -> bool:
    return any(why.endswith(STOPS) for why in (intent.failed or {}).values())
