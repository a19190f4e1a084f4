"""Pure: rules + one listing → the plan. What this file decides, nothing else may change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.companions import (
    Pairs,
    Sidecar,
    by_name_only,
    find_sidecars,
    kept_sidecars,
    line_for,
    new_names,
    take_along,
    too_long,
)
from ckptrules.engine.conflicts import resolve
from ckptrules.engine.judging import Others
from ckptrules.engine.naming import reader, stems_of
from ckptrules.engine.pointers import cannot_follow, repoints
from ckptrules.engine.retention import Verdict, apply_policy, unless_verified
from ckptrules.engine.values import (
    Action,
    Checkpoint,
    Claim,
    Entry,
    Evidence,
    Kept,
    Listing,
    Mention,
    Named,
    OnConflict,
    OutsideLink,
    Plan,
    Policy,
    Problem,
    Reason,
    RuleSet,
    Skipped,
)

CHECKPOINTS = ("target", "legacy")  # kinds of claims
HOLDING = ("file", "directory")  # kinds of entries that can be a checkpoint


class Sorted(NamedTuple):
    """The entries of a listing, each in exactly one place. ``sidecars`` are by the checkpoint that they belong to."""

    checkpoints: tuple[Checkpoint, ...]
    protected: tuple[tuple[Entry, Reason], ...]
    links: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    problems: tuple[Problem, ...]
    sidecars: Mapping[str, tuple[Sidecar, ...]]


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
    found = sort_entries(rules, listing)
    pairs = new_names(found.checkpoints, found.sidecars)
    unfit = too_long(found.checkpoints, pairs)
    if unfit or evidence.metrics:
        found = found._replace(
            checkpoints=tuple(with_metrics(c, evidence) for c in found.checkpoints if c.entry.name not in unfit),
            problems=(*found.problems, *unfit.values()),
        )
    linked = holders(found, evidence)
    marked = unfinished(found, listing, rules)
    busy = {**evidence.in_use, **{name: reason.text for name, reason in marked.items()}}
    sound, losers, skipped, conflicts, winners = resolve(
        found.checkpoints, listing.entries, pairs, on_conflict, evidence._replace(in_use=busy), linked
    )
    left: tuple[Kept, ...] = ()
    if busy:
        wanted = would_go(policy, sound, found, evidence, marked)
        sound, left, refused = set_aside(sound, evidence.in_use, marked, wanted)
        conflicts = (*conflicts, *refused)
    if stuck := held_by_foreign(sound, evidence):
        conflicts = (*conflicts, *stuck.values())
        sound = tuple(c for c in sound if c.entry.name not in stuck)
    disputed = {name for problem in conflicts for name in problem.names} | {row.name for row in skipped}
    held: tuple[Kept, ...] = ()
    if disputed:
        sound, held = hold_for_links(sound, [link for link in found.links if link.name in disputed])
        found = without(found, disputed)
    sound = tuple(unless_unfollowed(c, pairs, evidence) for c in sound) if evidence.pointers else sound
    verdict = judge(policy, sound, found, evidence, busy, [c.entry.name for c, _ in losers]) if policy else None
    gone = {checkpoint.entry.name for checkpoint, _ in losers} | busy.keys()
    verdict, withheld = withhold(verdict, found, gone, evidence.verified, listing.directory)
    actions = [
        *(loser_action(checkpoint, reason) for checkpoint, reason in losers),
        *trash_actions(sound, verdict),
        *rename_actions(sound, verdict, leaves_link=leave_links),
    ]
    trashed = sum(action.kind == "trash" for action in actions) if verdict or losers else 0
    if pairs:
        actions = [take_along(action, pairs.get(action.name, ()), found.sidecars, listing) for action in actions]
    relinks = [*relink_actions(actions, found.links, evidence.links), *repoint_actions(actions, evidence.pointers)]
    here = {action.name for action in relinks if not action.directory}
    moved = {name for action in actions for name, _ in action.with_it}
    stays = [*kept(sound, verdict, found, here, busy), *held, *skipped, *left]
    stays += kept_sidecars(found.sidecars, listing, moved | disputed)
    found, behind = left_behind(found, actions, rules.sidecars)
    return Plan(
        experiment=listing.experiment,
        directory=listing.directory,
        actions=(*actions, *relinks),
        kept=tuple(sorted(stays)),
        skipped=found.skipped,
        problems=(*found.problems, *conflicts, *withheld),
        notes=(
            *(verdict.notes if verdict else ()),
            *unwhole_notes(found, evidence.in_use, marked, conflicts),
            *map(no_pointer, evidence.no_pointers),
            *behind,
        ),
        policy=policy.picked if policy else None,
        remaining=len(found.protected) + len(found.checkpoints) - trashed,
        rests_on=tuple(winners) + rests_on(verdict, found, gone, evidence.verified) if trashed else (),
        unwhole=tuple(sorted(busy)),
    )


def sort_entries(rules: RuleSet, listing: Listing) -> Sorted:
    """Ask the rules about every entry; checkpoints come by age, everything else by name."""
    by_age: list[tuple[tuple[int, int], int, str, Checkpoint]] = []
    protected: list[tuple[Entry, Reason]] = []
    links: list[Entry] = []
    left: list[Entry] = []
    skipped: list[Skipped] = []
    problems: list[Problem] = []
    read = reader(rules)
    for entry in sorted(listing.entries):
        name = read(entry.name)
        said = name.claim
        if said.kind in CHECKPOINTS and entry.kind in HOLDING and entry.size and not (name.fault or entry.hollow):
            checkpoint = Checkpoint(entry, name.fields, name.target, said.reason)
            by_age.append((name.order, entry.mtime_ns, entry.name, checkpoint))
        elif entry.kind == "link" and is_left_link(entry, name):
            left.append(entry)
        elif entry.kind == "link" and not entry.dangling:
            links.append(entry)
        elif said.kind in ("ignored", "unrecognised"):
            skipped.append(Skipped(entry.name, said.kind, said.reason))
        elif entry.kind == "link":
            problems.append(dangling(entry))
        elif fault := unsound(entry) or ambiguous(entry, said):
            problems.append(fault)
        elif said.kind == "protected":
            protected.append((entry, said.reason))
        else:
            problems.append(nameless(entry, name))
    checkpoints = [row[-1] for row in sorted(by_age)]
    sidecars: dict[str, tuple[Sidecar, ...]] = {}
    if rules.sidecars:
        owners = [*(c.entry.name for c in checkpoints), *(entry.name for entry, _ in protected)]
        plain = {entry.name for entry in listing.entries if entry.kind in HOLDING}
        sidecars = find_sidecars(owners, [row.name for row in skipped if row.name in plain], rules.sidecars)
        belong = {sidecar.name for found in sidecars.values() for sidecar in found}
        skipped = [row for row in skipped if row.name not in belong]
    owned = {c.entry.name for c in checkpoints} if left else set()
    for link in left:
        if link.sibling in owned:
            sidecars[link.sibling] = (*sidecars.get(link.sibling, ()), Sidecar(link.name, "", shared=False))
        else:
            problems.append(dangling(link))
    return Sorted(tuple(checkpoints), tuple(protected), tuple(links), tuple(skipped), tuple(problems), sidecars)


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


def is_left_link(entry: Entry, name: Named) -> bool:
    """Say whether a link stands under an old name for the checkpoint that has got its new one (``leave_links=1``)."""
    return name.claim.kind == "legacy" and "/" not in entry.link_text and name.target == entry.link_text


def with_metrics(checkpoint: Checkpoint, evidence: Evidence) -> Checkpoint:
    """Add what the sidecars of a checkpoint tell."""
    told = evidence.metrics.get(checkpoint.entry.name)
    return checkpoint._replace(metrics=told) if told else checkpoint


def unfinished(found: Sorted, listing: Listing, rules: RuleSet) -> dict[str, Reason]:
    """Find what a marker beside it calls unfinished, by its name or by the one that it would get."""
    markers = markers_in(listing, rules)
    names = [(entry.name, entry.name) for entry, _ in found.protected] if markers else []
    names += [(c.entry.name, c.target) for c in found.checkpoints] if markers else []
    said = {name: why_unfinished((name, target), markers) for name, target in names}
    return {name: reason for name, reason in said.items() if reason}


def markers_in(listing: Listing, rules: RuleSet) -> dict[str, Reason]:
    """Map what stands before the ending of a marker to what the marker says."""
    return {
        entry.name.removesuffix(ending.text): Reason(f"is not finished, as {entry.name} says", ending.place)
        for ending in rules.unfinished
        for entry in listing.entries
        if entry.name.endswith(ending.text)
    }


def why_unfinished(names: Iterable[str], markers: Mapping[str, Reason]) -> Reason | None:
    """Return what a marker says of any of some names."""
    return next((markers[stem] for name in names for stem in stems_of(name) if stem in markers), None)


def set_aside(
    sound: Sequence[Checkpoint], in_use: Mapping[str, str], marked: Mapping[str, Reason], wanted: Collection[str]
) -> tuple[tuple[Checkpoint, ...], tuple[Kept, ...], tuple[Problem, ...]]:
    """Split off what is not whole: what would be touched is a problem of its own, the rest stays and is nothing more.

    Args:
        sound: the checkpoints that have a name to go to.
        in_use: why some may still be written to.
        marked: what a marker calls unfinished; it is not touched, and a run that goes on will end that.
        wanted: what would go if it were not in use.
    """
    aside = [c for c in sound if c.entry.name in marked or c.entry.name in in_use]
    refused = [c for c in aside if c.entry.name not in marked and (c.target != c.entry.name or c.entry.name in wanted)]
    left = [c for c in aside if c not in refused]
    return (
        tuple(c for c in sound if c not in aside) if aside else tuple(sound),
        tuple(Kept(c.entry.name, c.entry.size, (c.named_by, why_aside(c.entry.name, in_use, marked))) for c in left),
        tuple(busy_problem(c.entry.name, in_use[c.entry.name]) for c in refused),
    )


def why_aside(name: str, in_use: Mapping[str, str], marked: Mapping[str, Reason]) -> Reason:
    """Say why a checkpoint is not whole."""
    return marked[name] if name in marked else Reason(in_use[name])


def busy_problem(name: str, why: str) -> Problem:
    """Tell of a checkpoint that may still be written to, and would be touched."""
    return Problem("in_use", (name,), f"is in use: {why}", "run again when it is finished")


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
    return judge(policy, finished, found, evidence, marked, lost).remove.keys() & evidence.in_use.keys()


def held_by_foreign(sound: Iterable[Checkpoint], evidence: Evidence) -> dict[str, Problem]:
    """Tell which checkpoints keep their names: a pointer file names them that would become ours by following."""
    owners = {
        mention.name: (pointer, owner)
        for pointer, owner in evidence.foreign.items()
        for mention in evidence.pointers[pointer]
        if not mention.text.isdigit()
    }
    held = [c for c in sound if c.entry.name in owners and c.target != c.entry.name]
    text = "cannot be renamed to {}: {} names it, and belongs to {}"
    return {
        c.entry.name: Problem(
            "foreign",
            (c.entry.name,),
            text.format(c.target, *owners[c.entry.name]),
            "let the owner of both run this, or root",
        )
        for c in held
    }


def loser_action(checkpoint: Checkpoint, reason: Reason) -> Action:
    """Move what lost a conflict to the trash; it waits there whatever ``trash_days`` says."""
    entry = checkpoint.entry
    return Action("trash", entry.name, "", entry.size, (reason,), keep_in_trash=True)


def nameless(entry: Entry, name: Named) -> Problem:
    """Tell of a rule that gives a checkpoint no usable name."""
    reason = name.claim.reason
    place = f" ({reason.place.file_line})" if reason.place else ""
    text = f"{reason.text}{place} gives no usable name: {name.fault}"
    return Problem("bad_target", (entry.name,), text, "correct the rule, or protect the name")


def unsound(entry: Entry) -> Problem | None:
    """Find what cannot be a checkpoint although it is named like one."""
    if entry.kind == "other":
        return Problem("not_a_file", (entry.name,), "is neither a file nor a directory")
    if entry.hollow:
        hint = "a crash or a full disk leaves such files; remove the whole directory or move it away"
        return Problem("empty", (entry.name,), f"holds an empty file: {entry.hollow}", hint)
    if entry.size == 0:
        hint = "a crash or a full disk leaves such files; remove it or move it away"
        if entry.kind == "directory":
            hint = "no file is in it, and no link that leads to one: look at it, then remove it or move it away"
        return Problem("empty", (entry.name,), f"is an empty {entry.kind}", hint)
    return None


def ambiguous(entry: Entry, said: Claim) -> Problem | None:
    """Find names that the rules of two files claim."""
    if said.kind != "ambiguous":
        return None
    return Problem("ambiguous", (entry.name,), said.reason.text, "let one file hold both rules, the narrower one first")


def dangling(entry: Entry) -> Problem:
    """Tell of a link that leads nowhere."""
    hint = "remove it (one left by leave_links: 'doit drop_links'), or point it to a checkpoint that exists"
    return Problem("dangling_link", (entry.name,), f"is a link to '{entry.link_text}', which does not exist", hint)


def without(found: Sorted, disputed: Collection[str]) -> Sorted:
    """Take out what a conflict tells of already."""
    return found._replace(
        links=tuple(link for link in found.links if link.name not in disputed),
        problems=tuple(problem for problem in found.problems if not set(disputed).intersection(problem.names)),
        skipped=tuple(row for row in found.skipped if row.name not in disputed),
        protected=tuple(row for row in found.protected if row[0].name not in disputed),
    )


def hold_for_links(
    sound: Sequence[Checkpoint], links: Sequence[Entry]
) -> tuple[tuple[Checkpoint, ...], tuple[Kept, ...]]:
    """Split off what a link in conflict points to: the link may not be touched, so it could not follow."""
    holders = {link.sibling: link.name for link in links if link.sibling}
    held = tuple(
        Kept(c.entry.name, c.entry.size, (Reason(f"{holders[c.entry.name]} points to it and is in conflict"),))
        for c in sound
        if c.entry.name in holders
    )
    return tuple(c for c in sound if c.entry.name not in holders), held


def judge(
    policy: Policy,
    sound: Sequence[Checkpoint],
    found: Sorted,
    evidence: Evidence,
    busy: Collection[str],
    lost: Collection[str],
) -> Verdict:
    """Let the policy decide. What a link points to stays; conflicting checkpoints remain, as nobody may touch them.

    What is not whole (``busy``) takes room and does not count as remaining: nobody knows whether it will be whole.
    """
    linked = holders(found, evidence)
    candidates = [checkpoint for checkpoint in sound if checkpoint.entry.name not in linked]
    leaving = {*lost, *(checkpoint.entry.name for checkpoint in candidates)}
    staying = [c.entry for c in found.checkpoints if c.entry.name not in leaving] + [e for e, _ in found.protected]
    whole = sorted([entry for entry in staying if entry.name not in busy], key=lambda e: (-e.mtime_ns, e.name))
    others = Others(
        len(whole),
        sum(entry.size for entry in staying),
        tuple(link for entry in staying for link in entry.shared),
        tuple(entry.name for entry in whole),
    )
    verdict = apply_policy(policy, candidates, others, evidence.now_ns)
    by_link = {c.entry.name: (linked[c.entry.name],) for c in sound if c.entry.name in linked}
    return verdict._replace(keep={**verdict.keep, **by_link})


def withhold(
    verdict: Verdict | None, found: Sorted, gone: Collection[str], verified: Collection[str] | None, directory: str
) -> tuple[Verdict | None, tuple[Problem, ...]]:
    """Where deletion depends on it, let nothing go if none of the checkpoints that stay is verified, and tell so."""
    if verdict is None or verified is None:
        return verdict, ()
    sound = {*(entry.name for entry, _ in found.protected), *(c.entry.name for c in found.checkpoints)}
    decided = unless_verified(verdict, sound.difference(gone, verdict.remove), verified)
    if decided is verdict:
        return verdict, ()
    text = f"loses nothing ({len(verdict.remove)} could go): no checkpoint that stays is verified"
    return decided, (Problem("unverified", (directory,), text, "run 'doit verify', then this again"),)


def rests_on(
    verdict: Verdict | None, found: Sorted, gone: Collection[str], verified: Collection[str] | None
) -> tuple[str, ...]:
    """List what must be whole for others to go: what counts in the policy, and the newest that is verified."""
    if verdict is None or not verdict.remove:
        return ()
    whole = [*(c.entry for c in found.checkpoints), *(entry for entry, _ in found.protected)]
    proved = [e for e in whole if e.name in (verified or ()) and e.name not in gone and e.name not in verdict.remove]
    return *verdict.rests_on, *(e.name for e in sorted(proved, key=lambda e: -e.mtime_ns)[:1])


def unwhole_notes(
    found: Sorted, in_use: Mapping[str, str], marked: Mapping[str, Reason], conflicts: Sequence[Problem]
) -> Iterator[Reason]:
    """Yield what does not count, unless a problem tells of it."""
    told = {name for problem in conflicts for name in problem.names}
    places = {**{entry.name: reason.place for entry, reason in found.protected}}
    places.update((c.entry.name, c.named_by.place) for c in found.checkpoints)
    for name in sorted({*in_use, *marked} - told):
        why = why_aside(name, in_use, marked)
        yield Reason(f"{name} {why.text}: it is left alone and does not count", why.place or places.get(name))


def holders(found: Sorted, evidence: Evidence) -> dict[str, Reason]:
    """Map the names that links and pointer files lead to; what leads to a sidecar or a left link leads to its owner."""
    named = {**named_by_pointers(evidence.pointers), **link_targets(found.links, evidence.links)}
    if not named:
        return {}
    owners = {sidecar.name: owner for owner, own in found.sidecars.items() for sidecar in own if not sidecar.shared}
    return {owners.get(name, name): reason for name, reason in named.items()}


def no_pointer(name: str) -> Reason:
    """Tell of a file that has a pointer's name: whatever it holds, it protects nothing and is left as it is."""
    return Reason(f"{name} is no pointer, as it is no short text: left as it is")


def link_targets(links: Sequence[Entry], elsewhere: Sequence[OutsideLink]) -> dict[str, Reason]:
    """Map the names that links of this directory or of others point to."""
    named = [*((link.name, link) for link in links), *((f"{d}/{link.name}".lstrip("/"), link) for d, link in elsewhere)]
    return {link.sibling: Reason(f"{name} points to it") for name, link in named if link.sibling}


def named_by_pointers(pointers: Mapping[str, Collection[Mention]]) -> dict[str, Reason]:
    """Map the names that pointer files name, and protect by that."""
    rows = [(mention.name, pointer) for pointer, said in pointers.items() for mention in said if mention.protects]
    return {name: Reason(f"{pointer} names it") for name, pointer in rows}


def unless_unfollowed(checkpoint: Checkpoint, pairs: Pairs, evidence: Evidence) -> Checkpoint:
    """Let a checkpoint keep its name where a pointer file that names it could not follow."""
    name, target = checkpoint.entry.name, checkpoint.target
    renames = {name: target, **dict(pairs.get(name, ()))}
    pointer = cannot_follow(evidence.pointers, renames, checkpoint.fields) if name != target else ""
    reason = Reason(f"{pointer} names it, and could not follow to {target}")
    return checkpoint._replace(target=name, named_by=reason) if pointer else checkpoint


def trash_actions(sound: Sequence[Checkpoint], verdict: Verdict | None) -> list[Action]:
    """List the deletions; they come first, so that a name is free before it is wanted."""
    if verdict is None:
        return []
    return [
        Action("trash", name, "", c.entry.size, verdict.remove[name], saves=verdict.saves[name])
        for c in sound
        if (name := c.entry.name) in verdict.remove
    ]


def rename_actions(sound: Sequence[Checkpoint], verdict: Verdict | None, *, leaves_link: bool) -> list[Action]:
    """List the renames of what stays."""
    remove = verdict.remove if verdict else {}
    return [
        Action("rename", name, c.target, c.entry.size, why_it_stays(c, verdict), leaves_link=leaves_link)
        for c in sound
        if c.target != (name := c.entry.name) and name not in remove
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
    verdict: Verdict | None,
    found: Sorted,
    relinked: Collection[str],
    busy: Mapping[str, str],
) -> tuple[Kept, ...]:
    """List what stays as it is: protected names, living links, names already right."""
    rows = [
        Kept(entry.name, entry.size, (reason, Reason(busy[entry.name])) if entry.name in busy else (reason,))
        for entry, reason in found.protected
    ]
    rows += [
        Kept(link.name, 0, (Reason(f"link to {link.link_text}"),)) for link in found.links if link.name not in relinked
    ]
    rows += [
        Kept(c.entry.name, c.entry.size, why_it_stays(c, verdict))
        for c in sound
        if c.target == c.entry.name and not (verdict and c.entry.name in verdict.remove)
    ]
    return tuple(rows)


def why_it_stays(checkpoint: Checkpoint, verdict: Verdict | None) -> tuple[Reason, ...]:
    """List the rule that named a checkpoint, and what the policy says for keeping it where one was asked."""
    said = verdict.keep[checkpoint.entry.name] if verdict else ()
    return checkpoint.named_by, *said
