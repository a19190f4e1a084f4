"""The runs of the past, by their journals: what each did, its state now, and until when it can be undone."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.changes.history import Run, left_in_trash, newest_standing
from ckptrules.changes.journal import JournalError
from ckptrules.changes.journals import fault_of
from ckptrules.changes.kinds import ACTIONS
from ckptrules.changes.undoing import read_runs
from ckptrules.engine.actions import DELETES, Unit
from ckptrules.engine.measures import NS, count_of, freed, visible
from ckptrules.engine.ruleset import RuleError, RuleSet
from ckptrules.engine.spelling import closest
from ckptrules.engine.state_folder import old_text_name
from ckptrules.run.declared import declared
from ckptrules.run.finding import load
from ckptrules.run.hints import command, named, quoted
from ckptrules.run.options import Common, Option, OptionError
from ckptrules.run.records import DAY, at_work, waits_since, zoned
from ckptrules.run.session import Session
from ckptrules.storage import believing
from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import TrashItem, trash_runs


def runs_of(outputs_dir: str, own: str = "") -> list[Run]:
    """Read the runs from their journals, the oldest first; one without an end is interrupted, unless it is ``own``.

    Raises:
        JournalError: a journal is damaged.
        OSError: a journal cannot be read.
    """
    runs, unended = read_runs(outputs_dir, believing.own_state(outputs_dir)), at_work(outputs_dir)
    return [run._replace(interrupted=True) if run.id == unended != own and not run.stopped else run for run in runs]


def runs_with(outputs_dir: str, run: str | None) -> list[Run]:
    """Read all runs, and refuse an id that none of them has.

    Raises:
        OptionError: there is no such run, or the journals cannot be read.
    """
    try:
        runs = runs_of(outputs_dir)
    except OSError as error:
        hint = "move the file away; what it tells of cannot be taken back then" * isinstance(error, JournalError)
        raise OptionError(visible(fault_of(outputs_dir, error)), hint, place="") from None
    ids = [one.id for one in runs]
    if run is not None and run not in ids:
        raise OptionError(f"no run '{run}'", closest(run, ids) or "'doit history' lists them")
    return runs


def chosen_run(runs: Sequence[Run], run: str | None, newest: Callable[[Sequence[Run]], Run | None]) -> Run | None:
    """Return the run with this id, which `runs_with` has found; without one, the ``newest`` by that function."""
    return newest(runs) if run is None else next(one for one in runs if one.id == run)


def rules_or_none(session: Session, options: Common) -> RuleSet | None:
    """Return the rules; None if they are broken, as the past must be shown, and can be taken back, also then."""
    with contextlib.suppress(RuleError, OptionError, OSError):
        return load(session, options)
    return None


class WaysBack(NamedTuple):
    """How the items in the trash come back: ``by`` command, as messages write it; ``lost`` are in no journal."""

    by: Mapping[str, Sequence[TrashItem]]
    lost: Sequence[TrashItem]

    def sentences(self) -> Iterator[str]:
        """Yield a sentence for each command, that for the newest run first."""
        for undo, items in self.by.items():
            yield f"{undo} brings back {count_of(len(items), 'item')} from the trash."


def ways_back(runs: Sequence[Run], items: Sequence[TrashItem]) -> WaysBack:
    """Find the command that brings back each item in the trash.

    Plain `doit undo` undoes the newest run that is no undo; any other run must be named. Old texts of pointer files are
    left out: an undo writes the old name again, and does not need them.
    """
    newest = newest_standing(runs)
    run_of: dict[str, str] = {}  # the id, by path; empty for the plain command
    for run in sorted(runs, key=lambda run: run is newest):  # the plain command wins, if two runs have the path
        steps = (step for _, unit in run.standing.values() for step in unit.steps)
        run_of.update((step.there.path, "" if run is newest else run.id) for step in steps)
    texts = old_texts(runs)
    by: dict[str, list[TrashItem]] = defaultdict(list)
    lost: list[TrashItem] = []
    for item in items:
        if item.path in run_of:
            by[command("undo", run=run_of[item.path])].append(item)
        elif item.path not in texts:
            lost.append(item)
    return WaysBack(dict(reversed(by.items())), lost)


def old_texts(runs: Sequence[Run]) -> set[str]:
    """Return the paths at which old texts of pointer files may lie in the trash."""
    steps = [step for run in runs for unit in run.units for step in unit.steps if step.kind == "repoint"]
    counts = Counter((step.to_directory, step.name) for step in steps)
    return {
        f"{folder}/{old_text_name(name, number)}"
        for (folder, name), count in counts.items()
        for number in range(1, 2 * count + 1)  # a step takes two, where the file system cannot exchange two names
    }


def did(run: Run) -> dict[str, int]:
    """Count what a run did, also if it was undone later; the bytes are those of all that it deleted, also leftovers."""
    units = run.units
    count = Counter(unit.kind for unit in units)
    freed_bytes = freed_by(unit for unit in units if unit.kind in DELETES)
    return {"renamed": count["rename"], "deleted": count["trash"], "bytes_deleted": freed_bytes}


def freed_by(units: Iterable[Unit]) -> int:
    """Return the bytes that deletions free; a file with several names counts when its last name is deleted."""
    deletions = list(units)
    return freed(sum(unit.size for unit in deletions), (link for unit in deletions for link in unit.shared))


def command_of(run: Run) -> str:
    """Return the command line of a run: the command, its experiments, and the options that are not the default."""
    task, selected = str(run.header.get("command", "?")), run.header.get("selected")
    known, options = declared(task).known(), run.header.get("options", {})
    given = {name: value for name, value in options.items() if name in known and was_given(known[name], value)}
    words = (f"{name}={quoted(str(int(v) if isinstance(v, bool) else v))}" for name, v in given.items())
    return " ".join([named(task, map(str, selected if isinstance(selected, list) else ())), *words])


def was_given(option: Option, value: object) -> bool:
    """Say whether the user gave an option; the first journals also have foreign defaults that nobody gave."""
    try:
        option.read(str(value))
    except ValueError:
        return False
    return value not in (option.default, None)


def state_of(run: Run) -> str:
    """Return the state of a run in a few words, such as "done" or "taken back"."""
    if run.interrupted or run.stopped:
        planned = sum(len(intent.units) for intent in run.intents)
        count = f"{len(run.done)} of {planned}" if len(run.done) < planned else str(planned)
        stop = ("interrupted" if run.interrupted else "stopped") + f": {count} done" * bool(planned)
        return stop if run.interrupted or run.standing or not run.done else f"{stop}, taken back"
    if run.intents and not run.done:
        return "nothing done"
    if run.takes_back and not run.barred:
        is_freed = any(ACTIONS[unit.kind].in_trash for ref, unit in run.done.items() if ref in run.gone)
        done = f"took back {run.takes_back}{', trash freed' * is_freed}"
        return done if run.standing or run.gone else "taken back"
    if run.gone:
        return "trash freed"
    if run.barred:
        return "not taken back: texts"
    undone = len(run.done) - len(run.standing)
    return "done" if not undone else "taken back" if not run.standing else f"{undone} of {len(run.done)} taken back"


def as_data(session: Session, outputs_dir: str, runs: list[Run], days: int | None) -> Iterator[dict[str, Any]]:
    """Yield the JSON form of runs, the newest first; ``days`` is `trash_days`, or None if it is not known."""
    in_trash = frozenset[str]()
    with contextlib.suppress(OSError):  # then no run has a time until which it can be undone
        in_trash = frozenset(trash_runs(Disk(outputs_dir)))
    for run in reversed(runs):
        started = run.header.get("started_ns")
        started = started if type(started) is int else None
        waiting = in_trash & {owner for _, unit in run.standing.values() for owner, _ in left_in_trash(unit)}
        since = min((waits_since(outputs_dir, owner) for owner in waiting), default=None)
        yield {
            "run": run.id,
            "command": command_of(run),
            "started_ns": started,
            "when": None if started is None else zoned(started // NS),
            "who": str(run.header.get("who", "?")),
            "host": str(run.header.get("host", "?")),
            **did(run),
            "state": state_of(run),
            "taken_back": bool(run.done) and not (run.standing or run.gone or run.barred),
            "undo_until": zoned(since + days * DAY) if since is not None and days else None,
            "undo": session.completed(command("undo", run=run.id))[1:-1] if run.standing else None,
        }
