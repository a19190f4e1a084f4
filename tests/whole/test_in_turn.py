"""Runs that one process of the tests does in turn have nothing in common, as if each had a process of its own."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project, default
from tests.support.disturbing import Fault
from tests.support.forking import Server
from tests.support.undisturbed import Undisturbed

SAY = "import os; print(os.getpid(), *(one for one in ('LEFT',) if one in os.environ))\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server({**default(), "PYTHONPATH": str(ROOT)})
    yield one
    one.close()


def run(server: Server, folder: Path, code: str) -> tuple[int, str]:
    """Run a program, which lies in a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "program.py").write_text(code)
    return server.run("program", folder=folder, environment=default())[:2]


@pytest.mark.parametrize(
    ("code", "exit_code", "stays"),
    [
        ("", 0, True),
        ("import os; os.environ['LEFT'] = 'x'; os.chdir('..'); os.umask(0o777)\n", 0, True),
        ("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n", 0, True),
        ("import sys; sys.exit('no')\n", 1, True),
        ("raise ValueError\n", 1, True),
        ("import os; os.open('left', os.O_CREAT)\n", 0, False),
        ("import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n", 0, False),
        ("import subprocess; subprocess.Popen(['sleep', '9'])\n", 0, False),
        ("import os; os._exit(5)\n", 5, False),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n", -signal.SIGKILL, False),
    ],
)
def test_nothing_of_a_run_is_there_in_the_next(
    server: Server, tmp_path: Path, code: str, exit_code: int, *, stays: bool
) -> None:
    code_before, first = run(server, tmp_path / "first", SAY)
    assert run(server, tmp_path / "between", code)[0] == exit_code
    say = f"{SAY}import signal; print(os.umask(0), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, os.getcwd())\n"
    code_after, last = run(server, tmp_path / "last", say)
    assert (code_before, code_after) == (0, 0)
    assert (last.splitlines()[0] == first.strip()) == stays
    os.umask(umask := os.umask(0))
    assert last.splitlines()[1] == f"{umask} True {tmp_path}/last"


def test_a_program_of_the_same_name_elsewhere_is_another(server: Server, tmp_path: Path) -> None:
    said = [run(server, tmp_path / name, f"print('{name}')\n") for name in ("one", "two", "one")]
    assert said == [(0, "one\n"), (0, "two\n"), (0, "one\n")]


def test_what_a_run_left_open_is_closed_when_it_is_answered(server: Server, tmp_path: Path) -> None:
    """A test may be about to unmount what it is on."""
    code = "import os; os.mkfifo('pipe'); print(os.open('pipe', os.O_RDONLY | os.O_NONBLOCK))\n"
    assert run(server, tmp_path / "left", code)[0] == 0
    with pytest.raises(OSError, match="No such device"):  # nobody is there to read
        os.open(tmp_path / "left/pipe", os.O_WRONLY | os.O_NONBLOCK)


def test_a_run_that_is_refused_gives_its_lock_back(project: Project) -> None:
    for _ in range(3):
        project.doit("pin", check=3)
        assert not list(project.outputs.glob("*/lock.host"))


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (Fault(1, errno.ENOSPC), 3, "No space left on device"),
        (Fault(1, errno.EIO, "later reads"), 1, "Input/output error"),
        (Fault(8, errno.EIO, "reads"), 3, "Input/output error"),
        (Fault(30, "SIGINT"), 130, "Stopped: "),
        (Fault(30, "before"), -signal.SIGKILL, ""),
        (Fault(30, "after"), -signal.SIGKILL, ""),
    ],
    ids=str,
)
def test_a_fault_comes_where_it_is_put_and_is_gone_in_the_next_run(
    undisturbed: Undisturbed, fault: Fault, code: int, told: str
) -> None:
    undisturbed.begin()
    ended = undisturbed.run(*undisturbed.command, fault=fault)
    assert (ended.code, told in ended.output) == (code, True), ended.output
    assert fault.what != "changes" or fault.at <= ended.changes < len(undisturbed.instants)
    undisturbed.finish(fault)
