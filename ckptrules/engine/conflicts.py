"""Resolve conflicts: checkpoints that want one name. Where no rule is certain, a person decides. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ckptrules.engine.actions import Kept, OnConflict, Problem
from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry
from ckptrules.engine.names.case import Case, Cleared
from ckptrules.engine.policy.judging import is_misdated, misdated_of
from ckptrules.engine.ruleset import Reason

Choose = Callable[[OnConflict], Checkpoint | None]  # the winner under a value of ``on_conflict``; None if uncertain


class Group(NamedTuple):
    """One conflict: ``wanted`` are the new names in dispute, ``names`` the present names that want or have them."""

    wanted: frozenset[str]
    names: frozenset[str]


def resolve(case: Case) -> Cleared:
    """Resolve every conflict as ``on_conflict`` says, or return it as a problem.

    Any entry may have a wanted name already. Sidecars take part in conflicts, too. A held checkpoint never loses; one
    that is busy never wins.
    """
    by_name = {checkpoint.entry.name: checkpoint for checkpoint in case.found.checkpoints}
    all_entries = {entry.name: entry for entry in case.listing.entries}
    losers: list[tuple[Checkpoint, Reason]] = []
    kept: list[Kept] = []
    problems: list[Problem] = []
    winners: list[str] = []
    disputed: set[str] = set()
    for group in find_groups(case):
        rivals = [by_name[name] for name in sorted(group.names) if name in by_name]
        choose = partial(winner_of, case, group, rivals)
        if case.on_conflict == "skip":
            reason = Reason(f"in conflict over {_headline(group, rivals)} (on_conflict: skip)")
            kept += [
                Kept(name, all_entries[name].size, (reason,), is_checkpoint=name in by_name) for name in group.names
            ]
            disputed |= group.names
        elif winner := choose(case.on_conflict):
            has_it = "the one that has it" if winner.entry.name == winner.target else winner.entry.name
            why = Reason(f"lost the name {winner.target} to {has_it} (on_conflict: {case.on_conflict})")
            losers += [(checkpoint, why) for checkpoint in rivals if checkpoint is not winner]
            winners.append(winner.entry.name)
        else:
            problems.append(conflict_problem(case, group, rivals, all_entries, choose))
            disputed |= group.names
    out = disputed.union(checkpoint.entry.name for checkpoint, _ in losers)
    sound = tuple(c for c in case.found.checkpoints if c.entry.name not in out)
    return Cleared(sound, tuple(losers), tuple(winners), tuple(kept), tuple(problems), disputed)


def find_groups(case: Case) -> list[Group]:
    """Return the conflicts: new names that several checkpoints or sidecars want, or that another entry has already."""
    wanted_by: dict[str, set[str]] = defaultdict(set)
    owners: dict[str, set[str]] = defaultdict(set)
    for name, pairs in case.pairs.items():
        for old, _ in pairs:
            owners[old].add(name)
    for checkpoint in case.found.checkpoints:
        name = checkpoint.entry.name
        wanted_by[checkpoint.target].add(name)
        for old, new in case.pairs.get(name, ()):
            if new != old:
                wanted_by[new] |= owners[old]
    for entry in case.listing.entries:
        if entry.name in wanted_by:
            wanted_by[entry.name] |= owners.get(entry.name) or {entry.name}
    groups: list[Group] = []
    for wanted, names in sorted((wanted, names) for wanted, names in wanted_by.items() if len(names) > 1):
        group = Group(frozenset({wanted}), frozenset(names))
        for other in [other for other in groups if other.names & names]:
            groups.remove(other)
            group = Group(group.wanted | other.wanted, group.names | other.names)
        groups.append(group)
    return groups


def winner_of(case: Case, group: Group, rivals: Sequence[Checkpoint], on_conflict: OnConflict) -> Checkpoint | None:
    """Return the checkpoint that gets the name; None where that is uncertain, or one would lose that must stay.

    Among identical checkpoints, the one with most sidecars wins. Otherwise the winner must be verified, if deletion
    depends on that.
    """
    if len(rivals) < len(group.names) or len({(c.target, c.entry.kind) for c in rivals}) > 1:
        return None
    evidence = case.evidence
    same = {evidence.same.get(checkpoint.entry.name) for checkpoint in rivals}
    identical = len(same) == 1 and None not in same

    def order(checkpoint: Checkpoint) -> tuple[int, bool, int, str]:
        entry = checkpoint.entry
        return len(case.pairs.get(entry.name, ())), entry.name == checkpoint.target, entry.mtime_ns, entry.name

    def amount(checkpoint: Checkpoint) -> tuple[int, ...]:
        time, size = checkpoint.entry.mtime_ns, checkpoint.entry.size
        return {"keep_newest": (time, size), "keep_largest": (size, time)}.get(on_conflict, ())

    misdated = on_conflict == "keep_newest" and misdated_of(rivals, evidence.now_ns)
    best = max(map(amount, rivals))
    first = [checkpoint for checkpoint in rivals if amount(checkpoint) == best]
    certain = identical or (len(first) == 1 and not misdated)
    if on_conflict == "report" or not certain or not group.names.isdisjoint(case.busy):
        return None
    name = (winner := max(first, key=order)).entry.name
    is_proved = identical or evidence.verified is None or name in evidence.verified
    return winner if is_proved and group.names.intersection(case.held) <= {name} else None


def conflict_problem(
    case: Case, group: Group, rivals: Sequence[Checkpoint], every: Mapping[str, Entry], choose: Choose
) -> Problem:
    """Return a conflict as a problem: a remark on what speaks for each candidate, and a hint what would end it."""
    target, whole = _headline(group, rivals), {**every, **{one.entry.name: one.entry for one in rivals}}
    ordered = sorted((whole[name] for name in group.names), key=lambda entry: (entry.name != target, entry))
    names = tuple(entry.name for entry in ordered)
    alike = len(rivals) == len(names) and len({entry.kind for entry in ordered}) == 1
    remarks = tuple(_remarks(case, entry, ordered) if alike else _kind(entry) for entry in ordered)
    others = "the others" if names[2:] else "the other"
    hint = f"compare them, keep the better one, delete or rename {others}"
    best = [entry.name for entry, remark in zip(ordered, remarks, strict=True) if remark.startswith("larger, newer")]
    if choose("merge_identical"):
        hint = "on_conflict=merge_identical keeps one of them, the rest goes to the trash"
    elif best and choose("keep_newest"):
        hint = f"on_conflict=keep_newest keeps the larger and newer one, {best[0]}, the rest goes to the trash"
    if target in every:
        return Problem("target_exists", names, f"target already exists: {target}", hint, remarks)
    what = "target" if any(checkpoint.target == target for checkpoint in rivals) else "sidecar"
    return Problem("same_target", names, f"{len(names)} checkpoints for one {what}: {target}", hint, remarks)


def _headline(group: Group, rivals: Iterable[Checkpoint]) -> str:
    targets = sorted(checkpoint.target for checkpoint in rivals if checkpoint.target in group.wanted)
    return targets[0] if targets else min(group.wanted)


def _remarks(case: Case, entry: Entry, rivals: Sequence[Entry]) -> str:
    evidence, held = case.evidence, case.held
    others = [rival for rival in rivals if rival is not entry]
    misdated = is_misdated(entry.mtime_ns, evidence.now_ns)
    number = evidence.same.get(entry.name)
    twins = [rival.name for rival in others if number is not None and evidence.same.get(rival.name) == number]
    remarks = [
        *(["larger"] * all(entry.size > rival.size for rival in others)),
        *(["newer"] * (not misdated and all(entry.mtime_ns > rival.mtime_ns for rival in others))),
        *(f"same content as {name}" for name in twins[:1] if name < entry.name or rivals[0] is not entry),
        *([held[entry.name].text] if entry.name in held else []),
        *([case.busy[entry.name].text] if entry.name in case.busy else []),
        *(["not verified"] * (evidence.verified is not None and entry.name not in evidence.verified)),
    ]
    return ", ".join(remarks)


def _kind(entry: Entry) -> str:
    return "empty" if entry.kind == "file" and not entry.size else "" if entry.kind == "file" else entry.kind
