"""All storages, by their names: what speaks the protocol is tested on each."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import Storage

FOLDER, OTHER, NOTES = "exp", "exp/inner", f"{STATE}/journal"  # only folders of the state are made by what needs them


def made(place: str, *values: object) -> Storage:
    """Make a storage of a class in ``ckptrules.storage``, named as ``file.Class``."""
    file, _, name = place.partition(".")
    return cast("Storage", getattr(import_module(f"ckptrules.storage.{file}"), name)(*values))


def disk(folder: Path) -> Storage:
    (folder / OTHER).mkdir(parents=True)
    return made("posix.Disk", os.fspath(folder))


STORAGES: dict[str, Callable[[Path], Storage]] = {
    "disk": disk,
    "memory": lambda _: made("memory.Memory"),
}
