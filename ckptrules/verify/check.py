"""Verifies one checkpoint directory: the names, each file's structure, what stands inside, and whether it loads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.checkpoints import Checkpoint, Evidence, Part
from ckptrules.engine.companions import suffix_of
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.sorting import Sorted, beside, sort_entries
from ckptrules.engine.wholeness import unwhole
from ckptrules.formats import loading
from ckptrules.formats.content import FileContent, Tell, UnsoundError, told_as_fault
from ckptrules.formats.files import bytes_to_read, check_file, open_file
from ckptrules.formats.folders import Shard, ShardAnswer, bytes_to_read_in, check_folder, check_shard, shards_to_read
from ckptrules.outputs.evidence import look_inside
from ckptrules.storage import reading
from ckptrules.verify import memory
from ckptrules.verify.memory import Known
from ckptrules.workers.pieces import SMALL, Lost

SHARED = 4 * SMALL  # bytes of a folder of which the files are read side by side
READ_HERE = "'doit verify executor=none' reads it in the process that you start"
BROKEN = ("truncated", "damaged", "incomplete", "does_not_load")  # problems of a content that is not whole


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
    """One checkpoint of the list. ``known`` is None where it is not sound; ``read`` says that it was read just now.

    ``unread`` is one that nobody knows yet, in a preview. ``with_it`` are its other names where it is several, and
    ``whole`` is false where something of it is missing.
    """

    name: str
    size: int
    known: Known | None
    read: bool
    with_it: tuple[str, ...] = ()
    whole: bool = True
    unread: bool = False


class Report(NamedTuple):
    """What came of one checkpoint directory; in a preview, the size of what is to be read, and how much of that is."""

    experiment: str
    directory: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    to_read: int = 0
    expected: int = 0


class Desk(NamedTuple):
    """Where and how the checkpoints of one directory are verified, and what is known of them from before."""

    outputs_dir: str
    path: str
    how: How
    known: Mapping[str, Known]
    now_ns: int


class Begun(NamedTuple):
    """A directory of which the names were looked at: ``new`` is what is to be read, ``rows`` what is known already.

    ``twins`` are further names of a file that is read, with the one under which it is. ``marked`` says why checkpoints
    are not whole, ``others`` are names that belong to none; nothing of these is read. ``living`` are the identities of
    all that is there.
    """

    desk: Desk
    listing: Listing
    found: Sorted
    new: tuple[Entry, ...]
    twins: tuple[tuple[Entry, str], ...]
    rows: tuple[Row, ...]
    marked: Mapping[str, Reason]
    others: frozenset[str]
    living: frozenset[str]


class Portion(NamedTuple):
    """What one worker reads at a time: a checkpoint, or one of the so many files of a folder that several share."""

    entry: Entry
    shard: Shard | None = None
    of: int = 1

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.shard.size if self.shard else self.entry.size


class Read(NamedTuple):
    """What came of one checkpoint that was read; ``identity`` is empty where it is not to be remembered."""

    entry: Entry
    identity: str
    known: Known | None
    problem: Problem | None = None


Answer = Read | ShardAnswer | Lost
"""What comes of a portion."""


def begin(outputs_dir: str, rules: RuleSet, listing: Listing, how: How, now_ns: int) -> Begun:
    """Look at the names of a checkpoint directory, and find out what is to be read of it.

    Raises:
        OSError: it cannot be opened, or what is known of it is not to be believed.
    """
    found = sort_entries(rules, listing)
    with reading.open_below(outputs_dir, listing.directory) as directory:
        marked = unwhole(found, listing, rules, Evidence(inside=look_inside(directory, listing, rules)))
        desk = Desk(outputs_dir, listing.directory, how, memory.recall(outputs_dir, listing.directory), now_ns)
        others = frozenset(beside(found, listing, rules))
        missing = {name for one in _every(found) if one.entry.name in marked for name in one.names}
        entries = [
            entry
            for entry in to_read(found, listing.entries, rules.sidecars)
            if entry.name not in missing and entry.name not in others
        ]
        identities = {entry.name: _identity(desk, directory, entry) for entry in entries}
    known = {name: desk.known.get(identity) for name, identity in identities.items()}
    old = {name: this for name, this in known.items() if this and how.satisfied_by(this.done)}
    new = [entry for entry in entries if entry.name not in old]
    first = {identities[entry.name] or entry.name: entry.name for entry in reversed(new)}
    read_as = {entry.name: first[identities[entry.name] or entry.name] for entry in new}
    return Begun(
        desk, listing, found,
        tuple(entry for entry in new if read_as[entry.name] == entry.name),
        tuple((entry, read_as[entry.name]) for entry in new if read_as[entry.name] != entry.name),
        tuple(Row(entry.name, entry.size, old[entry.name], read=False) for entry in entries if entry.name in old),
        marked, others, frozenset(identities.values()),
    )  # fmt: skip


def _every(found: Sorted) -> list[Checkpoint]:
    return [*found.checkpoints, *found.protected]


def _as_twin(read: Read, twin: Entry) -> Read:
    """Tell of another name what came of reading the file under the first."""
    problem = read.problem and read.problem._replace(names=(twin.name,))
    return read._replace(entry=twin, problem=problem)


def portions_of(desk: Desk, entry: Entry) -> Sequence[Portion]:
    """Cut a checkpoint that is a large folder into its files; any other is one portion."""
    shards: Sequence[Shard] = ()
    if entry.kind == "directory" and entry.size >= SHARED and _bytes_to_read(desk, entry) >= SHARED:
        with contextlib.suppress(OSError), reading.open_below(desk.outputs_dir, desk.path) as directory:
            shards = shards_to_read(directory, entry.name)
    return [Portion(entry, shard, len(shards)) for shard in shards] if len(shards) > 1 else [Portion(entry)]


def read_portion(desk: Desk, portion: Portion, tell: Tell) -> Answer:
    """Read a portion; whatever is wrong with it is returned."""
    if portion.shard is None:
        return read_one(desk, portion.entry, tell)
    try:
        with reading.open_below(desk.outputs_dir, desk.path) as directory:
            return check_shard(directory, portion.entry.name, portion.shard, tell, quick=desk.how.quick)
    except (UnsoundError, OSError) as error:
        return error


def of_portions(desk: Desk, answers: Sequence[tuple[Portion, Answer]], tell: Tell) -> Read:
    """Make one of what came of the portions of a checkpoint; what else there is in a folder is read now."""
    (entry, whole, _), first = answers[0]
    if isinstance(first, Read):
        return first
    if whole is None and isinstance(first, Lost):
        return not_read(entry, first.why)
    shards = {
        portion.shard: _shard_not_read(portion.shard, answer.why) if isinstance(answer, Lost) else answer
        for portion, answer in answers
        if portion.shard and not isinstance(answer, Read)
    }
    return read_one(desk, entry, tell, shards)


def read_one(desk: Desk, entry: Entry, tell: Tell, answers: Mapping[Shard, ShardAnswer] = MappingProxyType({})) -> Read:
    """Read one checkpoint, and load it if that is asked for; whatever is wrong with it is told of it.

    Of a folder, ``answers`` are what came of files that were read before.
    """
    with reading.open_below(desk.outputs_dir, desk.path) as directory:
        identity = _identity(desk, directory, entry)
        try:
            with told_as_fault(tell) as heard:
                return Read(entry, identity, _read_in(desk, directory, entry, identity, heard, answers))
        except UnsoundError as fault:
            broken = Known(FileContent(""), frozenset(), str(fault)) if fault.id in BROKEN else None
            return Read(
                entry, identity * bool(broken), broken, Problem(fault.id, (entry.name,), str(fault), fault.hint)
            )
        except OSError as error:
            fact, hint = f"cannot be read: {reading.why_of(error)}", "look at the owner and the mode: ls -la"
            return Read(entry, "", None, Problem("unreadable", (entry.name,), fact, hint))


def end(begun: Begun, rules: RuleSet, every: Iterable[Read]) -> tuple[Report, list[Read]]:
    """Judge a directory by what was read of it; return what is to be remembered besides, too.

    What was not read is told as such.
    """
    found, listing, marked = begun.found, begun.listing, begun.marked
    by_name = {read.entry.name: read for read in every}
    told = [*by_name.values(), *(_as_twin(by_name[name], twin) for twin, name in begun.twins if name in by_name)]
    to_read = [entry for entry in begun.new if entry.name not in by_name]
    unread = [*to_read, *(twin for twin, name in begun.twins if name not in by_name)]
    read_now = [
        Row(one.entry.name, one.entry.size, None if one.problem else one.known, read=one.entry.name in by_name)
        for one in told
    ]
    rows = [*begun.rows, *read_now, *(Row(one.name, one.size, None, read=False, unread=True) for one in unread)]
    rows.sort(key=lambda row: row.name)
    faults = sorted((one.problem for one in told if one.problem), key=lambda fault: fault.names)
    checkpoints = _every(found)
    unlike = [
        Read(entry, _identity_anew(begun.desk, entry), Known(FileContent(""), frozenset(), fault.text))
        for entry, fault in unlike_others(listing.entries, rows, faults, checkpoints)
    ]
    problems = [*found.problems]
    problems += [not_whole(one, marked[one.entry.name]) for one in checkpoints if one.entry.name in marked]
    problems += name_problems(found, listing, rules.sidecars, {*marked, *begun.others})
    unclaimed = {skipped.name for skipped in found.skipped}
    problems += told_once(
        [fault for fault in faults if not (fault.id == "unknown_format" and fault.names[0] in unclaimed)], checkpoints
    )
    named = {name: checkpoint for checkpoint in found.checkpoints for name in checkpoint.names}
    for row in rows:
        if row.known and (checkpoint := named.get(row.name)):
            problems += content_problems(checkpoint, row.name, row.known.facts)
    rows += [
        Row(one.entry.name, one.entry.size, None, read=False, whole=False)
        for one in checkpoints
        if one.entry.name in marked
    ]
    return Report(
        listing.experiment,
        listing.directory,
        tuple(joined(rows, checkpoints)),
        tuple(sorted(problems)),
        sum(entry.size for entry in to_read),
        sum(_bytes_to_read(begun.desk, entry) for entry in to_read),
    ), unlike


def _bytes_to_read(desk: Desk, entry: Entry) -> int:
    """Guess how much of a checkpoint is read; of one that cannot be looked at, all."""
    if entry.kind != "directory":
        return bytes_to_read(entry.name, entry.size)
    with contextlib.suppress(OSError), reading.open_below(desk.outputs_dir, desk.path) as directory:
        return bytes_to_read_in(directory, entry.name)
    return entry.size


def not_whole(checkpoint: Checkpoint, why: Reason) -> Problem:
    """Tell of a checkpoint that lacks something; its content is not looked at."""
    hint = "wait until the training has written it; if nothing will, bring back what it lacks, or remove it"
    return Problem("not_whole", checkpoint.names, why.text, hint)


def unlike_others(
    entries: Iterable[Entry], rows: Iterable[Row], faults: Iterable[Problem], checkpoints: Iterable[Checkpoint]
) -> Iterator[tuple[Entry, Problem]]:
    """Yield what is in no known format, where others of its series are: its beginning was overwritten."""
    kinds = {
        part.entry.name: (one.series, part.text, os.path.splitext(part.entry.name)[1])
        for one in checkpoints
        for part in one.parts or (Part(one.entry, "", ""),)
    }
    understood = {kinds[row.name] for row in rows if row.known and row.name in kinds}
    unknown = {fault.names[0]: fault for fault in faults if fault.id == "unknown_format"}
    for entry in entries:
        if entry.name in unknown and kinds.get(entry.name) in understood:
            yield entry, unknown[entry.name]


def told_once(faults: Sequence[Problem], checkpoints: Iterable[Checkpoint]) -> list[Problem]:
    """Make one problem of what is wrong in the same way with several parts of a checkpoint."""
    heads = {name: one.entry.name for one in checkpoints for name in one.names}
    alike: dict[tuple[str, ...], list[Problem]] = {}
    for fault in faults:
        alike.setdefault((heads.get(fault.names[0], fault.names[0]), *fault[:1], *fault[2:4]), []).append(fault)
    return [same[0]._replace(names=tuple(name for one in same for name in one.names)) for same in alike.values()]


def joined(rows: Sequence[Row], checkpoints: Iterable[Checkpoint]) -> list[Row]:
    """Make one row of the parts of a checkpoint; it is sound only where all of them are."""
    of_parts = {one.entry.name: one for one in checkpoints if one.parts}
    heads = {name: head for head, one in of_parts.items() for name in one.names}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(heads.get(row.name, row.name), []).append(row)
    return sorted(_one_of(of_parts[head], group) if head in of_parts else group[0] for head, group in groups.items())


def _one_of(checkpoint: Checkpoint, rows: Sequence[Row]) -> Row:
    names = checkpoint.names
    known = [row.known for row in sorted(rows, key=lambda row: names.index(row.name)) if row.known]
    return Row(
        names[0],
        checkpoint.entry.size,
        _all_known(known) if len(known) == len(names) else None,
        any(row.read for row in rows),
        names[1:],
        all(row.whole for row in rows),
        any(row.unread for row in rows),
    )


def _all_known(parts: Sequence[Known]) -> Known:
    """Join what is known of the parts of a checkpoint: what the first of them says, and what was done to all."""
    facts = [part.facts for part in parts]
    return Known(
        facts[0]._replace(
            kind=", ".join(dict.fromkeys(one.kind for one in facts)),
            epoch=next((one.epoch for one in facts if one.epoch is not None), None),
            step=next((one.step for one in facts if one.step is not None), None),
            checksums=all(one.checksums for one in facts),
            names=tuple(sorted({name for one in facts for name in one.names})),
        ),
        frozenset.intersection(*(part.done for part in parts)),
    )


def name_problems(
    found: Sorted, listing: Listing, sidecars: tuple[str, ...], known: Collection[str]
) -> Iterator[Problem]:
    """Tell of names that are neither protected nor as they should be, and of sidecars that belong to nothing.

    Of those that are ``known``, all has been said.
    """
    for checkpoint in found.checkpoints:
        name = checkpoint.entry.name
        if checkpoint.target != name and name not in known:
            hint = f"'doit migrate' renames it to {checkpoint.target}"
            yield Problem("not_migrated", checkpoint.names, "has an old name", hint)
    owners = [entry.name for entry in listing.entries if not entry.name.endswith(sidecars)]
    stems = {stem for name in owners for stem in (name, os.path.splitext(name)[0])}
    for name in (row.name for row in found.skipped if row.kind == "unrecognised" and row.name not in known):
        suffix = suffix_of(name, sidecars)
        if not suffix:
            hint = "add its format, or list it under 'protected' or 'ignored'"
            yield Problem("unrecognised", (name,), "is in no format that the rules know", hint)
        elif name.removesuffix(suffix) not in stems:
            hint = "rename it as its checkpoint was, or remove it"
            yield Problem("lost_sidecar", (name,), "belongs to no checkpoint that is here", hint)


def content_problems(checkpoint: Checkpoint, name: str, facts: FileContent) -> Iterator[Problem]:
    """Compare epoch and step inside a checkpoint, or the part of it that has this name, with what the name says."""
    more = 1 if facts.counts_from_1 else 0
    for what, said, inside in (("epoch", checkpoint.epoch, facts.epoch), ("step", checkpoint.step, facts.step)):
        if said is not None and inside is not None and not said <= inside <= said + more:
            hint = "somebody renamed or overwrote it: find out which of the two is right"
            yield Problem("other_content", (name,), f"holds {what} {inside}, not {said}", hint)


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


def _read_in(
    desk: Desk, directory: int, entry: Entry, identity: str, tell: Tell, answers: Mapping[Shard, ShardAnswer]
) -> Known:
    """Read a checkpoint of an open directory.

    Raises:
        UnsoundError: it is damaged, does not load, or was changed meanwhile.
    """
    before = memory.parts(directory, entry.name, entry.kind)
    if entry.kind == "directory":
        facts = check_folder(directory, entry.name, tell, quick=desk.how.quick, answers=answers)
    else:
        with open_file(directory, entry.name) as file:
            facts = check_file(file, before[0].size, tell, quick=desk.how.quick)
    done = {"structure"} if desk.how.quick else {"structure", "checksums"}
    if desk.how.load and facts.kind in loading.LOADS:
        path = os.path.join(desk.outputs_dir, desk.path, entry.name)
        done.add(loading.load(path, facts.kind, unsafe=desk.how.unsafe))
    elif desk.how.load:
        done.add("load")
    if memory.parts(directory, entry.name, entry.kind) != before:
        raise UnsoundError("changing", "was written to while it was read", "wait until the training has written it")
    earlier = desk.known.get(identity)
    return Known(facts, frozenset(done | (earlier.done if earlier else set())))


def not_read(entry: Entry, why: str) -> Read:
    """Tell of a checkpoint that nobody could read to its end, though nothing is known against it."""
    return Read(entry, "", None, Problem("unreadable", (entry.name,), f"was not read: {why}", READ_HERE))


def _shard_not_read(shard: Shard, why: str) -> UnsoundError:
    return UnsoundError("unreadable", f"its part '{shard.path}' was not read: {why}", READ_HERE)


def _identity(desk: Desk, directory: int, entry: Entry) -> str:
    """Return the identity of an entry; nothing where it cannot be read, which is told when it is its turn."""
    with contextlib.suppress(OSError, UnsoundError), told_as_fault(lambda _: None):
        return memory.identity(memory.parts(directory, entry.name, entry.kind), desk.now_ns)
    return ""


def _identity_anew(desk: Desk, entry: Entry) -> str:
    with contextlib.suppress(OSError), reading.open_below(desk.outputs_dir, desk.path) as directory:
        return _identity(desk, directory, entry)
    return ""


def remember(desk: Desk, every: Iterable[Read]) -> None:
    """Remember what was read, of each for itself, as far as it tells anything new."""
    for read in every:
        if read.known and read.identity and desk.known.get(read.identity) != read.known:
            memory.remember(desk.outputs_dir, desk.path, read.identity, read.known)


def forget(desk: Desk, living: Collection[str], every: Iterable[Read] = ()) -> None:
    """Let go of what is remembered of files that are gone, where that is most of it."""
    known = {**desk.known, **{read.identity: read.known for read in every if read.known and read.identity}}
    memory.forget_others(desk.outputs_dir, desk.path, known, living)


def proved_names(outputs_dir: str, rules: RuleSet, listing: Listing) -> frozenset[str]:
    """Return the names that were verified earlier, checksums included, and still stand for the same content.

    A name that says another epoch or step than its content is not among them. Nothing is read but the memory.
    """
    known = memory.known_names(outputs_dir, listing)
    whole = {name: this.facts for name, this in known.items() if How().satisfied_by(this.done)}
    named = [(one, name) for one in sort_entries(rules, listing).checkpoints for name in one.names if name in whole]
    return frozenset(whole) - {name for one, name in named if any(content_problems(one, name, whole[name]))}


def sound(report: Report) -> Mapping[str, Row]:
    """Return the rows that nothing is held against, by name: neither content nor, after a look at it, the name."""
    blamed = {name for problem in report.problems for name in problem.names}
    return {row.name: row for row in report.rows if row.known and blamed.isdisjoint((row.name, *row.with_it))}
