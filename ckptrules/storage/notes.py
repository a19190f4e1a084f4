"""Small texts in the state that only save work: each may be lost."""

from __future__ import annotations

import contextlib

from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import Storage

LONGEST = 1 << 20  # bytes


def read_note(storage: Storage, name: str) -> str:
    """Read a note; an empty text if it cannot be read or is not believed."""
    with contextlib.suppress(OSError), storage.read(f"{STATE}/{name}") as file:
        return file.read(LONGEST).decode("utf-8", "replace")
    return ""


def write_note(storage: Storage, name: str, text: str) -> None:
    """Write a note; readers see the old or the new one."""
    storage.replace(f"{STATE}/{name}", [text.encode()], durable=False)


def drop_note(storage: Storage, name: str) -> None:
    """Remove a note, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        storage.remove(f"{STATE}/{name}")
