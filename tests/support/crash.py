"""Runs the real doit so that every change of the disk can be counted, killed at, or made to fail, and every look at it.

So it says in `disturbing`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from doit.cmd_run import opt_outfile
from doit.doit_cmd import DoitMain

from tests.conftest import default, server
from tests.support import forking
from tests.support.disturbing import Disturbance, Fault, Read, disturbed

RULES = Path(__file__).parents[2] / "rules"
forking.import_ours()  # once for all runs, with what they need
forking.prepare()
for proved in (False, True):
    forking.shared_rules({f"rules/{path.name}": path.read_text() for path in RULES.glob("*.yaml")}, proved=proved)
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
for needed in (*forking.NEEDED, "blake3", ZSTD):
    importlib.import_module(needed)


def let_close_fail(monkeypatch: pytest.MonkeyPatch, number: int, is_meant: Callable[[int], bool]) -> None:
    """Let the system say so late, as NFS does, that something is wrong: descriptors that are meant are closed, and fail."""
    close = os.close

    def fails(descriptor: int) -> None:
        meant = is_meant(descriptor)
        close(descriptor)
        if meant:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "close", fails)


class Ended(NamedTuple):
    """How a run ended: its exit code (or minus the signal), its output, the number of changes that it made.

    ``reads`` are its looks at the folder, or the later ones, if they were asked for.
    """

    code: int
    output: str
    changes: int
    reads: tuple[Read, ...] = ()


def run_in_turn(
    folder: Path,
    *arguments: str,
    fault: Fault | None = None,
    old_system: bool = False,
    no_links: bool = False,
    count: Literal["", "reads", "later reads"] = "",
) -> Ended:
    """Run doit in a folder, and disturb it as the fault says, in a process that does runs in turn: see `Disturbance`.

    Nothing that is replaced in the process of the tests is replaced there: see `run`.
    """
    disturbance = Disturbance(fault, old_system, no_links, count)
    place = forking.memory()
    with tempfile.NamedTemporaryFile(dir=place) as counter, tempfile.NamedTemporaryFile(dir=place) as reads:
        watch = disturbance, counter.name, reads.name
        environment = default()
        one = server(forking.start_of(environment))
        code, output, _ = one.run("doit", *arguments, folder=folder, environment=environment, watch=watch)
        return Ended(code, output, os.path.getsize(counter.name), looks(Path(reads.name).read_bytes()))


def run(
    folder: Path,
    *arguments: str,
    fault: Fault | None = None,
    at_change: Callable[[int], None] | None = None,
    after_change: Callable[[int], None] | None = None,
    old_system: bool = False,
) -> Ended:
    """Run it in a process that is forked from that of the tests, with all that a test has replaced in it.

    ``at_change`` is called before each change, with its number, and ``after_change`` after it.
    """
    with (
        tempfile.TemporaryFile("w+", errors="surrogateescape") as output,
        tempfile.TemporaryFile("w+") as counter,
    ):
        if (child := os.fork()) == 0:
            gc.freeze()  # what was there before needs not be looked through, and so not be copied
            forking.share()
            watched = disturbed(Disturbance(fault, old_system), "", counter.fileno(), -1, at_change, after_change)
            _be_doit(folder, list(arguments), watched, output.fileno())
        _, status = os.waitpid(child, 0)
        output.seek(0)
        code, changes = os.waitstatus_to_exitcode(status), os.fstat(counter.fileno()).st_size
        return Ended(code, output.read(), changes)


def looks(notes: bytes) -> tuple[Read, ...]:
    rows = [row.split(" ", 2) for row in notes.decode(errors="surrogateescape").split("\0")[:-1]]
    return tuple(Read(int(after), call, path) for after, call, path in rows)


def _be_doit(folder: Path, arguments: list[str], watched: contextlib.AbstractContextManager[None], output: int) -> None:
    code = 99
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nobody is there to be asked
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = opt_outfile["default"] = sys.stdout
        sys.argv = ["doit", *arguments]
        sys.modules.pop("dodo", None)
        with watched:
            code = DoitMain().run(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    finally:
        sys.stdout.flush()
        os._exit(code)
