"""The append-only record of every change: what was intended, then what came of it. One JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckptrules.model import Action

VERSION = 1


class Journal:
    """The journal of one process in one run.

    Args:
        append: writes one line durably (it is on the disk when the call returns).
        header: what the first line tells of the run: its id, options, rules.
    """

    def __init__(self, append: Callable[[str], None], header: Mapping[str, Any]) -> None:
        self._append = append
        self._header: Mapping[str, Any] | None = header

    def intend(self, directory: str, actions: Sequence[Action]) -> None:
        """Record what is about to happen in one directory, before it does."""
        if self._header is not None:
            self._append(json.dumps({"journal": VERSION, **self._header}))
            self._header = None
        rows = [[action.kind, action.name, action.to, action.size] for action in actions]
        self._append(json.dumps({"intent": directory, "actions": rows}))

    def conclude(self, directory: str, failed: Mapping[str, str]) -> None:
        """Record that a directory is finished, and which of the intended actions were refused and why."""
        self._append(json.dumps({"done": directory, "failed": dict(failed)}))
