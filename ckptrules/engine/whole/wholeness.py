"""Find which checkpoints are not whole, and what they lack; these are left alone and do not count. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from ckptrules.engine.checkpoints import Checkpoint, Evidence, number
from ckptrules.engine.entries import Listing, in_part_folder
from ckptrules.engine.measures import and_more
from ckptrules.engine.names.naming import Reader, reader, stems_of
from ckptrules.engine.names.sorting import Sorted
from ckptrules.engine.ruleset import Complete, Reason, Rule, RuleSet
from ckptrules.engine.shapes import in_yaml
from ckptrules.engine.whole.counted import families, why_too_few
from ckptrules.engine.whole.cut_short import cut_short

SHOWN = 3  # missing parts that a message names
OTHERS_HAVE = "others_have"  # id of a reason that only other checkpoints give
BROKEN = "broken"  # id of a reason that lies in the content
Needs = Mapping[str, tuple[Rule, set[str], set[str]]]
"""By the head of a checkpoint of parts: the format that judges it, the parts it has, and `families` of its series."""


def unwhole(
    found: Sorted, listing: Listing, rules: RuleSet, evidence: Evidence
) -> tuple[dict[str, Reason], dict[str, Reason]]:
    """Return two maps by head: why checkpoints are not whole, and why others stay that show it of the newest.

    Markers, parts, sizes, ``complete`` of a format and results of verify decide. Checkpoints in use are not among
    them (``evidence.in_use``): a running training may complete these.
    """
    marked = unfinished(found, listing, rules, evidence)
    empty = {checkpoint.entry.name for checkpoint in found.empty}
    short, showing = cut_short((*found.checkpoints, *found.empty), {*marked, *evidence.in_use, *empty})
    return marked | short, showing


def unfinished(found: Sorted, listing: Listing, rules: RuleSet, evidence: Evidence) -> dict[str, Reason]:
    """Return why checkpoints are not whole: by a marker, by their parts and content, or by what verify found."""
    markers = markers_in(listing, rules)
    has_complete = any(rule.complete for rule in (*rules.legacy, *rules.formats))
    has_torn = any(entry.torn for entry in listing.entries)
    if not (markers or has_complete or found.has_parts or evidence.broken or has_torn):
        return {}
    needs = parts_needed(found.every, rules)
    folders = {folder for one in found.every for folder in folders_of(one)}.union(listing.part_folders)
    reasons = {}
    for one in found.every:
        names = (*one.names, *(in_part_folder(name)[1] for name in one.names), one.target)
        reasons[one.entry.name] = (
            why_unfinished(names, markers)
            or (Reason(f"is not whole: {one.flaw}", one.named_by.place) if one.flaw else None)
            or why_torn(one, folders)
            or why_incomplete(one, needs, evidence.inside)
            or why_broken(one, evidence.broken)
            or why_lacking_inside(one)
        )
    return {name: reason for name, reason in reasons.items() if reason}


def markers_in(listing: Listing, rules: RuleSet) -> dict[str, Reason]:
    """Map the name of each marker, without its ending, to the reason that it gives."""
    return {
        entry.name.removesuffix(ending.text): Reason(f"is not finished, as {entry.name} says", ending.place)
        for ending in reversed(rules.unfinished)  # so that the first ending in the rules wins
        for entry in listing.entries
        if entry.name.endswith(ending.text)
    }


def why_unfinished(names: Iterable[str], markers: Mapping[str, Reason]) -> Reason | None:
    """Return the reason of the first marker that stands beside one of these names; None without one."""
    if not markers:
        return None
    return next((markers[stem] for name in names for stem in stems_of(name) if stem in markers), None)


def parts_needed(checkpoints: Sequence[Checkpoint], rules: RuleSet) -> Needs:
    """Return `Needs`: for each checkpoint the parts that any checkpoint of its series has, under old or new names."""
    of_series: dict[tuple[object, ...], set[str]] = defaultdict(set)
    needs = {}
    read = reader(rules, sum(len(one.parts) for one in checkpoints))
    for one in checkpoints:
        if one.rule and one.parts:
            rule, texts = as_renamed(one, one.rule, read)
            of_series[rule.id, one.series] |= families(texts)
            needs[one.entry.name] = rule, texts, of_series[rule.id, one.series]
    return needs


def as_renamed(one: Checkpoint, rule: Rule, read: Reader) -> tuple[Rule, set[str]]:
    """Return the format that judges a checkpoint of parts, and the ``part`` texts that this format captures.

    A format with ``complete`` judges its own names. Otherwise the format of the new names judges, so that a checkpoint
    that keeps its old name is still compared with the renamed ones of its series.
    """
    if not rule.complete:
        claims = [read(in_part_folder(part.target)[1], part.entry.kind == "directory").claim for part in one.parts]
        new = claims[0].rule
        if new and all(claim.rule is new for claim in claims):
            return new, {claim.fields.get("part", "") for claim in claims}
    return rule, {part.text.removeprefix(in_part_folder(part.entry.name)[0]).removeprefix("/") for part in one.parts}


def folders_of(one: Checkpoint) -> set[str]:
    """Return the part folders that hold parts of a checkpoint."""
    return {in_part_folder(part.entry.name)[0] for part in one.parts} - {""}


def why_torn(one: Checkpoint, folders: set[str]) -> Reason | None:
    """Return which part folders hold no part of a checkpoint; None where all do, or none."""
    have = folders_of(one)
    if not have or have == folders:
        return None
    return Reason(f"is not whole: nothing of it is in {_listed(sorted(folders - have))}", one.named_by.place)


def why_lacking_inside(one: Checkpoint) -> Reason | None:
    """Return which shards or ranks are missing in a folder, by the names inside (``Entry.torn``); None if none are."""
    torn = next((entry for entry in (one.entry, *(part.entry for part in one.parts)) if entry.torn), None)
    if torn is None:
        return None
    where = f" in {torn.name}" if one.parts else ""
    return Reason(f"is not whole: it has {torn.torn}{where}", one.named_by.place)


def why_incomplete(one: Checkpoint, needs: Needs, inside: Mapping[str, frozenset[str]]) -> Reason | None:
    """Return what a checkpoint lacks: by the counts in its names, by ``complete``, or else by others of its series."""
    if one.rule is None or not (one.rule.complete or one.parts):
        return None
    rule, texts, needed = needs.get(one.entry.name, (one.rule, set(), set()))
    count = number(one.fields.get("parts")) if one.parts else None
    if count is not None and len(texts) < count:
        return Reason(f"is not whole: it has {len(texts)} of {count} parts", rule.place)
    if too_few := why_too_few(texts):
        return Reason(f"is not whole: it has {too_few}", rule.place)
    if rule.complete:
        return _why_not_complete(one, rule, rule.complete, texts, inside)
    if count is None and (lacks := sorted(needed - families(texts))):
        text = f"is not whole: it lacks {_listed(lacks)}, which others of its series have"
        return Reason(text, rule.place, OTHERS_HAVE)
    return None


def _why_not_complete(
    one: Checkpoint, rule: Rule, complete: Complete, texts: set[str], inside: Mapping[str, frozenset[str]]
) -> Reason | None:
    met = frozenset[str]().union(*(inside.get(name, ()) for name in one.names))
    if rule.has_parts:
        met |= {pattern for pattern in complete.all if any(fnmatchcase(text, pattern) for text in texts)}
    elif one.entry.kind != "directory":
        return None
    if lacks := [pattern for pattern in complete.all if pattern not in met]:
        return Reason(f"is not whole: it lacks {_listed(lacks)}", complete.place)
    is_folder = "directory" in {one.entry.kind, *(part.entry.kind for part in one.parts)}
    if is_folder and complete.any and not met.intersection(complete.any):
        return Reason(f"is not whole: it has none of {_listed(complete.any)}", complete.place)
    return None


def as_sentence(fault: str) -> str:
    """Return a fault as a sentence, with ``it`` before a fault that has no subject."""
    return fault if fault.startswith("its ") else f"it {fault}"


def why_broken(one: Checkpoint, broken: Mapping[str, str]) -> Reason | None:
    """Return what is wrong with the content of a checkpoint or of one part, and who found it; None where nothing is."""
    name = next((name for name in one.names if name in broken), None)
    where = f" ({name})" if one.parts else ""
    return Reason(f"is broken, {broken[name]}{where}", id=BROKEN) if name else None


def complete_lines(found: Sorted, marked: Mapping[str, Reason], rules: RuleSet) -> Iterator[Reason]:
    """Yield the ``complete`` lines that would decide, for formats where only other checkpoints show what is missing."""
    torn = {name for name, reason in marked.items() if reason.id == OTHERS_HAVE}
    needed_by: dict[str, tuple[Rule, set[str]]] = {}
    for name, (rule, _, needed) in parts_needed(found.every, rules).items():
        if name in torn:
            needed_by.setdefault(rule.id, (rule, set()))[1].update(needed)
    for rule, texts in needed_by.values():
        line = f"complete: {{all: [{', '.join(map(in_yaml, sorted(texts)))}]}}"
        yield Reason(f"in the {rule.called} a line says which parts a checkpoint needs: {line}", rule.place)


def witnesses(every: Sequence[Checkpoint], marked: Mapping[str, Reason], rules: RuleSet) -> dict[Reason, list[str]]:
    """Return, for each series with a torn checkpoint, the complete ones, by the reason why one of them must stay.

    Without them, the torn one would count as whole.
    """
    torn = {name for name, reason in marked.items() if reason.id == OTHERS_HAVE}
    series = {one.entry.name: one.series for one in every}
    complete: dict[tuple[object, ...], list[str]] = defaultdict(list)
    reasons: dict[tuple[object, ...], Reason] = {}
    for name, (rule, texts, needed) in parts_needed(every, rules).items():
        if name in torn:
            reasons[rule.id, series[name]] = Reason(f"it alone shows what {name} lacks", rule.place)
        elif name not in marked and families(texts) == needed:
            complete[rule.id, series[name]].append(name)
    return {why: complete[key] for key, why in reasons.items() if complete[key]}


def fitted(patterns: Iterable[str], paths: Iterable[str]) -> frozenset[str]:
    """Return the patterns that any of the paths fits; paths are read only until every pattern has one."""
    every = frozenset(patterns)
    left = set(every)
    for path in paths:
        left -= {pattern for pattern in left if fnmatchcase(path, pattern)}
        if not left:
            break
    return every - left


def _listed(texts: Iterable[str]) -> str:
    return and_more([in_yaml(text) for text in texts], SHOWN)
