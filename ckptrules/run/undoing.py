"""What a run did in one checkpoint directory, taken back and told: by any process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple

from ckptrules import stopping
from ckptrules.changes import units
from ckptrules.changes.history import TakeBack, inverted
from ckptrules.changes.kinds import ACTIONS, KINDS
from ckptrules.changes.transaction import Workplace, transact
from ckptrules.changes.undoing import foresee
from ckptrules.changes.units import after, head_of, parts_of, problems_of
from ckptrules.engine.actions import Action, Plan, Problem, Step, Unit
from ckptrules.engine.pins import Found
from ckptrules.engine.state_folder import TRASH
from ckptrules.report.data import plan_as_data
from ckptrules.report.style import Style
from ckptrules.report.text import experiment_block, tally
from ckptrules.run import pinning
from ckptrules.run.outcome import Done, Output
from ckptrules.run.records import Journals
from ckptrules.storage.folders import Folders


class UndoJob(NamedTuple):
    """What all tasks of one undo share; it can be sent to another process. ``run`` is this one, not what it takes back.

    ``tells_data`` says that what came of it is wanted as data, too.
    """

    outputs_dir: str
    own_state: str
    run: str
    header: Mapping[str, Any]
    journals: Journals
    style: Style
    pinned: Sequence[Found]
    dry_run: bool
    tells_data: bool


def work_on(job: UndoJob, back: TakeBack) -> Done:
    """Take back, or say what would be taken back, in one checkpoint directory."""
    if stopping.stopped():
        job.journals.note_stop()
        return Done(Output(""), failed=True)
    back, held = without_pinned(inverted(back, job.run), job.pinned)
    plan, came = as_plan(back), units.Transacted({})
    root = job.own_state if back.own else job.outputs_dir
    if job.dry_run:
        with Folders(root, texts=back.own) as folders:
            came = units.Transacted(foresee(folders, back.units))
    elif back.units:
        journal = job.journals.of_this_thread(root, job.header)
        place = Workplace(root, job.run, journal, 1, stopping.stopped, back.own)
        came = transact(place, back.experiment, back.directory, back.units, takes_back=back.undoes)
        if stopping.stopped():
            job.journals.note_stop()
    done = after(plan, came.failed, (*held, *problems_of(plan, came)))
    state = "problems" if done.problems else "planned" if job.dry_run else "done"
    data = plan_as_data(done, state) if job.tells_data else None
    output = Output(experiment_block(done, (), job.style), tally(done), data)
    return Done(output, failed=bool(done.problems))


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
