"""Texts of the user, anywhere: scripts and notebooks that ask for checkpoints by old names.

A ``rewrite`` gives the file ``name`` in the absolute path ``directory`` other content; ``was`` and ``to`` are the
checksums of both contents, which are kept in the user's own state.
"""

from __future__ import annotations

from ckptrules.changes.kinds.kind import ActionKind, Ahead, Kind
from ckptrules.engine.actions import Step
from ckptrules.storage import texts
from ckptrules.storage.state import Folders

REWRITE = ActionKind("rewrite", "Rewritten", "Would rewrite", "be rewritten", "rename", "rewritten")


class Rewrite(Kind):
    """Replaces the content of a text."""

    name = "rewrite"
    actions = (REWRITE,)
    beyond_tree = True

    def begins(self, folders: Folders, step: Step) -> bool:
        return texts.text_checksum(step.here) == step.was

    def check(self, folders: Folders, step: Step, ahead: Ahead) -> str:
        return super().check(folders, step, ahead) if folders.texts else texts.NO_TEXTS

    def do(self, folders: Folders, step: Step) -> None:
        texts.rewrite_text(folders, step.here, step.was, step.to)

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        return folders.texts and texts.text_checksum(step.here) == step.to


KINDS = (Rewrite(),)
