"""Work that dies or fails with one file. Other processes import this, so it imports little."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ckptrules.engine.entries import Item
from ckptrules.stopping import KilledError
from ckptrules.storage.reading import Progress
from ckptrules.vault.packing import Ready
from ckptrules.vault.unpacking import Unpacking


def die(name: str, work: Callable[[Any, Progress], Any], item: Item | Ready | Unpacking, progress: Progress) -> Any:
    """Do the work, but die in the middle of one file: a copy without metadata is left."""

    def kill(_: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return work(item, kill if _is_it(item, name) else progress)


def break_(name: str, work: Callable[[Any, Progress], Any], item: Item | Ready | Unpacking, progress: Progress) -> Any:
    if _is_it(item, name):
        raise RuntimeError("it is broken")
    return work(item, progress)


def fill(name: str, work: Callable[[Any, Progress], Any], item: Item | Ready | Unpacking, progress: Progress) -> Any:
    if _is_it(item, name):
        return OSError(errno.ENOSPC, "No space left on device")
    return work(item, progress)


def vanish(_: str, work: Callable[[Any, Progress], Any], item: Any, progress: Progress) -> Any:
    """Do the work of the first; then no worker is left."""
    if next(_done):
        raise KilledError("executor=dask:x: the scheduler is gone\n    hint: start it")
    return work(item, progress)


_done = itertools.count()


def _is_it(item: Item | Ready | Unpacking, name: str) -> bool:
    return (item.place.experiment if isinstance(item, Ready) else os.path.basename(item.path)) == name


def let_workers(act: Callable[..., Any], name: str, dodo: Path) -> None:
    """Let the workers of a project act so on what has a name: its dodo.py sees to it."""
    dodo.write_text(
        "from functools import partial\n"
        "from ckptrules.workers.workers import Workers\n"
        f"from tests.support.dying import {act.__name__}\n"
        "really = Workers.each\n"
        "def each(self, work, *more, **named):\n"
        f"    return really(self, partial({act.__name__}, '{name}', work), *more, **named)\n"
        "Workers.each = each\n" + dodo.read_text()
    )


ENDS: dict[str, tuple[Callable[..., Any], str]] = {
    "dies": (die, "3 workers died of it (BrokenProcessPool)"),
    "fails": (break_, "the worker failed: RuntimeError: it is broken"),
}
