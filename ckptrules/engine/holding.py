"""What leads to a checkpoint, and so holds it, or its name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ckptrules.engine.checkpoints import Checkpoint, Evidence, Mention
from ckptrules.engine.companions import Pairs
from ckptrules.engine.entries import Entry, OutsideLink
from ckptrules.engine.pointers import cannot_follow
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.sorting import Sorted


def holders(found: Sorted, evidence: Evidence) -> dict[str, Reason]:
    """Map the names that links and pointer files lead to, that checkpoints call the best, or that are pinned or spared.

    What leads to a part, a sidecar or a left link leads to its owner.
    """
    named = {name: Reason(f"{file} calls it the best") for name, file in evidence.best_inside.items()}
    named |= {**named_by_pointers(evidence.pointers), **link_targets(found.links, evidence.links)}
    named |= {**evidence.spared, **evidence.pins}
    if not named:
        return {}
    heads = found.heads
    return {heads.get(name, name): reason for name, reason in named.items()}


def link_targets(links: Sequence[Entry], elsewhere: Sequence[OutsideLink]) -> dict[str, Reason]:
    """Map the names that links of this directory or of others point to."""
    named = [*((link.name, link) for link in links), *((f"{d}/{link.name}".lstrip("/"), link) for d, link in elsewhere)]
    return {link.sibling: Reason(f"{name} points to it") for name, link in named if link.sibling}


def named_by_pointers(pointers: Mapping[str, Collection[Mention]]) -> dict[str, Reason]:
    """Map the names that pointer files name, and protect by that."""
    rows = ((mention, pointer) for pointer, said in sorted(pointers.items()) for mention in said)
    return {mention.name: Reason(f"{pointer} names it") for mention, pointer in rows if mention.protects}


def under_their_names(found: Sorted, spared: Mapping[str, Reason]) -> Sorted:
    """Let what is spared keep its name, whatever the rules would make of it: nothing of it is moved."""
    why = {found.heads.get(name, name): reason for name, reason in spared.items()}

    def as_it_is(one: Checkpoint) -> Checkpoint:
        if one.entry.name not in why or one.target == one.entry.name:
            return one
        parts = tuple(part._replace(target=part.entry.name) for part in one.parts)
        return one._replace(target=one.entry.name, named_by=why[one.entry.name], parts=parts)

    return found._replace(checkpoints=tuple(map(as_it_is, found.checkpoints)))


def unless_unfollowed(checkpoint: Checkpoint, pairs: Pairs, evidence: Evidence) -> Checkpoint:
    """Let a checkpoint keep its name where a pointer file that names it could not follow."""
    name, target = checkpoint.entry.name, checkpoint.target
    renames = {name: target, **dict(pairs.get(name, ()))}
    pointer = cannot_follow(evidence.pointers, renames, checkpoint.fields) if name != target else ""
    reason = Reason(f"{pointer} names it, and could not follow to {target}")
    return checkpoint._replace(target=name, named_by=reason) if pointer else checkpoint
