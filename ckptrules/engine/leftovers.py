"""Find leftovers, which a crash or a writer left and which are no checkpoints, and delete the old ones. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase

from ckptrules.engine.actions import Action, Skipped
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Entry, Listing, in_part_folder
from ckptrules.engine.measures import NS, human_time
from ckptrules.engine.names.case import Case
from ckptrules.engine.names.naming import first_pattern, fits, stems_of
from ckptrules.engine.names.sorting import HOLDING
from ckptrules.engine.policy.judging import SKEW_NS, is_misdated
from ckptrules.engine.ruleset import Leftover, Reason, RuleSet


def sweep(case: Case) -> dict[str, Action | Skipped]:
    """Return what happens to each leftover, by name: an action deletes it if it is old enough, else a row says why not.

    Only names that sorting has skipped can be leftovers. Without a policy, nothing is deleted.
    """
    evidence = case.evidence
    if not case.rules.leftovers:
        return {}
    entries = {entry.name: entry for entry in case.listing.entries if entry.kind in HOLDING}
    names = [row.name for row in case.found.skipped if row.name in entries]
    leftovers = {name: rule for name in names if (rule := leftover_of(name, case.rules))}
    held = {**case.held, **markers_in_force(case, leftovers)}
    rows: dict[str, Action | Skipped] = {}
    for name, rule in leftovers.items():
        entry, text, is_old = entries[name], f"goes after {rule.after}", False
        if case.policy is None:
            pass
        elif why := why_it_stays(entry, evidence, held):
            text = why
        elif is_misdated(entry.mtime_ns, evidence.now_ns):
            text = f"{text}, but its time lies ahead" if entry.mtime_ns > 0 else f"{text}, but its time is before 1970"
        else:
            age_ns = max(evidence.now_ns - entry.mtime_ns, 0)
            text = f"{human_time(age_ns // NS)} old, {text}"
            is_old = age_ns > rule.seconds * NS
        reason = Reason(f"leftover, {text}", rule.place)
        rows[name] = Action("sweep", name, "", entry.size, (reason,)) if is_old else Skipped(name, "ignored", reason)
    return rows


def leftover_of(name: str, rules: RuleSet) -> Leftover | None:
    """Return the line of ``leftovers`` that fits a name, of several the one with the longest wait; None without one.

    A name that a format fits, as a file or as a folder, is no leftover; nor is a protected name or a pointer file.

    Raises:
        SlowRuleError: a format takes too long, so nobody knows whether it fits.
    """
    name = in_part_folder(name)[1]
    fitting = [one for one in rules.leftovers if fnmatchcase(name, one.text)]
    if not fitting or first_pattern(name, rules.protected) or first_pattern(name, rules.pointers):
        return None
    if any(fits(rule, name) is not None for rule in (*rules.targets, *rules.legacy, *rules.formats)):
        return None
    return max(fitting, key=lambda one: (one.seconds, one.place))


def markers_in_force(case: Case, leftovers: Collection[str]) -> dict[str, Reason]:
    """Return why leftovers stay that mark something as unfinished which is not a leftover itself."""
    stems = {}
    for name in leftovers:
        for ending in case.rules.unfinished:
            if name.endswith(ending.text):
                stems[name] = in_part_folder(name)[1].removesuffix(ending.text)
    if not stems:
        return {}
    others = [entry.name for entry in case.listing.entries if entry.name not in leftovers]
    owners = {stem: name for name in sorted(others) for stem in stems_of(in_part_folder(name)[1])}
    owners |= {stem: one.entry.name for one in case.found.checkpoints for stem in stems_of(one.target)}
    return {name: Reason(f"it stands beside {owners[stem]}") for name, stem in stems.items() if stem in owners}


def why_it_stays(entry: Entry, evidence: Evidence, held: Mapping[str, Reason]) -> str:
    """Return what holds a leftover regardless of its age; empty where nothing does."""
    if entry.name in evidence.in_use:
        return f"but it is in use: {evidence.in_use[entry.name]}"
    if mentions := evidence.pointers.get(entry.name):  # without it, the next run could delete what it names
        return f"but it names {mentions[0].name}"
    if entry.name in evidence.holding:
        return "but a directory of checkpoints is in it"
    if entry.unread:
        return f"but it holds {entry.hollow}"
    return f"but {held[entry.name].text}" if entry.name in held else ""


def leftovers_until(rules: RuleSet, listing: Listing, now_ns: int) -> Iterator[int]:
    """Yield when each leftover gets old enough, or its impossible time possible, in nanoseconds since 1970."""
    for entry in listing.entries if rules.leftovers else ():
        if entry.kind in HOLDING and (rule := leftover_of(entry.name, rules)):
            ahead = is_misdated(entry.mtime_ns, now_ns)
            yield entry.mtime_ns - SKEW_NS - 1 if ahead else entry.mtime_ns + rule.seconds * NS
