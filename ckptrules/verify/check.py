"""Verifies one checkpoint directory: the names, each file's structure, what stands inside, and whether it loads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.sorting import Sorted, sort_entries, stray_logs
from ckptrules.engine.wholeness import unwhole
from ckptrules.formats.content import FileContent
from ckptrules.outputs.evidence import look_inside
from ckptrules.storage import reading
from ckptrules.verify import memory
from ckptrules.verify.faults import content_problems, joined, name_problems, not_whole, told_once, unlike_others
from ckptrules.verify.memory import CheckResult
from ckptrules.verify.portion import Checked, Desk, How, Read, identity_of, size_to_read


class Report(NamedTuple):
    """What came of one checkpoint directory; in a preview, the size of what is to be read, and how much of that is."""

    experiment: str
    directory: str
    rows: tuple[Checked, ...]
    problems: tuple[Problem, ...]
    to_read: int = 0
    expected: int = 0


class ToVerify(NamedTuple):
    """A directory of which the names were looked at: ``new`` is what is to be read, ``rows`` what is known already.

    ``twins`` are further names of a file that is read, with the one under which it is. ``marked`` says why checkpoints
    are not whole, ``others`` are names that belong to none; nothing of these is read.
    """

    desk: Desk
    listing: Listing
    found: Sorted
    new: tuple[Entry, ...]
    twins: tuple[tuple[Entry, str], ...]
    rows: tuple[Checked, ...]
    marked: Mapping[str, Reason]
    others: frozenset[str]


def begin(outputs_dir: str, rules: RuleSet, listing: Listing, how: How, now_ns: int) -> ToVerify:
    """Look at the names of a checkpoint directory, and find out what is to be read of it.

    Raises:
        OSError: it cannot be opened, or what is known of it is not to be believed.
    """
    # Which shards a folder lacks is found again, and named, when it is read.
    listing = listing._replace(entries=tuple(e._replace(torn="") if e.torn else e for e in listing.entries))
    found = sort_entries(rules, listing)
    with reading.open_below(outputs_dir, listing.directory) as directory:
        marked, _ = unwhole(found, listing, rules, Evidence(inside=look_inside(directory, listing, rules)))
        desk = Desk(outputs_dir, listing.directory, how, memory.recall(outputs_dir, listing.directory), now_ns)
        others = frozenset(stray_logs(found, listing, rules))
        left = {*others, *(name for one in found.every if one.entry.name in marked for name in one.names)}
        entries = [entry for entry in to_read(found, listing.entries, rules.sidecars) if entry.name not in left]
        identities = {entry.name: identity_of(desk, directory, entry) for entry in entries}
    known = {name: desk.known.get(identity) for name, identity in identities.items()}
    old = {name: this for name, this in known.items() if this and how.satisfied_by(this)}
    new = [entry for entry in entries if entry.name not in old]
    first = {identities[entry.name] or entry.name: entry.name for entry in reversed(new)}
    read_as = {entry.name: first[identities[entry.name] or entry.name] for entry in new}
    return ToVerify(
        desk, listing, found,
        tuple(entry for entry in new if read_as[entry.name] == entry.name),
        tuple((entry, read_as[entry.name]) for entry in new if read_as[entry.name] != entry.name),
        tuple(Checked(entry.name, entry.size, old[entry.name], read=False) for entry in entries if entry.name in old),
        marked, others,
    )  # fmt: skip


def _as_twin(read: Read, twin: Entry) -> Read:
    """Tell of another name what came of reading the file under the first."""
    problem = read.problem and read.problem._replace(names=(twin.name,))
    return read._replace(entry=twin, problem=problem)


def end(begun: ToVerify, rules: RuleSet, every: Iterable[Read]) -> tuple[Report, list[Read]]:
    """Judge a directory by what was read of it; return what is to be remembered besides, too.

    What was not read is told as such.
    """
    listing, checkpoints = begun.listing, begun.found.every
    by_name = {read.entry.name: read for read in every}
    told = [*by_name.values(), *(_as_twin(by_name[name], twin) for twin, name in begun.twins if name in by_name)]
    of_name = {one.entry.name: one for one in told}
    to_read = [entry for entry in begun.new if entry.name not in of_name]
    unread = [*to_read, *(twin for twin, _ in begun.twins if twin.name not in of_name)]
    read_now = [
        Checked(name, one.entry.size, None if one.problem else one.known, name in by_name)
        for name, one in of_name.items()
    ]
    rows = [*begun.rows, *read_now, *(Checked(one.name, one.size, None, read=False, unread=True) for one in unread)]
    rows.sort(key=lambda row: row.name)
    faults = sorted((one.problem for one in told if one.problem), key=lambda fault: fault.names)
    unlike = [
        of_name[fault.names[0]]._replace(known=CheckResult(FileContent(""), frozenset(), fault.text))
        for fault in unlike_others(rows, faults, checkpoints)
    ]
    missing = [one.entry for one in checkpoints if one.entry.name in begun.marked]
    every_row = [*rows, *(Checked(one.name, one.size, None, read=False, whole=False) for one in missing)]
    return Report(
        listing.experiment,
        listing.directory,
        tuple(joined(every_row, checkpoints)),
        tuple(sorted(_problems(begun, rules, rows, faults))),
        sum(entry.size for entry in to_read),
        sum(size_to_read(begun.desk, entry) for entry in to_read),
    ), unlike


def _problems(begun: ToVerify, rules: RuleSet, rows: Sequence[Checked], faults: Sequence[Problem]) -> Iterator[Problem]:
    """Yield what is wrong with a directory: by its names, the ``faults`` of what was read, and what stands inside."""
    found, marked = begun.found, begun.marked
    yield from found.problems
    yield from (not_whole(one, marked[one.entry.name]) for one in found.every if one.entry.name in marked)
    yield from name_problems(found, begun.listing, rules.sidecars, {*marked, *begun.others})
    unclaimed = {skipped.name for skipped in found.skipped}
    ours = [fault for fault in faults if not (fault.id == "unknown_format" and fault.names[0] in unclaimed)]
    yield from told_once(ours, found.every)
    named = {name: checkpoint for checkpoint in found.checkpoints for name in checkpoint.names}
    inside = [(named[row.name], row.name, row.known.facts) for row in rows if row.known and row.name in named]
    yield from content_problems(inside)


def to_read(found: Sorted, entries: Sequence[Entry], sidecars: tuple[str, ...]) -> list[Entry]:
    """List what is to be read, by name: all but links, ignored names, sidecars and what is empty or no file.

    A sidecar that ends like its checkpoint is one itself (the EMA of the weights, say).
    """
    passed_over = {s.name for s in found.skipped if s.kind == "ignored" or s.name.endswith(sidecars)}
    passed_over |= {problem.names[0] for problem in found.problems if problem.id == "empty"}  # so it is told
    for owner, owned in found.sidecars.items():
        ending = os.path.splitext(owner)[1]
        passed_over |= {sidecar.name for sidecar in owned if not (ending and sidecar.name.endswith(ending))}
    return [
        entry
        for entry in sorted(entries)
        if entry.kind in ("file", "directory") and entry.size and entry.name not in passed_over
    ]


def remember(desk: Desk, every: Iterable[Read]) -> None:
    """Remember what was read, of each for itself, as far as it tells anything new."""
    for read in every:
        if read.known and read.identity and desk.known.get(read.identity) != read.known:
            memory.remember(desk.outputs_dir, desk.path, read.identity, read.known)


def proved_names(outputs_dir: str, rules: RuleSet, listing: Listing) -> frozenset[str]:
    """Return the names that were verified earlier, checksums included, and still stand for the same content.

    A name that says another epoch or step than its content is not among them. Nothing is read but the memory.
    """
    known = memory.known_names(outputs_dir, listing)
    whole = {name: this.facts for name, this in known.items() if How().satisfied_by(this)}
    checkpoints = sort_entries(rules, listing).checkpoints
    named = [(one, name, whole[name]) for one in checkpoints for name in one.names if name in whole]
    return frozenset(whole) - {problem.names[0] for problem in content_problems(named)}


def sound(report: Report) -> Mapping[str, Checked]:
    """Return the rows that nothing is held against, by name: neither content nor, after a look at it, the name."""
    blamed = {name for problem in report.problems for name in problem.names}
    return {row.name: row for row in report.rows if row.known and blamed.isdisjoint((row.name, *row.with_it))}
