"""Pure: which checkpoints are not whole, and what is missing. What is not whole is left alone, and does not count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from ckptrules.engine.checkpoints import Checkpoint, Evidence, number
from ckptrules.engine.counted import families, why_too_few
from ckptrules.engine.cut_short import cut_short
from ckptrules.engine.entries import Listing, in_part_folder
from ckptrules.engine.naming import Reader, reader, stems_of
from ckptrules.engine.ruleset import Reason, Rule, RuleSet
from ckptrules.engine.shapes import in_yaml
from ckptrules.engine.sorting import Sorted

SHOWN = 3  # names of missing parts
OTHERS_HAVE = "which others of its series have"
BROKEN = "is broken, "
Needs = Mapping[str, tuple[Rule, set[str], set[str]]]
"""By the name of a checkpoint of parts: the format it is judged by, its parts there, and `families` of its series."""


def unwhole(
    found: Sorted, listing: Listing, rules: RuleSet, evidence: Evidence
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Find what is not whole, by the name that it goes by; and what shows that the newest is not, so it stays.

    Judged by names (markers, parts), sizes, what a format calls complete, and what verify found. What is in use is not
    whole either, and known apart (``evidence.in_use``): a run that goes on will end that.
    """
    marked = unfinished(found, listing, rules, evidence)
    nothing = {one.entry.name for one in found.empty}
    short, showing = cut_short((*found.checkpoints, *found.empty), {*marked, *evidence.in_use, *nothing})
    return marked | short, showing


def unfinished(found: Sorted, listing: Listing, rules: RuleSet, evidence: Evidence) -> dict[str, Reason]:
    """Find what is not whole by itself, or by what it lacks of its format."""
    markers = markers_in(listing, rules)
    asked = any(rule.complete for rule in (*rules.legacy, *rules.formats))
    torn = any(entry.torn for entry in listing.entries)
    if not (markers or asked or found.has_parts or evidence.broken or torn):
        return {}
    every = found.every
    needs = parts_needed(every, rules)
    folders = {folder for one in every for folder in folders_of(one)}.union(listing.part_folders)
    said = {
        one.entry.name: why_unfinished(
            (*one.names, *(in_part_folder(name)[1] for name in one.names), one.target), markers
        )
        or (Reason(f"is not whole: {one.flaw}", one.named_by.place) if one.flaw else None)
        or why_torn(one, folders)
        or why_incomplete(one, needs, evidence.inside)
        or why_broken(one, evidence.broken)
        or why_lacking_inside(one)
        for one in every
    }
    return {name: reason for name, reason in said.items() if reason}


def markers_in(listing: Listing, rules: RuleSet) -> dict[str, Reason]:
    """Map what stands before the ending of a marker to what the marker says."""
    return {
        entry.name.removesuffix(ending.text): Reason(f"is not finished, as {entry.name} says", ending.place)
        for ending in reversed(rules.unfinished)  # the first says it, as of names
        for entry in listing.entries
        if entry.name.endswith(ending.text)
    }


def why_unfinished(names: Iterable[str], markers: Mapping[str, Reason]) -> Reason | None:
    """Return what a marker says of any of some names."""
    if not markers:
        return None
    return next((markers[stem] for name in names for stem in stems_of(name) if stem in markers), None)


def parts_needed(checkpoints: Sequence[Checkpoint], rules: RuleSet) -> Needs:
    """Find for each checkpoint all parts that are seen in its series, under old names and new ones."""
    seen: dict[tuple[object, ...], set[str]] = defaultdict(set)
    found = {}
    read = reader(rules, sum(len(one.parts) for one in checkpoints))
    for one in checkpoints:
        if one.rule and one.parts:
            rule, texts = as_renamed(one, one.rule, read)
            seen[rule.id, one.series] |= families(texts)
            found[one.entry.name] = rule, texts, seen[rule.id, one.series]
    return found


def as_renamed(one: Checkpoint, rule: Rule, read: Reader) -> tuple[Rule, set[str]]:
    """Return the format that a checkpoint of parts is judged by, and what it captures as ``part``.

    That is the one of its new names, unless its own says what makes it complete: else the first that is left under its
    old name would be judged by itself alone, when the others of its series have got their new ones.
    """
    if not rule.complete:
        claims = [read(in_part_folder(part.target)[1], part.entry.kind == "directory").claim for part in one.parts]
        new = claims[0].rule
        if new and all(claim.rule is new for claim in claims):
            return new, {claim.fields.get("part", "") for claim in claims}
    return rule, {part.text.removeprefix(in_part_folder(part.entry.name)[0]).removeprefix("/") for part in one.parts}


def folders_of(one: Checkpoint) -> set[str]:
    """Return the part folders that hold some of a checkpoint."""
    return {in_part_folder(part.entry.name)[0] for part in one.parts} - {""}


def why_torn(one: Checkpoint, folders: set[str]) -> Reason | None:
    """Say which part folders hold nothing of a checkpoint, of those that hold any."""
    have = folders_of(one)
    if not have or have == folders:
        return None
    return Reason(f"is not whole: nothing of it is in {_listed(sorted(folders - have))}", one.named_by.place)


def why_lacking_inside(one: Checkpoint) -> Reason | None:
    """Say which shards a folder lacks, where these count themselves."""
    found = next((entry for entry in (one.entry, *(part.entry for part in one.parts)) if entry.torn), None)
    if found is None:
        return None
    where = f" in {found.name}" if one.parts else ""
    return Reason(f"is not whole: it has {found.torn}{where}", one.named_by.place)


def why_incomplete(one: Checkpoint, needs: Needs, inside: Mapping[str, frozenset[str]]) -> Reason | None:
    """Say what a checkpoint lacks by its format; without ``complete``, by the other checkpoints of its series."""
    if one.rule is None or not (one.rule.complete or one.parts):
        return None
    rule, texts, needed = needs.get(one.entry.name, (one.rule, set(), set()))
    count = number(one.fields.get("parts"))
    if count is not None and len(texts) < count:
        return Reason(f"is not whole: it has {len(texts)} of {count} parts", rule.place)
    if said := why_too_few(texts):
        return Reason(f"is not whole: it has {said}", rule.place)
    if rule.complete:
        met = frozenset[str]().union(*(inside.get(name, ()) for name in one.names))
        if rule.has_parts:
            met |= {pattern for pattern in rule.complete.all if any(fnmatchcase(text, pattern) for text in texts)}
        elif one.entry.kind != "directory":
            return None
        lacks = [pattern for pattern in rule.complete.all if pattern not in met]
        if lacks:
            return Reason(f"is not whole: it lacks {_listed(lacks)}", rule.complete.place)
        is_folder = "directory" in {one.entry.kind, *(part.entry.kind for part in one.parts)}
        if is_folder and rule.complete.any and not met.intersection(rule.complete.any):
            return Reason(f"is not whole: it has none of {_listed(rule.complete.any)}", rule.complete.place)
        return None
    if count is None and (lacks := sorted(needed - families(texts))):
        return Reason(f"is not whole: it lacks {_listed(lacks)}, {OTHERS_HAVE}", rule.place)
    return None


def as_sentence(fault: str) -> str:
    """Write a fault as a sentence: of a checkpoint, where it speaks of none of its parts."""
    return fault if fault.startswith("its ") else f"it {fault}"


def why_broken(one: Checkpoint, broken: Mapping[str, str]) -> Reason | None:
    """Return what is known to be wrong with the content of a checkpoint, or of a part of it, and who found it."""
    name = next((name for name in one.names if name in broken), None)
    where = f" ({name})" if one.parts else ""
    return Reason(f"{BROKEN}{broken[name]}{where}") if name else None


def complete_lines(found: Sorted, marked: Mapping[str, Reason], rules: RuleSet) -> Iterator[Reason]:
    """Yield the lines that would settle what a checkpoint needs, where only others tell that it lacks something."""
    if not any(reason.text.endswith(OTHERS_HAVE) for reason in marked.values()):
        return
    asked: dict[str, tuple[Rule, set[str]]] = {}
    for name, (rule, _, needed) in parts_needed(found.every, rules).items():
        if name in marked and marked[name].text.endswith(OTHERS_HAVE):
            asked.setdefault(rule.id, (rule, set()))[1].update(needed)
    for rule, texts in asked.values():
        line = f"complete: {{all: [{', '.join(map(in_yaml, sorted(texts)))}]}}"
        yield Reason(f"in the {rule.called} a line says which parts a checkpoint needs: {line}", rule.place)


def lacks_shown(every: Sequence[Checkpoint], marked: Mapping[str, Reason], rules: RuleSet) -> dict[Reason, list[str]]:
    """Map what only others show that it lacks to these: without them, it would count as whole."""
    torn = {name for name, reason in marked.items() if reason.text.endswith(OTHERS_HAVE)}
    if not torn:
        return {}
    series = {one.entry.name: one.series for one in every}
    shown: dict[tuple[object, ...], list[str]] = defaultdict(list)
    lacking: dict[tuple[object, ...], Reason] = {}
    for name, (rule, texts, needed) in parts_needed(every, rules).items():
        if name in torn:
            lacking[rule.id, series[name]] = Reason(f"it alone shows what {name} lacks", rule.place)
        elif name not in marked and families(texts) == needed:
            shown[rule.id, series[name]].append(name)
    return {why: shown[key] for key, why in lacking.items() if shown[key]}


def fitted(patterns: Iterable[str], paths: Iterable[str]) -> frozenset[str]:
    """Return the patterns that a path fits, looking no further than is needed."""
    every = frozenset(patterns)
    left = set(every)
    for path in paths:
        left -= {pattern for pattern in left if fnmatchcase(path, pattern)}
        if not left:
            break
    return every - left


def _listed(texts: Iterable[str]) -> str:
    shown = [in_yaml(text) for text in texts]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more
