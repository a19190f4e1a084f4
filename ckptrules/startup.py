"""What happens before any task exists: ``DOIT_CONFIG``, the lock, recovery, and everything that can refuse a run.

Nothing is imported here that a command may not need: `doit list` is to answer at once.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from doit import task_params
from doit.dependency import DatabaseException, JSONCodec, SqliteDB
from doit.exceptions import InvalidDodoFile

from ckptrules.asked import command_line, escape_what_has_no_letter, refusal
from ckptrules.measures import visible, visible_lines
from ckptrules.model import STATE, Found, RuleError
from ckptrules.options import (
    CHANGING,
    DEFAULT_TASK,
    OPTIONS,
    SELECTING,
    TRASH_TASK,
    CommandLine,
    OptionError,
    Options,
    encode_task,
    fits,
)

SHARING = ("migrate", "plan", "verify")  # what is done by several processes where the tree is large
LINKING = ("migrate", "plan")  # what must know the links from elsewhere
SHARE = 40  # directories, below which a process of its own is not worth its start
GC_AFTER = 1_000_000  # objects; tasks live to the end: searching 10,000 for garbage costs a quarter of a run
IN_MEMORY = ":memory:"
OWN_DATABASE = ".doit.db"  # for tasks that are not ours
SQLITE = b"SQLite format 3\0"  # https://www.sqlite.org/fileformat.html, section 1.3
TaskDict = dict[str, Any]
Creator = Callable[..., Iterator[TaskDict]]


def doit_config() -> dict[str, Any]:
    """Return ``DOIT_CONFIG``. Everything that can refuse a run does it here, before any task exists."""
    gc.set_threshold(GC_AFTER)
    escape_what_has_no_letter(sys.stdout, sys.stderr)
    with told_by_doit():
        line = command_line()
        always = {"default_tasks": [DEFAULT_TASK], "continue": True, "backend": "sqlite3"}
        if line.command != "run":
            return {**always, "dep_file": _database(line)}
        from ckptrules.reporter import Reporter

        heed_signals(line)
        database = _database(line)
        return {**always, "reporter": Reporter, "dep_file": database, "num_process": processes(line, database)}


def heed_signals(line: CommandLine) -> None:
    """See to it that Ctrl-C leaves nothing half done, that a lease which is broken does not end us, and a pipe does."""
    import signal

    from ckptrules import stopping
    from ckptrules.facts import ignore_lease_breaks

    ignore_lease_breaks()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head`: workers would wait for ever for a main that failed
    if not line.has_foreign_words:
        stopping.install()


def with_options(function: Callable[[Options], Iterator[TaskDict]]) -> Creator:
    """Turn a function of `Options` into a task creator: doit learns the flags, and unneeded tasks are not made."""
    name = function.__name__.removeprefix("task_")

    @functools.wraps(function)
    def creator(**given: Any) -> Iterator[TaskDict]:
        with told_by_doit():
            line = command_line()
            if line.asks_for(name):
                from ckptrules.jobs import refuse_report_place

                options = line.options(name, given)
                refuse_configured_folder(options, line.options(name))
                refuse_report_place(options)
                yield from function(options)

    wrapped: Creator = task_params(params_of(name))(creator)
    return wrapped


def params_of(task: str) -> list[dict[str, Any]]:
    """Return the options of a task as doit wants them told."""
    return [
        {
            "name": option.name,
            "long": option.dashed,
            "type": bool if option.flag else str,
            "default": None,
            "inverse": f"no-{option.dashed}" if option.flag else "",
            "help": option.help.replace("%", "%%") + f" [{option.default}]" * bool(option.default),
        }
        for option in OPTIONS
        if not option.tasks or task in option.tasks
    ]


@contextlib.contextmanager
def told_by_doit() -> Iterator[None]:
    """Hand our refusals to doit, which prints them without a traceback and exits with 3."""
    try:
        yield
    except OptionError as error:
        raise InvalidDodoFile(refusal(str(error))) from None
    except RuleError as error:
        raise InvalidDodoFile(visible_lines(str(error))) from None


@functools.cache
def take_lock(path: str, wait: int = 0) -> int:
    """Take the lock for as long as this process lives. Args: ``wait`` in seconds for another run to finish.

    Raises:
        OptionError: another run has it, or ``outputs_dir`` cannot be written.
    """
    from ckptrules import store

    started = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        return store.lock(path, f"process {os.getpid()} on {os.uname().nodename}, since {started}", wait)
    except store.LockedError as held:
        hint = "wait=60 waits a minute for it to finish; the lock goes with its holder"
        raise OptionError(f"another run is at work in '{path}': {visible(str(held))}\n    hint: {hint}") from None
    except OSError as error:
        raise OptionError(f"outputs_dir '{path}' cannot be written: {os.strerror(error.errno or 0)}") from None


def _database(line: CommandLine) -> str:
    """Return where doit keeps what is up to date: in the state folder; in memory where nothing may be changed."""
    database = os.path.join(line.options("migrate").outputs_dir, STATE, "doit.db")
    refuse_damaged(database)
    if line.command != "run":
        return database if os.path.exists(database) else IN_MEMORY
    changing = [task for task in CHANGING if line.asks_for(task) and changes(task, line.options(task))]
    for task in changing:
        from ckptrules.jobs import find, note_proof, outputs_dir, prepare, refuse_report_place

        options = line.options(task)
        refuse_report_place(options)
        outputs_dir(options)
        if task in SELECTING:
            layout = prepare(options).rules.layout
            refuse_unknown_experiments(line, task, options, functools.partial(find, options.outputs_dir, layout))
        take_lock(options.outputs_dir, options.wait)
        refuse_unwritable(database)
        if task in SELECTING:
            note_proof(options)
        recover_first(options.outputs_dir)
    if not changing and line.has_foreign_words:
        return OWN_DATABASE
    return database if changing else IN_MEMORY


def processes(line: CommandLine, database: str) -> int:
    """Return how many processes are worth their start, where ``-n`` does not say it; 0 is this one alone."""
    task = next((task for task in SHARING if line.asks_for(task)), None)
    if task is None:
        return 0
    from ckptrules.facts import links_elsewhere
    from ckptrules.jobs import count_to_do

    options = line.options(task)
    if task in LINKING:
        os.register_at_fork(before=lambda: links_elsewhere(options.outputs_dir))  # once for all processes
    if line.has_foreign_words:
        return 0
    shares = count_to_do(task, options, database) // SHARE
    number = min(shares, cores() + 1)  # one more than can work: each waits for the disk now and then
    return number if number > 1 and cores() > 1 else 0


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def changes(task: str, options: Options) -> bool:
    """Say whether a task is to change anything."""
    return options.apply if task == "refs" else not options.dry_run


def recover_first(path: str) -> None:
    """Finish what an interrupted run began, and say so; what cannot be read of it is a problem that is left.

    Raises:
        OptionError: the journals cannot be read, so nothing is begun.
    """
    from ckptrules import scan, store
    from ckptrules.jobs import find
    from ckptrules.recovery import recover
    from ckptrules.reporter import Reporter

    try:
        store.clear_work(path)
        recovered = recover(path)
    except OSError as error:
        fact = f"{path}/{scan.JOURNALS} cannot be read or written: {os.strerror(error.errno or 0)}"
        raise OptionError(f"{fact}\n    hint: look at it: ls -la; nothing is begun without a journal") from None
    find.cache_clear()  # another run may have been at work until the lock was free
    Reporter.problems_before |= bool(recovered.unread)
    for sentence in (*recovered.told, *recovered.unread):
        with contextlib.suppress(OSError):  # the reporter says that the output cannot be written
            print(visible(sentence))


def refuse_unknown_experiments(
    line: CommandLine, task: str, options: Options, find: Callable[[], Iterable[Found]]
) -> None:
    """Refuse a selection that fits no experiment: to do nothing, and say nothing, would look like success.

    ``find`` is asked only where there is a selection.

    Raises:
        OptionError: with the name that is nearest.
    """
    words = [word.task for word in line.words if word.base == task != word.task and line.command == "run"]
    if not words and options.experiments is None:
        return
    from ckptrules.shape import closest

    names = [directory.experiment for directory in find()]
    known = [f"{task}:{name}" for name in (*map(encode_task, names), TRASH_TASK)]
    empty = [word for word in words if not any(fits(word, name) for name in known)]
    if options.experiments is not None and not any(fnmatchcase(name, options.experiments) for name in names):
        empty.append(options.experiments)
    if empty:
        hint = closest(empty[0], known) or "'doit list --all' tells which there are"
        raise OptionError(f"command line: no experiment '{empty[0]}'\n    hint: {hint}")


def refuse_configured_folder(options: Options, said: Options) -> None:
    """Refuse an ``outputs_dir`` that stands in doit's own configuration: the lock was taken before that is read.

    Raises:
        OptionError: with where to say it instead.
    """
    if options.outputs_dir != said.outputs_dir:
        fact = f"outputs_dir '{options.outputs_dir}' stands in doit's configuration, where the lock does not see it"
        raise OptionError(f"{fact}\n    hint: give it on the command line: outputs_dir={options.outputs_dir}")


def refuse_damaged(database: str) -> None:
    """Refuse a database that is none; doit would end with a traceback.

    Raises:
        OptionError: with the advice to remove it.
    """
    with contextlib.suppress(OSError), open(database, "rb") as file:
        if file.read(len(SQLITE)) not in (SQLITE, b""):
            hint = "remove it; it only remembers what is up to date"
            raise OptionError(f"{database}: is damaged, or no database of doit\n    hint: {hint}")


def refuse_unwritable(database: str) -> None:
    """Refuse a database that cannot be made or opened for writing; doit would end with a traceback.

    Raises:
        OptionError: with what the database says.
    """
    import sqlite3

    try:
        SqliteDB(database, JSONCodec()).dump()
    except (DatabaseException, sqlite3.Error) as error:
        fact = str(error).rpartition("Original error: ")[2]
        raise OptionError(f"{database}: cannot be written: {fact}\n    hint: look at the free space: df -h") from None
