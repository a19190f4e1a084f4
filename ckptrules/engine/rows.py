"""Make the rows of a plan: links and pointer files that follow a rename, and names that stay. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ckptrules.engine.actions import Action, Kept
from ckptrules.engine.checkpoints import Checkpoint, Mention
from ckptrules.engine.entries import Entry, OutsideLink
from ckptrules.engine.names.case import Case, Cleared
from ckptrules.engine.names.naming import reader
from ckptrules.engine.names.sorting import is_left_link, name_of
from ckptrules.engine.pointers import by_name, repoints
from ckptrules.engine.policy.retention import Verdict
from ckptrules.engine.ruleset import Reason, RuleSet


def relink_actions(
    actions: Sequence[Action], links: Sequence[Entry], elsewhere: Sequence[OutsideLink], rules: RuleSet
) -> list[Action]:
    """Return the actions that re-point links whose target is renamed; a relative link stays relative.

    A link with a legacy name that leads to its own new name is a left link, which holds no checkpoint. A link that
    would become one by following gets ``./`` before its text, so that it still holds.
    """
    every = [*(("", link) for link in links), *((d or ".", link) for d, link in elsewhere)]
    renames = _renames(actions) if every else ()
    renamed = {old: (new, action.name) for action, names in renames for old, new in names.items()}
    relinks = []
    for directory, link in every:
        if link.sibling in renamed:
            reasons = (Reason(f"{link.sibling} is renamed"),)
            to, head = renamed[link.sibling]
            text = link.link_text.removesuffix(link.sibling + link.behind) + to + link.behind
            if not directory and is_left_link(link._replace(link_text=text), name_of(link, reader(rules))):
                text = f"./{text}"
            relinks.append(
                Action("relink", link.name, text, 0, reasons, follows=head, was=link.link_text, directory=directory)
            )
    return relinks


def repoint_actions(actions: Sequence[Action], pointers: Mapping[str, Sequence[Mention]]) -> list[Action]:
    """Return the actions that write the new names of renamed checkpoints into pointer files."""
    texts = by_name(pointers)
    return [
        Action("repoint", pointer, to, 0, (Reason(f"{was} is renamed"),), follows=action.name, was=was)
        for action, names in (_renames(actions) if texts else ())
        for pointer, was, to in repoints(texts, names)
    ]


def _renames(actions: Iterable[Action]) -> Iterator[tuple[Action, dict[str, str]]]:
    """Yield each rename, with the old and new names of the checkpoint, its other parts and its sidecars."""
    yield from ((a, {a.name: a.to, **dict(a.with_it)}) for a in actions if a.kind == "rename")


def names_that_stay(case: Case, cleared: Cleared, verdict: Verdict, actions: Sequence[Action]) -> list[Kept]:
    """List what stays as it is: one row for each checkpoint and link, and for each other name that is in no row yet."""
    found = case.found
    relinked = {action.name for action in actions if action.follows and not action.directory}
    rows = [*cleared.stays]
    for one in found.protected:
        why_busy = case.busy.get(one.entry.name)
        rows.append(stay(one, one.named_by, *([Reason(why_busy.text)] if why_busy else [])))
    rows += [
        Kept(link.name, 0, (Reason(f"link to {link.link_text}"),)) for link in found.links if link.name not in relinked
    ]
    rows += [
        stay(c, *why_it_stays(c, verdict))
        for c in cleared.sound
        if c.target == c.entry.name and c.entry.name not in verdict.remove
    ]
    belongs = {own.name: f"belongs to {owner}" for owner, owned in sorted(found.sidecars.items()) for own in owned}
    belongs |= {name: f"is a part of {one.entry.name}" for one in found.every for name in one.names[1:]}
    have_rows = {name for row in rows for name in row.names}.union(cleared.disputed)
    have_rows |= {name for action in actions for name, _ in action.with_it}
    return rows + [
        Kept(entry.name, entry.size, (Reason(belongs[entry.name]),))
        for entry in case.listing.entries
        if entry.name in belongs and entry.name not in have_rows
    ]


def stay(checkpoint: Checkpoint, *reasons: Reason) -> Kept:
    """Return the row of a checkpoint that stays as it is."""
    return Kept(checkpoint.entry.name, checkpoint.entry.size, reasons, checkpoint.names[1:], is_checkpoint=True)


def why_it_stays(checkpoint: Checkpoint, verdict: Verdict) -> tuple[Reason, ...]:
    """Return the reason for a checkpoint's name, and the reasons of the policy to keep it, if there is a policy."""
    return tuple(dict.fromkeys((checkpoint.named_by, *verdict.keep.get(checkpoint.entry.name, ()))))
