"""Verifies one checkpoint directory: the names, each file's structure, what stands inside, and whether it loads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.companions import suffix_of
from ckptrules.engine.sorting import Sorted, sort_entries
from ckptrules.engine.values import Checkpoint, Entry, Listing, Problem, RuleSet
from ckptrules.formats import loading
from ckptrules.formats.content import FileContent, Tell, UnsoundError, told_as_fault
from ckptrules.formats.files import check_file, open_file
from ckptrules.formats.folders import check_folder
from ckptrules.storage import reading
from ckptrules.verify import memory
from ckptrules.verify.memory import Known

ProgressBar = Callable[[int], contextlib.AbstractContextManager[Tell]]


class How(NamedTuple):
    """How much is asked for: ``quick`` leaves checksums out, ``load`` loads, ``unsafe`` may run code for that."""

    quick: bool = False
    load: bool = False
    unsafe: bool = False

    def satisfied_by(self, done: Collection[str]) -> bool:
        """Say whether what was done before is enough."""
        loaded = not self.load or "load" in done or (self.unsafe and "unsafe load" in done)
        return loaded and ("structure" if self.quick else "checksums") in done


class Row(NamedTuple):
    """One checkpoint of the list. ``known`` is None where it is not sound; ``read`` says that it was read just now."""

    name: str
    size: int
    known: Known | None
    read: bool


class Report(NamedTuple):
    """What came of one checkpoint directory."""

    experiment: str
    directory: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]


class Desk(NamedTuple):
    """Where and how one directory is verified: its descriptor, and what is known of it from before."""

    outputs_dir: str
    path: str
    directory: int
    how: How
    known: dict[str, Known]
    writes: bool
    now_ns: int


def verify(
    outputs_dir: str, rules: RuleSet, listing: Listing, how: How, progress: ProgressBar, now_ns: int, *, writes: bool
) -> Report:
    """Verify one checkpoint directory.

    ``progress`` gives, for a number of bytes, what takes the bytes read; ``writes``: what was verified is remembered.
    """
    found = sort_entries(rules, listing)
    problems = [*found.problems, *name_problems(found, listing, rules.sidecars)]
    named = {checkpoint.entry.name: checkpoint for checkpoint in found.checkpoints}
    with reading.open_below(outputs_dir, listing.directory) as directory:
        known = memory.recall(outputs_dir, listing.directory)
        desk = Desk(outputs_dir, listing.directory, directory, how, known, writes, now_ns)
        rows, faults = read_all(desk, to_read(found, listing.entries, rules.sidecars), progress)
    unclaimed = {skipped.name for skipped in found.skipped}
    problems += [fault for fault in faults if not (fault.id == "unknown_format" and fault.names[0] in unclaimed)]
    for row in rows:
        if row.known and (checkpoint := named.get(row.name)):
            problems += content_problems(checkpoint, row.known.facts)
    return Report(listing.experiment, listing.directory, tuple(rows), tuple(sorted(problems)))


def name_problems(found: Sorted, listing: Listing, sidecars: tuple[str, ...]) -> Iterator[Problem]:
    """Tell of names that are neither protected nor in the target format, and of sidecars that belong to nothing."""
    for checkpoint in found.checkpoints:
        name = checkpoint.entry.name
        if checkpoint.target != name:
            yield Problem(
                "not_migrated", (name,), "has an old name", f"'doit migrate' renames it to {checkpoint.target}"
            )
    owners = [entry.name for entry in listing.entries if not entry.name.endswith(sidecars)]
    stems = {stem for name in owners for stem in (name, os.path.splitext(name)[0])}
    for name in (skipped.name for skipped in found.skipped if skipped.kind == "unrecognised"):
        suffix = suffix_of(name, sidecars)
        if not suffix:
            hint = "add its format, or list it under 'protected' or 'ignored'"
            yield Problem("unrecognised", (name,), "is in no format that the rules know", hint)
        elif name.removesuffix(suffix) not in stems:
            hint = "rename it as its checkpoint was, or remove it"
            yield Problem("lost_sidecar", (name,), "belongs to no checkpoint that is here", hint)


def content_problems(checkpoint: Checkpoint, facts: FileContent) -> Iterator[Problem]:
    """Compare epoch and step inside with the name."""
    more = 1 if facts.counts_from_1 else 0
    for what, said, inside in (("epoch", checkpoint.epoch, facts.epoch), ("step", checkpoint.step, facts.step)):
        if said is not None and inside is not None and not said <= inside <= said + more:
            hint = "somebody renamed or overwrote it: find out which of the two is right"
            yield Problem("other_content", (checkpoint.entry.name,), f"holds {what} {inside}, not {said}", hint)


def to_read(found: Sorted, entries: Sequence[Entry], sidecars: tuple[str, ...]) -> list[Entry]:
    """List what is to be read, by name: all but links, ignored names, sidecars and what is empty or no file.

    A sidecar that ends like its checkpoint is one itself (the EMA of the weights, say).
    """
    passed_over = {s.name for s in found.skipped if s.kind == "ignored" or s.name.endswith(sidecars)}
    passed_over |= {
        problem.names[0] for problem in found.problems if problem.id == "empty"
    }  # all that there is to tell
    for owner, owned in found.sidecars.items():
        ending = os.path.splitext(owner)[1]
        passed_over |= {sidecar.name for sidecar in owned if not (ending and sidecar.name.endswith(ending))}
    return [
        entry
        for entry in sorted(entries)
        if entry.kind in ("file", "directory") and entry.size and entry.name not in passed_over
    ]


def read_all(desk: Desk, entries: Sequence[Entry], progress: ProgressBar) -> tuple[list[Row], list[Problem]]:
    """Read what is not known yet, and remember each that is sound."""
    identities = {entry.name: _identity(desk, entry) for entry in entries}
    new = [entry for entry in entries if not _is_known(desk, identities[entry.name])]
    rows: list[Row] = []
    problems: list[Problem] = []
    with progress(0 if desk.how.quick else sum(entry.size for entry in new)) as tell:
        for entry in entries:
            tell(0)
            identity = identities[entry.name]
            if _is_known(desk, identity):
                rows.append(Row(entry.name, entry.size, desk.known[identity], read=False))
                continue
            try:
                with told_as_fault(tell) as heard:
                    known = read_one(desk, entry, identity, heard)
            except UnsoundError as fault:
                problems.append(Problem(fault.id, (entry.name,), str(fault), fault.hint))
            except OSError as error:
                fact = f"cannot be read: {reading.why_of(error)}"
                problems.append(Problem("unreadable", (entry.name,), fact, "look at the owner and the mode: ls -la"))
            else:
                rows.append(Row(entry.name, entry.size, known, read=True))
                continue
            rows.append(Row(entry.name, entry.size, None, read=True))
    if desk.writes:
        memory.forget_others(desk.outputs_dir, desk.path, desk.known, set(identities.values()))
    return rows, problems


def read_one(desk: Desk, entry: Entry, identity: str, tell: Tell) -> Known:
    """Read one checkpoint, load it if that is asked for, and remember it.

    Raises:
        UnsoundError: it is damaged, does not load, or was changed meanwhile.
    """
    before = memory.parts(desk.directory, entry.name, entry.kind)
    if entry.kind == "directory":
        facts = check_folder(desk.directory, entry.name, tell, quick=desk.how.quick)
    else:
        with open_file(desk.directory, entry.name) as file:
            facts = check_file(file, before[0].size, tell, quick=desk.how.quick)
    done = {"structure"} if desk.how.quick else {"structure", "checksums"}
    if desk.how.load and facts.kind in loading.LOADS:
        path = os.path.join(desk.outputs_dir, desk.path, entry.name)
        done.add(loading.load(path, facts.kind, unsafe=desk.how.unsafe))
    elif desk.how.load:
        done.add("load")
    if memory.parts(desk.directory, entry.name, entry.kind) != before:
        raise UnsoundError("changing", "was written to while it was read", "wait until the training has written it")
    earlier = desk.known.get(identity)
    known = Known(facts, frozenset(done | (earlier.done if earlier else set())))
    if identity:
        desk.known[identity] = known
        if desk.writes:
            memory.remember(desk.outputs_dir, desk.path, identity, known)
    return known


def _is_known(desk: Desk, identity: str) -> bool:
    return identity in desk.known and desk.how.satisfied_by(desk.known[identity].done)


def _identity(desk: Desk, entry: Entry) -> str:
    """Return the identity of an entry; nothing where it cannot be read, which is told when it is its turn."""
    with contextlib.suppress(OSError, UnsoundError), told_as_fault(lambda _: None):
        return memory.identity(memory.parts(desk.directory, entry.name, entry.kind), desk.now_ns)
    return ""


def proved_names(outputs_dir: str, rules: RuleSet, listing: Listing) -> frozenset[str]:
    """Return the names that were verified earlier, checksums included, and still stand for the same content.

    A name that says another epoch or step than its content is not among them. Nothing is read but the memory.
    """
    known = memory.known_names(outputs_dir, listing)
    whole = {name: this.facts for name, this in known.items() if How().satisfied_by(this.done)}
    named = [checkpoint for checkpoint in sort_entries(rules, listing).checkpoints if checkpoint.entry.name in whole]
    false = {c.entry.name for c in named if any(content_problems(c, whole[c.entry.name]))}
    return frozenset(whole) - false


def sound(report: Report) -> Mapping[str, Row]:
    """Return the rows that nothing is held against, by name: neither content nor, after a look at it, the name."""
    blamed = {name for problem in report.problems for name in problem.names}
    return {row.name: row for row in report.rows if row.known and row.name not in blamed}
