"""Find out whether a program may still write to a checkpoint."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator

from ckptrules.engine.entries import Entry
from ckptrules.engine.measures import NS
from ckptrules.storage.reading import NO_TRICKS

KNOWS_LEASES = hasattr(fcntl, "F_SETLEASE")  # Linux


def in_use(directory: int, entry: Entry, settle: int, now_ns: int) -> str:
    """Return why a checkpoint may still be written to; empty where nothing says so.

    A read lease shows that a process has a file open for writing: on Linux, on local file systems, for the owner of the
    file or root (``fcntl(2)``, ``F_SETLEASE``). Elsewhere only ``settle`` (seconds without a change) helps.
    """
    if settle and entry.kind in ("file", "directory"):
        age = (now_ns - entry.mtime_ns) // NS
        if age < settle:  # also if its time lies ahead
            return f"changed {max(0, age)} s ago (settle: {settle})"
    if entry.kind == "file":
        return _why_written_to(directory, entry.name)
    return next(filter(None, (_why_written_to(directory, file) for file in _files(directory, entry))), "")


def ignore_lease_breaks() -> None:
    """Ignore SIGIO, which the kernel sends when another process opens a file that we hold a lease on."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def _files(directory: int, entry: Entry) -> Iterator[str]:
    """Yield the files in a folder; nothing if the entry is no folder."""
    for folder, _, names, inner in os.fwalk(entry.name, dir_fd=directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISREG(os.lstat(name, dir_fd=inner).st_mode):
                    yield os.path.join(folder, name)


def _why_written_to(directory: int, name: str) -> str:
    if not KNOWS_LEASES:
        return ""
    try:
        file = os.open(name, os.O_RDONLY | NO_TRICKS, dir_fd=directory)
    except OSError as error:  # a file that is unreadable or gone is found by other checks
        return f"cannot be opened: {os.strerror(error.errno)}" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # closing the file ends the lease
    except OSError as error:
        return "is open for writing" * (error.errno == errno.EAGAIN)
    finally:
        os.close(file)
    return ""
