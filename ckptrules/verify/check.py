"""Verifies one checkpoint directory: names, the structure of files, the numbers inside, and whether they load."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.sorting import Sorted, sort_entries, stray_logs
from ckptrules.engine.wholeness import unfinished, unwhole
from ckptrules.formats.content import FileContent
from ckptrules.outputs.evidence import look_inside
from ckptrules.storage import reading
from ckptrules.verify import memory
from ckptrules.verify.faults import content_problems, join_parts, merge_alike, name_problems, not_whole, unlike_others
from ckptrules.verify.memory import CheckResult
from ckptrules.verify.portion import Context, Depth, Read, ReportRow, identity_of, size_to_read


class Report(NamedTuple):
    """The results of one checkpoint directory.

    ``to_read`` are the bytes of checkpoints that are not read yet, ``expected`` those of them that a check reads.
    """

    experiment: str
    directory: str
    rows: tuple[ReportRow, ...]
    problems: tuple[Problem, ...]
    to_read: int = 0
    expected: int = 0


class ToVerify(NamedTuple):
    """A directory whose names were checked.

    Attributes:
        new: the entries to read.
        twins: other names of files in ``new`` (hard links), each with the name there.
        rows: the checkpoints that an earlier run has verified.
        marked: why checkpoints are not whole, by name; only folders that the saves before them show so are read.
        others: names of logs and the like that belong to no checkpoint; these are not read.
    """

    context: Context
    listing: Listing
    found: Sorted
    new: tuple[Entry, ...]
    twins: tuple[tuple[Entry, str], ...]
    rows: tuple[ReportRow, ...]
    marked: Mapping[str, Reason]
    others: frozenset[str]


def begin(outputs_dir: str, rules: RuleSet, listing: Listing, depth: Depth, now_ns: int) -> ToVerify:
    """Check the names of a checkpoint directory, and find out which entries to read.

    Raises:
        OSError: the directory cannot be opened, or the memory of it cannot be trusted.
    """
    # `check_folder` finds missing shards itself, and names them.
    listing = listing._replace(entries=tuple(e._replace(torn="") if e.torn else e for e in listing.entries))
    found = sort_entries(rules, listing)
    with reading.open_below(outputs_dir, listing.directory) as directory:
        evidence = Evidence(inside=look_inside(directory, listing, rules))
        marked, _ = unwhole(found, listing, rules, evidence)
        # Folders that lack files only by comparison with earlier ones are read, too: their other faults say more.
        short = marked.keys() - unfinished(found, listing, rules, evidence)
        read_too = {entry.name for entry in listing.entries if entry.kind == "directory" and entry.name in short}
        context = Context(outputs_dir, listing.directory, depth, memory.recall(outputs_dir, listing.directory), now_ns)
        others = frozenset(stray_logs(found.skipped, listing, rules))
        left = {*others, *(name for one in found.every if one.entry.name in marked for name in one.names)} - read_too
        entries = [entry for entry in to_read(found, listing.entries, rules.sidecars) if entry.name not in left]
        identities = {entry.name: identity_of(context, directory, entry) for entry in entries}
    known = {name: context.earlier.get(identity) for name, identity in identities.items()}
    old = {name: this for name, this in known.items() if this and depth.satisfied_by(this)}
    new = [entry for entry in entries if entry.name not in old]
    first = {identities[entry.name] or entry.name: entry.name for entry in reversed(new)}
    read_as = {entry.name: first[identities[entry.name] or entry.name] for entry in new}
    return ToVerify(
        context,
        listing,
        found,
        new=tuple(entry for entry in new if read_as[entry.name] == entry.name),
        twins=tuple((entry, read_as[entry.name]) for entry in new if read_as[entry.name] != entry.name),
        rows=tuple(
            ReportRow(entry.name, entry.size, old[entry.name], read=False) for entry in entries if entry.name in old
        ),
        marked=marked,
        others=others,
    )


def _as_twin(read: Read, twin: Entry) -> Read:
    """Return the result of a file for another of its names."""
    problem = read.problem and read.problem._replace(names=(twin.name,))
    return read._replace(entry=twin, problem=problem)


def end(begun: ToVerify, rules: RuleSet, every: Iterable[Read]) -> tuple[Report, list[Read]]:
    """Return the report on a directory by the results of its entries, and further results to remember.

    Entries without a result count as not read.
    """
    listing, checkpoints = begun.listing, begun.found.every
    read = {one.entry.name: one for one in every}
    results = {**read, **{twin.name: _as_twin(read[name], twin) for twin, name in begun.twins if name in read}}
    to_read = [entry for entry in begun.new if entry.name not in results]
    unread = [*to_read, *(twin for twin, _ in begun.twins if twin.name not in results)]
    read_now = [
        ReportRow(name, one.entry.size, None if one.problem else one.result, name in read)
        for name, one in results.items()
    ]
    rows = [*begun.rows, *read_now, *(ReportRow(one.name, one.size, None, read=False, unread=True) for one in unread)]
    rows.sort(key=lambda row: row.name)
    faults = sorted((one.problem for one in results.values() if one.problem), key=lambda fault: fault.names)
    unlike = [
        results[fault.names[0]]._replace(result=CheckResult(FileContent(""), frozenset(), fault.text))
        for fault in unlike_others(rows, faults, checkpoints)
    ]
    faulty = {name for fault in faults for name in fault.names}
    begun = begun._replace(marked={name: why for name, why in begun.marked.items() if name not in faulty})
    missing = {
        one.entry.name: ReportRow(one.entry.name, one.entry.size, None, read=one.entry.name in read, whole=False)
        for one in checkpoints
        if one.entry.name in begun.marked
    }
    every_row = [*(row for row in rows if row.name not in missing), *missing.values()]
    return Report(
        listing.experiment,
        listing.directory,
        rows=tuple(join_parts(every_row, checkpoints)),
        problems=tuple(sorted(_problems(begun, rules, rows, faults))),
        to_read=sum(entry.size for entry in to_read),
        expected=sum(size_to_read(begun.context, entry) for entry in to_read),
    ), unlike


def _problems(
    begun: ToVerify, rules: RuleSet, rows: Sequence[ReportRow], faults: Sequence[Problem]
) -> Iterator[Problem]:
    """Yield the problems of a directory: of its names, of the files that were read, and of the numbers inside."""
    found, marked = begun.found, begun.marked
    yield from found.problems
    yield from (not_whole(one, marked[one.entry.name]) for one in found.every if one.entry.name in marked)
    yield from name_problems(found, begun.listing, rules.sidecars, {*marked, *begun.others})
    unclaimed = {skipped.name for skipped in found.skipped}
    ours = [fault for fault in faults if not (fault.id == "unknown_format" and fault.names[0] in unclaimed)]
    yield from merge_alike(ours, found.every)
    named = {name: checkpoint for checkpoint in found.checkpoints for name in checkpoint.names}
    inside = [(named[row.name], row.name, row.result.content) for row in rows if row.result and row.name in named]
    yield from content_problems(inside)


def to_read(found: Sorted, entries: Sequence[Entry], sidecars: tuple[str, ...]) -> list[Entry]:
    """List the entries to read, by name: all but links, ignored names, sidecars, and entries without bytes.

    A sidecar with the ending of its checkpoint is one itself (the EMA of the weights, say), and is read.
    """
    passed_over = {s.name for s in found.skipped if s.kind == "ignored" or s.name.endswith(sidecars)}
    passed_over |= {problem.names[0] for problem in found.problems if problem.id == "empty"}
    for owner, owned in found.sidecars.items():
        ending = os.path.splitext(owner)[1]
        passed_over |= {sidecar.name for sidecar in owned if not (ending and sidecar.name.endswith(ending))}
    return [
        entry
        for entry in sorted(entries)
        if entry.kind in ("file", "directory") and entry.size and entry.name not in passed_over
    ]


def remember(context: Context, every: Iterable[Read]) -> None:
    """Write into the memory each result that is not there yet."""
    for read in every:
        if read.result and read.identity and context.earlier.get(read.identity) != read.result:
            memory.remember(context.outputs_dir, context.path, read.identity, read.result)


def proved_names(outputs_dir: str, rules: RuleSet, listing: Listing) -> frozenset[str]:
    """Return the names whose files were verified with checksums, and have not changed since. Opens no checkpoint.

    Names that have another epoch or step than their content are left out.
    """
    known = memory.results_by_name(outputs_dir, listing)
    whole = {name: this.content for name, this in known.items() if Depth().satisfied_by(this)}
    checkpoints = sort_entries(rules, listing).checkpoints
    named = [(one, name, whole[name]) for one in checkpoints for name in one.names if name in whole]
    return frozenset(whole) - {problem.names[0] for problem in content_problems(named)}


def sound(report: Report) -> Mapping[str, ReportRow]:
    """Return by name the rows that are verified, and whose names are in no problem."""
    blamed = {name for problem in report.problems for name in problem.names}
    return {row.name: row for row in report.rows if row.result and blamed.isdisjoint((row.name, *row.other_names))}
