"""What was verified before, by a file's identity: inode, size and time. Without its name, so it outlives a rename.

One file for each checkpoint directory, ``.ckptrules/verified/<directory>/files.jsonl``: a line for each checkpoint that
was found whole or broken, written when it has been read, so that an interrupted run is not lost. The last line of an
identity counts. It may be removed at any time.
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
from ckptrules.engine.state_folder import STATE
from ckptrules.engine.wholeness import as_sentence
from ckptrules.formats.content import FileContent
from ckptrules.formats.folders import Shard, parts_of
from ckptrules.storage import reading
from ckptrules.storage.moving import COARSE_TICK_NS
from ckptrules.storage.posix import Disk

VERSION = 3  # goes up when a check finds what an earlier one did not: what that found broken is broken all the same
LATER = sys.maxsize  # what was too young when it was verified is not remembered, so nobody need ask again


class CheckResult(NamedTuple):
    """What was proved of one identity: ``done`` holds ``structure``, ``checksums``, ``load``, ``unsafe load``.

    ``broken`` says what is wrong with it; then nothing was proved, and ``done`` is what found that: who does less does
    not take it back.
    """

    facts: FileContent
    done: frozenset[str]
    broken: str = ""


def parts(directory: int, name: str, kind: EntryKind) -> tuple[Shard, ...]:
    """Return what identifies a checkpoint: its own status, or that of every file inside. Its name is no part of it."""
    if kind == "directory":
        return parts_of(directory, name)
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return (Shard("", status.st_ino, status.st_size, status.st_mtime_ns),)


def identity(parts: Iterable[Shard], now_ns: int) -> str:
    """Return the identity of a checkpoint; nothing where it is too young for its time to tell, or has only links."""
    rows = list(parts)
    if not rows or any(now_ns - part.mtime_ns < COARSE_TICK_NS for part in rows):
        return ""
    texts = (f"{part.path}\0{part.inode}\0{part.size}\0{part.mtime_ns}" for part in rows)
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:40]


def recall(outputs_dir: str, directory: str) -> dict[str, CheckResult]:
    """Read what is known of a checkpoint directory, by identity; what is damaged or missing is not known.

    Raises:
        StateError: the file is not to be believed.
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
                        known[identity] = _known(row)
    except reading.StateError:
        raise
    except (OSError, UnicodeDecodeError):
        pass
    return known


def known_names(outputs_dir: str, listing: Listing, *, broken: bool = False) -> dict[str, CheckResult]:
    """Return what is known of a directory's checkpoints as they are now, by name; nothing where it is not believed.

    Where ``broken``, only of those that were found broken: of others nothing is looked at.
    """
    known: dict[str, CheckResult] = {}
    with contextlib.suppress(reading.StateError):  # `doit verify` tells of it
        known = recall(outputs_dir, listing.directory)
    known = {identity: this for identity, this in known.items() if this.broken or not broken}
    found: dict[str, CheckResult] = {}
    if known:
        with contextlib.suppress(OSError), reading.open_below(outputs_dir, listing.directory) as directory:
            for entry in listing.entries:
                with contextlib.suppress(OSError):
                    if this := known.get(identity(parts(directory, entry.name, entry.kind), LATER)):
                        found[entry.name] = this
    return found


def tells_broken(outputs_dir: str, directory: str) -> bool:
    """Say whether anything was found broken in a directory, be it still there or not."""
    with contextlib.suppress(OSError), Disk(outputs_dir).read(_memory_of(directory)) as lines:
        return any(b'"broken": ' in line for line in lines)
    return False


def broken_names(outputs_dir: str, listing: Listing) -> dict[str, str]:
    """Say what was found broken of a directory's checkpoints as they are now, by name."""
    known = known_names(outputs_dir, listing, broken=True)
    return {name: f"as verify found: {as_sentence(this.broken)}" for name, this in known.items()}


def remember(outputs_dir: str, directory: str, identity: str, known: CheckResult) -> None:
    """Add a line. Where nothing can be written, nothing is remembered."""
    with contextlib.suppress(OSError):
        Disk(outputs_dir).append(_memory_of(directory), f"{_line(identity, known)}\n".encode(), durable=False)


def _memory_of(directory: str) -> str:
    return f"{STATE}/verified/{directory}/files.jsonl"


def _line(identity: str, known: CheckResult) -> str:
    said = {"broken": known.broken} if known.broken else known.facts._asdict()
    return json.dumps({"version": VERSION, "identity": identity, "done": sorted(known.done), **said}, sort_keys=True)


def _known(row: dict[str, object]) -> CheckResult:
    broken = row.pop("broken", "")
    done = row.pop("done", [] if broken else None)  # earlier versions noted none of what is broken
    if not isinstance(done, list):
        raise TypeError
    if isinstance(broken, str) and broken:
        return CheckResult(FileContent(""), frozenset(map(str, done)), broken)
    facts = FileContent(**row)  # type: ignore[arg-type]
    numbers = facts.epoch, facts.step, facts.ranks, *facts.counts
    texts = (facts.kind, facts.lightning, *facts.names)
    if not (all(n is None or type(n) is int for n in numbers) and all(isinstance(text, str) for text in texts)):
        raise TypeError
    facts = facts._replace(names=tuple(facts.names), counts=tuple(facts.counts))
    return CheckResult(facts, frozenset(map(str, done)))
