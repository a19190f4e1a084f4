"""Open directories that a piece of work needs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ckptrules.engine.values import STATE
from ckptrules.storage import believing
from ckptrules.storage.reading import (
    open_below,
)
from ckptrules.storage.state import open_state

if TYPE_CHECKING:  # what reads torch files is imported by the one command that needs it
    pass


class Folders(contextlib.ExitStack):
    """Descriptors of the directories that a piece of work needs, each opened once, all closed at its end.

    Every part of a path is opened without following links, so a directory that is swapped for a link cannot
    lead the work out of ``outputs_dir``.

    Args:
        outputs_dir: the folder below which everything happens.
        texts: whether texts elsewhere may be rewritten: only by what lies in the user's own state.
    """

    def __init__(self, outputs_dir: str, *, texts: bool = False) -> None:
        super().__init__()
        self.outputs_dir = outputs_dir
        self.texts = texts
        self._open: dict[str, int] = {}

    def descriptor(self, path: str, *, create: bool = False) -> int:
        """Return the descriptor of a directory; ``create`` makes what is missing of a folder of the state.

        Raises:
            OSError: it is not there, or a part of its path is a link or leads upwards.
        """
        if path not in self._open:
            opened: contextlib.AbstractContextManager[int]
            if path == STATE or path.startswith(f"{STATE}/"):
                opened = (open_state if create else believing.open_state)(self.outputs_dir, path[len(STATE) + 1 :])
            else:
                opened = open_below(self.outputs_dir, path)
            self._open[path] = self.enter_context(opened)
        return self._open[path]
