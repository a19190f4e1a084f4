"""Runs ``python -m PROGRAM`` many times from one Python, each time in a forked process: a start costs milliseconds.

`Server` is the side of the tests. ``python forking.py ABSENT… `` reads one JSON object a line (`Order`) and answers each
with the exit code. It imports what runs need and runs none of it, so every run starts as a new one does; ``ABSENT`` are
modules that seem not to be installed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.metadata
import json
import os
import pkgutil
import runpy
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

NEEDED = """concurrent.futures ctypes difflib doit.cmd_run doit.doit_cmd doit.plugin getpass gzip jinja2.sandbox
multiprocessing.pool pickletools regex sqlite3 tarfile tempfile tqdm yaml zipfile""".split()
APART = (
    "ckptrules.__main__",
    "ckptrules.formats.loading",
    "ckptrules.lightning",
    "ckptrules.huggingface",
)  # with torch, or when run
AT_START = ("PYTHON", "LANG", "LC_")


def packed(text: str) -> str:
    """Return the bytes that the system sees, one a letter: which text they are depends on how a Python was started."""
    return os.fsencode(text).decode("latin-1")


def unpacked(text: str) -> str:
    return os.fsdecode(text.encode("latin-1"))


def start_of(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the part of an environment that Python reads only when it starts."""
    return tuple(sorted((name, value) for name, value in environment.items() if name.startswith(AT_START)))


class Order(NamedTuple):
    """A run: ``stderr`` may be the same file as ``stdout``; a ``host`` is the name that the machine seems to have."""

    program: str
    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    umask: int
    host: str
    stdout: str
    stderr: str


class Server:
    """One Python from which runs are forked."""

    def __init__(self, environment: Mapping[str, str], *absent: str) -> None:
        self.environment = dict(environment)
        self.python = subprocess.Popen(
            [sys.executable, __file__, *absent], env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip

    def run(
        self,
        program: str,
        *arguments: str,
        folder: Path,
        environment: Mapping[str, str],
        host: str = "",
        apart: bool = False,
    ) -> tuple[int, str, str]:
        """Run a program: its exit code, stdout with stderr in it, and nothing; or both, where they are kept ``apart``."""
        os.umask(umask := os.umask(0))
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            stderr = err.name if apart else out.name
            words, theirs = list(map(packed, arguments)), {packed(k): packed(v) for k, v in environment.items()}
            order = Order(program, words, packed(str(folder)), theirs, umask, host, out.name, stderr)
            assert self.python.stdin
            assert self.python.stdout
            print(json.dumps(order._asdict()), file=self.python.stdin, flush=True)
            code = int(self.python.stdout.readline())
            printed, told = (Path(file.name).read_bytes().decode(errors="surrogateescape") for file in (out, err))
            return code, printed, told

    def close(self) -> None:
        self.python.communicate()


# --- the server ------------------------------------------------------------------------------------------------------


def main() -> None:
    for absent in sys.argv[1:]:
        sys.modules[absent] = None  # type: ignore[assignment] # so Python says that it is not there
    for needed in NEEDED:
        with contextlib.suppress(ImportError):
            importlib.import_module(needed)
    import ckptrules

    for module in pkgutil.walk_packages(ckptrules.__path__, "ckptrules."):
        if module.name not in APART:
            importlib.import_module(module.name)
    prepare()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin.buffer:  # with no text of its own, a child has nothing of it
        print(run(Order(**json.loads(line))), file=answers, flush=True)


def prepare() -> None:
    """Do once what is the same for every run: look for plug-ins among all that is installed, compile the shipped rules."""
    import doit.plugin

    from ckptrules.rules import load, packs, shipped

    find = functools.cache(importlib.metadata.entry_points)
    importlib.metadata.entry_points = doit.plugin.entry_points = find  # type: ignore[assignment]
    for group in ("doit.BACKEND", "doit.COMMAND", "doit.LOADER", "doit.REPORTER", packs.ENTRY_POINTS):
        find(group=group)
    load.load_rules(shipped.rule_texts(shipped.shipped(shipped.RULES_DIR)))  # the patterns of the rules stay compiled


def run(order: Order) -> int:
    """Run a program in a process of its own, and return its exit code."""
    if (child := os.fork()) == 0:
        be(order)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def be(order: Order) -> None:
    """Become the program."""
    code = 1
    try:
        folder, arguments = unpacked(order.folder), list(map(unpacked, order.arguments))
        os.chdir(folder)
        os.environ.clear()
        os.environ.update({unpacked(name): unpacked(value) for name, value in order.environment.items()})
        os.umask(order.umask)
        time.tzset()
        if order.host:
            seeming = os.uname_result((os.uname().sysname, order.host, *os.uname()[2:]))
            os.uname = lambda: seeming
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(order.stdout, os.O_RDWR | os.O_APPEND), 1)
        os.dup2(1 if order.stderr == order.stdout else os.open(order.stderr, os.O_RDWR | os.O_APPEND), 2)
        sys.path[0] = folder
        sys.argv[1:] = arguments
        vars(sys.modules["ckptrules.stopping"]).update(_main=os.getpid(), _here=os.getpid())  # noted when imported
        code = exit_code(order.program)
        threading._shutdown()  # type: ignore[attr-defined] # noqa: SLF001 - as Python does at the end,
        atexit._run_exitfuncs()  # noqa: SLF001 - but for the time that it takes to free all memory
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
