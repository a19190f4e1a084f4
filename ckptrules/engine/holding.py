"""Find what holds a checkpoint or its name, and set aside what may not be touched. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ckptrules.engine.actions import Problem
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.entries import Entry, Listing, OutsideLink, Spot
from ckptrules.engine.names.case import Case
from ckptrules.engine.names.companions import Pairs
from ckptrules.engine.names.sorting import Sorted
from ckptrules.engine.names.words import ENDING, KEYS
from ckptrules.engine.pointers import Texts, cannot_follow
from ckptrules.engine.policy.series import judge
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.whole.cut_short import apart
from ckptrules.engine.whole.wholeness import BROKEN

_BESIDE = frozenset("ema gda optim optims optimizer opt scheduler sched scaler".split())  # of any model, gpt_1.pth, too
_IN_FRONT = re.compile(r"^[A-Za-z]+[-_.]?(?=\d)")  # model_1.pth, beside optimizer_1.pth


def holders(found: Sorted, evidence: Evidence) -> dict[str, Reason]:
    """Return why checkpoints are held, by head: a link or pointer leads to them, they are the best, pinned or spared.

    A part, a sidecar or a left link that is named holds its whole checkpoint.
    """
    reasons = {name: Reason(f"{file} calls it the best") for name, file in evidence.best_inside.items()}
    for pointer, mentions in sorted(evidence.pointers.items()):
        reasons |= {mention.name: Reason(f"{pointer} names it") for mention in mentions if mention.protects}
    reasons |= link_targets(found.links, evidence.links)
    text = "no newer save is whole in {}, too"
    reasons |= {name: Reason(text.format(" and ".join(folders))) for name, folders in evidence.beside.items()}
    reasons |= {**evidence.spared, **evidence.pins}
    heads = found.heads if reasons else {}
    return {heads.get(name, name): reason for name, reason in reasons.items()}


def link_targets(links: Sequence[Entry], elsewhere: Sequence[OutsideLink]) -> dict[str, Reason]:
    """Map each name that a link of this directory or of another one points to, to the reason that says so."""
    paths = [*((link.name, link) for link in links), *((Spot(d, link.name).path, link) for d, link in elsewhere)]
    return {link.sibling: Reason(f"{path} points to it") for path, link in paths if link.sibling}


def unfollowed(listing: Listing, elsewhere: Sequence[OutsideLink]) -> dict[str, Reason]:
    """Return why names stay that links lead to which could not follow a rename.

    Those are links that lead here through a link outside of the tree, which is not ours to change; and links that lead
    nowhere but hold the name, as in a tree that was moved.
    """
    links = sorted(entry for entry in listing.entries if entry.dangling)
    text = "{}, a link that leads nowhere, names it"
    named = {part: Reason(text.format(link.name)) for link in links for part in link.link_text.split("/")}
    return named | link_targets((), [row for row in elsewhere if not row.entry.link_text])


def twins(found: Sorted) -> dict[str, Reason]:
    """Return why checkpoints stay as they are: beside each lies a file that may be a part of it and fits no rule."""
    unread = [row.name for row in found.skipped if row.kind == "unrecognised"]
    told = [(name, *apart(name)) for name in reversed(unread)]
    like = {_bare(words): name for name, words, roles in told if roles and any(map(str.isdigit, words))}
    beside = {words: name for name, words, roles in told if roles and roles <= _BESIDE}
    plain = {words: name for name, words, roles in told if not (roles or all(map(str.isdigit, words)))}
    other_of_two = {
        (words, roles - _BESIDE, roles.isdisjoint(_BESIDE)): name
        for name, words, roles in told
        if words or roles - _BESIDE
    }  # D_best_ema.pth, beside D_best.pth, and the other way round
    longer = {name[:end]: name for name in reversed(unread) if ENDING.search(name) for end in _ends(name)}
    reasons = {}
    for one in found.checkpoints if unread else ():
        for name in one.names:
            words, roles = apart(name)  # 7.pth is no twin of model_7.pth
            other = (
                like.get(_bare(words))
                or beside.get(apart(_IN_FRONT.sub("", name))[0])
                or longer.get(ENDING.sub("", name))
            )
            other = other or other_of_two.get((words, roles - _BESIDE, not roles.isdisjoint(_BESIDE)))
            if twin := other or (plain.get(words) if roles else None):
                reasons[one.entry.name] = Reason(f"no rule reads {twin}, which may belong to it", one.named_by.place)
    return reasons


def _bare(words: Iterable[str]) -> tuple[str, ...]:
    """Return words without those for epoch or step: ``optimizer_10_g.pth`` is of the save of ``epoch10_g.pth``."""
    return tuple(word for word in words if word not in KEYS)


def _ends(name: str) -> Iterator[int]:
    """Yield the places in a name where that of a file may end to which it belongs: ``x`` of ``x_D1.pth``."""
    return (divider.start() for divider in re.finditer(r"(?<=[0-9])[-_](?=(?!v[0-9])[A-Za-z])", name))


def twin_notes(found: Sorted) -> Iterator[Reason]:
    """Yield one note on the checkpoints with a twin, and the rule that would take both along."""
    if held := twins(found):
        first = min(held)
        stays = f"and {len(held) - 1} more stay as they are" if len(held) > 1 else "stays as it is"
        why = f"{first} {stays}: {held[first].text}; a rule with a group 'part' takes both"
        yield Reason(why, held[first].place)


def under_their_names(found: Sorted, spared: Mapping[str, Reason]) -> Sorted:
    """Return the sorted names with each spared checkpoint under its present name, with all its parts."""
    heads = found.heads
    why = {heads.get(name, name): reason for name, reason in spared.items()}
    return found._replace(checkpoints=tuple(_as_it_is(one, why.get(one.entry.name)) for one in found.checkpoints))


def _as_it_is(one: Checkpoint, why: Reason | None) -> Checkpoint:
    """Return a checkpoint with its present name as its target, if there is a reason for that."""
    if why is None or one.target == one.entry.name:
        return one
    parts = tuple(part._replace(target=part.entry.name) for part in one.parts)
    return one._replace(target=one.entry.name, named_by=why, parts=parts)


def unless_unfollowed(checkpoint: Checkpoint, pairs: Pairs, texts: Texts) -> Checkpoint:
    """Return a checkpoint, with its present name as its target where a pointer file names it and could not follow."""
    name, target = checkpoint.entry.name, checkpoint.target
    renames = {name: target, **dict(pairs.get(name, ()))}
    pointer = cannot_follow(texts, renames, checkpoint.fields)
    why = Reason(f"{pointer} names it, and could not follow to {target}")
    return _as_it_is(checkpoint, why if pointer else None)


# --- what may not be touched -----------------------------------------------------------------------------------------


def in_use(case: Case, sound: Sequence[Checkpoint]) -> Iterator[Problem]:
    """Yield a problem for each candidate in use that would be changed if it were not in use."""
    goes: Collection[str] = ()
    if case.policy and case.evidence.in_use:
        finished = [checkpoint for checkpoint in sound if checkpoint.entry.name not in case.marked]
        lost = {one.entry.name for one in case.found.checkpoints}.difference(one.entry.name for one in finished)
        unused = case._replace(evidence=case.evidence._replace(verified=None), busy=case.marked)
        goes = judge(unused, case.policy, finished, lost).remove.keys() & case.evidence.in_use.keys()
    for one in sound:
        name, hint = one.entry.name, "run again when it is finished"
        if name in case.busy and name not in case.marked and (one.target != name or name in goes):
            yield Problem("in_use", one.names, f"is in use: {case.busy[name].text}", hint)


def broken_ones(case: Case, conflicts: Sequence[Problem]) -> Iterator[Problem]:
    """Yield a problem for each checkpoint with broken content that is in no conflict."""
    in_conflict = {name for problem in conflicts for name in problem.names}
    for one in (*case.found.protected, *case.found.checkpoints):
        why = case.marked.get(one.entry.name)
        if why and why.id == BROKEN and one.entry.name not in in_conflict:
            hint = "if nothing writes it any more, bring back a whole one or remove it; it does not count"
            yield Problem("broken", one.names, why.text, hint)


def held_by_foreign(case: Case, sound: Iterable[Checkpoint]) -> dict[str, Problem]:
    """Return, by head, the problem that a pointer file of another owner names a checkpoint to rename.

    A pointer file that follows is written anew, and would then be ours.
    """
    evidence, owners = case.evidence, {}
    heads = case.found.heads if evidence.foreign else {}
    for pointer, owner in evidence.foreign.items():
        for mention in evidence.pointers[pointer]:
            if not mention.text.isdigit():
                owners[heads.get(mention.name, mention.name)] = pointer, owner
    text, hint = "cannot be renamed to {}: {} names it, and belongs to {}", "let the owner of both run this, or root"
    return {
        c.entry.name: Problem("foreign", c.names, text.format(c.target, *owners[c.entry.name]), hint)
        for c in sound
        if c.entry.name in owners and c.target != c.entry.name
    }


def hold_for_links(sound: Sequence[Checkpoint], found: Sorted, disputed: Collection[str]) -> tuple[Checkpoint, ...]:
    """Return the candidates; those that a link in conflict points to keep their names, as the link cannot follow."""
    heads, text = found.heads, "{} points to it and is in conflict"
    links = [(link.sibling or "", link.name) for link in found.links if link.name in disputed]
    why = {heads.get(leads_to, leads_to): Reason(text.format(name)) for leads_to, name in links}
    return tuple(_as_it_is(one, why.get(one.entry.name)) for one in sound)


def without(found: Sorted, disputed: Collection[str]) -> Sorted:
    """Return the sorted names without those that a conflict or problem names already."""
    return found._replace(
        links=tuple(link for link in found.links if link.name not in disputed),
        problems=tuple(problem for problem in found.problems if not set(disputed).intersection(problem.names)),
        skipped=tuple(row for row in found.skipped if row.name not in disputed),
        protected=tuple(one for one in found.protected if one.entry.name not in disputed),
    )
