"""Makes, changes and removes links below a root; a link that somebody else has changed stays as it is."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ckptrules.engine.entries import Spot
from ckptrules.engine.state_folder import WORK
from ckptrules.storage.base import Changed
from ckptrules.storage.moving import LINK_CHANGED, rename, swap
from ckptrules.storage.reading import refuse_path
from ckptrules.storage.state import NEW_LINK, Folders
from ckptrules.storage.writing import temporary_name


def is_link_to(folders: Folders, here: Spot, text: str) -> bool:
    """Return whether a name is a link with this text; OSError if the name is free."""
    return _has_text(folders.descriptor(here.directory), here.name, text)


def change_link(folders: Folders, here: Spot, was: str, to: str) -> None:
    """Give a link another text in one step, so that the name exists at every moment; `Changed` if it is not ``was``."""
    directory = folders.descriptor(here.directory)
    if not _has_text(directory, here.name, was):
        raise Changed(here.name, LINK_CHANGED)
    work = folders.descriptor(WORK, create=True)
    temporary = temporary_name(NEW_LINK)
    os.symlink(to, temporary, dir_fd=work)
    try:
        if not swap(work, temporary, directory, here.name, lambda: _has_text(work, temporary, was), LINK_CHANGED):
            os.rename(temporary, here.name, src_dir_fd=work, dst_dir_fd=directory)
    finally:
        _drop_link(work, temporary)


def make_link(folders: Folders, here: Spot, to: str) -> None:
    """Make a link to a name in the same directory; FileExistsError if its own name is taken."""
    refuse_path(to)
    os.symlink(to, here.name, dir_fd=folders.descriptor(here.directory))


def remove_link(folders: Folders, here: Spot, text: str) -> None:
    """Move a link into the workplace, look again whether it is the right one, and only then remove it."""
    directory = folders.descriptor(here.directory)
    if not _has_text(directory, here.name, text):
        raise Changed(here.name, LINK_CHANGED)
    work = folders.descriptor(WORK, create=True)
    temporary = temporary_name(NEW_LINK)
    try:
        rename(directory, here.name, temporary, work)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        os.unlink(here.name, dir_fd=directory)  # the workplace lies on another file system
        return
    try:
        if not _has_text(work, temporary, text):
            raise Changed(here.name, LINK_CHANGED)
    except OSError:
        rename(work, temporary, here.name, directory)
        raise
    _drop_link(work, temporary)


def _drop_link(work: int, name: str) -> None:
    """Remove a link from the workplace, if it is one: a file there is somebody's. An error leaves it, without harm."""
    with contextlib.suppress(OSError):
        if stat.S_ISLNK(os.lstat(name, dir_fd=work).st_mode):
            os.unlink(name, dir_fd=work)


def _has_text(directory: int, name: str, text: str) -> bool:
    try:
        return os.readlink(name, dir_fd=directory) == text
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
