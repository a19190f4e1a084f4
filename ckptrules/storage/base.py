"""What the state of a tree needs of a storage: one narrow protocol, for a disk as for a bucket. `posix` keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple, Protocol

from ckptrules.engine.entries import EntryKind, HardLinks, Identity

Say = Callable[[str], object]


class LockedError(Exception):
    """Another run holds the lock; the message is what that run wrote about itself."""


class Stat(NamedTuple):
    """What stands under a name.

    ``size`` is in bytes, ``time_ns`` is when the content was written, in nanoseconds since 1970: a move keeps it.
    Of a folder, both are those of all files in it (of no file: 0 and -1), and only `Storage.stat` tells them: a list
    leaves them 0. ``shared`` are the files whose bytes have names elsewhere as well, so that removing these names may
    free nothing.
    """

    kind: EntryKind
    size: int
    time_ns: int
    shared: tuple[HardLinks, ...] = ()


class Storage(Protocol):
    """The state of a tree: names and bytes below one root.

    Every path is `STATE` or lies below it. Its parts are divided by ``/``, and no link is followed in any of them.
    Where a part of a path or the name itself is not there, everything raises FileNotFoundError; where the storage
    refuses, another OSError (`reading.StateError` where a file is not to be believed). Missing folders are made.
    """

    def list(self, folder: str) -> Iterator[tuple[str, Stat]]:
        """Yield all names in a folder, in no order."""

    def stat(self, path: str) -> Stat:
        """Look at what stands under a path; a folder is walked through."""

    def read(self, path: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading, from a byte on; a negative ``start`` counts from the end."""

    def replace(self, path: str, content: Iterable[bytes], *, durable: bool = True) -> None:
        """Write a file, in the place of whatever is there: readers see the old or the new content.

        Where it need not be ``durable``, a power cut may lose it.
        """

    def append(self, path: str, line: bytes, *, durable: bool = True) -> None:
        """Add to the end of a file, and make it where it is missing.

        Where it is ``durable``, it is on the disk on return, with all that was added before. An error may leave a part.
        """

    def remove(self, path: str) -> None:
        """Remove whatever is there. Of a folder, all goes that can, also where something cannot."""

    def lock(self, holder: str, wait: float = 0, say: Say = lambda _: None) -> AbstractContextManager[object]:
        """Keep all other runs out, which are told of the ``holder``; wait so many seconds for one to finish.

        ``say`` is given each sentence that there is to tell meanwhile.

        Raises:
            LockedError: another run is at work.
        """


def is_known_by(there: Identity, noted: Identity) -> bool:
    """Say whether what is there is what was noted.

    A directory of which nothing was noted (0 bytes at time 0: earlier journals) is known by being one.
    """
    return there == noted or (there.kind == "directory" and noted == Identity("directory", 0, 0))


def identity_of(stat: Stat) -> Identity:
    """Return what is noted of what was looked at: of what is no file or directory, the kind alone."""
    return Identity._make(stat[:3]) if stat.kind in ("file", "directory") else Identity(stat.kind, 0, 0)
