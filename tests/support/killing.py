"""Finds where to kill a run: before or after a change of the disk, where that leaves a disk as no earlier change does."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sqlite3
import stat
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import Project, content_hash
from tests.support import crash
from tests.support.disturbing import Fault

RUN = re.compile(r"\d{8}T\d{6}Z-\d+(\.\d+)?|(?<=[.-])\d+-\d+(?=\.tmp$|$)|(?<=\.)[0-9a-f]{16}(?=\.tmp$)")
NUMBERS = re.compile(r"\b[0-9a-f]{16,}\b|\d{8}T\d{6}Z-\d+|(?<=process\b)\W+\d+|\d{4,}|\d\d:\d\d:\d\d")


def kills(project: Project, command: Sequence[str], *others: Path, old_system: bool = False) -> list[Fault]:
    """Run a command, and list the ways to kill it at a change that leave another disk: outputs, user's state, or ``others``.

    After some changes all is as it was before them, as what is only waited for. Before some it is not as it was after the
    one before: what SQLite writes is not counted.
    """
    began, faults = time.time_ns(), dict[str, Fault]()
    places = (project.outputs, Path(os.environ["XDG_STATE_HOME"]), *others)
    with tempfile.NamedTemporaryFile("w+", errors="surrogateescape") as notes:

        def look(how: str, at: int) -> None:
            print(how, at, [on_disk(place, began) for place in places], file=notes, flush=True)

        before, after = functools.partial(look, "before"), functools.partial(look, "after")
        ended = crash.run(project.folder, *command, at_change=before, after_change=after, old_system=old_system)
        notes.seek(0)
        rows = [row.split(" ", 2) for row in notes]
    assert (ended.code, len(rows)) == (0, 2 * ended.changes), ended.output
    for how, at, disk in rows:
        faults.setdefault(disk, Fault(int(at), how))
    assert len(faults) > ended.changes / 2
    return list(faults.values())


def on_disk(folder: Path, began: int) -> str:
    """Return all that is below a folder, but for numbers that differ from run to run; ``began`` is the time of the run."""
    rows, ours = [], f"{folder}/.ckptrules/"
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path, what = os.path.join(place, name), ""
            status = os.lstat(path)
            is_file = stat.S_ISREG(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                what = os.readlink(path)
            elif name == "doit.db":
                what = NUMBERS.sub("N", remembered(path))
            elif is_file and place.endswith(("/.ckptrules", "/journal")):
                what = NUMBERS.sub("N", Path(path).read_text()).rstrip(
                    " "
                )  # a lock is filled up: its process may be 999
            elif is_file:
                what = content_hash(path)
            is_old = is_file and status.st_mtime_ns < began
            is_ours = f"{path}/".startswith(ours) and (not is_file or place.endswith(("/.ckptrules", "/journal")))
            mode = stat.S_IFMT(status.st_mode) if is_ours else status.st_mode  # it gets its own as soon as it is made
            rows.append((RUN.sub("RUN", os.path.relpath(path, folder)), mode, status.st_nlink, is_old, what))
    return repr(sorted(rows))


def remembered(database: str) -> str:
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            return repr(list(connection.iterdump()))
    except sqlite3.Error as error:
        return str(error)
