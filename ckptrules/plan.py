"""Pure: rules + one listing → the plan. What this file decides, nothing else may change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ckptrules.model import (
    Action,
    Checkpoint,
    Claim,
    Entry,
    Kept,
    Listing,
    Plan,
    Policy,
    Problem,
    Reason,
    RuleSet,
    Skipped,
)
from ckptrules.naming import TemplateError, claim, target_name
from ckptrules.retention import Verdict, apply_policy


class Sorted(NamedTuple):
    """The entries of a listing, each in exactly one place."""

    checkpoints: tuple[Checkpoint, ...]
    protected: tuple[tuple[Entry, Reason], ...]
    links: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]
    problems: tuple[Problem, ...]


def make_plan(rules: RuleSet, listing: Listing, policy: Policy | None = None) -> Plan:
    """Decide everything that is to happen in one checkpoint directory.

    Args:
        rules: the compiled rules.
        listing: the directory as it was read; the order of its entries changes nothing.
        policy: what decides about deletion, or None where nothing may be deleted.
    """
    found = sort_entries(rules, listing)
    sound, conflicts = find_conflicts(found.checkpoints, listing.entries)
    disputed = {name for problem in conflicts for name in problem.names}
    sound, held = hold_for_links(sound, [link for link in found.links if link.name in disputed])
    found = found._replace(
        links=tuple(link for link in found.links if link.name not in disputed),
        problems=tuple(problem for problem in found.problems if disputed.isdisjoint(problem.names)),
    )
    verdict = judge(policy, sound, found) if policy else None
    renames = rename_actions(sound, verdict)
    relinks = relink_actions(renames, found.links)
    return Plan(
        experiment=listing.experiment,
        directory=listing.directory,
        actions=(*trash_actions(sound, verdict), *renames, *relinks),
        kept=tuple(sorted((*kept(sound, verdict, found, {action.name for action in relinks}), *held))),
        skipped=found.skipped,
        problems=(*found.problems, *conflicts),
    )


def sort_entries(rules: RuleSet, listing: Listing) -> Sorted:
    """Ask the rules about every entry; checkpoints come by age, everything else by name."""
    checkpoints: list[Checkpoint] = []
    protected: list[tuple[Entry, Reason]] = []
    links: list[Entry] = []
    skipped: list[Skipped] = []
    problems: list[Problem] = []
    for entry in sorted(listing.entries):
        said = claim(entry.name, rules)
        if entry.kind == "link" and not entry.dangling:
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
            named = name_checkpoint(entry, said, rules)
            if isinstance(named, Problem):
                problems.append(named)
            else:
                checkpoints.append(named)
    checkpoints.sort(key=lambda checkpoint: checkpoint.age_order)
    return Sorted(tuple(checkpoints), tuple(protected), tuple(links), tuple(skipped), tuple(problems))


def name_checkpoint(entry: Entry, said: Claim, rules: RuleSet) -> Checkpoint | Problem:
    """Work out the name that an entry should have. A name in the target format is right as it is."""
    if said.kind == "target":
        return Checkpoint(entry, said.fields, entry.name, said.reason)
    try:
        return Checkpoint(entry, said.fields, target_name(said, rules), said.reason)
    except TemplateError as error:
        place = f" ({said.reason.place.file_line})" if said.reason.place else ""
        text = f"{said.reason.text}{place} gives no usable name: {error}"
        return Problem("bad_target", (entry.name,), text, "correct the rule, or protect the name")


def unsound(entry: Entry) -> Problem | None:
    """Find what cannot be a checkpoint although it is named like one."""
    if entry.kind == "other":
        return Problem("not_a_file", (entry.name,), "is neither a file nor a directory")
    if entry.size == 0:
        hint = "a crash or a full disk leaves such files; remove it or move it away"
        return Problem("empty", (entry.name,), f"is an empty {entry.kind}", hint)
    return None


def ambiguous(entry: Entry, said: Claim) -> Problem | None:
    """Find names that the rules of two files claim."""
    if said.kind != "ambiguous":
        return None
    return Problem("ambiguous", (entry.name,), said.reason.text, "let one file hold both rules, the narrower one first")


def dangling(entry: Entry) -> Problem:
    """Tell of a link that leads nowhere."""
    hint = "remove it, or point it to a checkpoint that exists"
    return Problem("dangling_link", (entry.name,), f"is a link to '{entry.link_text}', which does not exist", hint)


def find_conflicts(
    checkpoints: Sequence[Checkpoint], entries: Sequence[Entry]
) -> tuple[tuple[Checkpoint, ...], tuple[Problem, ...]]:
    """Split off the checkpoints that compete for one name with each other or with what has that name already."""
    by_target: dict[str, list[Entry]] = defaultdict(list)
    for checkpoint in checkpoints:
        by_target[checkpoint.target].append(checkpoint.entry)
    for entry in entries:
        rivals = by_target.get(entry.name)
        if rivals is not None and entry not in rivals:
            rivals.append(entry)
    problems = [conflict(target, rivals) for target, rivals in sorted(by_target.items()) if len(rivals) > 1]
    disputed = {name for problem in problems for name in problem.names}
    return tuple(c for c in checkpoints if c.entry.name not in disputed), tuple(problems)


def conflict(target: str, rivals: Sequence[Entry]) -> Problem:
    """Tell which names compete; the report adds size and time of each."""
    names = tuple(entry.name for entry in sorted(rivals))
    if target in names:
        names = (target, *(name for name in names if name != target))
        text = f"target already exists: {target}"
        return Problem("target_exists", names, text, "compare them, keep the better one, delete or rename the other")
    text = f"{len(names)} checkpoints for one target: {target}"
    return Problem("same_target", names, text, "compare them, keep the better one, delete or rename the others")


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


def judge(policy: Policy, sound: Sequence[Checkpoint], found: Sorted) -> Verdict:
    """Let the policy decide. What a link points to stays; conflicting checkpoints remain, as nobody may touch them."""
    linked = link_targets(found.links)
    candidates = [checkpoint for checkpoint in sound if checkpoint.entry.name not in linked]
    remaining = len(found.protected) + len(found.checkpoints) - len(candidates)
    verdict = apply_policy(policy, candidates, remaining)
    by_link = {c.entry.name: (linked[c.entry.name],) for c in sound if c.entry.name in linked}
    return Verdict({**verdict.keep, **by_link}, verdict.remove)


def link_targets(links: Sequence[Entry]) -> dict[str, Reason]:
    """Map the names that links of the same directory point to."""
    return {link.sibling: Reason(f"{link.name} points to it") for link in links if link.sibling}


def trash_actions(sound: Sequence[Checkpoint], verdict: Verdict | None) -> list[Action]:
    """List the deletions; they come first, so that a name is free before it is wanted."""
    remove: Mapping[str, tuple[Reason, ...]] = verdict.remove if verdict else {}
    return [
        Action("trash", c.entry.name, "", c.entry.size, remove[c.entry.name]) for c in sound if c.entry.name in remove
    ]


def rename_actions(sound: Sequence[Checkpoint], verdict: Verdict | None) -> list[Action]:
    """List the renames of what stays."""
    return [
        Action("rename", c.entry.name, c.target, c.entry.size, (c.named_by, *stay_reasons(c, verdict)))
        for c in sound
        if c.target != c.entry.name and not (verdict and c.entry.name in verdict.remove)
    ]


def relink_actions(renames: Sequence[Action], links: Sequence[Entry]) -> list[Action]:
    """Re-point the links whose target gets another name; a relative link stays relative."""
    renamed = {action.name: action.to for action in renames}
    actions = []
    for link in links:
        if link.sibling in renamed:
            reasons = (Reason(f"{link.sibling} is renamed"),)
            text = link.link_text.removesuffix(link.sibling + link.behind) + renamed[link.sibling] + link.behind
            actions.append(Action("relink", link.name, text, 0, reasons, follows=link.sibling, was=link.link_text))
    return actions


def kept(
    sound: Sequence[Checkpoint], verdict: Verdict | None, found: Sorted, relinked: Collection[str]
) -> tuple[Kept, ...]:
    """List what stays as it is: protected names, living links, names already right."""
    rows = [Kept(entry.name, entry.size, (reason,)) for entry, reason in found.protected]
    rows += [
        Kept(link.name, 0, (Reason(f"link to {link.link_text}"),))
        for link in found.links
        if not link.dangling and link.name not in relinked
    ]
    rows += [
        Kept(c.entry.name, c.entry.size, (c.named_by, *stay_reasons(c, verdict)))
        for c in sound
        if c.target == c.entry.name and not (verdict and c.entry.name in verdict.remove)
    ]
    return tuple(rows)


def stay_reasons(checkpoint: Checkpoint, verdict: Verdict | None) -> tuple[Reason, ...]:
    """List what the policy says for keeping a checkpoint; nothing where no policy was asked."""
    return verdict.keep[checkpoint.entry.name] if verdict else ()
