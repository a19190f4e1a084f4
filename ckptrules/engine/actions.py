"""What a plan consists of, and the steps by which it comes true."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

from collections.abc import Mapping
from typing import Literal, NamedTuple

from ckptrules.engine.entries import HardLinks, Identity, Spot
from ckptrules.engine.ruleset import PolicyLine, Reason

DELETES = frozenset({"trash", "sweep"})  # kinds of actions: a checkpoint goes to the trash, a leftover does
OnConflict = Literal["report", "keep_newest", "keep_largest", "skip", "merge_identical"]


class Action(NamedTuple):
    """One change, of a kind that `changes.kinds` knows; ``to`` is the new name, or text of a link, if there is one.

    ``with_it`` are the other parts of a checkpoint, ``parts`` in number, and then its sidecars: old and new name of
    each, the new one empty where they go to the trash. ``keep_in_trash`` says that it waits there in any case. A link
    that is re-pointed ``follows`` a checkpoint, by its old name, and ``was`` its text; ``directory`` is where the link
    is, below ``outputs_dir``, where that is not the directory of the plan. A pointer file that is to name another
    checkpoint (``repoint``) follows in the same way. ``leaves_link`` says that a link stays under the old name.
    ``saves`` are policy lines each of which would keep what goes.
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
        """All names that change with it, as they are before."""
        return (self.name, *(old for old, _ in self.with_it))


class Kept(NamedTuple):
    """A name that stays as it is, with the other names that are one checkpoint with it; links and sidecars are none."""

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
    """A name that is left alone because the rules do not speak of it (``unrecognised``) or say to (``ignored``)."""

    name: str
    kind: Literal["unrecognised", "ignored"]
    reason: Reason


class Problem(NamedTuple):
    """Something only a person can solve; ``names`` are left untouched. ``remarks``, if any, are on each of them."""

    id: str
    names: tuple[str, ...]
    text: str
    hint: str = ""
    remarks: tuple[str, ...] = ()


def said_of(name: str, fault: str) -> str:
    """Write a fault behind the name of what has it: ``x.ckpt is cut off``, ``x.ckpt: its header is damaged``."""
    return f"{name}{':' * fault.startswith(('it ', 'its '))} {fault}"


class Plan(NamedTuple):
    """What is to happen in one checkpoint directory, and why; after a run, what did happen.

    ``policy`` says which policy decided about deletion; ``notes`` are what it has to say of the directory as a whole.
    ``remaining`` is the number of sound checkpoints that stay. ``rests_on`` are names that must be whole: those that
    stay and without which less would go, and the one written last of those that get another name. ``unwhole`` are
    names that are not: what is made of them may soon be otherwise though no name changes, so that it is not
    remembered. ``keeps`` counts what each line keeps. ``blind`` says that something goes by the policy though nothing
    tells which checkpoint is the best; ``best_goes`` are the metrics by which the best of a series goes.
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
        """Whole checkpoints that stay and that no problem holds."""
        kept = {row.name for row in self.kept if row.is_checkpoint}
        return (kept | {action.name for action in self.actions if action.kind == "rename"}).difference(self.unwhole)

    @property
    def going(self) -> set[str]:
        """All names that go."""
        return {name for action in self.actions if action.kind in DELETES for name in action.names}

    @property
    def not_going(self) -> set[str]:
        """All names that stay, those that become others among them."""
        kept = {name for row in self.kept for name in row.names}
        return kept.union(*(action.names for action in self.actions if action.kind == "rename"))


class Step(NamedTuple):
    """One change of one name, with all that is needed to repeat it, and to take it back.

    What the fields mean, each kind says (`changes.kinds`). Directories are paths below ``outputs_dir``.
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
        """Where the change begins."""
        return Spot(self.directory, self.name)

    @property
    def there(self) -> Spot:
        """Where it leads, if it leads anywhere else."""
        return Spot(self.to_directory, self.to)


class Unit(NamedTuple):
    """Steps that belong together, all or none: a checkpoint first, then its sidecars and the links that follow it.

    ``kind`` is that of the action that they carry out, ``size`` that of the checkpoint, in bytes. Of a checkpoint that
    is several files, ``parts`` of the steps behind the first move the others: the first of those, or the last where it
    is negative, in a unit that takes another back. ``shared`` are the files of it with several names.
    """

    kind: str
    size: int
    steps: tuple[Step, ...]
    parts: int = 0
    shared: tuple[HardLinks, ...] = ()


Piece = bytes | tuple[int, int]
"""Bytes, or a range of the old file: its first byte, and the one behind its last."""


class Recipe(NamedTuple):
    """A recipe for a new file, and which texts it changes: old → new."""

    parts: tuple[Piece, ...]
    changes: dict[str, str]

    @property
    def size(self) -> int:
        """The bytes that the new file will have."""
        return sum(len(part) if isinstance(part, bytes) else part[1] - part[0] for part in self.parts)
