"""The protocol that every storage implements, on a disk or in a bucket: see `posix` and `memory`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple, Protocol

from ckptrules.engine.entries import EntryKind, HardLinks, Identity

Say = Callable[[str], object]
CHANGED = "has changed since it was looked at"
FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk is full, or the quota of the user


class Changed(OSError):  # noqa: N818 - named like FileExistsError and FileNotFoundError, by what happened
    """A name no longer has the content that was looked at."""

    def __init__(self, path: str, fact: str = CHANGED) -> None:
        super().__init__(errno.ESTALE, fact, path)

    def __reduce__(self) -> tuple[type[Changed], tuple[str, str]]:
        return Changed, (self.filename, self.strerror or "")


class HalfWayError(OSError):
    """A change of several system calls was begun, and can neither go on nor back now: the next run finishes it."""


class LockedError(Exception):
    """Another run holds the lock; the message is what that run wrote about itself."""


class Stat(NamedTuple):
    """What a storage knows of a name.

    ``size`` is in bytes; ``time_ns`` is when the content was written, in nanoseconds since 1970: a move keeps it.
    ``version`` is opaque, and equal only while kind and content are the same. A folder has the sum of the sizes and the
    newest of the times of all files in it (0 and -1 without files); only `Storage.stat` returns these: `Storage.list`
    gives folders 0, 0 and no version. ``shared`` are files with hard links: to remove these names may free no bytes.
    """

    kind: EntryKind
    size: int
    time_ns: int
    version: str = ""
    shared: tuple[HardLinks, ...] = ()


class Storage(Protocol):
    """Names and bytes below one root. Parts of a path are divided by ``/``; no method follows a link in any of them.

    Every method raises FileNotFoundError where a part of the path is missing, and another OSError where the storage
    refuses (`reading.StateError`: a file of the state that is not believed). Missing folders of the state are made;
    others must be there, if the storage has folders at all.
    """

    @property
    def moves_at_once(self) -> bool:
        """Whether a crash in a move leaves exactly one of both names. Else it may leave both, of one version."""

    def list(self, folder: str) -> Iterator[tuple[str, Stat]]:
        """Yield all names in a folder (the root is ``""``), in no order."""

    def stat(self, path: str) -> Stat:
        """Look at a path; a folder is walked through."""

    def stamp(self, folder: str) -> str | None:
        """Return a text that changes when a name in the folder does; None where the storage has no such thing."""

    def read(self, path: str, start: int = 0) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading at byte ``start``; a negative one counts from the end."""

    def create(self, path: str, content: Iterable[bytes], time_ns: int | None = None) -> Stat:
        """Write a new file, whole and durable, or none; FileExistsError if the name is taken."""

    def replace(self, path: str, content: Iterable[bytes], was: str | None = None, *, durable: bool = True) -> Stat:
        """Replace the version ``was``, or any, or write a new file: readers see the old or the new content.

        If it is not ``durable``, a power cut may lose it.

        Raises:
            Changed: another version is there, and stays.
        """

    def append(self, path: str, line: bytes, *, durable: bool = True) -> None:
        """Add to the end of a file, which is made if it is missing. An error may leave a part of the line.

        If it is ``durable``, the line and all before it are on the disk on return.
        """

    def move(self, path: str, to: str, was: str | None = None) -> None:
        """Rename the version ``was``, or any; its time and version stay.

        Raises:
            FileExistsError: the new name is taken, be it by an empty folder.
            Changed: another version is there, and stays.
        """

    def remove(self, path: str, was: str | None = None) -> None:
        """Remove the version ``was``, or any. Of a folder, all is removed that can be.

        Raises:
            Changed: another version is there, and stays.
            OSError: something could not be removed.
        """

    def lock(self, holder: str, wait: float = 0, say: Say = lambda _: None) -> AbstractContextManager[object]:
        """Lock the tree against other runs, which are shown the text ``holder``.

        Args:
            holder: what this run is.
            wait: how many seconds to wait while another run has the lock.
            say: is called with each sentence for the user meanwhile.

        Raises:
            LockedError: another run has the lock.
        """

    def free(self) -> int | None:
        """Return how many bytes can still be written, or None where no limit is known."""


def is_known_by(there: Identity, noted: Identity) -> bool:
    """Return whether a checkpoint that is there is the one that was noted.

    Earlier journals noted of a directory that it is one, with 0 bytes at time 0: there any directory will do.
    """
    return there == noted or (there.kind == "directory" and noted == Identity("directory", 0, 0))


def identity_of_stat(stat: Stat) -> Identity:
    """Return what journals note of a name: kind, size and time; only the kind if it is no file or directory."""
    return Identity._make(stat[:3]) if stat.kind in ("file", "directory") else Identity(stat.kind, 0, 0)


def refuse_others(stat: Stat, was: str | None, path: str) -> None:
    """Raise `Changed` if this is another version than ``was``; None stands for any version."""
    if was is not None and stat.version != was:
        raise Changed(path)
