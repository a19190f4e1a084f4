"""Check and read doit's database, which remembers what is up to date, before doit opens it.

With a damaged database doit would end with a traceback; nothing is lost if it is set aside. All tasks are read at once,
as doit reads one by one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from ckptrules.engine.state_folder import DATABASE, STATE
from ckptrules.run.options import Common, OptionError
from ckptrules.run.session import Session, once
from ckptrules.storage import believing, reading

IN_MEMORY = ":memory:"
BUSY = "another program is at work on it; wait until it has ended"
COMPANIONS = ("-journal", "-wal", "-shm")  # https://www.sqlite.org/tempfiles.html
SCHEMA = [("table", "createtabledoit(task_idtextnotnullprimarykey,task_datajson)"), ("index", "")]  # of doit 0.37
PATIENCE = 1.0  # seconds that another program may take to end its change
NOT_USABLE_NOW = ("locked", "unable to open", "disk i/o", "readonly")


class UnusableError(Exception):
    """A database that doit cannot use, or not now (``busy``); the message is place and fact."""

    def __init__(self, text: str, *, busy: bool = False) -> None:
        super().__init__(text)
        self.busy = busy


def remembered(session: Session, options: Common) -> Mapping[str, Mapping[str, Any]]:
    """Return doit's database by the name of the task; empty if it is unusable, or this run does not go by it."""
    with contextlib.suppress(UnusableError):
        return read(session, database_of(options.outputs_dir)) if options.remembers and not options.dry_run else {}
    return {}


def database_of(outputs_dir: str) -> str:
    """Return the path of doit's database, in the state folder."""
    return os.path.join(outputs_dir, STATE, DATABASE)


def check(session: Session, database: str, beside: Iterable[str] = COMPANIONS) -> None:
    """Refuse a database that doit cannot use, or one that has a file ``beside`` it: SQLite would believe a planted one.

    One that does not exist is sound.

    Raises:
        UnusableError: with the fault.
    """
    try:
        believing.refuse_other_kinds(os.lstat(database), database)
    except FileNotFoundError:
        pass
    except reading.StateError as error:
        raise UnusableError(reading.why_of(error)) from None
    if left := next((end for end in beside if os.path.lexists(database + end)), ""):
        raise UnusableError(f"{database}: something was left beside it in the middle of a change ({left})")
    read(session, database)


@once
def read(_: Session, database: str) -> Mapping[str, Mapping[str, Any]]:
    """Read all of doit's database, by the name of the task, and check that doit can read it, too.

    Raises:
        UnusableError: doit would fail with it.
    """
    import sqlite3

    if not os.path.isfile(database):
        return {}
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
            connection.text_factory = bytes
            schema = connection.execute("select type, sql from sqlite_master").fetchall()
            shown = [(kind.decode(), "".join((sql or b"").decode().lower().split())) for kind, sql in schema]
            if not shown:
                return {}
            if shown != SCHEMA:
                raise UnusableError(f"{database}: is a database of something else than doit")
            if connection.execute("pragma integrity_check(1)").fetchall() != [(b"ok",)]:
                raise UnusableError(f"{database}: is damaged")
            rows = connection.execute("select task_id, task_data from doit").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if any(text in str(error).lower() for text in NOT_USABLE_NOW):
            raise UnusableError(f"{database}: cannot be used now: {error}", busy=True) from None
        raise UnusableError(f"{database}: is damaged, or no database: {error}") from None
    try:
        read_rows = json.loads(b"[%b]" % b",".join(data for _, data in rows))  # all at once takes a third of the time
        known = dict(zip((task.decode() for task, _ in rows), read_rows, strict=True))
    except (ValueError, TypeError, AttributeError, RecursionError):
        known = {"": None}
    if not all(_is_sound(row) for row in known.values()):
        raise UnusableError(f"{database}: holds what doit did not write")
    return known


def _is_sound(row: Any) -> bool:
    """Say whether doit and this program can use the row of a task."""
    if not isinstance(row, dict) or not isinstance(row.get("_values_:", {}), dict):
        return False
    files, until = row.get("deps:") or [], row.get("_values_:", {}).get("holds_until_ns")
    are_names = isinstance(files, list) and all(isinstance(file, str) for file in files)
    return are_names and isinstance(until, int | None)


# --- which database doit gets -----------------------------------------------------------------------------------------


def sound_database(session: Session, path: str, options: Common) -> str:
    """Return the database in the state folder; set aside a damaged one. Call it under the lock.

    On a full disk, a command that remembers nothing gets one in memory: `doit purge` must run there.

    Raises:
        OptionError: the database cannot be written.
    """
    from ckptrules.run.locking import cannot_be_written  # not above: `doit list` does without
    from ckptrules.storage import state
    from ckptrules.storage.base import FULL

    database = database_of(path)
    try:
        try:
            check(session, database)
        except UnusableError as fault:
            if fault.busy:
                raise OptionError(str(fault), BUSY, place="") from None
            aside = state.set_aside_database(path, DATABASE, COMPANIONS)
            with contextlib.suppress(OSError):  # the reporter prints that the output cannot be written
                print(f"{fault}. It is now {aside}; it only remembers what is up to date, so everything is looked at.")
        state.make_own(path, DATABASE)
        refuse_unwritable(database)
    except OSError as error:
        if error.errno in FULL and not options.remembers:
            return IN_MEMORY
        raise OptionError(cannot_be_written(path, database, error), place="") from None
    return database


def readable_database(session: Session, outputs_dir: str) -> str:
    """Return the database in the state folder, or one in memory if that does not exist or is damaged."""
    database = database_of(outputs_dir)
    if not os.path.lexists(database):
        return IN_MEMORY
    try:
        check(session, database)
    except UnusableError as fault:
        print(f"{fault}; nothing is known to be up to date.", file=sys.stderr)
        return IN_MEMORY
    return database


def refuse_damaged(session: Session) -> str:
    """Return the database of the user's own tasks, and refuse one that doit cannot use.

    Raises:
        OptionError: with the hint to move it away.
    """
    database = ".doit.db"
    try:
        check(session, database, beside=())  # nobody else plants one there, and SQLite repairs it
    except UnusableError as fault:
        hint = BUSY if fault.busy else "move it away; it only remembers what is up to date"
        raise OptionError(str(fault), hint, place="") from None
    return database


def refuse_unwritable(database: str) -> None:
    """Refuse a database that cannot be created or written: doit would end with a traceback.

    Raises:
        OptionError: with the error of SQLite.
        OSError: the disk is full.
    """
    import sqlite3

    from doit.dependency import DatabaseException, JSONCodec, SqliteDB  # not above: workers need no doit

    try:
        with contextlib.closing(sqlite3.connect(database, timeout=PATIENCE)) as connection:
            connection.execute("begin immediate").execute("rollback")
        SqliteDB(database, JSONCodec()).dump()
    except (DatabaseException, sqlite3.Error) as error:
        fact = str(error).rpartition("Original error: ")[2]
        if "full" in fact:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), database) from None
        hint = BUSY if "locked" in fact else "look at the owner and the mode: ls -la"
        raise OptionError(f"cannot be written: {fact}", hint, database) from None
