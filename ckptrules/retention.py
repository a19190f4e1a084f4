"""Pure: a table of policy lines; each says which checkpoints it keeps, and why, never just yes or no."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from ckptrules.model import Checkpoint, Policy, PolicyLine, Reason


class Judgement(NamedTuple):
    """What one policy line says: the names it keeps with the reason of each, and what it says of all the others."""

    keeps: Mapping[str, str]
    otherwise: str


class Verdict(NamedTuple):
    """What a policy decides: every name stands in exactly one of the two, with at least one reason."""

    keep: Mapping[str, tuple[Reason, ...]]
    remove: Mapping[str, tuple[Reason, ...]]


def min_epoch(limit: int, checkpoints: Sequence[Checkpoint]) -> Judgement:
    """Keep what has reached the epoch; a name without an epoch is kept, since nobody knows how old it is."""
    keeps = {}
    for checkpoint in checkpoints:
        if checkpoint.epoch is None:
            keeps[checkpoint.entry.name] = "no epoch in its name"
        elif checkpoint.epoch >= limit:
            keeps[checkpoint.entry.name] = f"epoch >= {limit}"
    return Judgement(keeps, f"epoch < {limit}")


KEEP_LINES: Mapping[str, Callable[[int, Sequence[Checkpoint]], Judgement]] = {
    "min_epoch": min_epoch,
}


def apply_policy(policy: Policy, checkpoints: Sequence[Checkpoint], remaining: int) -> Verdict:
    """Decide which checkpoints stay: those that any line keeps, then the newest until the floor holds.

    Args:
        policy: the lines and the floor (``keep_at_least``).
        checkpoints: the candidates, in any order, with distinct names.
        remaining: how many other sound checkpoints of the experiment stay in any case (protected ones, say).
    """
    judgements = [(line, KEEP_LINES[line.key](line.value, checkpoints)) for line in policy.lines]
    keep: dict[str, tuple[Reason, ...]] = {}
    remove: dict[str, tuple[Reason, ...]] = {}
    for name in (checkpoint.entry.name for checkpoint in checkpoints):
        kept_by = tuple(Reason(said.keeps[name], line.place) for line, said in judgements if name in said.keeps)
        if kept_by:
            keep[name] = kept_by
        else:
            remove[name] = tuple(Reason(said.otherwise, line.place) for line, said in judgements)
    floor = Reason(f"keep_at_least: {policy.keep_at_least} (nothing newer remains)", policy.floor_place)
    for checkpoint in sorted(checkpoints, key=lambda checkpoint: checkpoint.age_order, reverse=True):
        if remaining + len(keep) >= policy.keep_at_least:
            break
        if remove.pop(checkpoint.entry.name, None):
            keep[checkpoint.entry.name] = (floor,)
    return Verdict(keep, remove)


def unless_verified(verdict: Verdict, staying: Collection[str], verified: Collection[str]) -> Verdict:
    """Let nothing go where none of the checkpoints that stay is verified.

    Args:
        verdict: what the policy decided.
        staying: all sound checkpoints of the experiment that stay by it, whoever keeps them.
        verified: the names of those that were verified, whether they stay or not.
    """
    if not verdict.remove or not set(staying).isdisjoint(verified):
        return verdict
    reason = Reason("no checkpoint that stays is verified (verified=1)")
    return Verdict({**verdict.keep, **dict.fromkeys(verdict.remove, (reason,))}, {})


def with_min_epoch(policy: Policy, limit: int) -> Policy:
    """Return the policy with its ``min_epoch`` line set, or added: what ``keep_min_epoch=`` asks for."""
    lines = tuple(line for line in policy.lines if line.key != "min_epoch")
    return policy._replace(lines=(PolicyLine("min_epoch", limit, None), *lines))
