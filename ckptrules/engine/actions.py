"""Define plans (actions, rows, problems) and the units and steps that carry them out."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ckptrules.engine.entries import HardLinks, Identity, Spot
from ckptrules.engine.ruleset import PolicyLine, Reason

DELETES = frozenset({"trash", "sweep"})  # kinds of actions: a checkpoint, or a leftover, is moved to the trash
OnConflict = Literal["report", "keep_newest", "keep_largest", "skip", "merge_identical"]


class Action(NamedTuple):
    """One change of a plan.

    Attributes:
        kind: a kind that `changes.kinds` knows.
        name: the present name.
        to: the new name, or the new text of a link or pointer file; empty for a deletion.
        size: bytes.
        reasons: why.
        with_it: old and new name of the other parts and then of the sidecars; the new one is empty for a deletion.
        keep_in_trash: whether it stays in the trash whatever ``trash_days`` says.
        follows: the old name of the renamed checkpoint that a link or pointer file follows.
        was: the old text in that link or pointer file.
        directory: of such a link, its directory below ``outputs_dir``; empty for the directory of the plan.
        leaves_link: whether a link stays under the old name.
        saves: the policy lines that would each keep a deleted checkpoint.
        parts: how many of ``with_it`` are parts.
    """

    kind: str
    name: str
    to: str
    size: int
    reasons: tuple[Reason, ...]
    with_it: tuple[tuple[str, str], ...] = ()
    keep_in_trash: bool = False
    follows: str = ""
    was: str = ""
    directory: str = ""
    leaves_link: bool = False
    saves: tuple[PolicyLine, ...] = ()
    parts: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All present names that this action changes."""
        return (self.name, *dict(self.with_it))


class Kept(NamedTuple):
    """A name that stays as it is; ``with_it`` are the other names of its checkpoint. Links and sidecars are none."""

    name: str
    size: int
    reasons: tuple[Reason, ...]
    with_it: tuple[str, ...] = ()
    is_checkpoint: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the checkpoint."""
        return (self.name, *self.with_it)


class Skipped(NamedTuple):
    """A name that is no checkpoint: no rule fits it (``unrecognised``), or a rule says so (``ignored``)."""

    name: str
    kind: Literal["unrecognised", "ignored"]
    reason: Reason


class Problem(NamedTuple):
    """Something that only a person can solve; ``names`` are left alone. ``remarks``, if any, are one for each name."""

    id: str
    names: tuple[str, ...]
    text: str
    hint: str = ""
    remarks: tuple[str, ...] = ()


def said_of(name: str, fault: str) -> str:
    """Join a name and its fault: ``x.ckpt is cut off``, ``x.ckpt: its header is damaged``."""
    return f"{name}{':' * fault.startswith(('it ', 'its '))} {fault}"


class Plan(NamedTuple):
    """What is to happen in one checkpoint directory, and why; after a run, what did happen.

    Attributes:
        actions: the changes.
        kept: the names that stay.
        skipped: the names that are no checkpoints.
        problems: what only a person can solve.
        notes: notes on the directory as a whole.
        policy: the policy that decided about deletion; None without one.
        remaining: the number of checkpoints that stay, without those that are not whole or are in use.
        rests_on: names that must be whole: without one of them less would be deleted, or it is the renamed checkpoint
            that was written last.
        unwhole: names that are not whole or are in use. With any of these the plan is not remembered: it may change
            although no name does.
        keeps: how many checkpoints each policy line keeps.
        blind: whether the policy deletes something although nothing says which checkpoint is the best.
        best_goes: the metrics whose best checkpoint in a series is deleted.
    """

    experiment: str
    directory: str
    actions: tuple[Action, ...] = ()
    kept: tuple[Kept, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[Reason, ...] = ()
    policy: Reason | None = None
    remaining: int = 0
    rests_on: tuple[str, ...] = ()
    unwhole: tuple[str, ...] = ()
    keeps: Mapping[PolicyLine, int] = {}
    blind: bool = False
    best_goes: tuple[str, ...] = ()

    @property
    def staying(self) -> set[str]:
        """Names of whole checkpoints that stay and have no problem."""
        kept = {row.name for row in self.kept if row.is_checkpoint}
        return (kept | {action.name for action in self.actions if action.kind == "rename"}).difference(self.unwhole)

    @property
    def going(self) -> set[str]:
        """All names that are deleted."""
        return {name for action in self.actions if action.kind in DELETES for name in action.names}

    @property
    def not_going(self) -> set[str]:
        """All names that stay or are renamed."""
        kept = {name for row in self.kept for name in row.names}
        return kept.union(*(action.names for action in self.actions if action.kind == "rename"))


class Step(NamedTuple):
    """One system call on one name, with all that repeating or undoing it needs.

    Each kind (`changes.kinds`) gives the fields their meaning. Directories are paths below ``outputs_dir``.
    """

    kind: str
    directory: str
    name: str
    to_directory: str
    to: str
    was: str = ""
    identity: Identity = Identity("link", 0, 0)

    @property
    def here(self) -> Spot:
        """The name before the change."""
        return Spot(self.directory, self.name)

    @property
    def there(self) -> Spot:
        """The name after the change."""
        return Spot(self.to_directory, self.to)


class Unit(NamedTuple):
    """Steps that are made together or not at all: a checkpoint first, then its parts, sidecars and links.

    ``kind`` is that of the action, ``size`` the bytes of the checkpoint. ``parts`` is how many steps after the first
    move other parts of the checkpoint: the first ones, or the last ones if it is negative, in a unit that undoes
    another. ``shared`` are files of the checkpoint that have several names.
    """

    kind: str
    size: int
    steps: tuple[Step, ...]
    parts: int = 0
    shared: tuple[HardLinks, ...] = ()


Piece = bytes | tuple[int, int]
"""Bytes, or a range of the old file: its start, and its end (exclusive)."""


class Recipe(NamedTuple):
    """How to build a new file from an old one: its ``parts`` in order, and the ``changes`` of texts, old to new."""

    parts: tuple[Piece, ...]
    changes: dict[str, str]

    @property
    def size(self) -> int:
        """The size of the new file in bytes."""
        return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in self.parts)
