"""Open directories that a piece of work needs."""

from __future__ import annotations

import contextlib

from ckptrules.storage.state import open_directory


class Folders(contextlib.ExitStack):
    """Descriptors of the directories that a piece of work needs, each opened once, all closed at its end.

    Every part of a path is opened without following links, so a directory that is swapped for a link cannot
    lead the work out of ``outputs_dir``. ``texts`` says that texts elsewhere may be rewritten: only by what lies in
    the user's own state.
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
            self._open[path] = self.enter_context(open_directory(self.outputs_dir, path, make=create))
        return self._open[path]
