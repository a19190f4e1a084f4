"""Makes archives, backups and copies under hidden or temporary names, until they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ckptrules.engine.actions import Piece, Recipe
from ckptrules.engine.state_folder import WORK
from ckptrules.storage import reading, streams
from ckptrules.storage.base import CHANGED
from ckptrules.storage.copying import clone
from ckptrules.storage.looking import identity_of_status
from ckptrules.storage.metadata import PRIVATE, copy_metadata, copy_metadata_or_refuse
from ckptrules.storage.moving import rename, status_of
from ckptrules.storage.reading import Progress, open_below
from ckptrules.storage.state import Folders, open_directory
from ckptrules.storage.writing import (
    NEW,
    new_file,
    remove,
    remove_temporary_files,
    skip,
    temporary_file,
    temporary_name,
    undo_on_error,
    write,
    write_file,
)

PARTIAL = ".{}.partial"  # the name of a backup until it is whole
TRIES = 5  # to remove a folder while somebody writes into it


@contextlib.contextmanager
def new_archive(path: str) -> Iterator[tuple[BinaryIO, str]]:
    """Give a file to write an archive to, and its temporary path; rename it to ``path`` at the end.

    After an error, it is removed; so is what killed processes have left of that archive.

    Raises:
        FileExistsError: the name is taken.
    """
    drop_archive(path)
    folder, name = os.path.split(os.path.abspath(path))
    with open_below(folder, "") as directory:
        mode = 0o664 & os.fstat(directory).st_mode
        with (
            temporary_file(directory, name, (), mode) as (descriptor, temporary),
            open(descriptor, "wb", closefd=False) as file,
        ):
            yield file, os.path.join(folder, temporary)
            file.flush()
            os.fsync(descriptor)
            rename(directory, temporary, name)
        os.fsync(directory)


def drop_archive(path: str) -> None:
    """Remove what killed processes have left of an archive; if that fails, the next run tries again."""
    folder, name = os.path.split(os.path.abspath(path))
    with contextlib.suppress(OSError), open_below(folder, "") as directory:
        remove_temporary_files(directory, name)


@contextlib.contextmanager
def staging(outputs_dir: str, start: str = "unarchive-") -> Iterator[str]:
    """Make a folder in the workplace, give its path below ``outputs_dir``, and remove it at the end."""
    name = temporary_name(start)
    with open_directory(outputs_dir, WORK, make=True) as work:
        os.mkdir(name, PRIVATE, dir_fd=work)
        try:
            yield f"{WORK}/{name}"
        finally:
            with contextlib.suppress(OSError):  # the next run removes it
                _remove_in_use(work, name)


@contextlib.contextmanager
def temporary_folder(root: str, path: str) -> Iterator[None]:
    """Make a folder below a root, and remove it at the end, with all that is in it."""
    folder, name = os.path.split(path)
    with open_below(root, folder) as directory:
        os.mkdir(name, PRIVATE, dir_fd=directory)
        with undo_on_error(_remove_in_use, directory, name):
            yield
        _remove_in_use(directory, name)


def _remove_in_use(directory: int, name: str) -> None:
    """Remove a folder into which other processes may still write: renamed first, so that they do not find it."""
    gone = f"{name}.gone"
    rename(directory, name, gone)
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            return remove(directory, gone)
    return remove(directory, gone)


def place_copy(root: str, path: str, to: str) -> None:
    """Rename a copy within a backup that this process alone is making; FileExistsError if the name is taken.

    As nobody else makes names there, no exclusive rename is needed, which some disks do not have (FAT behind FUSE).
    """
    (folder, name), (to_folder, to_name) = os.path.split(path), os.path.split(to)
    with open_below(root, folder) as directory, open_below(root, to_folder) as target:
        if status_of(target, to_name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name)
        os.rename(name, to_name, src_dir_fd=directory, dst_dir_fd=target)


def write_manifest(folder: str, path: str, text: str) -> None:
    """Write or replace the manifest of a backup."""
    place = os.path.join(folder, path)
    os.makedirs(os.path.dirname(place), 0o775, exist_ok=True)
    write_file(place, text)


def finish_backup(partial: str, path: str, like: str) -> tuple[str, ...]:
    """Give a backup the metadata of the folder ``like``, and its final name; return what metadata is lost.

    Raises:
        FileExistsError: the name was taken meanwhile.
    """
    with open_below(like, "") as origin, open_below(partial, "") as copy:
        lost = copy_metadata(copy, origin)
        os.fsync(copy)  # makes the names in it durable
    with open_below(os.path.dirname(path) or ".", "") as folder:
        rename(folder, os.path.basename(partial), os.path.basename(path))
        os.fsync(folder)
    return lost


def remove_backup(path: str, hidden: str, progress: Progress = lambda _: None) -> None:
    """Remove a backup, renamed to ``hidden`` first. Its manifest goes last, so the next run knows what is left of it.

    ``progress`` is called before each name that is removed.
    """
    with open_below(os.path.dirname(path) or ".", "") as folder:
        if hidden != path:
            rename(folder, os.path.basename(path), os.path.basename(hidden))
        remove(folder, os.path.basename(hidden), progress)


# --- new content of a checkpoint: written in the workplace, then moved to the trash, where it is exchanged ------------


def stage_rewrite(outputs_dir: str, path: str, recipe: Recipe, progress: Progress) -> str:
    """Write a file anew into the workplace, with its metadata, time and holes; return its name there.

    Raises:
        SourceError: the file cannot be read, or was changed meanwhile.
        OSError: the copy cannot be written, or would lose metadata; nothing is left of it.
    """
    name = temporary_name("state-")
    with reading.open_file(outputs_dir, path) as origin, open_directory(outputs_dir, WORK, make=True) as work:
        before, cloned = os.fstat(origin), clone(origin, work, name)
        with new_file(work, name, flags=os.O_WRONLY if cloned else NEW) as copy:
            _write_parts(origin, copy, recipe.parts, progress, cloned=cloned)
            os.ftruncate(copy, recipe.size)
            copy_metadata_or_refuse(copy, origin, path)
            os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
            os.fsync(copy)
            if identity_of_status(os.fstat(origin)) != identity_of_status(before):
                raise reading.SourceError(errno.ESTALE, CHANGED, path)
    return name


def lay_in_trash(outputs_dir: str, staged: str, folder: str, name: str) -> None:
    """Move a staged file into the trash, to be exchanged there; FileExistsError if the name is taken."""
    with Folders(outputs_dir) as folders:
        work, trash = folders.descriptor(WORK), folders.descriptor(folder, create=True)
        rename(work, staged, name, trash)


def drop_staged(outputs_dir: str, staged: str, folder: str = WORK) -> None:
    """Remove what was staged, if it is still there; if that fails, the next run does it."""
    with contextlib.suppress(OSError), open_directory(outputs_dir, folder) as work:
        remove(work, staged)


def _write_parts(origin: int, copy: int, parts: Sequence[Piece], progress: Progress, *, cloned: bool) -> None:
    """Write the parts one after the other, but keep what a clone holds at the right place already.

    At the first part that comes from another place, the clone is truncated, since holes are skipped and not written.
    """
    at = 0
    for part in parts:
        if isinstance(part, bytes):
            os.lseek(copy, at, os.SEEK_SET)
            write(copy, part)
            at += len(part)
            continue
        start, end = part
        if cloned and start != at:
            os.ftruncate(copy, at)
            cloned = False
        if not cloned:
            os.lseek(copy, at, os.SEEK_SET)
            for chunk, is_hole in streams.pieces(origin, start, end):
                skip(copy, len(chunk)) if is_hole else write(copy, chunk)
                progress(len(chunk))
        at += end - start
