"""Runs the real doit as an ordinary user, in a forked process of root: all that is needed is imported before."""

from __future__ import annotations

import contextlib
import difflib  # noqa: F401 - what a run imports late
import os
import shutil
import sqlite3  # noqa: F401 - what a run imports late
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jinja2.sandbox  # noqa: F401 - what a run imports late
import pytest

from ckptrules.storage import moving
from tests.conftest import ROOT, Project
from tests.support import crash

NOBODY = 65534


def run(folder: Path, *arguments: str) -> crash.Ended:
    """Run doit in a folder as nobody."""
    time.strptime("2020", "%Y")
    moving._system_rename()  # noqa: SLF001 - what it imports is found by root only
    with tempfile.TemporaryFile("w+") as result:
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                tempfile.tempdir = "/tmp"
                ended = crash.run(folder, *arguments)
                result.write(f"{ended.code}\n{ended.output}")
                result.flush()
            os._exit(0)
        os.waitpid(child, 0)
        result.seek(0)
        code, _, output = result.read().partition("\n")
        return crash.Ended(int(code), output, 0)


@contextlib.contextmanager
def project() -> Iterator[Project]:
    """Make a project that nobody may reach and owns. The tests skip where they do not run as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        made = Project(Path(place))
        shutil.copy(ROOT / "dodo.py", place)
        shutil.copytree(ROOT / "rules", made.folder / "rules")
        made.outputs.mkdir()
        yield made


def give(folder: Path) -> None:
    """Make everything below a folder nobody's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
