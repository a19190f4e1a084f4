"""Exchanges: a checkpoint and a copy of it with other paths inside exchange their names.

An ``exchange`` is of ``name`` in ``directory`` and ``to`` in ``to_directory``; ``was`` has the marks of both before it.
"""

from __future__ import annotations

from ckptrules.changes.kinds.kind import ActionKind, Kind
from ckptrules.engine.actions import Step
from ckptrules.storage import exchanging, reading
from ckptrules.storage.state import Folders

FIX = ActionKind(
    "fix", "State fixed", "Would fix the state", "get other paths in its state", "rename", "states",
    inverse="unfix", in_trash=True,
)  # fmt: skip
UNFIX = ActionKind(
    "unfix", "State restored", "Would restore the state", "get its old state back", "restore", "states",
    inverse="fix", in_trash=True,
)  # fmt: skip


class Exchange(Kind):
    """Exchanges the names of two files."""

    name = "exchange"
    actions = (FIX, UNFIX)
    stays_with_file = True

    def begins(self, folders: Folders, step: Step) -> bool:
        return exchanging.is_marked(folders, step.here, step.there, step.was)

    def do(self, folders: Folders, step: Step) -> None:
        reading.refuse_path(step.to)
        exchanging.exchange(folders, step.here, step.there, step.was)

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        reading.refuse_path(step.to)
        exchanging.finish_exchange(folders, step.there)
        return self.begins(folders, self.inverse(step))

    def inverse(self, step: Step) -> Step:
        return step._replace(was=exchanging.other_way_round(step.was))


KINDS = (Exchange(),)
