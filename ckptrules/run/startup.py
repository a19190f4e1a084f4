"""How a run starts: ``DOIT_CONFIG``, the commands of a dodo.py, and, before any task exists, all that can refuse it.

Nothing is imported here that a command may not need: `doit list` is to answer at once.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from doit.exceptions import InvalidDodoFile

from ckptrules import stopping
from ckptrules.engine.measures import visible_lines
from ckptrules.engine.ruleset import RuleError
from ckptrules.rules.shipped import TASKS_FILE
from ckptrules.run.command_line import (
    command_line,
    completed,
    let_output_be_written,
    params_of,
    refusal,
)
from ckptrules.run.declared import TASKS, module_of
from ckptrules.run.options import Common, OptionError, Planning
from ckptrules.run.refusing import (
    refusal_of,
    refuse_backup,
    refuse_configured_folder,
    refuse_lacking,
    refuse_line,
    refuse_missing_outputs,
    refuse_report_place,
    show_help_first,
)
from ckptrules.run.remembered import (
    IN_MEMORY,
    readable_database,
    refuse_damaged,
    sound_database,
)
from ckptrules.run.session import Session
from ckptrules.run.words import DEFAULT_TASK, Word

if TYPE_CHECKING:
    from ckptrules.run.tasks import TaskDict

GC_AFTER = 1_000_000  # objects; tasks live to the end: searching 10,000 for garbage costs a quarter of a run
NO_SESSION = "the line 'DOIT_CONFIG = doit_config()' must stand above the commands of ckptrules"
CHANGED = "it is not what doit_config() returned", "give that your own settings: DOIT_CONFIG = doit_config(verbosity=2)"
SESSION = "session"  # in DOIT_CONFIG


def doit_config(**own: Any) -> dict[str, Any]:
    """Return ``DOIT_CONFIG``, with the session. What can refuse a run does it here, before any task exists.

    Args:
        own: settings of the project, by doit's names. Of those that the commands need, ``default_tasks`` alone counts.
    """
    frame = inspect.currentframe()
    dodo = frame.f_back.f_globals if frame and frame.f_back else {}
    gc.set_threshold(GC_AFTER)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head`: workers would wait for ever for a main that failed
    let_output_be_written()
    with told_by_doit():
        show_help_first()
        usual = own.get("default_tasks") or [DEFAULT_TASK]
        line = command_line(sys.argv[1:], usual)
        session = Session(line, dodo)
        refuse_line(line)
        if ours := [task for task in usual if any(map(Word(task, {}).selects, {*TASKS} - {DEFAULT_TASK}))]:
            raise OptionError(f"default_tasks: '{ours[0]}' runs only where it is typed", place=TASKS_FILE)
        session.config = _config(session, usual)
        return {**own, **session.config}


def _config(session: Session, usual: Sequence[str]) -> dict[str, Any]:
    """Return the settings of doit that our commands need, after the lock was taken where one of them wants it."""
    line = session.line
    hidden = [word.task for word in line.words if word.typed]  # doit takes them for variables
    always = {"default_tasks": hidden or usual, "continue": True, "backend": "sqlite3", SESSION: session}
    always["sort"] = "definition"  # `ckptrules list` is in the order of dodo.py
    if line.command != "run":
        return {**always, "dep_file": _database(session)}
    from ckptrules.outputs.in_use import ignore_lease_breaks
    from ckptrules.run.processes import choose_workers, processes
    from ckptrules.run.reporter import reporter_of

    ignore_lease_breaks()
    if not line.has_foreign_words:  # Ctrl-C leaves nothing half done
        stopping.install()
    choose_workers(session)
    database, number = _database(session), processes(session)
    threads = {"num_process": number, "par_type": "thread"}  # they wait for the processes at work
    return {**always, **threads, "reporter": reporter_of(session), "dep_file": database}


class command:  # noqa: N801 - a dodo.py reads like a list of words
    """A command of ckptrules, as doit takes it from a dodo.py.

    Args:
        name: of the command.
        sentence: what `doit list` says of it.
        dodo: what stands in the dodo.py, if that is not where it is called.
    """

    def __init__(self, name: str, sentence: str, dodo: Mapping[str, Any] | None = None) -> None:
        frame = inspect.currentframe()
        here = dodo if dodo is not None else frame.f_back.f_globals if frame and frame.f_back else {}
        if name not in TASKS:
            raise InvalidDodoFile(f"ckptrules has no command '{name}'; there are: {', '.join(TASKS)}")

        session = session_of(here)

        def create_doit_tasks(**given: Any) -> Iterator[TaskDict]:
            with told_by_doit():
                yield from make_tasks(session, name, given)

        create_doit_tasks.__doc__ = sentence
        vars(create_doit_tasks)["basename"] = name
        with told_by_doit():
            if session.line.asks_for(name):  # else its file need not be imported
                vars(create_doit_tasks)["_task_creator_params"] = params_of(name)
        self.create_doit_tasks = create_doit_tasks


def session_of(dodo: Mapping[str, Any]) -> Session:
    """Return the session that a dodo.py has begun: no command is to run without the lock.

    Raises:
        InvalidDodoFile: it has begun none.
    """
    config = dodo.get("DOIT_CONFIG")
    session = config.get(SESSION) if isinstance(config, Mapping) else None
    if isinstance(session, Session):
        return session
    raise InvalidDodoFile(f"{os.path.basename(dodo.get('__file__', ''))}: {NO_SESSION}")


def make_tasks(session: Session, name: str, given: Mapping[str, Any]) -> Iterator[TaskDict]:
    """Make the tasks of a command where it is asked for.

    Args:
        session: of this call.
        name: of the command.
        given: what doit has read of its options.

    Raises:
        RuleError, OptionError, OSError: nothing can be done with these.
    """
    line = session.line
    refuse_lacking(session)
    if not line.asks_for(name):
        return
    refuse_changed(session)
    options = line.options(name, given)
    refuse_configured_folder(options, line.options(name))
    if options.finds_outputs:
        refuse_missing_outputs(options.outputs_dir)
    if line.command == "run":
        refuse_report_place(options)
    module = module_of(name)
    if hasattr(module, "tasks"):
        yield from module.tasks(session, options)
        return
    from ckptrules.run.tasks import one_task

    yield from one_task(session, name, module.prepare, options)


def refuse_changed(session: Session) -> None:
    """Refuse to run by other settings than those that the commands need: they would say nothing, or not be run.

    Raises:
        OptionError: the dodo.py has changed one after `doit_config` returned them.
    """
    config = session.dodo.get("DOIT_CONFIG")
    if not isinstance(config, Mapping) or any(config.get(key) != value for key, value in session.config.items()):
        raise OptionError(*CHANGED, place=f"{TASKS_FILE}: DOIT_CONFIG")


@contextlib.contextmanager
def told_by_doit() -> Iterator[None]:
    """Hand our refusals to doit, which prints them without a traceback and exits with 3."""
    try:
        yield
    except OptionError as error:
        raise InvalidDodoFile(refusal(str(error))) from None
    except RuleError as error:
        raise InvalidDodoFile(completed(visible_lines(str(error)))) from None
    except OSError as error:
        raise InvalidDodoFile(refusal(f"{error.filename or ''}: {refusal_of(error)}".removeprefix(": "))) from None


def _database(session: Session) -> str:
    """Return where doit keeps what is up to date: in the state folder; in memory where nothing may be changed."""
    line = session.line
    if line.command == "help":
        return IN_MEMORY
    if line.command != "run":
        with contextlib.suppress(RuleError):  # to list the tasks needs no rules
            options = next(iter(line.asked().values()), None) or line.options("")
            return readable_database(session, options.outputs_dir)
        return IN_MEMORY
    from ckptrules.run.locking import refuse_state

    refuse_state(session)
    changing = {task: options for task, options in line.asked().items() if options.will_change}
    if not changing and line.has_foreign_words:
        return refuse_damaged(session)
    database = IN_MEMORY
    for task, options in changing.items():
        database = begin_changing(session, task, options)
    return database


def begin_changing(session: Session, task: str, options: Common) -> str:
    """Refuse a task that may not change anything, take the lock for one that may, and return doit's database.

    Raises:
        RuleError, OptionError: it is refused.
    """
    from ckptrules.run.finding import names_of, note_proof
    from ckptrules.run.jobs import job_of
    from ckptrules.run.locking import recover_first, take_lock
    from ckptrules.run.tasks import chosen_of, selects

    refuse_report_place(options)
    refuse_missing_outputs(options.outputs_dir)
    refuse_backup(options)
    if isinstance(options, Planning):
        job_of(session, options)  # refuses what no job can be made of
        if selects(session, task, options):
            chosen_of(session, task, options, names_of(session, options))  # refuses what there is not
    take_lock(session, options.outputs_dir, options.wait)
    database = sound_database(session, options.outputs_dir, options)
    if isinstance(options, Planning):
        note_proof(session, options)
    recover_first(session, options.outputs_dir)
    return database
