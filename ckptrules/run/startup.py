"""What happens before any task exists: ``DOIT_CONFIG``, the lock, recovery, and everything that can refuse a run.

Nothing is imported here that a command may not need: `doit list` is to answer at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import inspect
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from doit.dependency import DatabaseException, JSONCodec, SqliteDB
from doit.exceptions import InvalidDodoFile

from ckptrules.engine.measures import rate, visible, visible_lines
from ckptrules.engine.values import STATE, RuleError
from ckptrules.run.command_line import (
    TASKS,
    command_line,
    completed,
    declared,
    escape_what_has_no_letter,
    module_of,
    program,
    refusal,
)
from ckptrules.run.hints import OURS
from ckptrules.run.options import Common, OptionError, Planning
from ckptrules.run.session import Session, lacking, once
from ckptrules.run.words import DEFAULT_TASK, CommandLine
from ckptrules.workers.where import NONE, read_executor, why_not
from ckptrules.workers.workers import cores

SHARE = 40  # directories, below which a process of its own is not worth its start
AT_ONCE = 32  # directories in hand, where it is not known how many workers there will be
GC_AFTER = 1_000_000  # objects; tasks live to the end: searching 10,000 for garbage costs a quarter of a run
IN_MEMORY = ":memory:"
DATABASE = "doit.db"  # in the state folder
OWN_DATABASE = ".doit.db"  # for tasks that are not ours
NO_SESSION = "the line 'DOIT_CONFIG = doit_config()' must stand above the commands of ckptrules"
BUSY = "another program is at work on it; wait until it has ended"
PURGE = "'doit purge' frees what waits in the trash"
LITTLE = (
    "some 100 kB are enough to begin: remove some file by hand (df -h). 'doit plan delete_old=1' needs no space; "
    "trash_days: 0 in the rules frees at once what is deleted"
)
SESSION = "session"  # in DOIT_CONFIG
REFUSED = 3
TaskDict = dict[str, Any]


def doit_config() -> dict[str, Any]:
    """Return ``DOIT_CONFIG``, with the session. What can refuse a run does it here, before any task exists."""
    frame = inspect.currentframe()
    dodo = frame.f_back.f_globals if frame and frame.f_back else {}
    gc.set_threshold(GC_AFTER)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head`: workers would wait for ever for a main that failed
    if sys.stdout is None or sys.stderr is None:  # closed by who started us
        from ckptrules.storage.writing import nowhere

        sys.stdout, sys.stderr = sys.stdout or nowhere(), sys.stderr or nowhere()
    escape_what_has_no_letter(sys.stdout, sys.stderr)
    with told_by_doit():
        show_help_first()
        line = command_line(sys.argv[1:])
        session = Session(line, dodo)
        refuse_mistyped(line)
        refuse_runs_without_lock(line)
        refuse_processes_of_doit(line)
        hidden = [word.task for word in line.words if word.typed]  # doit takes them for variables
        always = {"default_tasks": hidden or [DEFAULT_TASK], "continue": True, "backend": "sqlite3", SESSION: session}
        always["sort"] = "definition"  # `ckptrules list` is in the order of dodo.py
        if line.command != "run":
            return {**always, "dep_file": _database(session)}
        from ckptrules.run.reporter import reporter_of

        heed_signals(line)
        database, number = _database(session), processes(session)
        threads = {"num_process": number, "par_type": "thread"}  # they wait for the processes at work
        return {**always, **threads, "reporter": reporter_of(session), "dep_file": database}


def heed_signals(line: CommandLine) -> None:
    """See to it that Ctrl-C leaves nothing half done, and that a lease which is broken does not end us."""
    from ckptrules import stopping
    from ckptrules.outputs.evidence import ignore_lease_breaks

    ignore_lease_breaks()
    if not line.has_foreign_words:
        stopping.install()


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
    refuse_lacking(line, session.dodo)
    if not line.asks_for(name):
        return
    from ckptrules.run.places import refuse_report_place

    options = line.options(name, given)
    refuse_configured_folder(options, line.options(name))
    if line.command == "run":
        refuse_report_place(options)
    yield from module_of(name).tasks(session, options)


def refuse_lacking(line: CommandLine, dodo: Mapping[str, Any]) -> None:
    """Refuse a command that a dodo.py does not have.

    Raises:
        OptionError: with what to write into it.
    """
    lacks = lacking(dodo) if line.command == "run" else ()
    asked = [word.base for word in line.words] or [DEFAULT_TASK]
    if task := next((task for task in asked if task in lacks), None):
        from ckptrules.rules.shipped import lines_to_add

        fact = f"{os.path.basename(dodo['__file__'])} has no '{task}', which ckptrules knows"
        raise OptionError("\n    ".join([fact, "hint: add to it:", *lines_to_add([task], dodo)]))


def params_of(task: str) -> list[dict[str, Any]]:
    """Return the options of a task as doit wants them told."""
    return [
        {
            "name": option.name,
            "long": option.dashed,
            "type": bool if option.is_flag else str,
            "default": None,
            "inverse": f"no-{option.dashed}" if option.is_flag else "",
            "help": option.described.replace("%", "%%"),
        }
        for option in declared(task).known().values()
    ]


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
        raise InvalidDodoFile(refusal(f"{error.filename or ''}: {_refusal(error)}".removeprefix(": "))) from None


def take_lock(session: Session, path: str, wait: int = 0) -> None:
    """Take the lock, once, for as long as the session lives.

    Args:
        session: that holds it.
        path: the folder of the outputs.
        wait: seconds for another run to finish.

    Raises:
        OptionError: another run has it, or ``outputs_dir`` cannot be written.
    """
    from ckptrules.storage.base import LockedError
    from ckptrules.storage.posix import Disk

    folder = os.path.realpath(path)
    if folder in session.locks:
        return
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = f"process {os.getpid()} on {os.uname().nodename}, since {started}"
    try:
        lock = session.held.enter_context(Disk(path).lock(holder, wait, functools.partial(_tell, session)))
        session.locks[folder] = lock.descriptor
    except LockedError as other:
        hint = "wait=60 waits a minute for it to finish; the lock goes with its holder"
        raise OptionError(f"another run is at work in '{path}': {visible(str(other))}\n    hint: {hint}") from None
    except OSError as error:
        raise OptionError(cannot_be_written(path, f"outputs_dir '{path}'", error)) from None


def _database(session: Session) -> str:
    """Return where doit keeps what is up to date: in the state folder; in memory where nothing may be changed."""
    line = session.line
    if line.command == "help":
        return IN_MEMORY
    if line.command != "run":
        with contextlib.suppress(RuleError):  # to list the tasks needs no rules
            return readable_database(session, os.path.join(any_of(line).outputs_dir, STATE, DATABASE))
        return IN_MEMORY
    refuse_state(session)
    changing = {task: options for task, options in line.asked().items() if options.will_change}
    database = IN_MEMORY
    for task, options in changing.items():
        from ckptrules.run.jobs import names_of, note_proof, prepare
        from ckptrules.run.places import outputs_dir, refuse_report_place
        from ckptrules.run.selecting import refuse_unknown_experiments

        refuse_report_place(options)
        outputs_dir(options)
        if isinstance(options, Planning):
            rules = prepare(session, options).rules
            names = functools.partial(names_of, session, options.outputs_dir, rules)
            refuse_unknown_experiments(session, task, options, names)
        take_lock(session, options.outputs_dir, options.wait)
        database = sound_database(session, options.outputs_dir, options)
        if isinstance(options, Planning):
            note_proof(session, options)
        recover_first(session, options.outputs_dir)
    if not changing and line.has_foreign_words:
        return refuse_damaged(session, OWN_DATABASE)
    return database


def any_of(line: CommandLine) -> Common:
    """Return the options of one of the commands that are asked for, or those that each would have."""
    return next(iter(line.asked().values()), None) or line.options("")


def processes(session: Session) -> int:
    """Return how many processes are worth their start, where ``-n`` does not say it; 0 is this one alone.

    Raises:
        OptionError: the workers that are asked for cannot be had.
    """
    line, asked = session.line, session.line.asked().items()
    session.workers.executor = next((options.executor for _, options in asked if options.executor), None)
    cluster = read_executor(session.workers.executor or NONE)
    if cluster:
        session.workers.folders = tuple({folder: None for _, options in asked for folder in options.folders})
        if why := why_not(cluster):
            raise OptionError(f"command line: executor={session.workers.executor}: {why}")
    if max_rate := next((options.max_rate for _, options in asked if options.max_rate), None):
        session.workers.limit(rate(max_rate))
    sharing = [(task, options) for task, options in asked if options.shares]
    if not sharing or line.has_foreign_words or session.workers.executor == NONE:
        return 0
    if cluster:
        number = count_of_asked(session, *sharing[0])
        return min(number, cluster.workers + 1 if cluster.workers else AT_ONCE) if number > 1 else 0
    if session.workers.executor:
        return cores() + 1
    if cores() == 1:
        return 0
    number = min(count_of_asked(session, *sharing[0]) // SHARE, cores() + 1)  # one more: each waits for the disk
    return number if number > 1 else 0


def count_of_asked(session: Session, task: str, options: Common) -> int:
    """Count the directories, or what else is shared, that a task is asked for; none where it will be refused."""
    from ckptrules.run.jobs import count_asked_for

    with contextlib.suppress(OptionError):
        count: Any = getattr(module_of(task), "count_shared", count_asked_for)
        number: int = count(session, task, options)
        return number
    return 0


def refuse_processes_of_doit(line: CommandLine) -> None:
    """Refuse ``-P process``: doit's own would wait for ever for one that was killed, and outlive a main process.

    Raises:
        OptionError: with what does the same.
    """
    if not line.has_foreign_words and re.search(r"(^| )(-P ?|--pa\S*[= ])process( |$)", " ".join(line.arguments)):
        raise OptionError(
            "command line: processes of doit's own are not used\n    hint: leave out '-P process': -n is enough"
        )


def recover_first(session: Session, path: str) -> None:
    """Finish what an interrupted run began, and say so; what cannot be read of it is a problem that is left.

    Raises:
        OptionError: the journals cannot be read, so nothing is begun.
    """
    from ckptrules.changes.journal import JOURNALS
    from ckptrules.changes.journals import unfinished_journals
    from ckptrules.run.jobs import find_anew
    from ckptrules.run.records import begun, own_state
    from ckptrules.storage import reading, state
    from ckptrules.storage.posix import Disk

    own = own_state(path)
    try:
        begun(session, path)
        interrupted = any(unfinished_journals(Disk(root)) for root in (path, own) if root)
        told = _finish(session, path, own) if interrupted else []
        state.clear_work(path)
    except OSError as error:
        fact = f"{path}/{JOURNALS} cannot be read or written: {os.strerror(error.errno or 0)}"
        text = f"{fact}\n    hint: look at it: ls -la; nothing is begun without a journal"
        raise OptionError(_refusal(error) if isinstance(error, reading.StateError) else text) from None
    find_anew(session)  # another run may have been at work until the lock was free
    for sentence in told:
        _tell(session, sentence)


def _tell(session: Session, sentence: str) -> None:
    with contextlib.suppress(OSError):  # the reporter says that the output cannot be written
        print(session.completed(visible(sentence)), flush=True)


def _finish(session: Session, path: str, own: str) -> list[str]:
    from ckptrules.changes.recovery import recover

    recovered = recover(path, own)
    session.problems_before |= bool(recovered.unread)
    return [*recovered.told, *recovered.unread]


def show_help_first() -> None:
    """Print the options of a task where its help is asked for; doit would answer with a dump of its own objects.

    Raises:
        SystemExit: with 0 where something was printed; with 3 where there is no such task, which doit would not say.
    """
    from ckptrules.run.help import OWN, asks_for_help, own_page, task_page

    topic = asks_for_help(sys.argv[1:], TASKS)
    if not topic:
        return
    if topic in OWN:
        print(own_page(topic), end="", flush=True)
        raise SystemExit(0)
    try:
        refuse_not_ours(topic)
    except OptionError as error:
        print(f"ERROR: {refusal(str(error))}", file=sys.stderr)
        raise SystemExit(REFUSED) from None
    if topic in TASKS:
        from ckptrules.rules.shipped import sentences

        print(task_page(topic, sentences()[topic], program(), declared(topic)), end="", flush=True)
        raise SystemExit(0)


def refuse_mistyped(line: CommandLine) -> None:
    """Refuse a task that is none where all tasks are ours; elsewhere it may be one of the user's own.

    Raises:
        OptionError: with the task that is nearest.
    """
    foreign = [word.base for word in line.words if not any(word.selects(task) for task in TASKS)]
    if line.command in ("run", "info") and foreign and "*" not in foreign[0]:
        refuse_not_ours(foreign[0])


def refuse_not_ours(task: str) -> None:
    """Refuse a task that is none of ours, unless it may be one of the user's own.

    Raises:
        OptionError: with the task that is nearest.
    """
    from ckptrules.rules.shipped import has_own_tasks
    from ckptrules.run.help import refuse_unknown

    if program() == OURS or not has_own_tasks():
        refuse_unknown(task, TASKS)


def refuse_runs_without_lock(line: CommandLine) -> None:
    """Refuse doit's other commands that run tasks: the lock is taken, and recovery done, for a plain run only.

    Raises:
        OptionError: with the command that runs the same.
    """
    ours = [word.base for word in line.words if any(word.selects(task) for task in TASKS)]
    ours += [DEFAULT_TASK] * (line.command == "auto" and not line.words)
    if line.command in ("auto", "strace") and ours:
        fact = f"'doit {line.command}' would run '{ours[0]}' without the lock"
        raise OptionError(f"command line: {fact}\n    hint: leave '{line.command}' out")


def refuse_configured_folder(options: Common, said: Common) -> None:
    """Refuse an ``outputs_dir`` that stands in doit's own configuration: the lock was taken before that is read.

    Raises:
        OptionError: with where to say it instead.
    """
    if options.outputs_dir != said.outputs_dir:
        fact = f"outputs_dir '{options.outputs_dir}' stands in doit's configuration, where the lock does not see it"
        raise OptionError(f"{fact}\n    hint: give it on the command line: outputs_dir={options.outputs_dir}")


def refuse_state(session: Session) -> None:
    """Refuse to act on a state that others could have written.

    Raises:
        OptionError: with its place and what helps.
    """
    from ckptrules.changes import journals
    from ckptrules.storage import reading
    from ckptrules.storage.posix import Disk

    for options in filter(lambda options: options.believes_state, session.line.asked().values()):
        path = options.outputs_dir
        try:
            _look_at_state(session, path)
            if options.reads_journals:
                journals.unfinished_journals(Disk(path))  # opens each
        except reading.StateError as error:
            raise OptionError(_refusal(error)) from None
        except OSError:  # told by what needs it
            continue


@once
def _look_at_state(_: Session, path: str) -> None:
    """Look at a state once; where files have no modes of their own (FAT, say), the modes are passed over.

    Raises:
        StateError: it is not to be believed.
    """
    from ckptrules.storage import believing, reading, state

    try:
        believing.refuse_state(path)
    except reading.StateError as error:
        if not error.is_open or state.keeps_modes(path):
            raise
        believing.NO_MODES.add(os.stat(path).st_dev)
        believing.refuse_state(path)


def _refusal(error: OSError) -> str:
    from ckptrules.storage.reading import StateError, why_of

    return f"{why_of(error)}\n    hint: {error.hint}" if isinstance(error, StateError) else why_of(error)


def sound_database(session: Session, path: str, options: Common) -> str:
    """Return the database of a state when doit can use it; one that is damaged is set aside. Under the lock.

    On a full disk what remembers nothing, 'doit purge' above all, does with one in memory.

    Raises:
        OptionError: it cannot be written.
    """
    from ckptrules.run.remembered import COMPANIONS, NotToBeHadError, damage
    from ckptrules.storage import state

    database = os.path.join(path, STATE, DATABASE)
    try:
        if fact := damage(session, database):
            aside = state.set_aside_database(path, DATABASE, COMPANIONS)
            with contextlib.suppress(OSError):  # the reporter says that the output cannot be written
                print(f"{fact}. It is now {aside}; it only remembers what is up to date, so everything is looked at.")
        state.make_own(path, DATABASE)
        refuse_unwritable(database)
    except NotToBeHadError as error:
        raise OptionError(f"{database}: cannot be used: {error}\n    hint: {BUSY}") from None
    except OSError as error:
        if error.errno == errno.ENOSPC and not options.remembers:
            return IN_MEMORY
        raise OptionError(cannot_be_written(path, database, error)) from None
    return database


def readable_database(session: Session, database: str) -> str:
    """Return a database that doit can read: this one, or one in memory where it is not there or damaged."""
    from ckptrules.run.remembered import NotToBeHadError, damage

    if not os.path.lexists(database):
        return IN_MEMORY
    try:
        fact = damage(session, database)
    except NotToBeHadError as error:
        fact = f"{database}: cannot be used now: {error}"
    if fact:
        print(f"{fact}; nothing is known to be up to date.", file=sys.stderr)
    return IN_MEMORY if fact else database


def refuse_damaged(session: Session, database: str) -> str:
    """Refuse a database of the user's own tasks that doit could not use; it would end with a traceback.

    Raises:
        OptionError: with the advice to remove it.
    """
    from ckptrules.run.remembered import NotToBeHadError, damage

    try:
        fact, hint = damage(session, database), "move it away; it only remembers what is up to date"
    except NotToBeHadError as error:
        fact, hint = f"{database}: cannot be used: {error}", BUSY
    if fact:
        raise OptionError(f"{fact}\n    hint: {hint}")
    return database


def refuse_unwritable(database: str) -> None:
    """Refuse a database that cannot be made or opened for writing; doit would end with a traceback.

    Raises:
        OptionError: with what the database says.
        OSError: the disk is full.
    """
    import sqlite3

    from ckptrules.run.remembered import PATIENCE

    try:
        with contextlib.closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
            connection.execute("begin immediate").execute("rollback")
        SqliteDB(database, JSONCodec()).dump()
    except (DatabaseException, sqlite3.Error) as error:
        fact = str(error).rpartition("Original error: ")[2]
        if "full" in fact:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), database) from None
        hint = BUSY if "locked" in fact else "look at the owner and the mode: ls -la"
        raise OptionError(f"{database}: cannot be written: {fact}\n    hint: {hint}") from None


def cannot_be_written(path: str, what: str, error: OSError) -> str:
    """Say that a part of the state cannot be written, and what helps.

    Args:
        path: the folder of the outputs.
        what: the part, as it is called.
        error: what the system says.
    """
    from ckptrules.storage import reading, trash
    from ckptrules.storage.posix import Disk

    if isinstance(error, reading.StateError):
        return _refusal(error)
    fact = f"{what} cannot be written: {os.strerror(error.errno or 0)}"
    if isinstance(error, PermissionError):
        return f"{fact}\n    hint: let its owner run this, or share it with your group: chmod g+rwx {path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        can_purge = any(trash.trash_runs(Disk(path)))
        return f"{fact}\n    hint: {PURGE if can_purge else LITTLE}"
    return fact
