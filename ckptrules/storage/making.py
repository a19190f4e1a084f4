"""Makes the files, directories and links of a manifest: first for the owner alone, later with their metadata."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from ckptrules.engine.entries import Item
from ckptrules.storage import reading
from ckptrules.storage.copying import PIECE
from ckptrules.storage.metadata import PRIVATE, copy_metadata, set_link_owner, set_metadata
from ckptrules.storage.reading import Progress, open_below
from ckptrules.storage.streams import Checksum
from ckptrules.storage.writing import in_blocks, new_file, write_with_holes

SYNCS = 4  # files that are synced at once, while another one is written


@contextlib.contextmanager
def syncing() -> Iterator[Callable[[int], None]]:
    """Give a function that syncs an open file; large ones in threads, for which the end of the block waits.

    A file is synced through the descriptor that has written it: only that one is sure to get the error.

    Raises:
        OSError: a file could not be written.
    """
    begun: deque[Future[None]] = deque()

    def sync(file: int) -> None:
        if os.fstat(file).st_size < PIECE:
            os.fsync(file)
            return
        begun.append(pool.submit(_sync, os.dup(file)))
        if len(begun) > SYNCS:
            begun.popleft().result()

    with ThreadPoolExecutor(SYNCS) as pool:
        yield sync
        for each in begun:
            each.result()


def _sync(file: int) -> None:
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_member(
    root: str, path: str, content: Iterator[bytes], progress: Progress, sync: Callable[[int], None] = os.fsync
) -> str:
    """Write a file of an archive, for the owner alone, with holes for zeros; ``sync`` it, and return its checksum.

    Raises:
        FileExistsError: the name is taken.
    """
    folder, name = os.path.split(path)
    digest = Checksum()
    with open_below(root, folder) as directory, new_file(directory, name) as file:
        for piece in in_blocks(content):
            digest.update(piece)
            write_with_holes(file, piece)
            progress(len(piece))
        os.ftruncate(file, os.lseek(file, 0, os.SEEK_CUR))
        sync(file)
    return str(digest)


def make_private(path: str) -> None:
    """Make a folder for its owner alone; FileExistsError if the name is taken."""
    os.mkdir(path, PRIVATE)


def make_like(path: str, like: str) -> None:
    """Make a folder with the metadata of another, but always writable by its owner."""
    make_private(path)
    with open_below(path, "") as copy, open_below(like, "") as origin:
        copy_metadata(copy, origin)
        os.fchmod(copy, stat.S_IMODE(os.fstat(copy).st_mode) | PRIVATE)


def make_parents(outputs_dir: str, path: str) -> None:
    """Make the folders above a path that are missing, through no link."""
    parts = path.split("/")[:-1]
    for length in range(1, len(parts) + 1):
        parent = "/".join(parts[: length - 1])
        with open_below(outputs_dir, parent) as directory, contextlib.suppress(FileExistsError):
            os.mkdir(parts[length - 1], dir_fd=directory)


def make_directory(root: str, path: str) -> None:
    """Make a directory for its owner alone, until `set_item_metadata`; FileExistsError if the name is taken."""
    folder, name = os.path.split(path)
    with open_below(root, folder) as directory:
        os.mkdir(name, PRIVATE, dir_fd=directory)


def make_link(root: str, item: Item) -> tuple[str, ...]:
    """Make a symbolic link with its owner and its time; return what could not be set.

    Raises:
        FileExistsError: the name is taken.
    """
    folder, name = os.path.split(item.path)
    with open_below(root, folder) as directory:
        os.symlink(item.link, name, dir_fd=directory)
        lost = set_link_owner(directory, name, item)
        os.utime(name, ns=(item.mtime_ns, item.mtime_ns), dir_fd=directory, follow_symlinks=False)
    return lost


def set_item_metadata(root: str, item: Item, progress: Progress = lambda _: None) -> tuple[str, ...]:
    """Give a file or a filled directory metadata and time of its item, durably; return what could not be set."""
    progress(0)
    with (open_below if item.kind == "directory" else reading.open_file)(root, item.path) as there:
        lost = set_metadata(there, item)
        os.utime(there, ns=(item.mtime_ns, item.mtime_ns))
        os.fsync(there)
    return lost
