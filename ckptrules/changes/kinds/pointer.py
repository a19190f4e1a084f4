"""Pointers: text files that name a checkpoint get its new name.

A ``repoint`` replaces the name ``was`` by ``to`` in the file ``name``; the old file goes to ``to_directory``.
"""

from __future__ import annotations

from ckptrules.changes.kinds.kind import ActionKind, Ahead, Kind
from ckptrules.engine.actions import Step
from ckptrules.engine.pointers import is_text, mentions, with_other_name
from ckptrules.engine.state_folder import trash_folder
from ckptrules.storage import texts
from ckptrules.storage.base import Changed
from ckptrules.storage.state import Folders

REPOINT = ActionKind("repoint", "Repointed", "Would repoint", "be repointed", "relink", "relinked")


class Repoint(Kind):
    """Replaces one name by another; all other bytes of the file stay."""

    name = "repoint"
    actions = (REPOINT,)
    follows = True

    def begins(self, folders: Folders, step: Step) -> bool:
        return not self._fault(texts.pointer_content(folders, step.here), step)

    def check(self, folders: Folders, step: Step, ahead: Ahead) -> str:
        return "" if step.here in ahead.altered else self._fault(texts.pointer_content(folders, step.here), step)

    def do(self, folders: Folders, step: Step) -> None:

        def change(content: bytes) -> bytes:
            if fault := self._fault(content, step):
                raise Changed(step.name, fault)
            changed = with_other_name(content, step.was, step.to)
            if not is_text(changed):
                raise Changed(step.name, "would be too long for a pointer file")
            return changed

        texts.replace_pointer(folders, step.here, step.to_directory, change)

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        content = texts.pointer_content(folders, step.here) or b""
        return mentions(content, step.to) and not mentions(content, step.was)

    def in_trash_of(self, step: Step, run: str) -> Step:
        return step._replace(to_directory=trash_folder(run, step.directory))

    def _fault(self, content: bytes | None, step: Step) -> str:
        if content is None or not mentions(content, step.was):
            return self.changed
        return f"names {step.to} already" if mentions(content, step.to) else ""


KINDS = (Repoint(),)
