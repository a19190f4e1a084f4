"""Decides whether to believe a file or folder of the state: nobody else may have written it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat

from ckptrules.engine.state_folder import BELIEVED, STATE
from ckptrules.storage.reading import (
    AWAY,
    NO_TRICKS,
    OPEN,
    Opener,
    StateError,
    open_below,
    open_folder,
    owner_name,
    why_of,
)

CLOSE = "if nobody else wrote to it: chmod -R o-w {state}"
SHARE = "its owner shares it with the group: chmod -R g+rwX {state}; chmod g+s {state}"
COPY = "give it a copy of its own: cp -p {path} {path}.own && mv {path}.own {path}"
STRANGER = "look who that is (ls -la); move it away, and a new one is begun"
OTHERS_WRITE = 0o022
NO_MODES: set[int] = set()  # devices on which all files have one fixed mode (FAT), which says nothing
OTHER_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_state(root: str, path: str = STATE, opener: Opener = open_folder) -> contextlib.AbstractContextManager[int]:
    """Open the state folder below a root, or a folder in it, part by part, and give its descriptor.

    ``opener`` opens each part, and may make missing ones.

    Raises:
        FileNotFoundError: a part is missing.
        StateError: a part is no folder (a link, say), or is not believed (`refuse_unbelieved`).
    """

    def believed(directory: int, name: str, place: str) -> int:
        inner = opener(directory, name, place)
        try:
            refuse_unbelieved(os.fstat(inner), os.fstat(directory), place)
        except StateError:
            os.close(inner)
            raise
        return inner

    return open_below(root, path, believed)


def open_believed(directory: int, name: str, place: str, names: int = 1, flags: int = os.O_RDONLY) -> int:
    """Open a file of the state.

    Args:
        directory: its folder, open.
        name: its name in it.
        place: the path of the folder, for messages.
        names: how many names (hard links) the file may have.
        flags: as `os.open` takes them.

    Raises:
        FileNotFoundError: it is missing.
        StateError: it is no plain file, has more names, is not believed (`refuse_unbelieved`), or cannot be opened.
    """
    path = os.path.join(place, name)
    refuse_other_kinds(os.lstat(name, dir_fd=directory), path, names)
    try:
        file = os.open(name, flags | NO_TRICKS, dir_fd=directory)
    except PermissionError as error:
        raise StateError(path, f"cannot be opened: {why_of(error)}", SHARE) from None
    try:
        status = os.fstat(file)
        refuse_other_kinds(status, path, names)  # again: it may be another one by now
        refuse_unbelieved(status, os.fstat(directory), path)
    except OSError:
        os.close(file)
        raise
    return file


def refuse_other_kinds(status: os.stat_result, path: str, names: int = 1) -> None:
    """Raise StateError for all but a plain file with at most so many names: a write there would also go elsewhere."""
    if kind := OTHER_KINDS.get(stat.S_IFMT(status.st_mode)):
        raise StateError(path, f"is {kind}, not a plain file of its own", AWAY)
    if status.st_nlink > names:
        raise StateError(path, "has a second name (a hard link), so it is not a plain file of its own", COPY)


def refuse_unbelieved(status: os.stat_result, folder: os.stat_result, path: str) -> None:
    """Refuse a file or folder of the state that an untrusted user may have written.

    Trusted are the user of this process, root, the owner of the folder around it, and the group if that folder is
    shared with it. A folder in which everybody can make files of its group (modes o+w and g+s) gives no trust by group.

    Raises:
        StateError: everybody may write to it, or it belongs to an untrusted user.
    """
    if status.st_mode & stat.S_IWOTH and status.st_dev not in NO_MODES:
        raise StateError(path, OPEN, CLOSE)
    gives_group_away = folder.st_mode & stat.S_IWOTH and folder.st_mode & stat.S_ISGID
    is_shared = folder.st_mode & stat.S_IWGRP and status.st_gid == folder.st_gid and not gives_group_away
    if status.st_uid not in (os.geteuid(), 0, folder.st_uid) and not is_shared:
        raise StateError(path, f"belongs to somebody else (user {status.st_uid}), so it is not believed", STRANGER)


def refuse_state(outputs_dir: str) -> None:
    """Raise StateError if the state folder, or a name in it, is not believed. Deeper files are checked when opened."""
    with contextlib.suppress(FileNotFoundError), open_state(outputs_dir) as directory:
        folder = os.fstat(directory)
        for name in BELIEVED:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(name, dir_fd=directory)
                if not stat.S_ISLNK(status.st_mode):  # a link has no mode of its own, and will not be followed
                    refuse_unbelieved(status, folder, os.path.join(outputs_dir, STATE, name))


def read_plain(path: str) -> str:
    """Read a text file of the user, as `open_plain` opens it; UnicodeDecodeError if it is not UTF-8."""
    with open(open_plain(path), encoding="utf-8") as text:
        return text.read()


def open_plain(path: str) -> int:
    """Open a plain file of the user for reading, through links as well; OSError, without waiting, for a named pipe."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if kind := OTHER_KINDS.get(stat.S_IFMT(os.fstat(file).st_mode)):
        os.close(file)
        raise OSError(errno.EINVAL, f"is {kind}, not a plain file", path)
    return file


def own_state(outputs_dir: str) -> str:
    """Return the folder for a tree in the user's own state (XDG), or an empty text if the user has no home.

    Raises:
        OSError: EPERM, as somebody else could write there.
    """
    home = os.environ.get("XDG_STATE_HOME", "")  # https://specifications.freedesktop.org/basedir-spec/latest/
    home = home if os.path.isabs(home) else os.path.expanduser("~/.local/state")
    if not os.path.isabs(home):
        return ""
    ours = os.path.join(home, "ckptrules")
    with contextlib.suppress(FileNotFoundError):
        try:
            status = os.lstat(ours)
        except PermissionError:  # the home of somebody else
            return ""
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
            raise OSError(
                errno.EPERM, f"must be a folder of yours that nobody else may write (chmod 700 '{ours}')", ours
            )
    place = os.path.realpath(outputs_dir)
    return os.path.join(ours, hashlib.sha256(os.fsencode(place)).hexdigest()[:32])


def owner_of_other(status: os.stat_result) -> str:
    """Return the owner of a file if a copy that we make cannot belong to the same user; else an empty text."""
    return "" if os.geteuid() in (0, status.st_uid) else owner_name(status.st_uid)


def is_trusted(status: os.stat_result) -> bool:
    """Return whether a file or folder is ours or root's, and not writable by everybody (a sticky folder may be)."""
    open_to_all = status.st_mode & stat.S_IWOTH and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX)
    return status.st_uid in (0, os.geteuid()) and not open_to_all
