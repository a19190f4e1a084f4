"""Links: a link gets another text, or one under an old name is made or removed.

A ``relink`` changes the text of ``name`` from ``was`` to ``to``. A ``link`` makes a link with the text ``to``, an
``unlink`` removes it.
"""

from __future__ import annotations

import errno
import os

from ckptrules.changes.kinds.kind import ActionKind, Ahead, Kind
from ckptrules.engine.actions import Step
from ckptrules.storage import links
from ckptrules.storage.moving import LINK_CHANGED
from ckptrules.storage.state import Folders

RELINK = ActionKind("relink", "Relinked", "Would relink", "be relinked", "relink", "relinked")
LINK = ActionKind("link", "Linked", "Would link", "become a link", "relink", "links", inverse="unlink")
UNLINK = ActionKind("unlink", "Link removed", "Would remove the link", "be removed", "trash", "links", inverse="link")


class Relink(Kind):
    """Gives a link another text, after its target was renamed."""

    name = "relink"
    actions = (RELINK,)
    changed = LINK_CHANGED
    follows = True

    def begins(self, folders: Folders, step: Step) -> bool:
        return links.is_link_to(folders, step.here, step.was)

    def do(self, folders: Folders, step: Step) -> None:
        links.change_link(folders, step.here, step.was, step.to)

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        return links.is_link_to(folders, step.here, step.to)


class Link(Kind):
    """Makes a link under an old name, to the new one beside it."""

    name = "link"
    actions = (LINK,)
    turn = 1  # after the head, which frees the name

    def begins(self, folders: Folders, step: Step) -> bool:
        return folders.is_free(step.here)

    def check(self, folders: Folders, step: Step, ahead: Ahead) -> str:
        return "" if step.here in ahead.left or self.begins(folders, step) else os.strerror(errno.EEXIST)

    def do(self, folders: Folders, step: Step) -> None:
        links.make_link(folders, step.here, step.to)

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        return links.is_link_to(folders, step.here, step.to)

    def inverse(self, step: Step) -> Step:
        return step._replace(kind="unlink")


class Unlink(Kind):
    """Removes a link under an old name."""

    name = "unlink"
    actions = (UNLINK,)
    changed = LINK_CHANGED
    turn = -1  # before the head, which takes the name
    leaves = True

    def begins(self, folders: Folders, step: Step) -> bool:
        return links.is_link_to(folders, step.here, step.to)

    def do(self, folders: Folders, step: Step) -> None:
        links.remove_link(folders, step.here, step.to)

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        return folders.is_free(step.here) or not links.is_link_to(folders, step.here, step.to)

    def inverse(self, step: Step) -> Step:
        return step._replace(kind="link")


KINDS = (Relink(), Link(), Unlink())
