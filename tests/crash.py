"""Runs the real doit in a forked process whose every change of the disk can be counted, killed at, or made to fail."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from doit.cmd_run import opt_outfile
from doit.doit_cmd import DoitMain

from ckptrules import asked, jobs, remembered, startup, stopping, store

CHANGING = "ftruncate link mkdir rename rmdir symlink unlink utime write fsync fdatasync".split()
CACHES = [
    value
    for module in (asked, jobs, remembered, startup)
    for value in vars(module).values()
    if hasattr(value, "cache_clear")
]


class Fault(NamedTuple):
    """What goes wrong: at which change (counted from 1), and how: killed ``before`` or ``after`` it, or an error number."""

    at: int
    how: str | int


class Ended(NamedTuple):
    """How a run ended: its exit code (or minus the signal), its output, the number of changes that it made."""

    code: int
    output: str
    changes: int


def run(
    folder: Path,
    *arguments: str,
    fault: Fault | None = None,
    at_change: Callable[[int], None] | None = None,
    old_system: bool = False,
) -> Ended:
    """Run doit in a folder, and end it as the fault says.

    ``at_change`` is called before each change, with its number. An ``old_system`` knows no rename with flags.
    """
    with tempfile.TemporaryFile("w+", errors="surrogateescape") as output, tempfile.TemporaryFile("w+") as counter:
        if (child := os.fork()) == 0:
            if old_system:
                store._rename_with = _refuse_flags  # type: ignore[assignment] # noqa: SLF001
            _be_doit(folder, list(arguments), fault, at_change, output.fileno(), counter.fileno())
        _, status = os.waitpid(child, 0)
        output.seek(0)
        counter.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), output.read(), len(counter.read()))


def _be_doit(
    folder: Path,
    arguments: list[str],
    fault: Fault | None,
    at_change: Callable[[int], None] | None,
    output: int,
    counter: int,
) -> None:
    code = 99
    try:
        os.chdir(folder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = opt_outfile["default"] = sys.stdout
        sys.argv = ["doit", *arguments]
        for cache in CACHES:
            cache.cache_clear()
        jobs._journals.clear()  # noqa: SLF001
        sys.modules.pop("dodo", None)
        stopping._main = os.getpid()  # noqa: SLF001
        _put_the_fault_in(fault, at_change, counter)
        code = DoitMain().run(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
    finally:
        sys.stdout.flush()
        os._exit(code)


def _put_the_fault_in(fault: Fault | None, at_change: Callable[[int], None] | None, counter: int) -> None:
    count = 0
    really_write, really_open = os.write, os.open

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def change(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if function is really_open and not args[1] & os.O_CREAT:
                return function(*args, **kwargs)
            count += 1
            really_write(counter, b".")
            if at_change:
                at_change(count)
            if fault and count == fault.at:
                if isinstance(fault.how, int):
                    raise OSError(fault.how, os.strerror(fault.how))
                if fault.how == "after":
                    with contextlib.suppress(OSError):
                        function(*args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return change

    for name in ("open", *CHANGING):
        setattr(os, name, wrapped(getattr(os, name)))
    store._rename_with = wrapped(store._rename_with)  # noqa: SLF001


def _refuse_flags(*_: Any) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
