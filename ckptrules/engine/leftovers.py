"""Pure: names that are no checkpoints, left by a crash or a writer: they go when they are old enough."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from ckptrules.engine.actions import Action, Skipped
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import NOT_READ, Entry, Listing, in_part_folder
from ckptrules.engine.judging import SKEW_NS, is_misdated
from ckptrules.engine.measures import NS, human_time
from ckptrules.engine.naming import first_pattern, fits, stems_of
from ckptrules.engine.ruleset import Leftover, Reason, RuleSet
from ckptrules.engine.sorting import HOLDING, Sorted


class Swept(NamedTuple):
    """What becomes of the leftovers of a directory: the actions, and the rows of those that stay."""

    actions: tuple[Action, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def names(self) -> set[str]:
        """All of them."""
        return {*(action.name for action in self.actions), *(row.name for row in self.skipped)}


def sweep(
    found: Sorted, listing: Listing, rules: RuleSet, evidence: Evidence, linked: Mapping[str, Reason], *, deletes: bool
) -> Swept:
    """Let the leftovers go that are old enough, and say why the others stay.

    What ``found.skipped`` names may be a leftover, and nothing else. What is ``linked`` stays: links and pointer files
    lead to it. ``deletes`` says whether anything may be deleted at all.
    """
    if not rules.leftovers:
        return Swept()
    entries = {entry.name: entry for entry in listing.entries if entry.kind in HOLDING}
    names = [row.name for row in found.skipped if row.name in entries]
    meant = {name: rule for name in names if (rule := leftover_of(name, rules))}
    beside = markers_in_force(meant, found, listing, rules)
    actions, skipped = [], []
    for name, rule in meant.items():
        entry, said = entries[name], f"goes after {rule.after}"
        holds = why_it_stays(entry, evidence, {**linked, **beside})
        if not deletes:
            pass
        elif holds:
            said = holds
        elif is_misdated(entry.mtime_ns, evidence.now_ns):
            said = f"{said}, but its time lies ahead" if entry.mtime_ns > 0 else f"{said}, but its time is before 1970"
        else:
            age_ns = max(evidence.now_ns - entry.mtime_ns, 0) if evidence.now_ns else 0
            said = f"{human_time(age_ns // NS)} old, {said}"
            if age_ns > rule.seconds * NS:
                why = (Reason(f"leftover, {said}", rule.place),)
                actions.append(Action("sweep", name, "", entry.size, why))
                continue
        skipped.append(Skipped(name, "ignored", Reason(f"leftover, {said}", rule.place)))
    return Swept(tuple(actions), tuple(skipped))


def leftover_of(name: str, rules: RuleSet) -> Leftover | None:
    """Return the line by which a name is a leftover; of several the one that lets it wait longest.

    What a format fits, whether as a file or as a directory, is none, nor is a pointer file.

    Raises:
        SlowRuleError: a format takes too long; nobody knows whether it fits.
    """
    name = in_part_folder(name)[1]
    fitting = [one for one in rules.leftovers if fnmatchcase(name, one.text)]
    if not fitting or first_pattern(name, rules.protected) or first_pattern(name, rules.pointers):
        return None
    if any(fits(rule, name) is not None for rule in (*rules.targets, *rules.legacy, *rules.formats)):
        return None
    return max(fitting, key=lambda one: (one.seconds, one.place))


def markers_in_force(meant: Collection[str], found: Sorted, listing: Listing, rules: RuleSet) -> dict[str, Reason]:
    """Map the markers among the leftovers that stand beside something, other leftovers aside, to what that is."""
    endings = [ending.text for ending in rules.unfinished]
    stems = {name: in_part_folder(name)[1].removesuffix(end) for name in meant for end in endings if name.endswith(end)}
    if not stems:
        return {}
    others = [entry.name for entry in listing.entries if entry.name not in meant]
    owners = {stem: name for name in sorted(others) for stem in stems_of(in_part_folder(name)[1])}
    owners |= {stem: one.entry.name for one in found.checkpoints for stem in stems_of(one.target)}
    return {name: Reason(f"it stands beside {owners[stem]}") for name, stem in stems.items() if stem in owners}


def why_it_stays(entry: Entry, evidence: Evidence, held: Mapping[str, Reason]) -> str:
    """Say what holds a leftover however old it is, or nothing."""
    if entry.name in evidence.in_use:
        return f"but it is in use: {evidence.in_use[entry.name]}"
    if said := evidence.pointers.get(entry.name):  # else what it names would go by the next run
        return f"but it names {said[0].name}"
    if entry.name in evidence.holding:
        return "but a directory of checkpoints is in it"
    if entry.hollow.startswith(NOT_READ):
        return f"but it holds {entry.hollow}"
    return f"but {held[entry.name].text}" if entry.name in held else ""


def leftovers_until(rules: RuleSet, listing: Listing, now_ns: int) -> Iterator[int]:
    """Yield when a leftover of a directory gets old enough, or its time, which lies ahead, is there."""
    for entry in listing.entries if rules.leftovers else ():
        if entry.kind in HOLDING and (rule := leftover_of(entry.name, rules)):
            ahead = is_misdated(entry.mtime_ns, now_ns)
            yield entry.mtime_ns - SKEW_NS - 1 if ahead else entry.mtime_ns + rule.seconds * NS
