"""What the engine of changes asks of a kind of step, and what the report says of the actions that it carries out."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, NamedTuple

from ckptrules.engine.actions import Step
from ckptrules.engine.entries import Spot
from ckptrules.storage.base import CHANGED
from ckptrules.storage.state import Folders


class ActionKind(NamedTuple):
    """What a step means to people who read a plan.

    Args:
        name: how plans, journals and JSON call it.
        did: the word before a name when it was done.
        would: the same, in a preview.
        cannot: what could not be done, behind "cannot"; ``{to}`` stands for the new name.
        sign: one of `Style.signs`.
        counts_as: the number of the summary that it adds to, a field of `Tally`.
        inverse: the action that takes it back; nothing where that is the same one.
        in_trash: it can be taken back only with what lies in the trash.
        shows_to: undo shows the new name.
        in_sequence: its steps make room for one another, so the last is taken back first.
    """

    name: str
    did: str
    would: str
    cannot: str
    sign: str
    counts_as: str
    inverse: str = ""
    in_trash: bool = False
    shows_to: bool = False
    in_sequence: bool = False


class Ahead(NamedTuple):
    """What will be otherwise when it is the turn of a step, because of the steps before it.

    ``left`` are the names that will be free, ``altered`` those under which something else will stand.
    """

    left: Collection[Spot]
    altered: Collection[Spot]


class Kind:
    """A kind of step. Every method takes the open directories and the step; only `do` and `is_done` change anything."""

    name: ClassVar[str]  # how journals call it
    actions: ClassVar[tuple[ActionKind, ...]] = ()
    changed: ClassVar[str] = CHANGED  # what is said where something else stands there
    turn: ClassVar[int] = 0  # within a unit: -1 before the head, 1 after all others
    moves: ClassVar[bool] = False  # what stands here goes there
    leaves: ClassVar[bool] = False  # nothing stands here afterwards
    follows: ClassVar[bool] = False  # it is an action of its own, which happens only because of the head
    stays_with_file: ClassVar[bool] = False  # where the file is moved later, that it was done is seen there
    beyond_tree: ClassVar[bool] = False  # only the user's own state has power over what it changes

    def begins(self, folders: Folders, step: Step) -> bool:
        """Say whether the step could be made by what stands here now; OSError where that cannot be seen."""
        raise NotImplementedError

    def check(self, folders: Folders, step: Step, ahead: Ahead) -> str:
        """Say why the step cannot be made as things stand, or nothing; OSError is a reason as well."""
        return "" if step.here in ahead.altered or self.begins(folders, step) else self.changed

    def do(self, folders: Folders, step: Step) -> None:
        """Make the step, or change nothing: `Changed` where something else stands here, or another OSError."""
        raise NotImplementedError

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        """Say whether the step was made; what was begun of one that takes two system calls is finished first.

        ``taken_again`` says that a later step brought what stands here now. OSError where nothing can be seen.
        """
        raise NotImplementedError

    def inverse(self, step: Step) -> Step:
        """Return the step that takes this one back."""
        return step._replace(to=step.was, was=step.to)

    def in_trash_of(self, step: Step, run: str) -> Step:
        """Return the same step, but what it puts into the trash goes to the trash of a run."""
        return step
