"""Runs the real doit in a forked process whose every change of the disk can be counted, killed at, or made to fail.

So can every look at it: see `READING`.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import functools
import gc
import importlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from doit.cmd_run import opt_outfile
from doit.doit_cmd import DoitMain

from ckptrules.storage import moving
from tests.support import forking

CHANGING = "ftruncate link mkdir rename rmdir symlink unlink utime write fsync fdatasync".split()
READING = "access copy_file_range fstat fstatvfs getxattr listdir listxattr lstat pread read readlink scandir sendfile stat statvfs".split()
ASKING = "fcntl flock ioctl".split()  # of the module fcntl
# What is remembered, the lock, the journals: with these a run begins.
STATE = re.compile(r"(^|/)\.?ckptrules(/(?!(\w+/)*(refs|trash)/)|$)")
RULES = Path(__file__).parents[2] / "rules"
forking.import_ours()  # once for all runs, with what they need
forking.prepare()
for proved in (False, True):
    forking.shared_rules({f"rules/{path.name}": path.read_text() for path in RULES.glob("*.yaml")}, proved=proved)
ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
for needed in (*forking.NEEDED, "blake3", ZSTD):
    importlib.import_module(needed)


class Fault(NamedTuple):
    """What goes wrong: at which call (counted from 1), and how: killed ``before`` or ``after`` it, or an error number.

    A read can only fail. ``later reads`` are those after the first change of what people have, or of the trash. One that
    ``lasts`` fails for all later reads of the same path as well.
    """

    at: int
    how: str | int
    what: Literal["changes", "reads", "later reads"] = "changes"
    lasts: bool = False


class Read(NamedTuple):
    """A look at something: the number of changes made before it, the name of the call, the path below the folder."""

    after: int
    call: str
    path: str


class Ended(NamedTuple):
    """How a run ended: its exit code (or minus the signal), its output, the number of changes that it made.

    ``reads`` are its looks at the folder, or the later ones, if they were asked for.
    """

    code: int
    output: str
    changes: int
    reads: tuple[Read, ...] = ()


def run(
    folder: Path,
    *arguments: str,
    fault: Fault | None = None,
    at_change: Callable[[int], None] | None = None,
    old_system: bool = False,
    no_links: bool = False,
    count: Literal["", "reads", "later reads"] = "",
) -> Ended:
    """Run doit in a folder, and end it as the fault says.

    ``at_change`` is called before each change, with its number. An ``old_system`` knows no rename with flags; with
    ``no_links`` it has neither hard links nor symbolic ones, like FAT.
    """
    with (
        tempfile.TemporaryFile("w+", errors="surrogateescape") as output,
        tempfile.TemporaryFile("w+") as counter,
        tempfile.TemporaryFile("w+", errors="surrogateescape") as reads,
    ):
        if (child := os.fork()) == 0:
            gc.freeze()  # what was there before needs not be looked through, and so not be copied
            if old_system:
                moving._rename_with = _refuse_flags  # type: ignore[assignment] # noqa: SLF001
            if no_links:
                os.link = os.symlink = _refuse_links
            if "reads" in (what := fault.what if fault else count):
                _let_reads_fail(fault, what == "reads", os.fspath(folder.resolve()), reads.fileno())
            else:  # who counts the reads of a run counts all of them
                forking.share()
            _be_doit(folder, list(arguments), fault, at_change, output.fileno(), counter.fileno())
        _, status = os.waitpid(child, 0)
        for file in (output, counter, reads):
            file.seek(0)
        code = os.waitstatus_to_exitcode(status)
        rows = [row.split(" ", 2) for row in reads.read().split("\0")[:-1]]
        looks = tuple(Read(int(after), call, path) for after, call, path in rows)
        return Ended(code, output.read(), len(counter.read()), looks)


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
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nobody is there to be asked
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stderr = opt_outfile["default"] = sys.stdout
        sys.argv = ["doit", *arguments]
        sys.modules.pop("dodo", None)
        _put_the_fault_in(fault if fault and fault.what == "changes" else None, at_change, counter)
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
    moving._rename_with = wrapped(moving._rename_with)  # noqa: SLF001


def _let_reads_fail(fault: Fault | None, counting: bool, folder: str, notes: int) -> None:  # noqa: FBT001 - whether from the start
    """Count the reads below a folder, and let one fail. Comes before it is the changes' turn."""
    count, changes, broken = 0, 0, ""
    really_write, really_read_link = os.write, os.readlink

    def place(what: Any = ".", *_: Any, dir_fd: int | None = None, src_dir_fd: int | None = None, **__: Any) -> str:
        if isinstance(what, int) or hasattr(what, "fileno"):
            return really_read_link(f"/proc/self/fd/{what if isinstance(what, int) else what.fileno()}")
        start = dir_fd if dir_fd is not None else src_dir_fd
        within = "." if start is None else really_read_link(f"/proc/self/fd/{start}")
        return os.path.normpath(os.path.join(os.getcwd(), within, os.fsdecode(what)))

    def begin(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def change(*args: Any, **kwargs: Any) -> Any:
            nonlocal counting, changes
            changes += 1
            path = "" if counting else place(*args, **kwargs)
            counting |= path.startswith(f"{folder}/") and not STATE.search(path[len(folder) + 1 :])
            return function(*args, **kwargs)

        return change

    def fails(
        function: Callable[..., Any], is_change: Callable[..., bool] = lambda *_, **__: False
    ) -> Callable[..., Any]:
        changing = begin(function)

        @functools.wraps(function)
        def read(*args: Any, **kwargs: Any) -> Any:
            nonlocal count, broken
            if is_change(*args, **kwargs):
                return changing(*args, **kwargs)
            path = place(*args, **kwargs) if counting else ""
            if path.startswith(f"{folder}/"):
                count += 1
                really_write(notes, os.fsencode(f"{changes} {function.__name__} {path[len(folder) + 1 :]}\0"))
                broken = path if fault and count == fault.at else broken
                if fault and (count == fault.at or (fault.lasts and path == broken)):
                    assert isinstance(fault.how, int)
                    raise OSError(fault.how, os.strerror(fault.how), path)
            return function(*args, **kwargs)

        return read

    for name in READING:
        if hasattr(os, name):
            setattr(os, name, fails(getattr(os, name)))
    for name in ASKING:
        setattr(fcntl, name, fails(getattr(fcntl, name)))
    os.open = fails(os.open, lambda _, flags, *__, **___: bool(flags & os.O_CREAT))
    builtins.open = fails(builtins.open, lambda _, mode="r", *__, **___: mode[0] != "r")
    for name in CHANGING:
        setattr(os, name, begin(getattr(os, name)))
    really_rename, mark = moving._rename_with, begin(lambda *_, **__: None)  # noqa: SLF001

    def rename(flag: int, from_fd: int, old: str, to_fd: int, new: str) -> None:
        mark(old, dir_fd=from_fd)
        mark(new, dir_fd=to_fd)
        really_rename(flag, from_fd, old, to_fd, new)

    moving._rename_with = rename  # noqa: SLF001


def _refuse_flags(*_: Any) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _refuse_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
