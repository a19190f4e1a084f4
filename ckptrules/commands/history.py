"""`doit history`: the runs, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules.changes.history import Run
from ckptrules.changes.journals import fault_of, read_runs
from ckptrules.changes.record import JournalError
from ckptrules.changes.undoing import as_the_disk_tells
from ckptrules.engine.measures import human_size
from ckptrules.report.style import Style, table
from ckptrules.run import jobs, startup
from ckptrules.run.command_line import declared
from ckptrules.run.options import Common, Option
from ckptrules.run.reporter import Output
from ckptrules.run.session import Session
from ckptrules.storage import believing

HEADINGS = ("run", "when", "who", "command", "renamed", "deleted", "size", "state")


class Options(Common):
    """What `doit history` may be told."""

    reads_journals = True


def tasks(session: Session, options: Options) -> Iterator[startup.TaskDict]:
    """Show which runs there were."""
    jobs.outputs_dir(options)
    yield {"basename": "history", "actions": [(show_history, [options.outputs_dir, jobs.style(session, options)])]}


def command_of(run: Run) -> str:
    """Write what was typed: the command and the options that were not the default."""
    task = str(run.header.get("command", "?"))
    known = declared(task).known()
    given = {k: v for k, v in run.header.get("options", {}).items() if k in known and was_given(known[k], v)}
    words = [f"{name}={int(value) if isinstance(value, bool) else value}" for name, value in given.items()]
    return " ".join([task, *words])


def was_given(option: Option, value: object) -> bool:
    """Say whether an option was given; the first journals hold for all commands what is a default of one."""
    try:
        option.read(str(value))
    except ValueError:
        return False
    return value not in (option.default, None)


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


def show_history(outputs_dir: str, style: Style, task: Task) -> TaskFailed | None:
    """Tell which runs there were."""
    try:
        runs = [as_the_disk_tells(outputs_dir, run) for run in read_runs(outputs_dir, believing.own_state(outputs_dir))]
    except (JournalError, OSError) as error:
        task.meta = {"output": Output(f"{style.name(fault_of(outputs_dir, error))}\n")}
        return TaskFailed("a journal is damaged", report=False)
    task.meta = {"output": Output(history_text(runs, style))}
    return None
