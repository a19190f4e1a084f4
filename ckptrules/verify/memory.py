"""Remembers the results of `doit verify` by the identity of files: inode, size and time, so renames do not matter.

Each checkpoint directory has a file, ``.ckptrules/verified/<directory>/files.jsonl``, with a line for each checkpoint
that was found whole or broken. A line is written as soon as the checkpoint is read, so an interrupted run loses little.
The last line of an identity counts. The files may be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable
from typing import NamedTuple

from ckptrules.engine.entries import EntryKind, Listing
from ckptrules.engine.state_folder import VERIFIED
from ckptrules.engine.whole.wholeness import as_sentence
from ckptrules.formats.content import FileContent
from ckptrules.formats.folders import InnerFile, files_in
from ckptrules.storage import reading
from ckptrules.storage.moving import COARSE_TICK_NS
from ckptrules.storage.posix import Disk

VERSION = 3  # goes up when checks find more than before; then only results that say "broken" still count
LATER = sys.maxsize  # a time at which no file is too young: results of young files were never written


class CheckResult(NamedTuple):
    """The result for one identity.

    Attributes:
        content: what the checkpoint holds.
        done: the checks that it passed: ``structure``, ``checksums``, ``load``, ``unsafe load``. If it is broken, the
            checks that found that; a run with fewer checks cannot take the result back.
        broken: what is wrong; an empty text if the checkpoint is whole.
    """

    content: FileContent
    done: frozenset[str]
    broken: str = ""


def files_of(directory: int, name: str, kind: EntryKind) -> tuple[InnerFile, ...]:
    """Return what identifies a checkpoint: its own status, or that of every file inside, without its name."""
    if kind == "directory":
        return files_in(directory, name)
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return (InnerFile("", status.st_ino, status.st_size, status.st_mtime_ns),)


def identity(files: Iterable[InnerFile], now_ns: int) -> str:
    """Return the identity of a checkpoint; an empty text if it holds only links, or changed in the last seconds."""
    rows = list(files)
    if not rows or any(now_ns - file.mtime_ns < COARSE_TICK_NS for file in rows):
        return ""
    texts = (f"{file.path}\0{file.inode}\0{file.size}\0{file.mtime_ns}" for file in rows)
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:40]


def recall(outputs_dir: str, directory: str) -> dict[str, CheckResult]:
    """Return the remembered results of a checkpoint directory, by identity. Damaged lines are left out.

    Raises:
        StateError: the file cannot be trusted.
    """
    known: dict[str, CheckResult] = {}
    try:
        with (
            Disk(outputs_dir).read(_memory_of(directory)) as memory,
            io.TextIOWrapper(memory, "utf-8") as lines,
        ):
            for line in lines:
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    row = json.loads(line)
                    if row.pop("version") == VERSION or row.get("broken"):
                        identity = row.pop("identity")
                        known[identity] = _parse(row)
    except reading.StateError:
        raise
    except (OSError, UnicodeDecodeError):
        pass
    return known


def results_by_name(outputs_dir: str, listing: Listing, *, broken: bool = False) -> dict[str, CheckResult]:
    """Return the results that still hold for the checkpoints of a directory, by name; none if they cannot be trusted.

    ``broken`` leaves out all that are whole.
    """
    known: dict[str, CheckResult] = {}
    with contextlib.suppress(reading.StateError):  # `doit verify` reports it
        known = recall(outputs_dir, listing.directory)
    known = {identity: this for identity, this in known.items() if this.broken or not broken}
    found: dict[str, CheckResult] = {}
    if known:  # else look at no checkpoint
        with contextlib.suppress(OSError), reading.open_below(outputs_dir, listing.directory) as directory:
            for entry in listing.entries:
                with contextlib.suppress(OSError):
                    if this := known.get(identity(files_of(directory, entry.name, entry.kind), LATER)):
                        found[entry.name] = this
    return found


def has_broken(outputs_dir: str, directory: str) -> bool:
    """Say whether a directory has results of broken checkpoints, which need not be there any more."""
    with contextlib.suppress(OSError), Disk(outputs_dir).read(_memory_of(directory)) as lines:
        return any(b'"broken": ' in line for line in lines)
    return False


def broken_names(outputs_dir: str, listing: Listing) -> dict[str, str]:
    """Return by name why checkpoints of a directory are broken."""
    known = results_by_name(outputs_dir, listing, broken=True)
    return {name: f"as verify found: {as_sentence(this.broken)}" for name, this in known.items()}


def remember(outputs_dir: str, directory: str, identity: str, known: CheckResult) -> None:
    """Add a result; do nothing if it cannot be written."""
    with contextlib.suppress(OSError):
        Disk(outputs_dir).append(_memory_of(directory), f"{_line(identity, known)}\n".encode(), durable=False)


def _memory_of(directory: str) -> str:
    return f"{VERIFIED}/{directory}/files.jsonl"


def _line(identity: str, known: CheckResult) -> str:
    values = {"broken": known.broken} if known.broken else known.content._asdict()
    return json.dumps({"version": VERSION, "identity": identity, "done": sorted(known.done), **values}, sort_keys=True)


def _parse(row: dict[str, object]) -> CheckResult:
    broken = row.pop("broken", "")
    done = row.pop("done", [] if broken else None)  # earlier versions wrote none for broken ones
    if not isinstance(done, list):
        raise TypeError
    if isinstance(broken, str) and broken:
        return CheckResult(FileContent(""), frozenset(map(str, done)), broken)
    content = FileContent(**row)  # type: ignore[arg-type]
    numbers = content.epoch, content.step, content.ranks, *content.counts
    texts = (content.kind, content.lightning, *content.names)
    if not (all(n is None or type(n) is int for n in numbers) and all(isinstance(text, str) for text in texts)):
        raise TypeError
    content = content._replace(names=tuple(content.names), counts=tuple(content.counts))
    return CheckResult(content, frozenset(map(str, done)))
