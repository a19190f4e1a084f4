"""The journals of a state, found and read."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence

from ckptrules.changes.clock import NS, Now
from ckptrules.changes.history import Run, read_history
from ckptrules.changes.journal import TAIL_BYTES, JournalError, is_finished, read
from ckptrules.engine.values import STATE
from ckptrules.storage.believing import open_believed, open_state
from ckptrules.storage.reading import CHUNK, open_below, open_file_in, told

JOURNALS = f"{STATE}/journal"


def clocks(outputs_dir: str) -> Now:
    """Read the clocks; that of the file system by the lock, which was just written to."""
    boot, up = "", 0
    with contextlib.suppress(OSError, ValueError):  # Linux
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        with open("/proc/uptime", encoding="utf-8") as file:
            up = int(float(file.read().split()[0]) * NS)
    now_ns = files_ns = time.time_ns()
    with contextlib.suppress(FileNotFoundError), open_below(outputs_dir, STATE) as state:
        files_ns = os.lstat("lock", dir_fd=state).st_mtime_ns
    return Now(now_ns, files_ns, boot, up)


def unfinished_journals(outputs_dir: str) -> list[str]:
    """List the journals that ended in the middle of something. Only the end of each is read.

    Raises:
        StateError: one of them is not to be believed.
        OSError: one of them cannot be read.
    """
    place = os.path.join(outputs_dir, JOURNALS)
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir, "journal") as directory:
        return sorted(name for name in os.listdir(directory) if not _ends_well(directory, name, place))
    return []


def read_journals(outputs_dir: str, names: Sequence[str] | None = None) -> dict[str, str]:
    """Read some journals, or all of them, by their names.

    Raises:
        StateError: one of them is not to be believed.
        OSError: one of them cannot be read.
    """
    texts = {}
    place = os.path.join(outputs_dir, JOURNALS)
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir, "journal") as directory:
        for name in sorted(os.listdir(directory)) if names is None else names:
            with open(open_believed(directory, name, place), encoding="utf-8", errors="replace") as file:
                texts[name] = file.read()
    return texts


def journal_headers(outputs_dir: str) -> list[Mapping[str, object]]:
    """Read what each journal says first; what cannot be read is left out."""
    found: list[Mapping[str, object]] = []
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir, "journal") as directory:
        for name in os.listdir(directory):
            with contextlib.suppress(OSError, ValueError, RecursionError), open_file_in(directory, name) as file:
                row = json.loads(os.read(file, CHUNK).partition(b"\n")[0])
                found += [row] if isinstance(row, dict) else []
    return found


def fault_of(outputs_dir: str, error: JournalError | OSError) -> str:
    """Say why the journals cannot be read."""
    place = f"{outputs_dir}/{JOURNALS}"
    return f"{place}: cannot be read: {told(error)}" if isinstance(error, OSError) else f"{place}/{error}"


def read_runs(outputs_dir: str, own_state: str = "") -> list[Run]:
    """Read all journals, oldest run first.

    Args:
        outputs_dir: the folder of the experiments.
        own_state: the user's own state, or nothing.

    Raises:
        JournalError: one of them is damaged.
        OSError: one of them cannot be read.
    """
    return read_history(
        record
        for root in filter(None, (outputs_dir, own_state))
        for name, text in read_journals(root).items()
        if (record := read(name, text, own=root == own_state))
    )


def _ends_well(directory: int, name: str, place: str) -> bool:
    with open(open_believed(directory, name, place), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        return is_finished(file.read())
