"""``doit history`` and ``doit undo``: what runs did, and taking them back."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import asked, jobs, scan, startup, stopping, store
from ckptrules.apply import Done, Workplace, after, problems_of, transact
from ckptrules.history import TRASH, Run, TakeBack, newest_standing, take_back
from ckptrules.journal import JournalError, refs
from ckptrules.measures import human_size, visible
from ckptrules.model import STATE, Action, ActionKind, Identity, Plan, Step, Unit
from ckptrules.options import OptionError, Options, as_pattern, encode_task
from ckptrules.recovery import fault_of, read_runs
from ckptrules.report import Style, Tally, count_of, experiment_block, plan_as_data, table, tally
from ckptrules.reporter import Reporter, RunContext, Told
from ckptrules.scan import stands_for, told
from ckptrules.shape import closest

HEADINGS = ("run", "when", "who", "command", "renamed", "deleted", "size", "state")


class UndoJob(NamedTuple):
    """What all tasks of one undo share; it can be sent to another process."""

    options: Options
    run: str
    header: Mapping[str, Any]
    style: Style
    own_state: str


def history(options: Options) -> Iterator[startup.TaskDict]:
    """Show which runs there were."""
    jobs.outputs_dir(options)
    yield {"basename": "history", "actions": [(show_history, [options.outputs_dir, jobs.style(options)])]}


def undo(options: Options) -> Iterator[startup.TaskDict]:
    """Make one task for each checkpoint directory that a run changed, to take that back.

    Raises:
        OptionError: there is no such run, or it changed no such experiment.
    """
    jobs.outputs_dir(options)
    run = chosen_run(options)
    changed = sorted({intent.experiment for _, intent in run.intents}) if run else []
    pattern = as_pattern(options.experiments, changed)
    if run and pattern and not any(fnmatchcase(name, pattern) for name in changed):
        hint = f"it changed {visible(', '.join(changed)) or 'none'}"
        raise OptionError(f"command line: run {run.id}: no experiment '{options.experiments}'\n    hint: {hint}")
    if run:
        jobs.refuse_unknown_experiments(asked.command_line(), "undo", options, lambda: changed)
    backs = take_back(run, jobs.run_id(), pattern) if run else []
    header = jobs.run_header("undo", options, takes_back=run.id if run else None)
    lost = run is None and scan.trash_use(options.outputs_dir).items > 0
    job = UndoJob(options, jobs.run_id(), header, jobs.style(options), jobs.own_state(options.outputs_dir))
    Reporter.contexts["undo"] = RunContext(
        options,
        job.style,
        header,
        None,
        came_to=functools.partial(came_to, run, backs, job.style, lost),
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
            "actions": [(undo_one, [job, back])],
            "params": startup.params_of("undo") if f"undo:{name}" in asked.chosen() else (),
            "meta": {"found": back},
        }
    for name in sorted(set(changed) - names) if jobs.selects_by_word("undo") else ():
        yield {"name": encode_task(name), "actions": []}  # nothing of it is left to take back


def chosen_run(options: Options) -> Run | None:
    """Return the run that is to be taken back: the one asked for, or the newest that is no undo and still stands.

    Raises:
        OptionError: there is no such run, or the journals cannot be read.
    """
    try:
        runs = read_runs(options.outputs_dir, jobs.own_state(options.outputs_dir))
    except JournalError as error:
        hint = "move the file away; what it tells of cannot be taken back then"
        raise OptionError(f"{visible(fault_of(options.outputs_dir, error))}\n    hint: {hint}") from None
    except OSError as error:
        raise OptionError(fault_of(options.outputs_dir, error)) from None
    if options.run is None:
        return newest_standing(runs)
    by_id = {run.id: run for run in runs}
    if options.run not in by_id:
        hint = closest(options.run, by_id) or "'doit history' lists them"
        raise OptionError(f"command line: no run '{options.run}'\n    hint: {hint}")
    return by_id[options.run]


def undo_one(job: UndoJob, back: TakeBack, task: Task) -> TaskFailed | None:
    """Take back, or say what would be taken back, in one checkpoint directory."""
    plan = as_plan(back)
    if stopping.stopped():
        jobs.note_stop()
        task.meta["told"] = Told("")
        return TaskFailed("stopped", report=False)
    own = job.own_state if back.own else ""
    root = own or job.options.outputs_dir
    if job.options.dry_run:
        with store.Folders(root, texts=back.own) as folders:
            came = Done(foresee(folders, back.units))
    else:
        journal = jobs.open_journal(job.options.outputs_dir, job.run, job.header, own)
        place = Workplace(root, job.run, journal, 1, stopping.stopped, back.own)
        came = transact(place, back.experiment, back.directory, back.units, takes_back=back.undoes)
        if stopping.stopped():
            jobs.note_stop()
    done = after(plan, came.failed, problems_of(plan, came))
    state = "problems" if done.problems else "planned" if job.options.dry_run else "done"
    data = plan_as_data(done, state) if job.options.json else None
    task.meta["told"] = Told(experiment_block(done, (), job.style), tally(done), data)
    return TaskFailed("problems left", report=False) if done.problems else None


# --- pure ------------------------------------------------------------------------------------------------------------


def as_plan(back: TakeBack) -> Plan:
    """Turn what is to be taken back into the form that is reported."""
    actions = []
    for unit in back.units:
        head, rest = unit.head, [step for step in unit.steps if step is not unit.head]
        name = _shown(head)
        along = rest if unit.kind != "replace" else ()
        with_it = tuple((_shown(s), s.to if unit.kind == "rename" else "") for s in along if s.kind == "move")
        actions.append(Action(unit.kind, name, head.to if unit.kind == "rename" else "", unit.size, (), with_it))
        for step in (step for step in rest if step.kind in ("relink", "repoint")):
            elsewhere = "" if step.directory == back.directory else step.directory
            kind: ActionKind = "repoint" if step.kind == "repoint" else "relink"
            actions.append(Action(kind, step.name, step.to, 0, (), follows=name, was=step.was, directory=elsewhere))
    return Plan(back.experiment, back.directory, tuple(actions))


def _shown(step: Step) -> str:
    return step.to if step.kind == "move" and step.directory.startswith(TRASH) else step.name


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
        states = len(kinds) - kinds.count("trash")
        what = [count_of(kinds.count("trash"), "checkpoint")] * ("trash" in kinds)
        what += [f"the other state of {count_of(states, 'checkpoint')}"] * bool(states)
        yield f"Gone for good: {' and '.join(what)} of this run; its space was freed."
    if run and run.barred:
        texts = count_of(len(run.barred), "text stays as it is", "texts stay as they are")
        yield f"Not taken back: {texts}: the record lies where others can write."


def command_of(run: Run) -> str:
    """Write what was typed: the command and the options that were not the default."""
    default = Options()._asdict()
    given = {k: v for k, v in run.header.get("options", {}).items() if k in default and v != default[k]}
    words = [f"{name}={int(value) if isinstance(value, bool) else value}" for name, value in given.items()]
    return " ".join([str(run.header.get("command", "?")), *words])


def state_of(run: Run) -> str:
    """Say what became of a run."""
    if run.interrupted or run.stopped:
        planned = sum(len(intent.units) for _, intent in run.intents)
        many = f"{len(run.done)} of {planned}" if len(run.done) < planned else str(planned)
        stop = f"{'interrupted' if run.interrupted else 'stopped'}: {many} done"
        return stop if run.interrupted or run.standing or not run.done else f"{stop}, taken back"
    if run.intents and not run.done:
        return "nothing done"
    if run.gone:
        return "trash freed"
    if run.barred:
        return "not taken back: texts"
    if run.takes_back:
        return f"took back {run.takes_back}" if run.standing else "taken back"
    lost = len(run.done) - len(run.standing)
    return "done" if not lost else "taken back" if not run.standing else f"{lost} of {len(run.done)} taken back"


def history_text(runs: list[Run], style: Style) -> str:
    """Show the runs, newest first, in aligned columns."""
    if not runs:
        return "No run has changed anything yet.\n"
    rows = []
    for run in reversed(runs):
        units = run.units
        deleted = [unit for unit in units if unit.kind == "trash"]
        rows.append(
            (
                run.id,
                str(run.header.get("when", "")),
                f"{run.header.get('who', '?')}@{run.header.get('host', '?')}",
                command_of(run),
                str(sum(unit.kind == "rename" for unit in units)),
                str(len(deleted)),
                human_size(sum(unit.size for unit in deleted)) if deleted else "",
                state_of(run),
            )
        )
    return table(HEADINGS, [tuple(style.name(cell) for cell in row) for row in rows], right=(4, 5, 6))


# --- reading ---------------------------------------------------------------------------------------------------------


def show_history(outputs_dir: str, style: Style, task: Task) -> TaskFailed | None:
    """Tell which runs there were."""
    try:
        runs = [as_the_disk_tells(outputs_dir, run) for run in read_runs(outputs_dir, scan.own_state(outputs_dir))]
    except (JournalError, OSError) as error:
        task.meta = {"told": Told(f"{style.name(fault_of(outputs_dir, error))}\n")}
        return TaskFailed("a journal is damaged", report=False)
    task.meta = {"told": Told(history_text(runs, style))}
    return None


def as_the_disk_tells(outputs_dir: str, run: Run) -> Run:
    """Return a run that was interrupted with what it has really done; nothing is changed."""
    if not run.interrupted:
        return run
    open_units = {
        ref: unit
        for record, intent in run.intents
        if intent.failed is None
        for ref, unit in zip(refs(record, intent), intent.units, strict=True)
    }
    with store.Folders(outputs_dir) as folders:
        undone = {ref for ref, unit in open_units.items() if _is_to_do(folders, unit.head)}
    return run._replace(done=run.done - undone)


def _is_to_do(folders: store.Folders, step: Step) -> bool:
    """Say whether a change could still be made: what it begins with is there, as it was."""
    with contextlib.suppress(OSError):
        if step.kind == "rewrite":
            return store.text_checksum(step) == step.was
        if step.kind == "exchange":
            return store.is_marked(folders, step)
        directory = folders.descriptor(step.directory)
        if step.kind == "move":
            return stands_for(directory, step.name, step.identity)
        if step.kind == "unlink":
            return os.readlink(step.name, dir_fd=directory) == step.to
        os.lstat(step.name, dir_fd=directory)
        return False
    return step.kind == "link"


def foresee(folders: store.Folders, units: tuple[Unit, ...]) -> dict[int, str]:
    """Find the units that cannot be taken back as things stand; nothing is changed."""
    failed = {}
    gone: set[tuple[str, str]] = set()
    exchanged: set[tuple[str, str]] = set()
    for number, unit in enumerate(units):
        leaves = {(step.directory, step.name) for step in unit.steps if step.kind in ("move", "unlink")}
        whys = [
            (why if step is unit.head else f"{step.name}: {why}")
            for step in unit.steps
            if (why := _obstacle(folders, step, gone | leaves, exchanged))
        ]
        if whys:
            failed[number] = whys[0]
        else:
            gone |= leaves
            exchanged |= {(step.directory, step.name) for step in unit.steps if step.kind == "exchange"}
    return failed


def _obstacle(
    folders: store.Folders, step: Step, gone: Collection[tuple[str, str]], exchanged: Collection[tuple[str, str]]
) -> str:
    try:
        if step.kind == "rewrite":
            return store.rewrite_obstacle(folders, step)
        directory = folders.descriptor(step.directory)
        if step.kind == "exchange" and not store.is_marked(folders, step):
            return store.CHANGED
        if step.kind == "unlink" and os.readlink(step.name, dir_fd=directory) != step.to:
            return store.LINK_CHANGED
        if step.kind == "relink" and os.readlink(step.name, dir_fd=directory) != step.was:
            return store.LINK_CHANGED
        known = (step.directory, step.name) not in exchanged  # else it is not there yet
        if step.kind == "move" and known and not stands_for(directory, step.name, step.identity):
            return "" if _will_be_empty(directory, step, gone) else store.CHANGED
        if step.kind == "move" and (step.to_directory, step.to) not in gone and not _is_free(folders, step):
            return os.strerror(errno.EEXIST)
    except OSError as error:
        return told(error)
    return ""


def _will_be_empty(directory: int, step: Step, gone: Collection[tuple[str, str]]) -> bool:
    """Say whether a directory that was made empty will be so again, as all that is in it leaves before."""
    return step.identity == Identity("directory", 0, -1) and all(
        (os.path.normpath(os.path.join(step.directory, folder)), name) in gone
        for folder, inner, names, _ in os.fwalk(step.name, dir_fd=directory)
        for name in (*inner, *names)
    )


def _is_free(folders: store.Folders, step: Step) -> bool:
    """Say whether the new name of a move is free; folders of the trash are made when they are needed."""
    try:
        os.lstat(step.to, dir_fd=folders.descriptor(step.to_directory))
    except FileNotFoundError as error:
        if error.filename == step.to or step.to_directory.startswith(f"{STATE}/"):
            return True
        raise
    return False
