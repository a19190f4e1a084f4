"""Counts what a run changes on the disk and what it looks at, and lets one of these calls kill it, stop it, or fail."""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import functools
import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

from ckptrules.storage import moving

CHANGING = (
    "chmod chown fchmod fchown fdatasync fsync ftruncate link mkdir removexattr rename replace rmdir setxattr symlink unlink "
    "utime write"
).split()
READING = "access copy_file_range fstat fstatvfs getxattr listdir listxattr lstat pread read readlink scandir sendfile stat statvfs".split()
ASKING = "fcntl flock ioctl".split()  # of the module fcntl
# What is remembered, the lock, the journals: with these a run begins.
STATE = re.compile(r"(^|/)\.?ckptrules(/(?!(\w+/)*(refs|trash)/)|$)")

Replace: TypeAlias = Callable[[Any, str, Callable[..., Any]], None]  # a name of a module


class Fault(NamedTuple):
    """What goes wrong: at which call (counted from 1), and how: killed ``before`` or ``after`` it, or an error number.

    A signal is named, as ``SIGINT``: it comes before a change, which is done all the same. Where its answer is ``lost``,
    it is done, and fails. A read can only fail.
    ``later reads`` are those after the first change of what people have, or of the trash. One that ``lasts`` fails for all
    later reads of the same path as well, or for all later changes by the same call.
    """

    at: int
    how: str | int
    what: Literal["changes", "reads", "later reads"] = "changes"
    lasts: bool = False

    @property
    def kills(self) -> bool:
        return self.how in ("before", "after")


class Disturbance(NamedTuple):
    """What is not as usual in a run, and which ``looks`` at the folder are counted beside its changes.

    An ``old_system`` knows no rename with flags; with ``no_links`` it has neither hard links nor symbolic ones, like FAT.
    """

    fault: Fault | None = None
    old_system: bool = False
    no_links: bool = False
    looks: Literal["", "reads", "later reads"] = ""


class Read(NamedTuple):
    """A look at something: the number of changes made before it, the name of the call, the path below the folder."""

    after: int
    call: str
    path: str


@contextlib.contextmanager
def disturbed(
    disturbance: Disturbance,
    folder: str,
    counter: int,
    reads: int,
    at_change: Callable[[int], None] | None = None,
    after_change: Callable[[int], None] | None = None,
) -> Iterator[None]:
    """Disturb what is run meanwhile: a dot is written to the file ``counter`` for each change, a row to ``reads`` for each look.

    Looks are noted below the folder only, and if they are counted or one of them fails. ``at_change`` is called before each
    change, with its number, and ``after_change`` after it.
    """
    with contextlib.ExitStack() as stack:

        def replace(module: Any, name: str, new: Callable[..., Any]) -> None:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, new)

        fault = disturbance.fault
        if disturbance.old_system:
            replace(moving, "_rename_with", refuse_flags)
        if disturbance.no_links:
            for name in ("link", "symlink"):
                replace(os, name, refuse_links)
        if "reads" in (what := fault.what if fault else disturbance.looks):
            _let_reads_fail(replace, fault, what == "reads", folder, reads)
        _put_the_fault_in(
            replace, fault if fault and fault.what == "changes" else None, at_change, after_change, counter
        )
        yield


def _put_the_fault_in(
    replace: Replace,
    fault: Fault | None,
    at_change: Callable[[int], None] | None,
    after_change: Callable[[int], None] | None,
    counter: int,
) -> None:
    numbers = itertools.count(1)  # threads change the disk, too: no two have the same number
    broken: list[Callable[..., Any]] = []
    really_write, really_open = os.write, os.open

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def change(*args: Any, **kwargs: Any) -> Any:
            if function is really_open and not args[1] & os.O_CREAT:
                return function(*args, **kwargs)
            number = next(numbers)
            really_write(counter, b".")
            if at_change:
                at_change(number)
            if fault and (number == fault.at or function in broken):
                if isinstance(fault.how, int):
                    broken.extend([function] * fault.lasts)
                    raise OSError(fault.how, os.strerror(fault.how))
                if fault.how == "lost":
                    answer = function(*args, **kwargs)
                    if function is really_open:
                        os.close(answer)
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                if fault.how.startswith("SIG"):
                    os.kill(os.getpid(), signal.Signals[fault.how])
                    return function(*args, **kwargs)
                if fault.how == "after":
                    with contextlib.suppress(OSError):
                        function(*args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **kwargs)
            finally:
                if after_change:
                    after_change(number)

        return change

    for name in ("open", *CHANGING):
        replace(os, name, wrapped(getattr(os, name)))
    replace(moving, "_rename_with", wrapped(moving._rename_with))  # noqa: SLF001


def _let_reads_fail(
    replace: Replace,
    fault: Fault | None,
    counting: bool,  # noqa: FBT001 - whether from the start
    folder: str,
    notes: int,
) -> None:
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
            replace(os, name, fails(getattr(os, name)))
    for name in ASKING:
        replace(fcntl, name, fails(getattr(fcntl, name)))
    replace(os, "open", fails(os.open, lambda _, flags, *__, **___: bool(flags & os.O_CREAT)))
    replace(builtins, "open", fails(builtins.open, lambda _, mode="r", *__, **___: mode[0] != "r"))
    for name in CHANGING:
        replace(os, name, begin(getattr(os, name)))
    really_rename, mark = moving._rename_with, begin(lambda *_, **__: None)  # noqa: SLF001

    def rename(flag: int, from_fd: int, old: str, to_fd: int, new: str) -> None:
        mark(old, dir_fd=from_fd)
        mark(new, dir_fd=to_fd)
        really_rename(flag, from_fd, old, to_fd, new)

    replace(moving, "_rename_with", rename)


def refuse_flags(*_: Any) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def refuse_links(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
