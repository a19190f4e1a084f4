"""Work that dies or fails with one file. Other processes import this, so it imports little."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

from ckptrules.engine.entries import Item
from ckptrules.vault.copies import NotCopied
from ckptrules.vault.packing import Ready
from ckptrules.vault.unpacking import Unpacking
from ckptrules.workers.pieces import Progress


def die(name: str, work: Callable[[Any, Progress], Any], item: Item | Ready | Unpacking, progress: Progress) -> Any:
    """Do the work, but die in the middle of one file: a copy that nobody has dressed is left."""

    def kill(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return work(item, kill if _is_it(item, name) else progress)


def break_(name: str, work: Callable[[Any, Progress], Any], item: Item | Ready | Unpacking, progress: Progress) -> Any:
    if _is_it(item, name):
        raise RuntimeError("it is broken")
    return work(item, progress)


def fill(name: str, work: Callable[[Any, Progress], Any], item: Item | Ready | Unpacking, progress: Progress) -> Any:
    if _is_it(item, name):
        return NotCopied(errno.ENOSPC, "No space left on device", in_origin=False)
    return work(item, progress)


def _is_it(item: Item | Ready | Unpacking, name: str) -> bool:
    return (item.place.experiment if isinstance(item, Ready) else os.path.basename(item.path)) == name
