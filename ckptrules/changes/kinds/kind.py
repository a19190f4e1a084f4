"""What a kind of step must define, and how reports show its actions."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, NamedTuple

from ckptrules.engine.actions import Step
from ckptrules.engine.entries import Spot
from ckptrules.storage.base import CHANGED
from ckptrules.storage.state import Folders


class ActionKind(NamedTuple):
    """How plans and reports show an action.

    Args:
        name: its name in plans, journals and JSON.
        did: the word before a checkpoint's name when it was done.
        would: the same, in a preview.
        cannot: the words after "cannot" when it failed; ``{to}`` stands for the new name.
        sign: one of `Style.signs`.
        counts_as: the field of `Tally` that it adds to.
        inverse: the action that takes it back; empty if that is the same one.
        in_trash: taking it back needs the trash.
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
    """What earlier steps will have changed when a step is done.

    ``left`` are the names that will be free, ``altered`` those that will have another content.
    """

    left: Collection[Spot]
    altered: Collection[Spot]


class Kind:
    """A kind of step. Only `do` and `is_done` change the disk."""

    name: ClassVar[str]  # in journals
    actions: ClassVar[tuple[ActionKind, ...]] = ()
    changed: ClassVar[str] = CHANGED  # the reason if `begins` is False
    turn: ClassVar[int] = 0  # within a unit: -1 before the head, 1 after all others
    moves: ClassVar[bool] = False  # the file goes from ``step.here`` to ``step.there``
    leaves: ClassVar[bool] = False  # ``step.here`` is free afterwards
    follows: ClassVar[bool] = False  # it is an action of its own, which happens only because of the head
    stays_with_file: ClassVar[bool] = False  # if the file is moved later, `is_done` must look at its new name
    beyond_tree: ClassVar[bool] = False  # it changes files elsewhere, which only the user's own state may do

    def begins(self, folders: Folders, step: Step) -> bool:
        """Return whether ``step.here`` is as it must be before the step; OSError if that cannot be seen."""
        raise NotImplementedError

    def check(self, folders: Folders, step: Step, ahead: Ahead) -> str:
        """Return why the step could not be done now, or an empty text; an OSError is a reason as well."""
        return "" if step.here in ahead.altered or self.begins(folders, step) else self.changed

    def do(self, folders: Folders, step: Step) -> None:
        """Do the step, or change nothing: `Changed` if `begins` is False, or another OSError."""
        raise NotImplementedError

    def is_done(self, folders: Folders, step: Step, *, taken_again: bool) -> bool:
        """Return whether the step is done; if it takes two system calls, and one was made, finish it first.

        ``taken_again`` says that a later step has put another file at ``step.here``. OSError if it cannot be seen.
        """
        raise NotImplementedError

    def inverse(self, step: Step) -> Step:
        """Return the step that takes this one back."""
        return step._replace(to=step.was, was=step.to)

    def in_trash_of(self, step: Step, run: str) -> Step:
        """Return the same step, with the trash of a run in place of that of another."""
        return step
