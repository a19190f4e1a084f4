"""A storage in memory: what the state needs of a storage is no more than the protocol says."""

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

from ckptrules.storage.base import LockedError, Say, Stat


class _File(NamedTuple):
    content: bytes
    time_ns: int


class Memory:
    """Files by their paths. As in a bucket, a folder is there while something is in it."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()
        self._holder = ""

    def list(self, folder: str) -> Iterator[tuple[str, Stat]]:
        paths = self._below(folder)
        if not paths:
            raise _error(errno.ENOTDIR if folder in self._files else errno.ENOENT, folder)
        start = len(folder) + 1
        for name, inner in itertools.groupby(sorted(paths), lambda path: path[start:].partition("/")[0]):
            is_file = next(inner) == f"{folder}/{name}"
            yield name, self.stat(f"{folder}/{name}") if is_file else Stat("directory", 0, 0)

    def stat(self, path: str) -> Stat:
        if file := self._files.get(path):
            return Stat("file", len(file.content), file.time_ns)
        files = [self._files[inner] for inner in self._below(path)]
        if not files:
            raise _error(errno.ENOENT, path)
        return Stat("directory", sum(len(file.content) for file in files), max(file.time_ns for file in files))

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[BinaryIO]:
        if path not in self._files:
            raise _error(errno.EINVAL if self._below(path) else errno.ENOENT, path)
        yield io.BytesIO(self._files[path].content[start:])

    def replace(self, path: str, content: Iterable[bytes], *, durable: bool = True) -> None:  # noqa: ARG002
        self._write(path, b"".join(content))

    def append(self, path: str, line: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - memory is what it is
        before = self._files.get(path)
        self._write(path, (before.content if before else b"") + line)

    def remove(self, path: str) -> None:
        self.stat(path)
        for inner in [path] if path in self._files else self._below(path):
            del self._files[inner]

    @contextlib.contextmanager
    def lock(self, holder: str, wait: float = 0, say: Say = lambda _: None) -> Iterator[None]:  # noqa: ARG002
        if not self._lock.acquire(timeout=wait):
            raise LockedError(self._holder)
        self._holder = holder
        try:
            yield
        finally:
            self._lock.release()

    def _below(self, folder: str) -> Sequence[str]:
        return [path for path in self._files if path.startswith(f"{folder}/")]

    def _write(self, path: str, content: bytes) -> None:
        """Write a file, unless its name cannot be: a folder cannot be a file as well."""
        parts = path.split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise _error(errno.EINVAL, path)
        if self._below(path):
            raise _error(errno.EISDIR, path)
        if any("/".join(parts[:length]) in self._files for length in range(1, len(parts))):
            raise _error(errno.ENOTDIR, path)
        self._files[path] = _File(content, time.time_ns())


def _error(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)
