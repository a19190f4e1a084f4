"""Runs ``python -m PROGRAM`` many times from one Python, each time in a forked process: a start costs milliseconds.

``python forking.py`` reads one JSON object a line (``program``, ``arguments``, ``folder``, ``stdout``, ``stderr``: the
last two are files to write) and answers each with the exit code. It imports nothing of ckptrules, so that every run
starts as a new one. What differs from machine to machine and cannot be seen from outside is the same here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import sys
import traceback
from typing import Any

NEEDED = """ctypes difflib doit.cmd_run doit.doit_cmd getpass gzip jinja2.sandbox pickletools sqlite3 tarfile tempfile
yaml zipfile""".split()
ABSENT = ("lightning", "pytorch_lightning", "torch", "zstandard")  # as where nothing optional is installed
HOST = "gpu-7"


def main() -> None:
    for module in NEEDED:
        importlib.import_module(module)
    for module in ABSENT:
        sys.modules[module] = None  # type: ignore[assignment] # so Python says that it is not there
    system, _, *rest = os.uname()
    named = os.uname_result((system, HOST, *rest))
    os.uname = lambda: named
    os.umask(0o022)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin.buffer:  # with no text of its own, a child has nothing of it
        print(run(json.loads(line)), file=answers, flush=True)


def run(order: dict[str, Any]) -> int:
    """Run a program in a process of its own, and return its exit code."""
    if (child := os.fork()) == 0:
        be(order)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def be(order: dict[str, Any]) -> None:
    """Become the program."""
    code = 1
    try:
        os.chdir(order["folder"])
        for number, path in ((0, os.devnull), (1, order["stdout"]), (2, order["stderr"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC if number else os.O_RDONLY), number)
        sys.path[0] = order["folder"]
        sys.argv[1:] = order["arguments"]
        code = exit_code(order["program"])
    except BaseException:  # noqa: BLE001 - as Python itself would tell it
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def exit_code(program: str) -> int:
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    main()
