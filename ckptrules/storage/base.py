"""What every storage can do: one narrow protocol, for a disk as for a bucket. `posix` and `memory` keep it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple, Protocol

from ckptrules.engine.entries import EntryKind, HardLinks, Identity

Say = Callable[[str], object]
CHANGED = "has changed since it was looked at"
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk, or the share of it that a user may have


class Changed(OSError):  # noqa: N818 - it stands beside FileExistsError and FileNotFoundError, and says what happened
    """Under a name stands something else than what was looked at."""

    def __init__(self, path: str, fact: str = CHANGED) -> None:
        super().__init__(errno.ESTALE, fact, path)


class LockedError(Exception):
    """Another run holds the lock; the message is what that run wrote about itself."""


class Stat(NamedTuple):
    """What stands under a name.

    ``size`` is in bytes, ``time_ns`` is when the content was written, in nanoseconds since 1970: a move keeps it.
    ``version`` is opaque: it is equal only while kind and content are the same. Of a folder, size and time are those of
    all files in it (of no file: 0 and -1), and only `Storage.stat` tells them: a list leaves them 0, and no version.
    ``shared`` are the files whose bytes have names elsewhere as well, so that removing these names may free nothing.
    """

    kind: EntryKind
    size: int
    time_ns: int
    version: str = ""
    shared: tuple[HardLinks, ...] = ()


class Storage(Protocol):
    """Names and bytes below one root. Parts of a path are divided by ``/``, and no link is followed in any of them.

    Where a part of a path or the name itself is not there, everything raises FileNotFoundError; where the storage
    refuses, another OSError (`reading.StateError` where a file of the state is not to be believed). Missing folders of
    the state are made; others must be there, where the storage has folders at all.
    """

    @property
    def moves_at_once(self) -> bool:
        """Whether a crash in a move leaves one of both names. Else it may leave both, of one version; never none."""

    def list(self, folder: str) -> Iterator[tuple[str, Stat]]:
        """Yield all names in a folder (the root is ``""``), in no order."""

    def stat(self, path: str) -> Stat:
        """Look at what stands under a path; a folder is walked through."""

    def stamp(self, folder: str) -> str | None:
        """Return a text that changes with every name in a folder; None where only a list can tell."""

    def read(self, path: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading, from a byte on; a negative ``start`` counts from the end."""

    def create(self, path: str, content: Iterable[bytes], time_ns: int | None = None) -> Stat:
        """Write a new file: whole and durable, or not there.

        Raises:
            FileExistsError: the name is taken.
        """

    def replace(self, path: str, content: Iterable[bytes], was: str | None = None, *, durable: bool = True) -> Stat:
        """Write a file in the place of a version, or of whatever is there: readers see the old or the new content.

        Where it need not be ``durable``, a power cut may lose it.

        Raises:
            Changed: another version stands there, and stays.
        """

    def append(self, path: str, line: bytes, *, durable: bool = True) -> None:
        """Add to the end of a file, and make it where it is missing.

        Where it is ``durable``, it is on the disk on return, with all that was added before. An error may leave a part.
        """

    def move(self, path: str, to: str, was: str | None = None) -> None:
        """Give a version, or whatever is there, another name; time and version stay.

        Raises:
            FileExistsError: the new name is taken; by an empty folder, too.
            Changed: another version stands there, and stays.
        """

    def remove(self, path: str, was: str | None = None) -> None:
        """Remove a version, or whatever is there. Of a folder, all goes that can, also where something cannot.

        Raises:
            Changed: another version stands there, and stays.
        """

    def lock(self, holder: str, wait: float = 0, say: Say = lambda _: None) -> AbstractContextManager[object]:
        """Keep all other runs out, which are told of the ``holder``; wait so many seconds for one to finish.

        ``say`` is given each sentence that there is to tell meanwhile.

        Raises:
            LockedError: another run is at work.
        """

    def free(self) -> int | None:
        """Return the bytes that can still be written, or None where there is no limit, or none is known."""


def is_known_by(there: Identity, noted: Identity) -> bool:
    """Say whether what is there is what was noted.

    A directory of which nothing was noted (0 bytes at time 0: earlier journals) is known by being one.
    """
    return there == noted or (there.kind == "directory" and noted == Identity("directory", 0, 0))


def identity_of(stat: Stat) -> Identity:
    """Return what is noted of what was looked at: of what is no file or directory, the kind alone."""
    return Identity._make(stat[:3]) if stat.kind in ("file", "directory") else Identity(stat.kind, 0, 0)


def refuse_others(stat: Stat, was: str | None, path: str) -> None:
    """Refuse another version than the one that was looked at.

    Raises:
        Changed: as said.
    """
    if was is not None and stat.version != was:
        raise Changed(path)
