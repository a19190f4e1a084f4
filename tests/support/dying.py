"""Work that dies or fails with one file. Other processes import this, so it imports little."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

from ckptrules.engine.values import Item
from ckptrules.vault.backups import NotCopied
from ckptrules.workers.pieces import Progress


def die(number: int, work: Callable[[Item, Progress], Any], item: Item, progress: Progress) -> Any:
    """Do the work, but die in the middle of one file: a copy that nobody has dressed is left."""

    def kill(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return work(item, kill if item.path.endswith(f"{number:02}.ckpt") else progress)


def break_(number: int, work: Callable[[Item, Progress], Any], item: Item, progress: Progress) -> Any:
    if item.path.endswith(f"{number:02}.ckpt"):
        raise RuntimeError("it is broken")
    return work(item, progress)


def fill(number: int, work: Callable[[Item, Progress], Any], item: Item, progress: Progress) -> Any:
    if item.path.endswith(f"{number:02}.ckpt"):
        return NotCopied(errno.ENOSPC, "No space left on device", in_origin=False)
    return work(item, progress)
