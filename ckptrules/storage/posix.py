"""A storage on a disk. Every path is opened part by part, through no link, and never blocks on a named pipe."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ckptrules.storage.base import Say, Stat, refuse_others
from ckptrules.storage.believing import open_believed
from ckptrules.storage.lock import Lock, lock
from ckptrules.storage.looking import hard_links, identity_of_status, stamp_of, walk_folder
from ckptrules.storage.moving import rename
from ckptrules.storage.reading import open_plain_in, refuse_path
from ckptrules.storage.state import is_state, open_directory, open_own, share
from ckptrules.storage.writing import remove, remove_temporary_files, temporary_file, write


class Disk:
    """A folder of a disk and all below it. Files of the state must be believed (`believing.refuse_unbelieved`)."""

    moves_at_once = True

    def __init__(self, root: str) -> None:
        self.root = root

    def list(self, folder: str) -> Iterator[tuple[str, Stat]]:
        """As `Storage.list`."""
        with open_directory(self.root, folder) as directory, os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    yield entry.name, _stat_of(entry.stat(follow_symlinks=False))

    def stat(self, path: str) -> Stat:
        """As `Storage.stat`."""
        with self._parent_of(path) as (directory, name):
            return _stat_in(directory, name)

    def stamp(self, folder: str) -> str | None:
        """As `Storage.stamp`."""
        with open_directory(self.root, folder) as directory:
            return ".".join(map(str, stamp_of(os.fstat(directory))))

    @contextlib.contextmanager
    def read(self, path: str, start: int = 0) -> Iterator[BinaryIO]:
        """As `Storage.read`."""
        with self._parent_of(path) as (directory, name):
            if is_state(path):
                file = open_believed(directory, name, os.path.join(self.root, os.path.dirname(path)))
            else:
                file = open_plain_in(directory, name)
        with open(file, "rb") as stream:
            if start:
                stream.seek(start if start > 0 else max(0, os.fstat(file).st_size + start))
            yield stream

    def create(self, path: str, content: Iterable[bytes], time_ns: int | None = None) -> Stat:
        """As `Storage.create`."""
        with self._written(path, content) as (directory, name, file, temporary):
            if time_ns is not None:
                os.utime(file, ns=(time_ns, time_ns))
            os.fsync(file)
            rename(directory, temporary, name)
            os.fsync(directory)
            return _stat_of(os.fstat(file))

    def replace(self, path: str, content: Iterable[bytes], was: str | None = None, *, durable: bool = True) -> Stat:
        """As `Storage.replace`."""
        with self._written(path, content) as (directory, name, file, temporary):
            if durable:
                os.fsync(file)
            _refuse_others(directory, name, was, path)
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            if durable:
                os.fsync(directory)
            return _stat_of(os.fstat(file))

    def append(self, path: str, line: bytes, *, durable: bool = True) -> None:
        """As `Storage.append`."""
        with self._parent_of(path, make=True) as (directory, name):
            place = os.path.join(self.root, os.path.dirname(path))
            file = open_own(directory, name, place, os.O_WRONLY | os.O_APPEND)
            try:
                if durable and not os.fstat(file).st_size:  # its name is new
                    os.fsync(directory)
                write(file, line)
                if durable:
                    os.fdatasync(file) if hasattr(os, "fdatasync") else os.fsync(file)
            finally:
                os.close(file)

    def move(self, path: str, to: str, was: str | None = None) -> None:
        """As `Storage.move`."""
        with self._parent_of(path) as (directory, name), self._parent_of(to, make=True) as (target, new):
            _refuse_others(directory, name, was, path)
            rename(directory, name, new, target)

    def remove(self, path: str, was: str | None = None) -> None:
        """As `Storage.remove`. Folders of ours are made writable first."""
        with self._parent_of(path) as (directory, name):
            _refuse_others(directory, name, was, path)
            remove(directory, name)

    def lock(self, holder: str, wait: float = 0, say: Say = lambda _: None) -> Lock:
        """As `Storage.lock`."""
        return lock(self.root, holder, wait, say)

    def free(self) -> int | None:
        """As `Storage.free`."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize if disk.f_blocks else None

    @contextlib.contextmanager
    def _written(self, path: str, content: Iterable[bytes]) -> Iterator[tuple[int, str, int, str]]:
        """Write content to a temporary file beside ``path``.

        Give the folder (a descriptor), the name in ``path``, the open file (likewise) and its temporary name.
        """
        with self._parent_of(path, make=True) as (directory, name):
            if is_state(path):
                remove_temporary_files(directory, name)
            with temporary_file(directory, name, content) as (file, temporary):
                if is_state(path):
                    share(file, directory, is_new=True)
                yield directory, name, file, temporary

    @contextlib.contextmanager
    def _parent_of(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder of a path; give its descriptor and the name in it."""
        folder, name = os.path.split(path)
        refuse_path(name)
        with open_directory(self.root, folder, make=make) as directory:
            yield directory, name


def _stat_of(status: os.stat_result) -> Stat:
    """Turn a result of ``lstat`` into what `Storage.list` yields."""
    if stat.S_ISDIR(status.st_mode):
        return Stat("directory", 0, 0)
    kind, size, _ = identity_of_status(status)
    version = f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"
    return Stat(kind, size, status.st_mtime_ns, version, hard_links([status]))


def _stat_in(directory: int, name: str) -> Stat:
    """Look at a name in an open directory; a folder is walked through."""
    status = os.lstat(name, dir_fd=directory)
    if not stat.S_ISDIR(status.st_mode):
        return _stat_of(status)
    found = walk_folder(directory, name)
    _, size, newest = found.identity
    return Stat("directory", size, newest, f"{status.st_ino}.{size}.{newest}", found.shared)


def _refuse_others(directory: int, name: str, was: str | None, path: str) -> None:
    if was is not None:  # else a folder would be walked through for nothing
        refuse_others(_stat_in(directory, name), was, path)
