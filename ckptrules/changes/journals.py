"""The journals of a state, found and read."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence

from ckptrules.changes.clock import Now
from ckptrules.changes.journal import FINISHED, JOURNALS, STOPPED, TAIL_BYTES, JournalError
from ckptrules.engine.measures import NS
from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import Storage
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.streams import CHUNK


def clocks(storage: Storage) -> Now:
    """Read the clocks; that of the file system by the lock, which was just written to."""
    boot, up = "", 0
    with contextlib.suppress(OSError, ValueError):  # Linux
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        with open("/proc/uptime", encoding="utf-8") as file:
            up = int(float(file.read().split()[0]) * NS)
    now_ns = files_ns = time.time_ns()
    with contextlib.suppress(FileNotFoundError):
        files_ns = storage.stat(f"{STATE}/lock").time_ns
    return Now(now_ns, files_ns, boot, up)


def unfinished_journals(storage: Storage) -> list[str]:
    """List the journals that ended in the middle of something. Only the end of each is read.

    Raises:
        StateError: one of them is not to be believed.
        OSError: one of them cannot be read.
    """
    return [name for name in _names(storage) if not _ends_well(storage, name)]


def end_early(storage: Storage, run: str) -> None:
    """Let the journals of a run that was stopped or killed say that it ended before its time. Under the lock.

    Those that ended in the middle of something, `recovery` finishes and lets say so.

    Raises:
        OSError: one of them cannot be read or written.
    """
    for name in _names(storage):
        if name.startswith(f"{run}.") and _ends_well(storage, name):
            storage.append(f"{JOURNALS}/{name}", STOPPED.encode())


def interrupted(*roots: str) -> bool:
    """Say whether a run was interrupted, or is at work right now, by the journals in some folders."""
    try:
        return any(unfinished_journals(Disk(root)) for root in roots if root)
    except OSError:  # what cannot be read is told by the run that has to read it
        return False


def read_journals(storage: Storage, names: Sequence[str] | None = None) -> dict[str, str]:
    """Read some journals, or all of them, by their names.

    Raises:
        StateError: one of them is not to be believed.
        OSError: one of them cannot be read.
    """
    texts = {}
    with contextlib.suppress(FileNotFoundError):
        for name in _names(storage) if names is None else names:
            with storage.read(f"{JOURNALS}/{name}") as file, io.TextIOWrapper(file, "utf-8", "replace") as lines:
                texts[name] = lines.read()
    return texts


def journal_headers(storage: Storage) -> list[Mapping[str, object]]:
    """Read what each journal says first; what cannot be read is left out."""
    found: list[Mapping[str, object]] = []
    for name in _names(storage):
        with contextlib.suppress(OSError, ValueError, RecursionError), storage.read(f"{JOURNALS}/{name}") as file:
            row = json.loads(file.readline(CHUNK))
            found += [row] if isinstance(row, dict) else []
    return found


def fault_of(outputs_dir: str, error: OSError) -> str:
    """Say why the journals cannot be read."""
    fact = why_of(error) if isinstance(error, JournalError) else f"{JOURNALS}: cannot be read: {why_of(error)}"
    return f"{outputs_dir}/{fact}"


def _names(storage: Storage) -> list[str]:
    try:
        return sorted(name for name, _ in storage.list(JOURNALS))
    except FileNotFoundError:
        return []


def _ends_well(storage: Storage, name: str) -> bool:
    with storage.read(f"{JOURNALS}/{name}", -TAIL_BYTES) as file:
        return FINISHED.search(file.read()) is not None
