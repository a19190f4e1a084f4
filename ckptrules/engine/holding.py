"""What holds a checkpoint, or its name; what is set aside, as it is not whole, in conflict, or cannot be followed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ckptrules.engine.actions import Kept, Problem
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.companions import Pairs
from ckptrules.engine.conflicts import Known
from ckptrules.engine.entries import Entry, Listing, OutsideLink
from ckptrules.engine.pointers import Texts, cannot_follow
from ckptrules.engine.rows import stay
from ckptrules.engine.ruleset import Policy, Reason
from ckptrules.engine.series import judge
from ckptrules.engine.sorting import Sorted
from ckptrules.engine.wholeness import BROKEN

# What a trainer saves with the weights; of Flax, the arrays of other processes.
_TWIN = re.compile(r"[-_.](?:ema|optim|optimizer|gda)(?=\.|$)|^(?:ema|optim|optimizer)[-_.]?(?=\d)", re.IGNORECASE)
_IN_FRONT = re.compile(r"^[A-Za-z]+[-_.]?(?=\d)")  # model_1.pth, beside optimizer_1.pth


def holders(found: Sorted, evidence: Evidence) -> dict[str, Reason]:
    """Map the names that links and pointer files lead to, that checkpoints call the best, or that are pinned or spared.

    What leads to a part, a sidecar or a left link leads to its owner.
    """
    named = {name: Reason(f"{file} calls it the best") for name, file in evidence.best_inside.items()}
    mentions = [(one, pointer) for pointer, said in sorted(evidence.pointers.items()) for one in said if one.protects]
    named |= {one.name: Reason(f"{pointer} names it") for one, pointer in mentions}
    named |= link_targets(found.links, evidence.links)
    named |= {**evidence.spared, **evidence.pins}
    if not named:
        return {}
    heads = found.heads
    return {heads.get(name, name): reason for name, reason in named.items()}


def link_targets(links: Sequence[Entry], elsewhere: Sequence[OutsideLink]) -> dict[str, Reason]:
    """Map the names that links of this directory or of others point to."""
    named = [*((link.name, link) for link in links), *((f"{d}/{link.name}".lstrip("/"), link) for d, link in elsewhere)]
    return {link.sibling: Reason(f"{name} points to it") for name, link in named if link.sibling}


def unfollowed(listing: Listing, elsewhere: Sequence[OutsideLink]) -> dict[str, Reason]:
    """Map what links lead to that could not follow, so it stays: through a link outside of the tree, that is not ours.

    So does what links name that lead nowhere, as in a tree that was moved.
    """
    links = sorted(entry for entry in listing.entries if entry.dangling)
    text = "{}, a link that leads nowhere, names it"
    named = {part: Reason(text.format(link.name)) for link in links for part in link.link_text.split("/")}
    return named | link_targets((), [row for row in elsewhere if not row.entry.link_text])


def twins(found: Sorted) -> dict[str, Reason]:
    """Map checkpoints to why they stay as they are: beside each stands what looks like a part, and no rule reads it."""
    unread = {_TWIN.sub("", row.name): row.name for row in found.skipped if row.kind == "unrecognised"}
    if not unread:
        return {}
    by_word = {rest: name for rest, name in unread.items() if rest != name}  # 7.pth beside model_7.pth says nothing
    pairs = [(one, name) for one in found.checkpoints for name in one.names]
    beside = [(c, unread.get(_TWIN.sub("", name)) or by_word.get(_IN_FRONT.sub("", name))) for c, name in pairs]
    text = "no rule reads {}, which may belong to it"
    return {one.entry.name: Reason(text.format(twin), one.named_by.place) for one, twin in beside if twin}


def twin_notes(found: Sorted) -> Iterator[Reason]:
    """Yield what stays as it is because of a twin, and what would have both go together."""
    if held := twins(found):
        first = min(held)
        stays = f"and {len(held) - 1} more stay as they are" if len(held) > 1 else "stays as it is"
        why = f"{first} {stays}: {held[first].text}; a rule with a group 'part' takes both"
        yield Reason(why, held[first].place)


def under_their_names(found: Sorted, spared: Mapping[str, Reason]) -> Sorted:
    """Let what is spared keep its name, whatever the rules would make of it: nothing of it is moved."""
    why = {found.heads.get(name, name): reason for name, reason in spared.items()}
    return found._replace(checkpoints=tuple(_as_it_is(one, why.get(one.entry.name)) for one in found.checkpoints))


def _as_it_is(one: Checkpoint, why: Reason | None) -> Checkpoint:
    """Let a checkpoint keep its name, where there is a reason and it is to have another one."""
    if why is None or one.target == one.entry.name:
        return one
    parts = tuple(part._replace(target=part.entry.name) for part in one.parts)
    return one._replace(target=one.entry.name, named_by=why, parts=parts)


def unless_unfollowed(checkpoint: Checkpoint, pairs: Pairs, texts: Texts) -> Checkpoint:
    """Let a checkpoint keep its name where a pointer file that names it could not follow."""
    name, target = checkpoint.entry.name, checkpoint.target
    renames = {name: target, **dict(pairs.get(name, ()))}
    pointer = cannot_follow(texts, renames, checkpoint.fields)
    why = Reason(f"{pointer} names it, and could not follow to {target}")
    return _as_it_is(checkpoint, why if pointer else None)


# --- what may not be touched -----------------------------------------------------------------------------------------


def set_aside(
    sound: Sequence[Checkpoint], busy: Mapping[str, Reason], marked: Collection[str], wanted: Collection[str]
) -> tuple[tuple[Checkpoint, ...], tuple[Kept, ...], tuple[Problem, ...]]:
    """Split off what is not whole: it stays, and what would be touched is a problem of its own.

    ``busy`` says why some are not whole, what is in use among them; those that are not whole for more than that are
    ``marked``, and not touched. ``wanted`` is what would go if it were not in use.
    """
    aside = [c for c in sound if c.entry.name in busy]
    touched = [c for c in aside if c.entry.name not in marked and (c.target != c.entry.name or c.entry.name in wanted)]
    why, hint = "is in use: {}", "run again when it is finished"
    return (
        tuple(c for c in sound if c.entry.name not in busy),
        tuple(stay(c, c.named_by, busy[c.entry.name]) for c in aside),
        tuple(Problem("in_use", c.names, why.format(busy[c.entry.name].text), hint) for c in touched),
    )


def broken_ones(found: Sorted, marked: Mapping[str, Reason], conflicts: Sequence[Problem]) -> Iterator[Problem]:
    """Tell of what verify, or a glance, found broken, unless it is in conflict as well."""
    told = {name for problem in conflicts for name in problem.names}
    for one in (*found.protected, *found.checkpoints):
        why = marked.get(one.entry.name)
        if why and why.text.startswith(BROKEN) and one.entry.name not in told:
            hint = "if nothing writes it any more, bring back a whole one or remove it; it does not count"
            yield Problem("broken", one.names, why.text, hint)


def would_go(
    policy: Policy | None, sound: Sequence[Checkpoint], found: Sorted, evidence: Evidence, known: Known
) -> Collection[str]:
    """Return the names in use that the policy would let go if they were not."""
    if policy is None or not evidence.in_use:
        return ()
    finished = [checkpoint for checkpoint in sound if checkpoint.entry.name not in known.marked]
    lost = {one.entry.name for one in found.checkpoints}.difference(one.entry.name for one in finished)
    verdict = judge(policy, finished, found, evidence._replace(verified=None), known._replace(busy=known.marked), lost)
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
    text, hint = "cannot be renamed to {}: {} names it, and belongs to {}", "let the owner of both run this, or root"
    return {
        c.entry.name: Problem("foreign", c.names, text.format(c.target, *owners[c.entry.name]), hint)
        for c in sound
        if c.entry.name in owners and c.target != c.entry.name
    }


def hold_for_links(sound: Sequence[Checkpoint], found: Sorted, disputed: Collection[str]) -> tuple[Checkpoint, ...]:
    """Let what a link in conflict points to keep its name: the link may not be touched, so it could not follow."""
    links = [link for link in found.links if link.name in disputed and link.sibling]
    why = {
        found.heads.get(link.sibling or "", link.sibling): Reason(f"{link.name} points to it and is in conflict")
        for link in links
    }
    return tuple(_as_it_is(one, why.get(one.entry.name)) for one in sound)


def without(found: Sorted, disputed: Collection[str]) -> Sorted:
    """Take out what a conflict tells of already."""
    return found._replace(
        links=tuple(link for link in found.links if link.name not in disputed),
        problems=tuple(problem for problem in found.problems if not set(disputed).intersection(problem.names)),
        skipped=tuple(row for row in found.skipped if row.name not in disputed),
        protected=tuple(one for one in found.protected if one.entry.name not in disputed),
    )
