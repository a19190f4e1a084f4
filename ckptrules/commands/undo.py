"""`doit undo`: takes back what a run did."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ckptrules.changes.history import Run, TakeBack, are_independent, newest_standing, standing
from ckptrules.changes.journals import fault_of
from ckptrules.changes.record import JournalError
from ckptrules.engine.measures import visible
from ckptrules.engine.spelling import closest
from ckptrules.report.style import Style, count_of
from ckptrules.report.text import Tally
from ckptrules.run import jobs, pinning, places, records, selecting
from ckptrules.run.command_line import params_of
from ckptrules.run.options import EXPERIMENTS, HTML, JSON, RUN, WAIT, Common, OptionError
from ckptrules.run.outcome import RunContext
from ckptrules.run.past import command_of, runs_of, trash_days
from ckptrules.run.session import Session, once
from ckptrules.run.tasks import TaskDict, hand_over
from ckptrules.run.undoing import UndoJob, work_on
from ckptrules.run.words import as_pattern, encode_task
from ckptrules.storage.believing import own_state
from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import trash_use

if TYPE_CHECKING:
    from doit.exceptions import TaskFailed
    from doit.task import Task


class Options(Common):
    """What `doit undo` may be told."""

    reads_journals = True
    changes = True
    shares = True
    run: str | None = RUN
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    html: str | None = HTML
    wait: int = WAIT


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory that a run changed, to take that back.

    Raises:
        OptionError: there is no such run, or it changed no such experiment.
    """
    run, changed, pattern, backs = found_out(session, options)
    if run and pattern and not any(fnmatchcase(name, pattern) for name in changed):
        hint = f"it changed {visible(', '.join(changed)) or 'none'}"
        raise OptionError(f"run {run.id}: no experiment '{options.experiments}'", hint)
    if run:
        selecting.refuse_unknown_experiments(session, "undo", options, lambda: changed)
    pinned = pinning.all_pinned(session, options)
    header = records.run_header(session, "undo", options, takes_back=run.id if run else None)
    lost = options.run is None and not backs and trash_use(Disk(options.outputs_dir)).items > 0
    changes = options.will_change and session.line.command == "run"
    number = records.begun(session, options.outputs_dir).last.number if changes else None
    job = UndoJob(
        options.outputs_dir, own_state(options.outputs_dir), session.run_id, {**header, "number": number},
        records.journals_of(session), jobs.style(session, options), pinned, options.dry_run, options.tells_data
    )  # fmt: skip
    undo_one = functools.partial(undo_anywhere, session) if are_independent(backs) else undo_here
    session.contexts["undo"] = RunContext(
        options,
        job.style,
        header,
        trash_days(session, options),
        came_to=functools.partial(came_to, run, backs, job.style, lost),
        lacks=lambda _: pinning.renew(options.rules_dir, options.outputs_dir) if options.will_change else "",
        summarise=None if backs else notes_alone,
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
            "params": params_of("undo") if f"undo:{name}" in session.chosen else (),
            "meta": {"found": back},
        }
    for name in sorted(set(changed) - names) if selecting.selects_by_word(session, "undo") else ():
        yield {"name": encode_task(name), "actions": []}  # nothing of it is left to take back


@once
def found_out(_: Session, options: Options) -> tuple[Run | None, list[str], str | None, Sequence[TakeBack]]:
    """Find out what is to be taken back, once: under the lock, where anything is to change.

    Returns the run, if there is one, the experiments that it changed, those that are meant, and what stands of it.

    Raises:
        OptionError: there is no such run, or the journals cannot be read.
    """
    places.outputs_dir(options)
    run = chosen_run(options.outputs_dir, options.run, newest_known)
    changed = sorted({intent.experiment for _, intent in run.intents}) if run else []
    pattern = as_pattern(options.experiments, changed)
    return run, changed, pattern, standing(run, pattern) if run else ()


def count_shared(session: Session, base: str, options: Options) -> int:
    """Count the directories that are asked for, if several processes may share them.

    Raises:
        OptionError: as `found_out`.
    """
    *_, backs = found_out(session, options)
    return sum(selecting.is_selected(session, base, back.experiment) for back in backs) if are_independent(backs) else 0


def newest_known(runs: Sequence[Run]) -> Run | None:
    """Return the newest run with something to take back, or else the one whose space was freed last."""
    gone = (run for run in reversed(runs) if run.gone and not run.takes_back)
    return newest_standing(runs) or next(gone, None)


def chosen_run(
    outputs_dir: str, run: str | None, newest: Callable[[Sequence[Run]], Run | None] = newest_standing
) -> Run | None:
    """Return the run that was asked for, or the newest: that which undo takes back, where nothing else is said.

    Raises:
        OptionError: there is no such run, or the journals cannot be read.
    """
    try:
        runs = runs_of(outputs_dir)
    except JournalError as error:
        hint = "move the file away; what it tells of cannot be taken back then"
        raise OptionError(visible(fault_of(outputs_dir, error)), hint, place="") from None
    except OSError as error:
        raise OptionError(fault_of(outputs_dir, error), place="") from None
    if run is None:
        return newest(runs)
    by_id = {run.id: run for run in runs}
    if run not in by_id:
        raise OptionError(f"no run '{run}'", closest(run, by_id) or "'doit history' lists them")
    return by_id[run]


def undo_here(job: UndoJob, back: TakeBack, task: Task) -> TaskFailed | None:
    """Take back in this process what a run did in one checkpoint directory, or tell it."""
    return hand_over(lambda: work_on(job, back), task)


def undo_anywhere(session: Session, job: UndoJob, back: TakeBack, task: Task) -> TaskFailed | None:
    """Have what a run did in one checkpoint directory taken back, or told, by a process that is free."""
    there = [one for one in job.pinned if f"{one.path}/".startswith(f"{back.directory}/")]
    return hand_over(lambda: session.workers.do(work_on, job._replace(pinned=there), back), task)


def notes_alone(_: Tally, __: Style, notes: Iterable[str]) -> str:
    """Sum nothing up: there is nothing to take back."""
    return "".join(f"{note}\n" for note in notes)


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
        which = "this run" if backs else f"run {run.id}, {style.name(command_of(run))}"
        yield f"Gone for good: {' and '.join(what)} of {which}; its space was freed."
    if run and run.barred:
        texts = count_of(len(run.barred), "text stays as it is", "texts stay as they are")
        yield f"Not taken back: {texts}: the record lies where others can write."
