"""doit's database, opened before doit does: it must be sound, or doit would end with a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from doit.dependency import DatabaseException, JSONCodec, SqliteDB

from ckptrules.engine.state_folder import STATE
from ckptrules.run.locking import cannot_be_written
from ckptrules.run.options import Common, OptionError
from ckptrules.run.session import Session

IN_MEMORY = ":memory:"
DATABASE = "doit.db"  # in the state folder
OWN_DATABASE = ".doit.db"  # for tasks that are not ours
BUSY = "another program is at work on it; wait until it has ended"


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
        raise OptionError(f"cannot be used: {error}", BUSY, database) from None
    except OSError as error:
        if error.errno == errno.ENOSPC and not options.remembers:
            return IN_MEMORY
        raise OptionError(cannot_be_written(path, database, error), place="") from None
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
        raise OptionError(fact, hint, place="")
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
        raise OptionError(f"cannot be written: {fact}", hint, database) from None
