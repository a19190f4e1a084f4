"""Verifies one checkpoint directory: names, the structure of files, the numbers inside, and whether they load."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.names.sorting import Sorted, sort_entries, stray_logs
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.whole.wholeness import unfinished, unwhole
from ckptrules.formats.content import FileContent
from ckptrules.outputs.evidence import look_inside
from ckptrules.storage import reading
from ckptrules.verify import memory
from ckptrules.verify.faults import (
    OLD_NAME,
    content_problems,
    join_parts,
    merge_alike,
    name_problems,
    not_whole,
    unlike_others,
)
from ckptrules.verify.memory import CheckResult
from ckptrules.verify.portion import Context, Depth, Read, ReportRow, identity_of_files, size_to_read


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
        entries: all that can be read, by name.
        known: the results of those that an earlier run has verified, by name.
        read_as: by the names of the others, the name under which each is read: hard links to one file are read once.
        marked: why checkpoints are not whole, by name; only folders that the saves before them show so are read.
        others: names of logs and the like that belong to no checkpoint; these are not read.
    """

    context: Context
    listing: Listing
    found: Sorted
    entries: tuple[Entry, ...]
    known: Mapping[str, CheckResult]
    read_as: Mapping[str, str]
    marked: Mapping[str, Reason]
    others: frozenset[str]

    @property
    def new(self) -> list[Entry]:
        """The entries to read."""
        return [entry for entry in self.entries if self.read_as.get(entry.name) == entry.name]


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
        identities = {entry.name: identity_of_files(context, directory, entry) for entry in entries}
    earlier = {name: context.earlier.get(identity) for name, identity in identities.items()}
    known = {name: this for name, this in earlier.items() if this and depth.satisfied_by(this)}
    first: dict[str, str] = {}
    read_as = {name: first.setdefault(one or name, name) for name, one in identities.items() if name not in known}
    return ToVerify(context, listing, found, tuple(entries), known, read_as, marked, others)


def _as_named(read: Read, entry: Entry) -> Read:
    """Return the result of a file for one of its names."""
    problem = read.problem and read.problem._replace(names=(entry.name,))
    return read._replace(entry=entry, problem=problem)


def end(begun: ToVerify, rules: RuleSet, every: Iterable[Read]) -> tuple[Report, list[Read]]:
    """Return the report on a directory by the results of its entries, and further results to remember.

    Entries without a result count as not read.
    """
    listing, checkpoints = begun.listing, begun.found.every
    read = {one.entry.name: one for one in every}
    read_as = ((entry, read.get(begun.read_as.get(entry.name, ""))) for entry in begun.entries)
    results = {entry.name: _as_named(one, entry) for entry, one in read_as if one}
    to_read = [entry for entry in begun.new if entry.name not in results]
    verified = {**begun.known, **{name: one.result for name, one in results.items() if not one.problem}}
    unread = begun.read_as.keys() - results.keys()
    rows = [
        ReportRow(one.name, one.size, verified.get(one.name), read=one.name in read, unread=one.name in unread)
        for one in begun.entries
    ]
    faults = sorted((one.problem for one in results.values() if one.problem), key=lambda fault: fault.names)
    unlike = [
        results[fault.names[0]]._replace(result=CheckResult(FileContent(""), frozenset(), fault.text))
        for fault in unlike_others(rows, faults, checkpoints)
    ]
    faulty = {name for fault in faults for name in fault.names}
    begun = begun._replace(marked={name: why for name, why in begun.marked.items() if name not in faulty})
    missing = {
        one.entry.name: ReportRow(one.entry.name, one.entry.size, read=one.entry.name in read, whole=False)
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
    """Return by name the rows that are verified, and whose names are in no problem, but for that of an old name."""
    blamed = {name for problem in report.problems if problem.id != OLD_NAME for name in problem.names}
    return {row.name: row for row in report.rows if row.result and blamed.isdisjoint((row.name, *row.other_names))}
