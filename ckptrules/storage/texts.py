"""Replaces the content of text files: pointers below the root, and texts of the user anywhere."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Callable

from ckptrules.engine.entries import Spot
from ckptrules.engine.state_folder import REFS, TRASH, old_text_name
from ckptrules.storage import reading, streams
from ckptrules.storage.base import Changed
from ckptrules.storage.metadata import copy_metadata_or_refuse
from ckptrules.storage.moving import status_of, swap
from ckptrules.storage.posix import Disk
from ckptrules.storage.reading import open_below
from ckptrules.storage.state import Folders
from ckptrules.storage.streams import read_pointer
from ckptrules.storage.trash import NOT_IN_TRASH
from ckptrules.storage.writing import new_file, remove_temporary_files, temporary_file, write

NO_TEXTS = "what lies where others can write has no power over texts"


def pointer_content(folders: Folders, here: Spot) -> bytes | None:
    """Return the content of a pointer file; None if it cannot be one."""
    return read_pointer(folders.descriptor(here.directory), here.name)


def replace_pointer(folders: Folders, here: Spot, trash: str, change: Callable[[bytes], bytes]) -> None:
    """Replace a pointer file by one with other content and the same metadata and time.

    The new file is written in the trash, and the two are exchanged: so the old one is in the trash then.

    ``change`` turns the old content into the new, or raises an OSError.
    """
    directory, name = folders.descriptor(here.directory), here.name
    if not trash.startswith(f"{TRASH}/"):
        raise OSError(errno.EPERM, NOT_IN_TRASH, trash)
    with reading.open_file_in(directory, name) as origin:
        content = streams.read_text(origin)
        if content is None:
            raise Changed(name)
        changed = change(content)
        target = folders.descriptor(trash, create=True)
        spare = _new_text(target, name, changed, origin)
        try:
            is_swapped = swap(target, spare, directory, name, lambda: read_pointer(target, spare) == content)
        except OSError:
            if read_pointer(target, spare) == changed:  # else this is the old file, which could not be exchanged back
                os.unlink(spare, dir_fd=target)
            raise
        if not is_swapped:
            _new_text(target, name, content, origin)
            os.rename(spare, name, src_dir_fd=target, dst_dir_fd=directory)


def _new_text(directory: int, pointer: str, content: bytes, like: int) -> str:
    """Write a content of a pointer file in the trash, with metadata and time of the open file; return its name."""
    names = (old_text_name(pointer, number) for number in itertools.count(1))
    name = next(name for name in names if status_of(directory, name) is None)
    with new_file(directory, name) as file:
        write(file, content)
        copy_metadata_or_refuse(file, like, pointer)
        status = os.fstat(like)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(file)
    return name


def keep_content(own_state: str, content: bytes) -> str:
    """Write a text into the user's own state, under its checksum as name, and return that."""
    name = hashlib.sha256(content).hexdigest()
    Disk(own_state).replace(f"{REFS}/{name}", [content])
    return name


def text_checksum(here: Spot) -> str:
    """Return the checksum of a text file; its directory is an absolute path, without links."""
    with _text_folder(here) as folder, reading.open_file_in(folder, here.name) as file:
        return hashlib.sha256(b"".join(streams.chunks(file, os.fstat(file).st_size))).hexdigest()


def _text_folder(here: Spot) -> contextlib.AbstractContextManager[int]:
    if not here.directory.startswith("/"):
        raise OSError(errno.EINVAL, "is no absolute path", here.directory)
    return open_below("/", here.directory.strip("/"))


def rewrite_text(folders: Folders, here: Spot, was: str, to: str) -> None:
    """Replace the content of a text file in one step; its metadata stays.

    ``was`` is the checksum of its content, ``to`` that of the new one (`keep_content`).

    Raises:
        Changed: the file has another content.
        OSError: EPERM, as ``folders`` are not of the user's own state, or metadata would be lost.
    """
    if not folders.texts:
        raise OSError(errno.EPERM, NO_TEXTS, here.name)
    with Disk(folders.outputs_dir).read(f"{REFS}/{to}") as kept:
        content = kept.read()
    if hashlib.sha256(content).hexdigest() != to:
        raise OSError(errno.EIO, "what was kept of it is damaged", to)
    with _text_folder(here) as folder, reading.open_file_in(folder, here.name) as origin:
        remove_temporary_files(folder, here.name)
        with temporary_file(folder, here.name, [content]) as (file, temporary):
            copy_metadata_or_refuse(file, origin, here.name)
            os.fsync(file)
            if text_checksum(here) != was:  # looked at last: an editor may have saved the file meanwhile
                raise Changed(here.name)
            os.replace(temporary, here.name, src_dir_fd=folder, dst_dir_fd=folder)
