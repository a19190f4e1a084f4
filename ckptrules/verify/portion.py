"""Reads contents, in portions that workers may take: a checkpoint, or one file of a large folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.entries import Entry
from ckptrules.formats import loading
from ckptrules.formats.content import BROKEN, FileContent, Tell, UnsoundError, told_as_fault
from ckptrules.formats.files import bytes_to_read, check_file, open_file
from ckptrules.formats.folders import Shard, ShardAnswer, bytes_to_read_in, check_folder, check_shard, shards_to_read
from ckptrules.formats.tensorflow import check_beside_index
from ckptrules.storage import reading
from ckptrules.verify import memory
from ckptrules.verify.memory import CheckResult
from ckptrules.workers.pieces import SMALL, Lost

SHARED = 4 * SMALL  # bytes of a folder of which the files are read side by side
READ_HERE = "'doit verify executor=none' reads it in the process that you start"


class How(NamedTuple):
    """How much is asked for: ``quick`` leaves checksums out, ``load`` loads, ``unsafe`` may run code for that."""

    quick: bool = False
    load: bool = False
    unsafe: bool = False

    @property
    def compared(self) -> Collection[str]:
        """What is done with each but to load it, as `Known.done` has it."""
        return ("structure",) if self.quick else ("structure", "checksums")

    def satisfied_by(self, known: CheckResult) -> bool:
        """Say whether what was proved before is enough."""
        loaded = not self.load or "load" in known.done or (self.unsafe and "unsafe load" in known.done)
        return not known.broken and loaded and ("structure" if self.quick else "checksums") in known.done


class Checked(NamedTuple):
    """One checkpoint of the list. ``known`` is None where it is not sound; ``read`` says that it was read just now.

    ``unread`` is one that nobody knows yet, in a preview. ``with_it`` are its other names where it is several, and
    ``whole`` is false where something of it is missing.
    """

    name: str
    size: int
    known: CheckResult | None
    read: bool
    with_it: tuple[str, ...] = ()
    whole: bool = True
    unread: bool = False


class Desk(NamedTuple):
    """Where and how the checkpoints of one directory are verified, and what is known of them from before."""

    outputs_dir: str
    path: str
    how: How
    known: Mapping[str, CheckResult]
    now_ns: int


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
    """What came of one checkpoint that was read; it is remembered where ``known`` and ``identity`` are there."""

    entry: Entry
    identity: str
    known: CheckResult | None
    problem: Problem | None = None


Answer = Read | ShardAnswer | Lost
"""What comes of a portion."""


def portions_of(desk: Desk, entry: Entry) -> Sequence[Portion]:
    """Cut a checkpoint that is a large folder into its files; any other is one portion."""
    shards: Sequence[Shard] = ()
    if entry.kind == "directory" and entry.size >= SHARED and size_to_read(desk, entry) >= SHARED:
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
        fact = f"was not read: {first.why}"  # though nothing is known against it
        return Read(entry, "", None, Problem("unreadable", (entry.name,), fact, READ_HERE))
    shards = {
        shard: UnsoundError("unreadable", f"its part '{shard.path}' was not read: {answer.why}", READ_HERE)
        if isinstance(answer, Lost)
        else answer
        for (_, shard, _), answer in answers
        if shard and not isinstance(answer, Read)
    }
    return read_one(desk, entry, tell, shards)


def read_one(desk: Desk, entry: Entry, tell: Tell, answers: Mapping[Shard, ShardAnswer] = MappingProxyType({})) -> Read:
    """Read one checkpoint, and load it if that is asked for; whatever is wrong with it is told of it.

    Of a folder, ``answers`` are what came of files that were read before.
    """
    with reading.open_below(desk.outputs_dir, desk.path) as directory:
        identity = identity_of(desk, directory, entry)
        try:
            with told_as_fault(tell) as heard:
                known = _read_in(desk, directory, entry, identity, heard, answers)
                return _still_broken(entry, identity, desk.known.get(identity), known) or Read(entry, identity, known)
        except (UnsoundError, OSError) as error:
            return _faulty(desk, entry, identity, error)


def _faulty(desk: Desk, entry: Entry, identity: str, error: UnsoundError | OSError) -> Read:
    """Tell what is wrong with a checkpoint, and remember it where that is a fault of its content, or of the disk."""
    if isinstance(error, UnsoundError):
        fault, is_broken = error, error.id in BROKEN
    else:
        is_barred = isinstance(error, PermissionError)
        is_broken = not (is_barred or isinstance(error, FileNotFoundError))  # these tell nothing of what is in it
        hint = "look at the owner and the mode: ls -la" if is_barred else "where the disk fails, take it from a copy"
        fault = UnsoundError("unreadable", f"cannot be read: {reading.why_of(error)}", hint)
    sought = ("load",) if fault.id == "does_not_load" else desk.how.compared
    broken = CheckResult(FileContent(""), frozenset(sought), fault.fact) if is_broken else None
    return Read(entry, identity, broken, Problem(fault.id, (entry.name,), fault.fact, fault.hint))


def size_to_read(desk: Desk, entry: Entry) -> int:
    """Guess how much of a checkpoint is read; of one that cannot be looked at, all."""
    if entry.kind != "directory":
        return bytes_to_read(entry.name, entry.size)
    with contextlib.suppress(OSError), reading.open_below(desk.outputs_dir, desk.path) as directory:
        return bytes_to_read_in(directory, entry.name)
    return entry.size


def _read_in(
    desk: Desk, directory: int, entry: Entry, identity: str, tell: Tell, answers: Mapping[Shard, ShardAnswer]
) -> CheckResult:
    """Read a checkpoint of an open directory.

    Raises:
        UnsoundError: it is damaged, does not load, or was changed meanwhile.
    """
    before = memory.parts(directory, entry.name, entry.kind)
    if entry.kind == "directory":
        facts = check_folder(directory, entry.name, tell, quick=desk.how.quick, answers=answers)
    else:
        with open_file(directory, entry.name) as file:
            beside = check_beside_index(directory, entry.name, before[0].size, tell)
            facts = beside or check_file(file, before[0].size, tell, quick=desk.how.quick)
    done = {*desk.how.compared}
    if desk.how.load and facts.kind in loading.LOADS:
        path = os.path.join(desk.outputs_dir, desk.path, entry.name)
        done.add(loading.load(path, facts.kind, unsafe=desk.how.unsafe))
    elif desk.how.load:
        done.add("load")
    if memory.parts(directory, entry.name, entry.kind) != before:
        raise UnsoundError("changing", "was written to while it was read", "wait until the training has written it")
    earlier = desk.known.get(identity)
    return CheckResult(facts, frozenset(done | (earlier.done if earlier and not earlier.broken else set())))


def _still_broken(entry: Entry, identity: str, earlier: CheckResult | None, known: CheckResult) -> Read | None:
    """Tell what an earlier look found broken, where this one did not look so closely."""
    if not (earlier and earlier.broken) or all({what, f"unsafe {what}"} & known.done for what in earlier.done):
        return None
    kind, how = ("does_not_load", "with load=1") if "load" in earlier.done else ("damaged", "without quick=1")
    hint = f"an earlier run has found that; 'doit verify' {how} looks again"
    return Read(entry, identity, earlier, Problem(kind, (entry.name,), earlier.broken, hint))


def identity_of(desk: Desk, directory: int, entry: Entry) -> str:
    """Return the identity of an entry; nothing where it cannot be read, which is told when it is its turn."""
    with contextlib.suppress(OSError, UnsoundError), told_as_fault(lambda _: None):
        return memory.identity(memory.parts(directory, entry.name, entry.kind), desk.now_ns)
    return ""
