"""Finds and reads the journals of a state."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence

from ckptrules.changes.clock import Now
from ckptrules.changes.journal import FINISHED, STOPPED, TAIL_BYTES, JournalError
from ckptrules.engine.measures import NS
from ckptrules.engine.state_folder import JOURNALS, LOCK, STATE
from ckptrules.storage.base import Storage
from ckptrules.storage.hosts import boot_id
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import why_of
from ckptrules.storage.streams import CHUNK


def clocks(storage: Storage) -> Now:
    """Read the clocks; the time of the lock, which was just written, is that of the file system."""
    up_ns = 0
    with contextlib.suppress(OSError, ValueError), open("/proc/uptime", encoding="ascii") as file:  # Linux
        up_ns = int(float(file.read().split()[0]) * NS)
    now_ns = files_ns = time.time_ns()
    with contextlib.suppress(FileNotFoundError):
        files_ns = storage.stat(f"{STATE}/{LOCK}").time_ns
    return Now(now_ns, files_ns, boot_id(), up_ns)


def unfinished_journals(storage: Storage) -> list[str]:
    """List the journals that end within an unfinished change. Only the last bytes of each are read.

    Raises:
        StateError: a journal is not believed.
        OSError: a journal cannot be read.
    """
    return [name for name in _names(storage) if not _ends_well(storage, name)]


def end_early(storage: Storage, run: str) -> None:
    """Record in the journals of a run that it was stopped or killed. The caller holds the lock.

    Journals that end within a change are left to `recovery`, which finishes the change and records the same.

    Raises:
        OSError: a journal cannot be read or written.
    """
    for name in _names(storage):
        if name.startswith(f"{run}.") and _ends_well(storage, name):
            storage.append(f"{JOURNALS}/{name}", STOPPED.encode())


def interrupted(*roots: str) -> bool:
    """Return whether the journals in some folders show a run that was interrupted, or is at work right now."""
    try:
        return any(unfinished_journals(Disk(root)) for root in roots if root)
    except OSError:  # a run that needs these journals reports that
        return False


def read_journals(storage: Storage, names: Sequence[str] | None = None) -> dict[str, str]:
    """Map the names of some journals, or of all, to their texts.

    Raises:
        StateError: a journal is not believed.
        OSError: a journal cannot be read.
    """
    texts = {}
    with contextlib.suppress(FileNotFoundError):
        for name in _names(storage) if names is None else names:
            with storage.read(f"{JOURNALS}/{name}") as file, io.TextIOWrapper(file, "utf-8", "replace") as lines:
                texts[name] = lines.read()
    return texts


def journal_headers(storage: Storage) -> list[Mapping[str, object]]:
    """Read the first line of each journal; leave out those that cannot be read."""
    found: list[Mapping[str, object]] = []
    for name in _names(storage):
        with contextlib.suppress(OSError, ValueError, RecursionError), storage.read(f"{JOURNALS}/{name}") as file:
            row = json.loads(file.readline(CHUNK))
            found += [row] if isinstance(row, dict) else []
    return found


def fault_of(outputs_dir: str, error: OSError) -> str:
    """Return why the journals cannot be read, with the place."""
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
