"""Pure: journals → what was done by which run, and what of it still stands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.changes.journal import UnitRef
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.changes.record import Intent, RunRecord, refs
from ckptrules.changes.units import inverse_of
from ckptrules.engine.actions import Unit
from ckptrules.engine.entries import Identity, Spot, folders_above, lies_in
from ckptrules.engine.state_folder import TRASH

STOPS = ("the run was stopped", "the run was interrupted")  # ends of what is recorded of what was not done


class Run(NamedTuple):
    """One run, of all its processes.

    ``standing`` are the units that were done and not taken back since, nor freed; with each comes the unit that did
    the same last: itself, or the one of an undo of an undo. ``gone`` are those that cannot be taken back, as what they
    left in the trash was freed. ``barred`` are those that are not taken back, as they rewrote texts and what tells of
    them lies where others can write. ``interrupted`` says that the end of the run is not known, ``stopped`` that it
    ended before its time.
    """

    id: str
    header: Mapping[str, Any]
    intents: tuple[tuple[RunRecord, Intent], ...]
    done: frozenset[UnitRef]
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
    def pairs(self) -> list[tuple[UnitRef, Unit]]:
        """What was done, also if it was taken back later, each with where it stands."""
        return [
            pair
            for r, intent in self.intents
            for pair in zip(refs(r, intent), intent.units, strict=True)
            if pair[0] in self.done
        ]

    @property
    def units(self) -> list[Unit]:
        """What was done, also if it was taken back later."""
        return [unit for _, unit in self.pairs]


class TakeBack(NamedTuple):
    """What is to be taken back in one directory and below it, in this order, and which units that undoes.

    ``units`` are those that do it, from `inverted` on; in what `standing` gives, they are those that were done last.
    ``own`` says that the user's own state tells of it: it may rewrite texts.
    """

    experiment: str
    directory: str
    units: tuple[Unit, ...]
    undoes: tuple[UnitRef, ...]
    own: bool = False


def read_history(records: Iterable[RunRecord], emptied: Iterable[str] = ()) -> list[Run]:
    """Replay journals, oldest run first. The runs that are ``emptied`` have nothing in the trash.

    The order is that of the numbers that runs get under the lock, whatever the clocks say. Runs of versions that gave
    no numbers come first, by the time at which they started.
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
    """What journals say, read in the order of their runs: which units were done, and which of them stand."""

    def __init__(self) -> None:
        self._units: dict[UnitRef, Unit] = {}  # all that were done, in their order
        self._barred: set[UnitRef] = set()
        self._standing: dict[UnitRef, tuple[UnitRef, Unit]] = {}  # known at the end, like what is gone
        self._gone: set[UnitRef] = set()
        self._stands: dict[UnitRef, bool] = {}
        self._takes_back: dict[UnitRef, UnitRef] = {}
        self._again: dict[UnitRef, UnitRef] = {}  # what did the same once more
        self._purged: dict[str, tuple[str, ...]] = {}  # by run: the paths that could not be freed
        self._freed: set[UnitRef] = set()

    def read(self, record: RunRecord) -> None:
        """Go on with one journal."""
        self._purged.update(dict.fromkeys(record.purged, record.left))
        for intent in record.intents:
            for place, ref in enumerate(refs(record, intent)):
                if place not in (intent.failed or {}):
                    self._read_unit(record, intent, place, ref)

    def _read_unit(self, record: RunRecord, intent: Intent, place: int, ref: UnitRef) -> None:
        self._units[ref] = intent.units[place]
        self._stands[ref] = True
        if not record.own and any(KINDS[step.kind].beyond_tree for step in intent.units[place].steps):
            self._barred.add(ref)
        if place in intent.freed:
            self._freed.add(ref)
        if intent.takes_back:
            back = self._takes_back[ref] = intent.takes_back[place]
            if back in self._takes_back:
                self._again[self._takes_back[back]] = ref
            self._set(back, stands=False)

    def _set(self, ref: UnitRef, *, stands: bool) -> None:
        """Note whether a unit stands; what it took back then is the other way round."""
        seen = set()
        while ref not in seen:
            seen.add(ref)
            self._stands[ref] = stands
            if ref not in self._takes_back:
                return
            ref, stands = self._takes_back[ref], not stands

    def end(self, emptied: Iterable[str]) -> None:
        """Find out what still stands, each with the unit that did the same last, and what is gone for good.

        What these runs had left in the trash is, whether that is on record or not.
        """
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
        """Find what was done before with that of which the space was freed: there is nothing left to take back.

        What came to the same name later, by a restore say, is there.
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
        """Return what is known of a run in the end."""
        intents = tuple((record, intent) for record in records for intent in record.intents)
        own = [ref for record, intent in intents for ref in refs(record, intent)]
        return Run(
            records[0].run,
            records[0].header,
            intents,
            frozenset(self._units.keys() & own),
            {ref: self._standing[ref] for ref in own if ref in self._standing},
            frozenset(self._gone.intersection(own)),
            any(record.interrupted for record in records),
            frozenset(self._barred.intersection(own)),
            any(record.stopped for record in records) or any(_was_stopped(intent) for _, intent in intents),
        )


def newest_standing(runs: Sequence[Run]) -> Run | None:
    """Return the run that is no undo and of which something stands that was done last, if by an undo of its undo."""
    place = {run.id: number for number, run in enumerate(runs)}
    able = [run for run in runs if run.standing and not run.takes_back]
    return max(able, key=lambda run: max(place[last.run] for last, _ in run.standing.values()), default=None)


def changed_since(runs: Sequence[Run], run: str) -> Run | None:
    """Return the newest run that has moved what stands of an earlier one, or has taken one of the old names of that.

    As long as it stands, those cannot be taken back.
    """
    old, new = set[str](), set[str]()
    newest = None
    for one in runs:
        steps = [step for _, unit in one.standing.values() for step in unit.steps]
        if one.id == run:
            old = {step.here.path for step in steps}
            there = [step.there.path for step in steps]  # or the experiment was moved as a whole
            new = {one for path in there for one in (path, *folders_above(path))}
        elif any(step.here.path in new or step.there.path in old for step in steps):
            newest = one
    return newest


def inverted(back: TakeBack, by: str) -> TakeBack:
    """Return with the units that take back what stands.

    Args:
        back: one of those that `standing` gives.
        by: the run that does it; what it deletes waits in its trash, and its age is counted from there.
    """
    return back._replace(units=tuple(in_trash_of(by, inverse_of(unit)) for unit in back.units))


def standing(run: Run, meant: Collection[str] | None = None) -> list[TakeBack]:
    """List what of a run stands, in all experiments, or in those that are meant; of each, newest changes first.

    What lies in a folder that was moved is taken back with it, so that none has to do with another.
    """
    rows = [
        (record.own, intent, pairs)
        for record, intent in reversed(run.intents)
        if (meant is None or intent.experiment in meant)
        and (pairs := [run.standing[ref] for ref in reversed([*refs(record, intent)]) if ref in run.standing])
    ]
    moved = {path: intent for _, intent, _ in rows for path in _moved_folders(intent)}
    found: dict[tuple[bool, str], tuple[str, list[tuple[UnitRef, Unit]]]] = {}
    for own, intent, pairs in rows:
        places = (*folders_above(intent.directory), intent.directory)
        home = next((moved[place] for place in places if place in moved), intent)
        found.setdefault((own, home.directory), (home.experiment, []))[1].extend(pairs)
    return sorted(
        TakeBack(experiment, directory, tuple(unit for _, unit in pairs), tuple(ref for ref, _ in pairs), own)
        for (own, directory), (experiment, pairs) in found.items()
    )


def _moved_folders(intent: Intent) -> Iterator[str]:
    """Yield from where and to where an intent brings what is no single file."""
    for step in (step for unit in intent.units for step in unit.steps if KINDS[step.kind].moves):
        if step.identity.kind == "directory":
            yield from (step.here.path, step.there.path)


def in_trash_of(run: str, unit: Unit) -> Unit:
    """Return a unit that puts into the trash of a run what it puts into the trash."""
    return unit._replace(steps=tuple(KINDS[step.kind].in_trash_of(step, run) for step in unit.steps))


def left_in_trash(unit: Unit) -> list[tuple[str, str]]:
    """List what a unit that needs the trash to be taken back left there: in that of which run, and under which path."""
    if not ACTIONS[unit.kind].in_trash:
        return []
    spots = [spot for step in unit.steps for spot in (step.here, step.there) if spot.directory.startswith(f"{TRASH}/")]
    return [(spot.directory.split("/")[2], spot.path) for spot in spots]


def _is_freed(unit: Unit, purged: Mapping[str, Sequence[str]]) -> bool:
    """Say whether what a unit left in the trash was freed."""
    return any(
        run in purged and not any(lies_in(path, left) for left in purged[run]) for run, path in left_in_trash(unit)
    )


def _ways(unit: Unit) -> list[tuple[tuple[Spot, Identity], tuple[Spot, Identity]]]:
    """List from where to where a unit brought what; not of directories of which early journals noted nothing."""
    moves = [step for step in unit.steps if KINDS[step.kind].moves and step.identity.mtime_ns]
    return [((step.here, step.identity), (step.there, step.identity)) for step in moves]


def _place(record: RunRecord) -> tuple[int, int]:
    """Return the number that a run got under the lock; where an earlier version gave none, 0 and when it started."""
    number, started = (record.header.get(key) for key in ("number", "started_ns"))
    if type(number) is int and number > 0:
        return number, 0
    return 0, started if isinstance(started, int) else 0


def _was_stopped(intent: Intent) -> bool:
    return any(why.endswith(STOPS) for why in (intent.failed or {}).values())
