"""`doit undo`: take back what a run did."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptrules import stopping
from ckptrules.changes.doing import is_done
from ckptrules.changes.following import NO_RULES, Followers, links_that_leave
from ckptrules.changes.history import (
    Run,
    TakeBack,
    changed_since,
    inverted,
    newest_standing,
    standing,
)
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.changes.transaction import JournalledTree, transact
from ckptrules.changes.undoing import foresee
from ckptrules.changes.units import Transacted, after, head_of, heads, parts_of
from ckptrules.engine.actions import DELETES, Action, Plan, Problem, Step, Unit
from ckptrules.engine.entries import Directory, lies_in
from ckptrules.engine.measures import count_of, visible
from ckptrules.engine.pins import Found
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.state_folder import TRASH
from ckptrules.outputs.links import Links
from ckptrules.report.data import plan_as_data
from ckptrules.report.style import Style
from ckptrules.report.text import SharedFiles, Tally, experiment_block, tally
from ckptrules.run import pinning, records
from ckptrules.run.command_line import params_of
from ckptrules.run.experiments import unsearched_notes
from ckptrules.run.hints import command
from ckptrules.run.options import RUN, Common
from ckptrules.run.outcome import FAULTS, Done, RunContext, untouched
from ckptrules.run.past import chosen_run, command_of, rules_or_none, runs_of, runs_with, ways_back
from ckptrules.run.records import Journals
from ckptrules.run.session import Session, once
from ckptrules.run.tasks import TaskDict, chosen_of, hand_over, refuse_unknown_experiments
from ckptrules.run.words import encode_task
from ckptrules.storage.believing import own_state
from ckptrules.storage.posix import Disk
from ckptrules.storage.state import Folders
from ckptrules.storage.trash import trash_items
from ckptrules.workers.workers import in_main_thread

if TYPE_CHECKING:
    from doit.exceptions import TaskFailed
    from doit.task import Task

BROKEN_RULES = (
    "The rules are broken (see 'doit check'): links follow what is taken back, pointer files and sidecars do not."
)


class Options(Common, takes="experiments json html wait"):
    """The options of `doit undo`."""

    reads_journals = True
    changes = True
    shares = True
    run: str | None = RUN


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory in which something of a run can be taken back.

    Raises:
        OptionError: as `what_to_undo`.
    """
    run, selected, backs = what_to_undo(session, options)
    rest = len(run.standing) - sum(len(back.undoes) for back in backs) if run else 0
    header = records.run_header(session, "undo", options, takes_back=run.id if run else None)
    waits = list(what_waits(options.outputs_dir)) if options.run is None and not backs else []
    job = undo_job(session, options, header)._replace(leaving=links_that_leave(backs))
    session.contexts["undo"] = RunContext(
        options,
        job.style,
        header,
        job.rules.trash_days if job.rules is not NO_RULES else None,
        notes=(BROKEN_RULES,) * bool(backs and job.rules is NO_RULES),
        came_to=functools.partial(came_to, job, runs_before(session, options), run, backs, waits, rest),
        lacks=lambda _: pinning.renew(options.rules_dir, options.outputs_dir) if options.will_change else "",
        summarise=None if backs else notes_alone,
    )
    names: set[str] = set()
    for back in backs:
        name = encode_task(back.experiment if back.experiment not in names else back.directory)
        if name in names:  # only in a forged journal
            name = f"{name}/."
        names |= {back.experiment, name}
        yield {
            "name": name,
            "doc": f"what run {header['takes_back']} did in {name}",
            "actions": [(undo_one, [session, job, back])],
            "params": params_of("undo") if f"undo:{name}" in session.chosen else (),
            "meta": {"found": back},
        }
    for name in sorted(set(selected) - names) if session.selected("undo") else ():
        yield {"name": encode_task(name), "actions": []}  # selected, but nothing of it is left to take back


def undo_job(session: Session, options: Options, header: Mapping[str, Any]) -> UndoJob:
    """Return the input that all tasks of this undo share."""
    pinned = pinning.all_pinned(session, options)  # a damaged file of pins is refused before the run has begun
    changes = options.will_change and session.line.command == "run"
    number = records.begun(session, options.outputs_dir).last.number if changes else None
    return UndoJob(
        options, own_state(options.outputs_dir), session.run_id, {**header, "number": number},
        records.journals_of(session), session.style(options), pinned, rules_or_none(session, options) or NO_RULES,
        Links(options.outputs_dir)
    )  # fmt: skip


@once
def runs_before(_: Session, options: Options) -> list[Run]:
    """Read all runs, once, as they are before this undo, and refuse an id that none of them has."""
    return runs_with(options.outputs_dir, options.run)


@once
def what_to_undo(session: Session, options: Options) -> tuple[Run | None, list[str], Sequence[TakeBack]]:
    """Find out what is to be taken back, once; under the lock, unless it is a dry run.

    Returns the run, if there is one; the selected experiments among those that it changed; and what still stands of it.

    Raises:
        OptionError: there is no such run, or it changed no such experiment, or the journals cannot be read.
    """
    runs = runs_before(session, options)
    run = chosen_run(runs, options.run, newest_known)
    if run is None:
        if options.experiments is not None or any(word.base == "undo" for word in session.line.words):
            known = sorted({intent.experiment for one in runs for intent in one.intents})
            refuse_unknown_experiments(session, "undo", options, known, "" if known else "no run has changed any")
        return None, session.selected("undo"), ()  # doit needs a task for each of these words
    changed = sorted({intent.experiment for intent in run.intents})
    listed = f"run {run.id} changed {visible(', '.join(changed)) or 'none'}"
    selected = chosen_of(session, "undo", options, changed, listed)
    return run, selected, standing(run, frozenset(selected))


def count_shared(session: Session, _: str, options: Options) -> int:
    """Count the directories in which something is to be taken back.

    Raises:
        OptionError: as `what_to_undo`.
    """
    return len(what_to_undo(session, options)[2])


def newest_known(runs: Sequence[Run]) -> Run | None:
    """Return the newest run with something to take back; without one, the newest whose trash was freed."""
    gone = (run for run in reversed(runs) if run.gone and not run.takes_back)
    return newest_standing(runs) or next(gone, None)


def undo_one(session: Session, job: UndoJob, back: TakeBack, task: Task) -> TaskFailed | None:
    """Take back what a run did in one checkpoint directory, in a worker. This is the action of a task."""
    pinned = [found for found in job.pinned if lies_in(found.path, back.directory)]
    links = job.links if in_main_thread() else job.links.only_below(back.directory)
    job = job._replace(pinned=pinned, links=links)
    return hand_over(lambda: session.workers.do(work_on, job, back), task)


def notes_alone(_: Tally, __: Style, notes: Iterable[str]) -> str:
    """Return the notes without a summary, as there is nothing to take back."""
    return "".join(f"{note}\n" for note in notes)


def what_waits(outputs_dir: str) -> Iterator[str]:
    """Yield sentences on how the items in the trash come back that plain `doit undo` does not bring back."""
    try:
        items = trash_items(Disk(outputs_dir))
        back = ways_back(runs_of(outputs_dir), items)
    except OSError:  # `doit trash` reports it
        return
    yield from back.sentences()
    if back.lost:
        which = "What else waits" if back.by else "What waits"
        yield f"{which} in the trash, and how it comes back: 'doit trash'."


def notes_on_others(job: UndoJob, runs: Sequence[Run], run: Run, total: Tally) -> Iterator[str]:
    """Yield notes on the other ``runs`` that have to do with what a run did."""
    place = next((number for number, one in enumerate(runs) if one.id == run.id), len(runs))
    name = job.style.name
    if total.problems and (later := changed_since(runs, run.id)):
        first = f"{command('undo', run=later.id)}, then this again"
        yield f"Run {later.id}, {name(command_of(later))}, has changed the same names since: {first}."
    elif (
        not total.changes
        and job.options.run is None
        and (other := newest_standing([*runs[:place], *runs[place + 1 :]]))
    ):
        yield f"{command('undo', run=other.id)} takes back the run before it, {name(command_of(other))}."
    texts = (one for one in runs[place + 1 :] if any(unit.kind == "rewrite" for _, unit in one.standing.values()))
    if total.renamed and (refs := next(texts, None)):
        undo = command("undo", run=refs.id)
        yield f"Run {refs.id}, {name(command_of(refs))}, has written new names into texts: {undo} takes that back."


def came_to(
    job: UndoJob,
    runs: Sequence[Run],
    run: Run | None,
    backs: Sequence[TakeBack],
    waits: Sequence[str],
    rest: int,
    total: Tally,
) -> Iterator[str]:
    """Yield notes on the run that was taken back, and on what of it cannot be.

    ``runs`` are all, as they were before. ``waits`` are the sentences on the trash, if there is nothing to take back.
    ``rest`` is the number of units of the run that still stand and were not selected.
    """
    style = job.style
    if run and backs:
        is_part = total.problems or rest or total.experiments < len(backs)
        verb = "Would take back" if style.preview else "Taken back"
        if not total.changes:
            verb = "Would not take back" if style.preview else "Not taken back"
        part = " in part" * bool(is_part and total.changes)
        yield f"{verb}{part}: run {run.id}, {style.name(command_of(run))}"
        yield from notes_on_others(job, runs, run, total)
    else:
        yield "There is nothing to take back."
        yield from waits
    if run and run.gone:
        kinds = [unit.kind for ref, unit in run.done.items() if ref in run.gone]
        states = sum(kind in ("fix", "unfix", "replace") for kind in kinds)
        one = "experiment" if run.header.get("command") == "archive" else "checkpoint"
        what = [count_of(len(kinds) - states, one)] * (len(kinds) > states)
        what += [f"the other state of {count_of(states, 'checkpoint')}"] * bool(states)
        which = "this run" if backs else f"run {run.id}, {style.name(command_of(run))}"
        yield f"Gone for good: {' and '.join(what)} of {which}; its space was freed."
    if run and run.barred:
        texts = count_of(len(run.barred), "text stays as it is", "texts stay as they are")
        yield f"Not taken back: {texts}: the record lies where others can write."
    yield from unsearched_notes(job.links, style)


# --- the work on one directory, in any process ------------------------------------------------------------------------


class UndoJob(NamedTuple):
    """The input that all tasks of one undo share; ``run`` is the id of the undo, not of the run that it takes back.

    ``leaving`` is as `links_that_leave`.
    """

    options: Options
    own_state: str
    run: str
    header: Mapping[str, Any]
    journals: Journals
    style: Style
    pinned: Sequence[Found]
    rules: RuleSet
    links: Links
    leaving: frozenset[str] = frozenset()


def work_on(job: UndoJob, back: TakeBack) -> Done:
    """Take back what a run did in one checkpoint directory; in a dry run, only report it."""
    if stopping.stopped():
        return Done("", failed=True)
    back, held = without_pinned(inverted(back, job.run), job.pinned)
    notes: Sequence[Reason] = ()
    root = job.own_state if back.own else job.options.outputs_dir
    with Folders(root, texts=back.own) as folders:
        back = back._replace(units=tuple(without_gone_links(folders, unit) for unit in back.units))
        if not back.own:
            back, more, notes = with_followers(job, folders, back)
            held += more
    plan, outcome = as_plan(back)._replace(problems=tuple(held), notes=tuple(notes)), Transacted({})
    if job.options.dry_run:
        with Folders(root, texts=back.own) as folders:
            outcome = Transacted(foresee(folders, back.units))
    elif back.units:
        journal = job.journals.of_this_thread(root, job.header)
        tree = JournalledTree(root, journal, back.own)
        outcome = transact(tree, back.experiment, back.directory, back.units, takes_back=back.undoes)
    done = with_places(after(plan, outcome), plan, back.units, root)
    state = "problems" if done.problems else "planned" if job.options.dry_run else "done"
    data = plan_as_data(done, state) if job.options.tells_data else None
    units = [unit for number, unit in enumerate(back.units) if number not in outcome.failed]
    gone, kept = ([link for u in units if (u.kind in DELETES) == goes for link in u.shared] for goes in (True, False))
    text, links = experiment_block(done, (), job.style), SharedFiles(tuple(gone), tuple(kept))
    return Done(text, tally(done), data, failed=bool(done.problems), links=links)


def with_places(done: Plan, plan: Plan, units: Sequence[Unit], root: str) -> Plan:
    """Say in the hint on each checkpoint that could not be brought back where in the trash it lies."""
    steps = {head.name: head_of(unit) for head, unit in zip(heads(plan), units, strict=True)}
    places = {name: step.here.path for name, step in steps.items() if lies_in(step.directory, TRASH)}

    def placed(problem: Problem) -> Problem:
        place = places.get(problem.names[0]) if problem.id == "refused" else None
        hint = [problem.hint] * bool(problem.hint)
        return problem._replace(hint="; ".join([*hint, f"it lies in {root}/{place}"])) if place else problem

    return done._replace(problems=tuple(map(placed, done.problems)))


def without_pinned(back: TakeBack, pinned: Sequence[Found]) -> tuple[TakeBack, list[Problem]]:
    """Leave out the units that would move a pinned checkpoint to the trash; return a problem for each."""

    def obstacle(unit: Unit) -> Problem | None:
        deleted = [step.here.path for step in unit.steps if lies_in(step.to_directory, TRASH)]
        holder = pinning.first_in(pinned, deleted)
        return pinning.refused(holder) if holder else None

    obstacles = [obstacle(unit) for unit in back.units]
    free = [problem is None for problem in obstacles]
    rest = back._replace(units=tuple(compress(back.units, free)), undoes=tuple(compress(back.undoes, free)))
    return rest, list(dict.fromkeys(filter(None, obstacles)))


def with_followers(job: UndoJob, folders: Folders, back: TakeBack) -> tuple[TakeBack, list[Problem], Sequence[Reason]]:
    """Add what leads to the names by now; a directory in which nobody can see that is left as it is."""
    pinned = [found.path for found in job.pinned if not found.fault]
    followers = Followers(job.options.outputs_dir, job.rules, job.links, job.run, job.leaving, pinned)
    try:
        return *followers.add(folders, back), followers.notes
    except FAULTS as fault:
        plan = untouched(Directory(back.experiment, back.directory), fault)
        return back._replace(units=(), undoes=()), list(plan.problems), ()


def without_gone_links(folders: Folders, unit: Unit) -> Unit:
    """Leave out the steps for links under old names that are gone, as a training deletes its files by these names."""
    head = head_of(unit)
    gone = [step for step in unit.steps if step is not head and KINDS[step.kind].turn < 0 and is_done(folders, step)]
    return unit._replace(steps=tuple(step for step in unit.steps if step not in gone)) if gone else unit


def as_plan(back: TakeBack) -> Plan:
    """Return the plan of an undo, for the report."""
    actions = []
    for unit in back.units:
        action, head = ACTIONS[unit.kind], head_of(unit)
        below = "" if action.shows_to else back.directory
        name, rest, parts = shown(head, below), [step for step in unit.steps if step is not head], parts_of(unit)
        along = [step for step in rest if KINDS[step.kind].moves and not action.in_sequence]
        along.sort(key=lambda step: step not in parts)
        with_it = tuple((shown(step, below), step.to if action.shows_to else "") for step in along)
        to = head.to if action.shows_to else ""
        actions.append(Action(unit.kind, name, to, unit.size, (), with_it, parts=len(parts)))
        for step in (step for step in rest if KINDS[step.kind].follows):
            elsewhere = "" if step.directory == back.directory else step.directory
            follower = Action(step.kind, step.name, step.to, 0, (), follows=name, was=step.was, directory=elsewhere)
            actions.append(follower)
    return Plan(back.experiment, back.directory, tuple(actions))


def shown(step: Step, below: str) -> str:
    """Return the name to show of what a step changes; with its folder, if that lies below the folder ``below``."""
    spot = step.there if step.directory.startswith(f"{TRASH}/") else step.here
    return spot.path.removeprefix(f"{below}/") if below and lies_in(spot.directory, below) else spot.name
