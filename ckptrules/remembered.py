"""What doit remembers of the tasks of earlier runs, read by one question to its database instead of one a task."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from typing import Any

MANY = 79  # tasks, from which on one question for all is worth it: fewer than two processes would share


@functools.cache
def remembered(database: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what stands in doit's database (0.37: a table of JSON) by the name of the task; nothing if it has none."""
    import sqlite3

    if not os.path.isfile(database):
        return {}
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            rows = connection.execute("select task_id, task_data from doit").fetchall()
        return {task: json.loads(data) for task, data in rows}
    except (sqlite3.Error, ValueError):  # doit will say what is wrong with it
        return {}


def values_of(task: str, known: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the values that a task has left, of all that is remembered."""
    found: Mapping[str, Any] = known.get(task, {}).get("_values_:", {})
    return found
