"""Define what a plan is made of: a directory as it is to be planned, and what conflicts leave of it."""

# Without `from __future__ import annotations`: NamedTuple would compile every annotation again, at every start.

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ckptrules.engine.actions import Kept, OnConflict, Problem
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.entries import Listing
from ckptrules.engine.names.companions import Pairs
from ckptrules.engine.names.sorting import Sorted
from ckptrules.engine.ruleset import Policy, Reason, RuleSet


class Case(NamedTuple):
    """One directory to plan, and what is known of it before conflicts and policy. Maps are by head.

    Attributes:
        listing: the names; with the times that facts give.
        policy: None if nothing may be deleted but losers of a conflict.
        evidence: that of each part is under the head of its checkpoint.
        leave_links: whether a link stays under each old name.
        found: the sorted names.
        pairs: the old and new names of the other parts and sidecars.
        held: why a checkpoint stays in any case.
        marked: why a checkpoint is not whole.
        busy: why a checkpoint is not whole or is in use.
    """

    rules: RuleSet
    listing: Listing
    policy: Policy | None
    on_conflict: OnConflict
    evidence: Evidence
    leave_links: bool
    found: Sorted
    pairs: Pairs
    held: Mapping[str, Reason]
    marked: Mapping[str, Reason]
    busy: Mapping[str, Reason]


class Cleared(NamedTuple):
    """The checkpoints of a case without those that may not be touched.

    ``sound`` are the candidates of the policy. ``losers`` lost a conflict and are deleted, ``winners`` are the names
    that won. ``stays`` are rows of what was set aside, ``problems`` what a person must solve. ``disputed`` are the
    names in conflict or in a problem: they need no other row.
    """

    sound: tuple[Checkpoint, ...]
    losers: tuple[tuple[Checkpoint, Reason], ...]
    winners: tuple[str, ...]
    stays: tuple[Kept, ...]
    problems: tuple[Problem, ...]
    disputed: Collection[str]
