"""Where the work on a checkpoint directory is done: in this process, or in others that share a large tree."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # what only a large tree needs is imported for it
    from ckptrules.run.sharing import Sharing

Answer = TypeVar("Answer")


class Workers:
    """Does work for doit: here, or, where doit has made threads that wait for it, shared by processes.

    Args:
        locks: descriptors by folder; a lock is held until the last process at work is gone.
        asked: the user asked for processes (``-n``).
    """

    def __init__(self, locks: Mapping[str, int], *, asked: bool) -> None:
        self._locks, self._asked, self._once = locks, asked, threading.Lock()
        self._sharing: Sharing | None = None

    def do(self, work: Callable[..., Answer], *values: Any) -> Answer:
        """Do a piece of work somewhere, and return what comes of it.

        Raises:
            KilledError: the process that did it, or another, was killed.
        """
        if is_alone():
            return work(*values)
        with self._once:
            if self._sharing is None:
                from ckptrules.run.sharing import Sharing

                self._sharing = Sharing([*self._locks.values()], asked=self._asked)
        return self._sharing.do(work, *values)

    def end(self, *, killed: bool) -> None:
        """End the other processes, if there are any; ``killed`` says that one was killed."""
        if self._sharing:
            self._sharing.end(killed=killed)


def is_alone() -> bool:
    """Say whether doit has made no threads: all is done one after the other, in the thread that asks."""
    return threading.current_thread() is threading.main_thread()
