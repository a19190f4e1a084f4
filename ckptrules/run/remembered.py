"""What doit remembers of the tasks of earlier runs, read by one question to its database instead of one a task.

It only says what is up to date, so a database that is damaged is no loss: nothing is up to date then.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from ckptrules.run.session import Session, once
from ckptrules.storage import believing, reading

COMPANIONS = ("-journal", "-wal", "-shm")  # https://www.sqlite.org/tempfiles.html
RESERVED = 0x40000001  # the byte that a writer locks: https://www.sqlite.org/fileformat2.html, "the lock-byte page"
SCHEMA = [("table", "createtabledoit(task_idtextnotnullprimarykey,task_datajson)"), ("index", "")]  # of doit 0.37
PATIENCE = 1.0  # seconds that another program may take to end its change
NOT_TO_BE_HAD = ("locked", "unable to open", "disk i/o", "readonly")


class NoDatabaseError(Exception):
    """A file that is no database of doit; the message is one fact."""


class NotToBeHadError(Exception):
    """A database that cannot be read now; the message is what SQLite says."""


def remembered(session: Session, database: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what stands in doit's database by the name of the task; nothing where that cannot be read."""
    try:
        return read(session, database)
    except (NoDatabaseError, NotToBeHadError):
        return {}


def values_of(task: str, known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the values that a task has left, of all that is remembered."""
    found: Mapping[str, Any] = known.get(task, {}).get("_values_:", {})
    return found


def damage(session: Session, database: str) -> str:
    """Say where a database is and why doit cannot use it, or nothing. One that is not there is sound.

    Raises:
        NotToBeHadError: it cannot be read now; another program is at work on it, say.
    """
    try:
        believing.refuse_other_kinds(os.lstat(database), database)
    except FileNotFoundError:
        pass
    except reading.StateError as error:
        return reading.why_of(error)
    left = next((end for end in COMPANIONS if os.path.lexists(database + end)), "")
    if left and (left != COMPANIONS[0] or os.path.islink(database + left) or not _is_written(database)):
        return f"{database}: something was left beside it in the middle of a change ({left})"
    try:
        read(session, database)
    except NoDatabaseError as error:
        return f"{database}: {error}"
    return ""


@once
def read(_: Session, database: str) -> Mapping[str, Mapping[str, Any]]:
    """Read all that stands in doit's database, by the name of the task, and check that doit can read it, too.

    Raises:
        NoDatabaseError: doit would fail with it.
        NotToBeHadError: it cannot be read now.
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
                raise NoDatabaseError("is a database of something else than doit")
            if connection.execute("pragma integrity_check(1)").fetchall() != [(b"ok",)]:
                raise NoDatabaseError("is damaged")
            rows = connection.execute("select task_id, task_data from doit").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        if any(text in str(error).lower() for text in NOT_TO_BE_HAD):
            raise NotToBeHadError(str(error)) from None
        raise NoDatabaseError(f"is damaged, or no database: {error}") from None
    try:
        known = {task.decode(): json.loads(data) for task, data in rows}
    except (ValueError, TypeError, AttributeError, RecursionError):
        known = {"": None}
    if not all(_is_sound(row) for row in known.values()):
        raise NoDatabaseError("holds what doit did not write")
    return known


def _is_sound(row: Any) -> bool:
    """Say whether doit and we can use what is remembered of a task."""
    if not isinstance(row, dict) or not isinstance(row.get("_values_:", {}), dict):
        return False
    files, until = row.get("deps:") or [], row.get("_values_:", {}).get("holds_until_ns")
    whole = isinstance(files, list) and all(isinstance(file, str) for file in files)
    return whole and isinstance(until, int | None)


def _is_written(database: str) -> bool:
    """Say whether another process is writing to a database right now."""
    try:
        file = os.open(database, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, RESERVED)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False
