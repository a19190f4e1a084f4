"""Reads checkpoints, in portions for workers: a checkpoint, or one file of a large folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ckptrules.engine.actions import Problem
from ckptrules.engine.entries import Entry
from ckptrules.formats import loading
from ckptrules.formats.content import BROKEN, FileContent, Progress, UnsoundError, errors_as_faults
from ckptrules.formats.files import bytes_to_read, check_file, open_file
from ckptrules.formats.folders import (
    FileAnswer,
    InnerFile,
    bytes_to_read_in,
    check_folder,
    check_inner_file,
    files_to_read,
)
from ckptrules.formats.tensorflow import check_beside_index
from ckptrules.storage import reading
from ckptrules.verify import memory
from ckptrules.verify.memory import CheckResult
from ckptrules.workers.pieces import SMALL, Lost

SHARED = 4 * SMALL  # bytes of the smallest folder whose files are portions of their own
OF_THE_DISK = (errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO))  # there is no content to be had
READ_HERE = "'doit verify executor=none' reads it in the process that you start"


class Depth(NamedTuple):
    """Which checks to make: ``quick`` leaves checksums out, ``load`` loads files, ``unsafe`` may run code for that."""

    quick: bool = False
    load: bool = False
    unsafe: bool = False

    @property
    def compared(self) -> Collection[str]:
        """The checks without loading, as in `CheckResult.done`."""
        return ("structure",) if self.quick else ("structure", "checksums")

    def satisfied_by(self, earlier: CheckResult) -> bool:
        """Say whether an earlier result makes another check needless."""
        loaded = not self.load or "load" in earlier.done or (self.unsafe and "unsafe load" in earlier.done)
        return not earlier.broken and loaded and ("structure" if self.quick else "checksums") in earlier.done


class ReportRow(NamedTuple):
    """A row of the report: one checkpoint.

    Attributes:
        result: None if it is not whole, not sound or not read.
        read: whether this run has read it.
        other_names: the names of its other parts.
        whole: whether all its parts are there and finished.
        unread: whether it still has to be read.
    """

    name: str
    size: int
    result: CheckResult | None = None
    read: bool = False
    other_names: tuple[str, ...] = ()
    whole: bool = True
    unread: bool = False


class Context(NamedTuple):
    """Where and how to verify the checkpoints of a directory, and the ``earlier`` results by identity."""

    outputs_dir: str
    path: str
    depth: Depth
    earlier: Mapping[str, CheckResult]
    now_ns: int


class Portion(NamedTuple):
    """What a worker reads at a time: a checkpoint, or one ``file`` ``of`` so many in a folder."""

    entry: Entry
    file: InnerFile | None = None
    of: int = 1

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.file.size if self.file else self.entry.size


class Read(NamedTuple):
    """The outcome of reading one checkpoint; it is remembered if it has a result and an identity."""

    entry: Entry
    identity: str
    result: CheckResult | None
    problem: Problem | None = None


Answer = Read | FileAnswer | Lost
"""The outcome of reading a portion."""


def portions_of(context: Context, entry: Entry) -> Sequence[Portion]:
    """Return the portions of a checkpoint: each file of a large folder, else the whole."""
    files: Sequence[InnerFile] = ()
    if entry.kind == "directory" and entry.size >= SHARED and size_to_read(context, entry) >= SHARED:
        with contextlib.suppress(OSError), reading.open_below(context.outputs_dir, context.path) as directory:
            files = files_to_read(directory, entry.name)
    return [Portion(entry, file, len(files)) for file in files] if len(files) > 1 else [Portion(entry)]


def read_portion(context: Context, portion: Portion, progress: Progress) -> Answer:
    """Read a portion; return its faults instead of raising them."""
    if portion.file is None:
        return read_one(context, portion.entry, progress)
    try:
        with reading.open_below(context.outputs_dir, context.path) as directory:
            return check_inner_file(directory, portion.entry.name, portion.file, progress, quick=context.depth.quick)
    except (UnsoundError, OSError) as error:
        return error


def of_portions(context: Context, answers: Sequence[tuple[Portion, Answer]], progress: Progress) -> Read:
    """Combine the answers on the portions of a checkpoint; read the rest of a folder here."""
    (entry, first_file, _), first = answers[0]
    if isinstance(first, Read):
        return first
    if first_file is None and isinstance(first, Lost):
        fact = f"was not read: {first.why}"  # whether it is whole is unknown
        return Read(entry, "", None, Problem("unreadable", (entry.name,), fact, READ_HERE))
    files = {
        file: UnsoundError("unreadable", f"its part '{file.path}' was not read: {answer.why}", READ_HERE)
        if isinstance(answer, Lost)
        else answer
        for (_, file, _), answer in answers
        if file and not isinstance(answer, Read)
    }
    return read_one(context, entry, progress, files)


def read_one(
    context: Context, entry: Entry, progress: Progress, answers: Mapping[InnerFile, FileAnswer] = MappingProxyType({})
) -> Read:
    """Read one checkpoint, and load it if ``depth`` says so; return its faults instead of raising them.

    ``answers`` are the outcomes of files in a folder that workers have read.
    """
    with reading.open_below(context.outputs_dir, context.path) as directory:
        identity = identity_of_files(context, directory, entry)
        try:
            with errors_as_faults(progress) as guarded:
                result = _read_in(context, directory, entry, guarded, answers)
        except (UnsoundError, OSError) as error:
            return _faulty(context, entry, identity, error)
    return _with_earlier(Read(entry, identity, result), result, context.earlier.get(identity))


def _faulty(context: Context, entry: Entry, identity: str, error: UnsoundError | OSError) -> Read:
    """Return the outcome for a checkpoint with a fault. Only faults of its content or of the disk are remembered."""
    if isinstance(error, UnsoundError):
        fault, is_broken = error, error.id in BROKEN
    else:
        is_broken = error.errno in OF_THE_DISK  # others (no rights, no memory) say nothing about the content
        hint = "where the disk fails, take it from a copy" if is_broken else "verify it again"
        hint = "look at the owner and the mode: ls -la" if isinstance(error, PermissionError) else hint
        fault = UnsoundError("unreadable", f"cannot be read: {reading.why_of(error)}", hint)
    found_by = ("load",) if fault.id == "does_not_load" else context.depth.compared
    broken = CheckResult(FileContent(""), frozenset(found_by), fault.fact) if is_broken else None
    return Read(entry, identity, broken, Problem(fault.id, (entry.name,), fault.fact, fault.hint))


def size_to_read(context: Context, entry: Entry) -> int:
    """Estimate how many bytes of a checkpoint a check reads; all, if it cannot be opened."""
    if entry.kind != "directory":
        return bytes_to_read(entry.name, entry.size)
    with contextlib.suppress(OSError), reading.open_below(context.outputs_dir, context.path) as directory:
        return bytes_to_read_in(directory, entry.name)
    return entry.size


def _read_in(
    context: Context, directory: int, entry: Entry, progress: Progress, answers: Mapping[InnerFile, FileAnswer]
) -> CheckResult:
    """Read a checkpoint of an open directory."""
    before = memory.files_of(directory, entry.name, entry.kind)
    if entry.kind == "directory":
        content = check_folder(directory, entry.name, progress, quick=context.depth.quick, answers=answers)
    else:
        with open_file(directory, entry.name) as file:
            beside = check_beside_index(directory, entry.name, before[0].size, progress)
            content = beside or check_file(file, before[0].size, progress, quick=context.depth.quick)
    done = {*context.depth.compared}
    if context.depth.load and content.kind in loading.LOADS:
        path = os.path.join(context.outputs_dir, context.path, entry.name)
        done.add(loading.load(path, content.kind, unsafe=context.depth.unsafe))
    elif context.depth.load:
        done.add("load")
    if memory.files_of(directory, entry.name, entry.kind) != before:
        raise UnsoundError("changing", "was written to while it was read", "wait until the training has written it")
    return CheckResult(content, frozenset(done))


def _with_earlier(read: Read, now: CheckResult, earlier: CheckResult | None) -> Read:
    """Add what an earlier run has checked. Where that found damage by checks that this run did not make, it counts."""
    if earlier and not earlier.broken:
        return read._replace(result=now._replace(done=now.done | earlier.done))
    if earlier is None or all({what, f"unsafe {what}"} & now.done for what in earlier.done):
        return read
    kind, how = ("does_not_load", "with load=1") if "load" in earlier.done else ("damaged", "without quick=1")
    hint = f"an earlier run has found that; 'doit verify' {how} looks again"
    return read._replace(result=earlier, problem=Problem(kind, (read.entry.name,), earlier.broken, hint))


def identity_of_files(context: Context, directory: int, entry: Entry) -> str:
    """Return the identity of an entry; an empty text if it cannot be read, which `read_one` then reports."""
    with contextlib.suppress(OSError, UnsoundError), errors_as_faults(lambda _: None):
        return memory.identity(memory.files_of(directory, entry.name, entry.kind), context.now_ns)
    return ""
