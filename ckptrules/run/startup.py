"""Start a call of doit: make ``DOIT_CONFIG`` and the commands of a dodo.py, and refuse what must not run.

Modules that not every command needs are imported inside functions, so that `doit list` answers at once.
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
    make_output_safe,
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

GC_AFTER = 1_000_000  # objects; tasks live to the end, and to search 10,000 for garbage takes a quarter of a run
NO_SESSION = "the line 'DOIT_CONFIG = doit_config()' must stand above the commands of ckptrules"
CHANGED = "it is not what doit_config() returned", "give that your own settings: DOIT_CONFIG = doit_config(verbosity=2)"
SESSION = "session"  # the key in DOIT_CONFIG


def doit_config(**own: Any) -> dict[str, Any]:
    """Return ``DOIT_CONFIG``, with the session in it; refuse what must not run, before any task exists.

    Args:
        own: settings of the project, by doit's names. The settings that the commands need override them, except
            ``default_tasks``.
    """
    frame = inspect.currentframe()
    dodo = frame.f_back.f_globals if frame and frame.f_back else {}
    gc.set_threshold(GC_AFTER)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # with `| head` the process ends, and its workers do not wait on it
    make_output_safe()
    with refusals_for_doit():
        show_help_first()
        usual = own.get("default_tasks") or [DEFAULT_TASK]
        line = command_line(sys.argv[1:], usual)
        session = Session(line, dodo)
        refuse_line(line)
        if ours := [task for task in usual if Word(task, {}).base in {*TASKS} - {DEFAULT_TASK}]:
            raise OptionError(f"default_tasks: '{ours[0]}' runs only where it is typed", place=TASKS_FILE)
        session.config = _config(session, usual)
        return {**own, **session.config}


def _config(session: Session, usual: Sequence[str]) -> dict[str, Any]:
    """Return the settings that doit must have; take the lock first, where a command may change something."""
    line = session.line
    hidden = [word.task for word in line.words if word.typed]  # doit takes these words for variables
    always = {"default_tasks": hidden or usual, "continue": True, "backend": "sqlite3", SESSION: session}
    always["sort"] = "definition"  # `ckptrules list` keeps the order of dodo.py
    if line.command != "run":
        return {**always, "dep_file": _database(session)}
    from ckptrules.outputs.in_use import ignore_lease_breaks
    from ckptrules.run.processes import choose_workers, processes
    from ckptrules.run.reporter import reporter_of

    ignore_lease_breaks()
    if not line.has_foreign_words:  # tasks of the user's own expect the usual Ctrl-C
        stopping.install()
    choose_workers(session)
    database, number = _database(session), processes(session)
    threads = {"num_process": number, "par_type": "thread"}  # each waits for a process at work
    return {**always, **threads, "reporter": reporter_of(session), "dep_file": database}


class command:  # noqa: N801 - a dodo.py reads like a list of words
    """A command of ckptrules, defined in a dodo.py.

    Args:
        name: the name of the command.
        sentence: its description in `doit list`.
        dodo: the globals of the dodo.py; by default those of the caller.
    """

    def __init__(self, name: str, sentence: str, dodo: Mapping[str, Any] | None = None) -> None:
        frame = inspect.currentframe()
        dodo = dodo if dodo is not None else frame.f_back.f_globals if frame and frame.f_back else {}
        if name not in TASKS:
            raise InvalidDodoFile(f"ckptrules has no command '{name}'; there are: {', '.join(TASKS)}")

        session = session_of(dodo)

        def create_doit_tasks(**given: Any) -> Iterator[TaskDict]:
            with refusals_for_doit():
                yield from make_tasks(session, name, given)

        create_doit_tasks.__doc__ = sentence
        vars(create_doit_tasks)["basename"] = name
        with refusals_for_doit():
            if session.line.asks_for(name):  # else the file of the command need not be imported
                vars(create_doit_tasks)["_task_creator_params"] = params_of(name)
        self.create_doit_tasks = create_doit_tasks


def session_of(dodo: Mapping[str, Any]) -> Session:
    """Return the session of a dodo.py: without one, a command would run without the lock.

    Raises:
        InvalidDodoFile: `doit_config` was not called above the commands.
    """
    config = dodo.get("DOIT_CONFIG")
    session = config.get(SESSION) if isinstance(config, Mapping) else None
    if isinstance(session, Session):
        return session
    raise InvalidDodoFile(f"{os.path.basename(dodo.get('__file__', ''))}: {NO_SESSION}")


def make_tasks(session: Session, name: str, given: Mapping[str, Any]) -> Iterator[TaskDict]:
    """Make the tasks of a command, if it is asked for.

    Args:
        session: the session of this call.
        name: the name of the command.
        given: the options as doit has read them, also from its own configuration.

    Raises:
        RuleError, OptionError, OSError: the command is refused.
    """
    line = session.line
    refuse_lacking(session)
    if not line.asks_for(name):
        return
    refuse_changed(session)
    options = line.options(name, given)
    refuse_configured_folder(options, line.options(name))
    if options.needs_outputs and options.finds_outputs:
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
    """Refuse settings of doit that the dodo.py has changed: without them commands would print nothing, or not run.

    Raises:
        OptionError: a setting is not the one that `doit_config` returned.
    """
    config = session.dodo.get("DOIT_CONFIG")
    if not isinstance(config, Mapping) or any(config.get(key) != value for key, value in session.config.items()):
        raise OptionError(*CHANGED, place=f"{TASKS_FILE}: DOIT_CONFIG")


@contextlib.contextmanager
def refusals_for_doit() -> Iterator[None]:
    """Turn refusals into an error that doit prints without a traceback, with the exit code 3."""
    try:
        yield
    except OptionError as error:
        raise InvalidDodoFile(refusal(str(error))) from None
    except RuleError as error:
        raise InvalidDodoFile(completed(visible_lines(str(error)))) from None
    except OSError as error:
        raise InvalidDodoFile(refusal(f"{error.filename or ''}: {refusal_of(error)}".removeprefix(": "))) from None


def _database(session: Session) -> str:
    """Return the path of doit's database; begin the commands that change something, and refuse those that must not run.

    The database is in memory for commands that change nothing.
    """
    line = session.line
    if line.command == "help":
        return IN_MEMORY
    if line.command != "run":
        with contextlib.suppress(RuleError):  # a list of the tasks needs no rules
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
    """Begin a command that changes something: refuse it, or take the lock and finish what an interrupted run began.

    Returns the path of doit's database.

    Raises:
        RuleError, OptionError: the command is refused.
    """
    from ckptrules.run.finding import names_of, note_proof
    from ckptrules.run.jobs import job_of
    from ckptrules.run.locking import recover_first, take_lock
    from ckptrules.run.tasks import chosen_of, selects

    refuse_report_place(options)
    refuse_missing_outputs(options.outputs_dir)
    refuse_backup(options)
    if isinstance(options, Planning):
        job_of(session, options)  # refuses wrong rules and policies
        if selects(session, task, options):
            chosen_of(session, task, options, names_of(session, options))  # refuses unknown experiments
    take_lock(session, options.outputs_dir, options.wait)
    database = sound_database(session, options.outputs_dir, options)
    if isinstance(options, Planning):
        note_proof(session, options)
    recover_first(session, options.outputs_dir)
    return database
