"""`doit undo`: takes back what a run did."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import compress
from typing import Any, NamedTuple

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import stopping
from ckptrules.changes.history import Run, TakeBack, newest_standing, take_back
from ckptrules.changes.journals import fault_of, read_runs
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.changes.record import JournalError
from ckptrules.changes.transaction import Workplace, transact
from ckptrules.changes.undoing import foresee
from ckptrules.changes.units import Done, after, head_of, parts_of, problems_of
from ckptrules.engine.measures import visible
from ckptrules.engine.pins import Found
from ckptrules.engine.values import TRASH, Action, Plan, Problem, Step, Unit
from ckptrules.report.data import plan_as_data
from ckptrules.report.style import Style, count_of
from ckptrules.report.text import Tally, experiment_block, tally
from ckptrules.rules.shape import closest
from ckptrules.run import jobs, pinning, places, records, selecting, startup
from ckptrules.run.options import EXPERIMENTS, HTML, JSON, RUN, WAIT, Common, OptionError
from ckptrules.run.outcome import Output
from ckptrules.run.past import command_of, trash_days
from ckptrules.run.reporter import RunContext
from ckptrules.run.session import Session
from ckptrules.run.words import as_pattern, encode_task
from ckptrules.storage.folders import Folders
from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import trash_use


class Options(Common):
    """What `doit undo` may be told."""

    reads_journals = True
    changes = True
    run: str | None = RUN
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    html: str | None = HTML
    wait: int = WAIT


class UndoJob(NamedTuple):
    """What all tasks of one undo share."""

    options: Options
    header: Mapping[str, Any]
    style: Style
    own_state: str
    pinned: Sequence[Found]


def tasks(session: Session, options: Options) -> Iterator[startup.TaskDict]:
    """Make one task for each checkpoint directory that a run changed, to take that back.

    Raises:
        OptionError: there is no such run, or it changed no such experiment.
    """
    places.outputs_dir(options)
    run = chosen_run(options.outputs_dir, options.run)
    changed = sorted({intent.experiment for _, intent in run.intents}) if run else []
    pattern = as_pattern(options.experiments, changed)
    if run and pattern and not any(fnmatchcase(name, pattern) for name in changed):
        hint = f"it changed {visible(', '.join(changed)) or 'none'}"
        raise OptionError(f"command line: run {run.id}: no experiment '{options.experiments}'\n    hint: {hint}")
    if run:
        selecting.refuse_unknown_experiments(session, "undo", options, lambda: changed)
    backs = take_back(run, session.run_id, pattern) if run else []
    pinned = pinning.all_pinned(session, options)
    header = records.run_header(session, "undo", options, takes_back=run.id if run else None)
    lost = run is None and trash_use(Disk(options.outputs_dir)).items > 0
    job = UndoJob(options, header, jobs.style(session, options), records.own_state(options.outputs_dir), pinned)
    session.contexts["undo"] = RunContext(
        options,
        job.style,
        header,
        trash_days(session, options),
        came_to=functools.partial(came_to, run, backs, job.style, lost),
        lacks=lambda _: pinning.renew(options.rules_dir, options.outputs_dir) if options.will_change else "",
    )
    names: set[str] = set()
    for back in backs:
        name = encode_task(back.experiment if back.experiment not in names else back.directory)
        if name in names:  # made up by a journal that is not the user's own
            name = f"{name}/."
        names |= {back.experiment, name}
        yield {
            "name": name,
            "doc": f"what run {header['takes_back']} did in {name}",
            "actions": [(undo_one, [session, job, back])],
            "params": startup.params_of("undo") if f"undo:{name}" in session.chosen else (),
            "meta": {"found": back},
        }
    for name in sorted(set(changed) - names) if selecting.selects_by_word(session, "undo") else ():
        yield {"name": encode_task(name), "actions": []}  # nothing of it is left to take back


def chosen_run(
    outputs_dir: str, run: str | None, newest: Callable[[Sequence[Run]], Run | None] = newest_standing
) -> Run | None:
    """Return the run that was asked for, or the newest: that which undo takes back, where nothing else is said.

    Raises:
        OptionError: there is no such run, or the journals cannot be read.
    """
    try:
        runs = read_runs(outputs_dir, records.own_state(outputs_dir))
    except JournalError as error:
        hint = "move the file away; what it tells of cannot be taken back then"
        raise OptionError(f"{visible(fault_of(outputs_dir, error))}\n    hint: {hint}") from None
    except OSError as error:
        raise OptionError(fault_of(outputs_dir, error)) from None
    if run is None:
        return newest(runs)
    by_id = {run.id: run for run in runs}
    if run not in by_id:
        hint = closest(run, by_id) or "'doit history' lists them"
        raise OptionError(f"command line: no run '{run}'\n    hint: {hint}")
    return by_id[run]


def undo_one(session: Session, job: UndoJob, back: TakeBack, task: Task) -> TaskFailed | None:
    """Take back, or say what would be taken back, in one checkpoint directory."""
    back, held = without_pinned(back, job.pinned)
    plan, came = as_plan(back), Done({})
    if stopping.stopped():
        records.note_stop(session)
        task.meta["output"] = Output("")
        return TaskFailed("stopped", report=False)
    own = job.own_state if back.own else ""
    root = own or job.options.outputs_dir
    if job.options.dry_run:
        with Folders(root, texts=back.own) as folders:
            came = Done(foresee(folders, back.units))
    elif back.units:
        journal = records.open_journal(session, job.options.outputs_dir, job.header, own)
        place = Workplace(root, session.run_id, journal, 1, stopping.stopped, back.own)
        came = transact(place, back.experiment, back.directory, back.units, takes_back=back.undoes)
        if stopping.stopped():
            records.note_stop(session)
    done = after(plan, came.failed, (*held, *problems_of(plan, came)))
    state = "problems" if done.problems else "planned" if job.options.dry_run else "done"
    data = plan_as_data(done, state) if job.options.tells_data else None
    task.meta["output"] = Output(experiment_block(done, (), job.style), tally(done), data)
    return TaskFailed("problems left", report=False) if done.problems else None


def without_pinned(back: TakeBack, pinned: Sequence[Found]) -> tuple[TakeBack, list[Problem]]:
    """Leave out what would bring a pinned checkpoint, or a directory with one in it, into the trash; tell of each."""
    held = [pinning.first_in(pinned, lost_by(unit)) for unit in back.units]
    stays = [one is None for one in held]
    rest = back._replace(units=tuple(compress(back.units, stays)), undoes=tuple(compress(back.undoes, stays)))
    return rest, [pinning.refused(one) for one in held if one]


def lost_by(unit: Unit) -> list[str]:
    """List the paths of what a unit brings into the trash."""
    steps = [step for step in unit.steps if f"{step.to_directory}/".startswith(f"{TRASH}/")]
    return [f"{step.directory}/{step.name}".lstrip("/") for step in steps]


def as_plan(back: TakeBack) -> Plan:
    """Turn what is to be taken back into the form that is reported."""
    actions = []
    for unit in back.units:
        action, head = ACTIONS[unit.kind], head_of(unit)
        name, rest, parts = shown(head), [step for step in unit.steps if step is not head], parts_of(unit)
        along = [step for step in rest if KINDS[step.kind].moves and not action.in_sequence]
        along.sort(key=lambda step: step not in parts)
        with_it = tuple((shown(step), step.to if action.shows_to else "") for step in along)
        to = head.to if action.shows_to else ""
        actions.append(Action(unit.kind, name, to, unit.size, (), with_it, parts=len(parts)))
        for step in (step for step in rest if KINDS[step.kind].follows):
            elsewhere = "" if step.directory == back.directory else step.directory
            follower = Action(step.kind, step.name, step.to, 0, (), follows=name, was=step.was, directory=elsewhere)
            actions.append(follower)
    return Plan(back.experiment, back.directory, tuple(actions))


def shown(step: Step) -> str:
    """Return the name by which people know what a step changes."""
    return KINDS[step.kind].shown(step)


def came_to(run: Run | None, backs: Sequence[TakeBack], style: Style, lost: object, total: Tally) -> Iterator[str]:
    """Say which run was taken back, and what of it cannot be; ``lost`` says that the trash holds what nothing knows."""
    if run and backs:
        verb = "Taken back in part" if total.problems else "Taken back"
        if style.preview:
            verb = "Would take back"
        elif not total.changes:
            verb = "Not taken back"
        yield f"{verb}: run {run.id}, {style.name(command_of(run))}"
    else:
        yield "There is nothing to take back."
        if lost:
            yield "What waits in the trash, and how it comes back: 'doit trash'."
    if run and run.gone:
        kinds = [unit.kind for ref, unit in run.pairs if ref in run.gone]
        states = sum(kind in ("fix", "unfix", "replace") for kind in kinds)
        what = [count_of(len(kinds) - states, "checkpoint")] * (len(kinds) > states)
        what += [f"the other state of {count_of(states, 'checkpoint')}"] * bool(states)
        yield f"Gone for good: {' and '.join(what)} of this run; its space was freed."
    if run and run.barred:
        texts = count_of(len(run.barred), "text stays as it is", "texts stay as they are")
        yield f"Not taken back: {texts}: the record lies where others can write."
