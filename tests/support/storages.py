"""All storages, by their names: what speaks the protocol is tested on each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ckptrules.engine.values import STATE
from ckptrules.storage.base import Storage
from ckptrules.storage.memory import Memory
from ckptrules.storage.posix import Disk

FOLDER, OTHER, NOTES = "exp", "exp/inner", f"{STATE}/journal"  # only folders of the state are made by what needs them


def disk(folder: Path) -> Storage:
    (folder / OTHER).mkdir(parents=True)
    return Disk(os.fspath(folder))


STORAGES: dict[str, Callable[[Path], Storage]] = {"disk": disk, "memory": lambda _: Memory()}
