"""What may not be touched is set aside: what is not whole, or in conflict, or could not be followed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ckptrules.engine.actions import Kept, Problem
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.rows import stay
from ckptrules.engine.ruleset import Policy, Reason
from ckptrules.engine.series import judge
from ckptrules.engine.sorting import Sorted
from ckptrules.engine.wholeness import BROKEN


def set_aside(
    sound: Sequence[Checkpoint], in_use: Mapping[str, str], marked: Mapping[str, Reason], wanted: Collection[str]
) -> tuple[tuple[Checkpoint, ...], tuple[Kept, ...], tuple[Problem, ...]]:
    """Split off what is not whole: what would be touched is a problem of its own, the rest stays and is nothing more.

    Args:
        sound: the checkpoints that have a name to go to.
        in_use: why some may still be written to.
        marked: what is not whole otherwise; it is not touched.
        wanted: what would go if it were not in use.
    """
    aside = [c for c in sound if c.entry.name in marked or c.entry.name in in_use]
    refused = [c for c in aside if c.entry.name not in marked and (c.target != c.entry.name or c.entry.name in wanted)]
    left = [c for c in aside if c not in refused]
    return (
        tuple(c for c in sound if c not in aside) if aside else tuple(sound),
        tuple(stay(c, c.named_by, why_aside(c.entry.name, in_use, marked)) for c in left),
        tuple(busy_problem(c, in_use[c.entry.name]) for c in refused),
    )


def why_aside(name: str, in_use: Mapping[str, str], marked: Mapping[str, Reason]) -> Reason:
    """Say why a checkpoint is not whole."""
    return marked[name] if name in marked else Reason(in_use[name])


def busy_problem(checkpoint: Checkpoint, why: str) -> Problem:
    """Tell of a checkpoint that may still be written to, and would be touched."""
    return Problem("in_use", checkpoint.names, f"is in use: {why}", "run again when it is finished")


def broken_ones(found: Sorted, marked: Mapping[str, Reason], conflicts: Sequence[Problem]) -> Iterator[Problem]:
    """Tell of what verify found broken, unless it is in conflict as well."""
    told = {name for problem in conflicts for name in problem.names}
    for one in (*found.protected, *found.checkpoints):
        why = marked.get(one.entry.name)
        if why and why.text.startswith(BROKEN) and one.entry.name not in told:
            hint = "bring back a whole one, or remove it; it is left alone and does not count"
            yield Problem("broken", one.names, why.text, hint)


def would_go(
    policy: Policy | None,
    sound: Sequence[Checkpoint],
    found: Sorted,
    evidence: Evidence,
    marked: Mapping[str, Reason],
    linked: Mapping[str, Reason],
) -> Collection[str]:
    """Return the names in use that the policy would let go if they were not."""
    if policy is None or not evidence.in_use:
        return ()
    finished = [checkpoint for checkpoint in sound if checkpoint.entry.name not in marked]
    lost = [c.entry.name for c in found.checkpoints if c.entry.name not in {one.entry.name for one in finished}]
    verdict = judge(policy, finished, found, evidence._replace(verified=None), marked, lost, linked)
    return verdict.remove.keys() & evidence.in_use.keys()


def held_by_foreign(sound: Iterable[Checkpoint], found: Sorted, evidence: Evidence) -> dict[str, Problem]:
    """Tell which checkpoints keep their names: a pointer file names them that would become ours by following."""
    heads = found.heads if evidence.foreign else {}
    owners = {
        heads.get(mention.name, mention.name): (pointer, owner)
        for pointer, owner in evidence.foreign.items()
        for mention in evidence.pointers[pointer]
        if not mention.text.isdigit()
    }
    held = [c for c in sound if c.entry.name in owners and c.target != c.entry.name]
    text = "cannot be renamed to {}: {} names it, and belongs to {}"
    return {
        c.entry.name: Problem(
            "foreign",
            c.names,
            text.format(c.target, *owners[c.entry.name]),
            "let the owner of both run this, or root",
        )
        for c in held
    }


def hold_for_links(
    sound: Sequence[Checkpoint], found: Sorted, disputed: Collection[str]
) -> tuple[tuple[Checkpoint, ...], tuple[Kept, ...]]:
    """Split off what a link in conflict points to: the link may not be touched, so it could not follow."""
    heads = found.heads
    links = [link for link in found.links if link.name in disputed]
    holders = {heads.get(link.sibling, link.sibling): link.name for link in links if link.sibling}
    held = tuple(
        stay(c, Reason(f"{holders[c.entry.name]} points to it and is in conflict"))
        for c in sound
        if c.entry.name in holders
    )
    return tuple(c for c in sound if c.entry.name not in holders), held


def without(found: Sorted, disputed: Collection[str]) -> Sorted:
    """Take out what a conflict tells of already."""
    return found._replace(
        links=tuple(link for link in found.links if link.name not in disputed),
        problems=tuple(problem for problem in found.problems if not set(disputed).intersection(problem.names)),
        skipped=tuple(row for row in found.skipped if row.name not in disputed),
        protected=tuple(one for one in found.protected if one.entry.name not in disputed),
    )
