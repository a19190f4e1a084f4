"""A storage in memory, to try a plan on: it ends with its process."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from ckptrules.storage.base import LockedError, Say, Stat, refuse_others


class _File(NamedTuple):
    content: bytes
    time_ns: int
    version: str

    def stat(self) -> Stat:
        return Stat("file", len(self.content), self.time_ns, self.version)


class Memory:
    """Files by their paths. As in a bucket, a folder exists while something is in it."""

    moves_at_once = True

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()
        self._holder = ""

    def list(self, folder: str) -> Iterator[tuple[str, Stat]]:
        """As `Storage.list`."""
        paths = self._below(folder)
        if not paths and folder:
            raise _error(errno.ENOTDIR if folder in self._files else errno.ENOENT, folder)
        start = len(folder) + bool(folder)
        for name, inner in itertools.groupby(sorted(paths), lambda path: path[start:].partition("/")[0]):
            first = next(inner)
            yield name, self._files[first].stat() if first == os.path.join(folder, name) else Stat("directory", 0, 0)

    def stat(self, path: str) -> Stat:
        """As `Storage.stat`."""
        if file := self._files.get(path):
            return file.stat()
        files = [self._files[inner] for inner in self._below(path)]
        if not files:
            raise _error(errno.ENOENT, path)
        version = " ".join(sorted(file.version for file in files))
        newest = max(file.time_ns for file in files)
        return Stat("directory", sum(len(file.content) for file in files), newest, version)

    def stamp(self, folder: str) -> str | None:
        """As `Storage.stamp`."""
        return "\n".join(sorted(name for name, _ in self.list(folder)))

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[BinaryIO]:
        """As `Storage.read`."""
        if path not in self._files:
            raise _error(errno.EINVAL if self._below(path) else errno.ENOENT, path)
        yield io.BytesIO(self._files[path].content[start:])

    def create(self, path: str, content: Iterable[bytes], time_ns: int | None = None) -> Stat:
        """As `Storage.create`."""
        return self._write(path, b"".join(content), time_ns, is_new=True)

    def replace(self, path: str, content: Iterable[bytes], was: str | None = None, *, durable: bool = True) -> Stat:  # noqa: ARG002
        """As `Storage.replace`."""
        if was is not None:
            refuse_others(self.stat(path), was, path)
        return self._write(path, b"".join(content))

    def append(self, path: str, line: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - no memory is durable
        """As `Storage.append`."""
        before = self._files.get(path)
        self._write(path, (before.content if before else b"") + line)

    def move(self, path: str, to: str, was: str | None = None) -> None:
        """As `Storage.move`."""
        refuse_others(self.stat(path), was, path)
        self._refuse(to, is_new=True)
        if to.startswith(f"{path}/"):
            raise _error(errno.EINVAL, to)
        for inner in [path] if path in self._files else self._below(path):
            self._files[to + inner[len(path) :]] = self._files.pop(inner)

    def remove(self, path: str, was: str | None = None) -> None:
        """As `Storage.remove`."""
        refuse_others(self.stat(path), was, path)
        for inner in [path] if path in self._files else self._below(path):
            del self._files[inner]

    @contextlib.contextmanager
    def lock(self, holder: str, wait: float = 0, say: Say = lambda _: None) -> Iterator[None]:  # noqa: ARG002 - no holder dies alone
        """As `Storage.lock`."""
        if not self._lock.acquire(timeout=wait):
            raise LockedError(self._holder)
        self._holder = holder
        try:
            yield
        finally:
            self._lock.release()

    def free(self) -> int | None:
        """As `Storage.free`."""
        return None

    def _below(self, folder: str) -> Sequence[str]:
        return [path for path in self._files if not folder or path.startswith(f"{folder}/")]

    def _write(self, path: str, content: bytes, time_ns: int | None = None, *, is_new: bool = False) -> Stat:
        self._refuse(path, is_new=is_new)
        version = str(next(self._versions))
        self._files[path] = _File(content, time.time_ns() if time_ns is None else time_ns, version)
        return self._files[path].stat()

    def _refuse(self, path: str, *, is_new: bool) -> None:
        """Raise an OSError if a file cannot have this path, or if it is to be new and the path is taken."""
        if is_new and (path in self._files or self._below(path)):
            raise _error(errno.EEXIST, path)
        if self._below(path):
            raise _error(errno.EISDIR, path)
        parts = path.split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise _error(errno.EINVAL, path)
        if any("/".join(parts[:length]) in self._files for length in range(1, len(parts))):
            raise _error(errno.ENOTDIR, path)


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
