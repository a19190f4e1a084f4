"""Pure: rules + one listing → the plan. What this file decides, nothing else may change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ckptrules.engine.actions import Action, Kept, OnConflict, Plan, Problem, Skipped
from ckptrules.engine.checkpoints import Checkpoint, Evidence, Mention
from ckptrules.engine.companions import Pairs, by_name_only, kept_sidecars, line_for, new_names, take_along, too_long
from ckptrules.engine.conflicts import resolve
from ckptrules.engine.entries import Entry, Listing, OutsideLink
from ckptrules.engine.facts import believed
from ckptrules.engine.leftovers import sweep
from ckptrules.engine.living import live_run
from ckptrules.engine.packs import UNDECIDED
from ckptrules.engine.pointers import cannot_follow, repoints
from ckptrules.engine.retention import NOTHING, Verdict
from ckptrules.engine.ruleset import Policy, Reason, RuleSet
from ckptrules.engine.series import fields_that_differ, judge
from ckptrules.engine.sorting import Sorted, beside, sort_entries
from ckptrules.engine.wholeness import BROKEN, complete_lines, unwhole


def make_plan(
    rules: RuleSet,
    listing: Listing,
    policy: Policy | None = None,
    on_conflict: OnConflict = "report",
    evidence: Evidence = Evidence(),  # noqa: B008 - a value, never changed
    *,
    leave_links: bool = False,
) -> Plan:
    """Decide everything that is to happen in one checkpoint directory.

    Args:
        rules: the compiled rules.
        listing: the directory as it was read; the order of its entries changes nothing.
        policy: what decides about deletion, or None where nothing may be deleted.
        on_conflict: what becomes of checkpoints that want one name.
        evidence: what was found out beyond the listing.
        leave_links: whether a link stays under each old name.
    """
    plan = _planned(rules, listing, policy, on_conflict, evidence, leave_links=leave_links)
    live = live_run(plan, listing, rules, evidence.now_ns)
    if live is None:
        return plan
    problem, why = live
    spared = {**{entry.name: why for entry in listing.entries}, **evidence.spared}
    still = _planned(rules, listing, None, "report", evidence._replace(spared=spared), leave_links=leave_links)
    touched = {action.name for action in plan.actions}
    kept = tuple(row._replace(reasons=(*row.reasons, why)) if row.name in touched else row for row in still.kept)
    return still._replace(kept=kept, problems=(*still.problems, problem))


def _planned(
    rules: RuleSet,
    listing: Listing,
    policy: Policy | None,
    on_conflict: OnConflict,
    evidence: Evidence,
    *,
    leave_links: bool,
) -> Plan:
    """Decide it as if no run went on."""
    unknown = evidence.best_unknown if policy else ()
    policy = None if unknown else policy
    listing = believed(listing, evidence.times)
    found = sort_entries(rules, listing)
    found = under_their_names(found, evidence.spared) if evidence.spared else found
    evidence = by_heads(evidence, found)
    pairs = new_names(found.checkpoints, found.sidecars)
    unfit = too_long(found.checkpoints, pairs)
    if unfit or evidence.metrics:
        found = found._replace(
            checkpoints=tuple(with_metrics(c, evidence) for c in found.checkpoints if c.entry.name not in unfit),
            problems=(*found.problems, *unfit.values()),
        )
    linked = holders(found, evidence)
    marked = unwhole(found, listing, rules, evidence)
    busy = {**evidence.in_use, **{name: reason.text for name, reason in marked.items()}}
    sound, losers, skipped, conflicts, winners = resolve(
        found.checkpoints, listing.entries, pairs, on_conflict, evidence._replace(in_use=busy), linked
    )
    left: tuple[Kept, ...] = ()
    if busy:
        wanted = would_go(policy, sound, found, evidence, marked)
        sound, left, refused = set_aside(sound, evidence.in_use, marked, wanted)
        conflicts = (*conflicts, *refused, *broken_ones(found, marked, conflicts))
    if stuck := held_by_foreign(sound, found, evidence):
        conflicts = (*conflicts, *stuck.values())
        sound = tuple(c for c in sound if c.entry.name not in stuck)
    disputed = {name for problem in conflicts for name in problem.names} | {row.name for row in skipped}
    left = tuple(row for row in left if row.name not in disputed)
    held: tuple[Kept, ...] = ()
    if disputed:
        sound, held = hold_for_links(sound, found, disputed)
        found = without(found, disputed)
    sound = tuple(unless_unfollowed(c, pairs, evidence) for c in sound) if evidence.pointers else sound
    lost = [c.entry.name for c, _ in losers]
    verdict = judge(policy, sound, found, evidence, busy, lost, linked) if policy else NOTHING
    actions = [
        *(loser_action(checkpoint, reason) for checkpoint, reason in losers),
        *trash_actions(sound, verdict),
        *rename_actions(sound, verdict, leaves_link=leave_links),
    ]
    trashed = sum(action.kind == "trash" for action in actions)
    if pairs:
        own = found.sidecars
        actions = [take_along(a, pairs.get(a.name, ()), own.get(a.name, ()), listing) for a in actions]
    relinks = [*relink_actions(actions, found.links, evidence.links), *repoint_actions(actions, evidence.pointers)]
    here = {action.name for action in relinks if not action.directory}
    moved = {name for action in actions for name, _ in action.with_it}
    stays = [*kept(sound, verdict, found, here, busy), *held, *skipped, *left]
    stays += kept_sidecars(found.sidecars, listing, moved | disputed)
    if found.has_parts:
        stays += kept_parts(found, {*moved, *disputed, *(name for row in stays for name in (row.name, *row.with_it))})
    swept = sweep(found, listing, rules, evidence, linked, deletes=policy is not None)
    old = {*(action.name for action in swept.actions), *(row.name for row in swept.skipped)}
    if old:
        others = [row for row in found.skipped if row.name not in old]
        found = found._replace(skipped=tuple(sorted([*others, *swept.skipped])))
    found, behind = left_behind(found, actions, rules.sidecars)
    return Plan(
        experiment=listing.experiment,
        directory=listing.directory,
        actions=(*actions, *swept.actions, *relinks),
        kept=tuple(sorted(stays)),
        skipped=left_alone(found, listing, rules),
        problems=(
            *found.problems,
            *conflicts,
            *(withheld(listing.directory, text) for text in verdict.withheld),
            *best_unknown(listing.directory, unknown),
        ),
        notes=(
            *verdict.notes,
            *fields_that_differ(sound, policy),
            *unwhole_notes(found, evidence.in_use, marked, old.union(*(problem.names for problem in conflicts))),
            *(undecided_notes(sound) if policy else ()),
            *complete_lines(found, {name: why for name, why in marked.items() if name not in disputed}, rules),
            *map(no_pointer, evidence.no_pointers),
            *behind,
        ),
        policy=policy.picked if policy else None,
        remaining=len(found.protected) + len(found.checkpoints) - trashed,
        rests_on=all_names(found, (*winners, *verdict.rests_on, *tellers(sound, verdict, evidence))) if trashed else (),
        unwhole=tuple(sorted(busy)),
        keeps=verdict.keeps,
    )


def left_alone(found: Sorted, listing: Listing, rules: RuleSet) -> tuple[Skipped, ...]:
    """Return what is no checkpoint; a log that stands beside is not worth a word of the plan."""
    logs = beside(found, listing, rules)
    return tuple(row._replace(kind="ignored") if row.name in logs else row for row in found.skipped)


def left_behind(
    found: Sorted, actions: Sequence[Action], suffixes: Collection[str]
) -> tuple[Sorted, tuple[Reason, ...]]:
    """Tell of names that belong to what is renamed or deleted, but are no sidecars by the rules: they stay behind."""
    unknown = [row.name for row in found.skipped if row.kind == "unrecognised"]
    owned = by_name_only((a.name for a in actions if a.kind in ("rename", "trash")), unknown) if unknown else {}
    if not owned:
        return found, ()
    skipped = tuple(
        row._replace(kind="ignored", reason=Reason(f"belongs to {owned[row.name][0]} by its name only"))
        if row.name in owned
        else row
        for row in found.skipped
    )
    what = min(owned) + f" and {len(owned) - 1} others" * (len(owned) > 1)
    line = line_for({*suffixes, *(suffix for _, suffix in owned.values())})
    text = f"{what} stay behind, although a checkpoint of that name is renamed or deleted; {line} takes them along"
    return found._replace(skipped=skipped), (Reason(text.replace(" stay ", " stays ") if len(owned) == 1 else text),)


def with_metrics(checkpoint: Checkpoint, evidence: Evidence) -> Checkpoint:
    """Add what the sidecars of a checkpoint tell."""
    told = evidence.metrics.get(checkpoint.entry.name)
    return checkpoint._replace(metrics=told) if told else checkpoint


def by_heads(evidence: Evidence, found: Sorted) -> Evidence:
    """Let what is known of one part be known of the whole checkpoint, under the name that it goes by."""
    if not found.has_parts:
        return evidence
    whole = {name: one for one in (*found.checkpoints, *found.protected) if one.parts for name in one.names}
    in_use = {name: why for name, why in evidence.in_use.items() if name not in whole}
    metrics = {name: told for name, told in evidence.metrics.items() if name not in whole}
    verified = evidence.verified
    for head, one in {one.entry.name: one for one in whole.values()}.items():
        if used := next((name for name in one.names if name in evidence.in_use), ""):
            in_use[head] = evidence.in_use[used] + f" ({used})" * (used != head)
        metrics[head] = {key: text for name in one.names for key, text in evidence.metrics.get(name, {}).items()}
        if verified is not None and not verified.issuperset(one.names):
            verified -= {head}
    same = {name: number for name, number in evidence.same.items() if name not in whole}
    return evidence._replace(in_use=in_use, metrics=metrics, verified=verified, same=same)


def all_names(found: Sorted, heads: Iterable[str]) -> tuple[str, ...]:
    """Return all names of some checkpoints."""
    whole = {one.entry.name: one.names for one in (*found.checkpoints, *found.protected) if one.parts}
    return tuple(dict.fromkeys(name for head in heads for name in whole.get(head, (head,))))


def tellers(sound: Iterable[Checkpoint], verdict: Verdict, evidence: Evidence) -> list[str]:
    """Return what stays and says inside which one is the best: what it is silent of may go."""
    files = [pointer for pointer in evidence.pointers if "/" in pointer]
    stays = [one.entry for one in sound if one.entry.name not in verdict.remove]
    folders = (one.name for one in stays if one.kind == "directory")
    within = [name for name in folders if any(file.startswith(f"{name}/") for file in files)]
    inside = set(evidence.best_inside.values())
    return [*within, *(one.name for one in stays if one.name in inside)]


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


def stay(checkpoint: Checkpoint, *reasons: Reason) -> Kept:
    """Say that a checkpoint stays as it is."""
    return Kept(checkpoint.entry.name, checkpoint.entry.size, reasons, checkpoint.names[1:])


def would_go(
    policy: Policy | None,
    sound: Sequence[Checkpoint],
    found: Sorted,
    evidence: Evidence,
    marked: Mapping[str, Reason],
) -> Collection[str]:
    """Return the names in use that the policy would let go if they were not."""
    if policy is None or not evidence.in_use:
        return ()
    finished = [checkpoint for checkpoint in sound if checkpoint.entry.name not in marked]
    lost = [c.entry.name for c in found.checkpoints if c.entry.name not in {one.entry.name for one in finished}]
    linked = holders(found, evidence)
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


def loser_action(checkpoint: Checkpoint, reason: Reason) -> Action:
    """Move what lost a conflict to the trash; it waits there whatever ``trash_days`` says."""
    entry = checkpoint.entry
    return Action("trash", entry.name, "", entry.size, (reason,), keep_in_trash=True)


def without(found: Sorted, disputed: Collection[str]) -> Sorted:
    """Take out what a conflict tells of already."""
    return found._replace(
        links=tuple(link for link in found.links if link.name not in disputed),
        problems=tuple(problem for problem in found.problems if not set(disputed).intersection(problem.names)),
        skipped=tuple(row for row in found.skipped if row.name not in disputed),
        protected=tuple(one for one in found.protected if one.entry.name not in disputed),
    )


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


def withheld(directory: str, text: str) -> Problem:
    """Tell that nothing goes, as deletion depends on what is verified."""
    return Problem("unverified", (directory,), text, "run 'doit verify', then this again")


def best_unknown(directory: str, files: Iterable[str]) -> Iterator[Problem]:
    """Tell that nothing goes, as nobody knows which one is the best."""
    for file in files:
        text = f"loses nothing: {file}, which names the best, is not understood"
        yield Problem("unreadable", (directory,), text, "repair it, or remove it if what it names is no longer wanted")


def unwhole_notes(
    found: Sorted, in_use: Mapping[str, str], marked: Mapping[str, Reason], told: Collection[str]
) -> Iterator[Reason]:
    """Yield what does not count, unless it is ``told`` of elsewhere."""
    places = {one.entry.name: one.named_by.place for one in (*found.protected, *found.checkpoints)}
    for name in sorted({*in_use, *marked}.difference(told)):
        why = why_aside(name, in_use, marked)
        yield Reason(f"{name} {why.text}: it is left alone and does not count", why.place or places.get(name))


def undecided_notes(sound: Iterable[Checkpoint]) -> Iterator[Reason]:
    """Tell once what packs count otherwise, with the lines that decide: no line of a policy knows its unit."""
    alike: dict[Reason, list[str]] = {}
    for one in sound:
        if one.rule and one.rule.id == UNDECIDED:
            alike.setdefault(one.named_by, []).append(one.entry.name)
    for reason, names in alike.items():
        more = f" and {len(names) - 1} more" if names[1:] else ""
        yield Reason(f"of {names[0]}{more} only the order counts: {reason.text}", reason.place)


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


def no_pointer(name: str) -> Reason:
    """Tell of a file that has a pointer's name: whatever it holds, it protects nothing and is left as it is."""
    return Reason(f"{name} is no pointer, as it is no short text: left as it is")


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


def trash_actions(sound: Sequence[Checkpoint], verdict: Verdict) -> list[Action]:
    """List the deletions; they come first, so that a name is free before it is wanted."""
    return [
        Action("trash", name, "", c.entry.size, verdict.remove[name], saves=verdict.saves[name])
        for c in sound
        if (name := c.entry.name) in verdict.remove
    ]


def rename_actions(sound: Sequence[Checkpoint], verdict: Verdict, *, leaves_link: bool) -> list[Action]:
    """List the renames of what stays."""
    return [
        Action("rename", name, c.target, c.entry.size, why_it_stays(c, verdict), leaves_link=leaves_link)
        for c in sound
        if c.target != (name := c.entry.name) and name not in verdict.remove
    ]


def relink_actions(actions: Sequence[Action], links: Sequence[Entry], elsewhere: Sequence[OutsideLink]) -> list[Action]:
    """Re-point the links whose target gets another name; a relative link stays relative."""
    if not links and not elsewhere:
        return []
    renamed = {
        name: (to, action.name)
        for action in actions
        if action.kind == "rename"
        for name, to in ((action.name, action.to), *action.with_it)
        if to
    }
    relinks = []
    for directory, link in (*(("", link) for link in links), *((d or ".", link) for d, link in elsewhere)):
        if link.sibling in renamed:
            reasons = (Reason(f"{link.sibling} is renamed"),)
            to, head = renamed[link.sibling]
            text = link.link_text.removesuffix(link.sibling + link.behind) + to + link.behind
            relinks.append(
                Action("relink", link.name, text, 0, reasons, follows=head, was=link.link_text, directory=directory)
            )
    return relinks


def repoint_actions(actions: Sequence[Action], pointers: Mapping[str, Sequence[Mention]]) -> list[Action]:
    """Let the pointer files name what gets another name by that."""
    return [
        Action("repoint", pointer, to, 0, (Reason(f"{was} is renamed"),), follows=action.name, was=was)
        for action in (actions if pointers else ())
        if action.kind == "rename"
        for pointer, was, to in repoints(pointers, {action.name: action.to, **dict(action.with_it)})
    ]


def kept(
    sound: Sequence[Checkpoint],
    verdict: Verdict,
    found: Sorted,
    relinked: Collection[str],
    busy: Mapping[str, str],
) -> tuple[Kept, ...]:
    """List what stays as it is: protected names, living links, names already right."""
    rows = [
        stay(one, one.named_by, *(Reason(why) for why in [busy.get(one.entry.name)] if why)) for one in found.protected
    ]
    rows += [
        Kept(link.name, 0, (Reason(f"link to {link.link_text}"),)) for link in found.links if link.name not in relinked
    ]
    rows += [
        stay(c, *why_it_stays(c, verdict))
        for c in sound
        if c.target == c.entry.name and c.entry.name not in verdict.remove
    ]
    return tuple(rows)


def kept_parts(found: Sorted, told: Collection[str]) -> Iterator[Kept]:
    """Yield the parts of checkpoints of which only the name that they go by is told of."""
    for one in (*found.checkpoints, *found.protected):
        for part in one.parts:
            if part.entry.name not in told and part.entry.name != one.entry.name:
                yield Kept(part.entry.name, part.entry.size, (Reason(f"is a part of {one.entry.name}"),))


def why_it_stays(checkpoint: Checkpoint, verdict: Verdict) -> tuple[Reason, ...]:
    """List the rule that named a checkpoint, and what the policy says for keeping it where one was asked."""
    said = verdict.keep.get(checkpoint.entry.name, ())
    return tuple(dict.fromkeys((checkpoint.named_by, *said))) if said else (checkpoint.named_by,)
