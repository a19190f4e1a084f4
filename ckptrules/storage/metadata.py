"""Copies the metadata of files and directories: owner and group, mode, access lists, ``user.*`` attributes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial

from ckptrules.engine.entries import Item
from ckptrules.storage import looking, reading
from ckptrules.storage.attributes import (
    ACCESS,
    DEFAULT,
    GROUP,
    LISTS,
    MODE,
    MOST,
    OWNER,
    UNKNOWN,
    as_bytes,
    as_text,
    for_another_group,
    is_kept,
    without_list,
    word,
)

NOT_OURS = "a copy of it would be yours"
PRIVATE = 0o700
KNOWS_NONE = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM)  # from file systems without modes, owners or attributes


def copy_metadata(copy: int, like: int) -> tuple[str, ...]:
    """Give an open copy the metadata of an open original, and return what could not be set.

    If the copy was made with mode `PRIVATE`, nobody may at any moment do more with it than with the original.

    Returns:
        words for people: ``owner``, ``access list``, ``attribute user.note``. If the group or an access list could not
        be set, the mode is narrowed so that nobody gains rights.

    Raises:
        SourceError: the attributes of the original cannot be read.
        OSError: the mode of the copy cannot be set.
    """
    kind = looking.KINDS[stat.S_IFMT(os.fstat(like).st_mode)]
    return set_metadata(copy, with_metadata(Item("", kind, 0, 0, 0), like, modes=0o7777))


def set_metadata(copy: int, item: Item) -> tuple[str, ...]:
    """Give an open copy the metadata of an item; as `copy_metadata`."""
    attributes = as_bytes(item.attributes)
    lists = {name: value for name, value in attributes.items() if name in LISTS}
    _remove_lists(copy, (ACCESS, DEFAULT) if item.kind == "directory" else (ACCESS,))
    others = [name for name in attributes if name not in LISTS]
    lost = [word(name) for name in others if not _set(copy, name, attributes[name])]  # while we may still write to it
    lost += _set_owner(item, partial(os.fchown, copy), lambda: os.fstat(copy))
    mode = without_list(item.mode, lists[ACCESS]) if ACCESS in lists else item.mode
    lost += _chmod(copy, for_another_group(mode) if GROUP in lost else mode)
    kept = GROUP not in lost  # a list gives rights to the owning group: no other group may get them
    return (*lost, *(word(name) for name in lists if not (kept and _set(copy, name, lists[name]))))


def copy_metadata_or_refuse(copy: int, like: int, name: str) -> None:
    """Give a copy that is to replace its original all metadata; EPERM, with a reason, if something cannot be set."""
    if lost := copy_metadata(copy, like):
        owner = reading.owner_name(os.fstat(like).st_uid)
        why = f"belongs to {owner}; {NOT_OURS}" if OWNER in lost else f"a copy would lose its {', its '.join(lost)}"
        raise OSError(errno.EPERM, why, name)


def with_metadata(item: Item, file: int, modes: int | None = None) -> Item:
    """Return an item with the metadata of an open file or directory.

    ``modes`` masks the mode; by default it leaves the bits that a backup keeps.

    Raises:
        SourceError: the attributes cannot be read.
    """
    status = os.fstat(file)
    if modes is None:
        modes = reading.DIRECTORY_MODES if stat.S_ISDIR(status.st_mode) else reading.FILE_MODES
    attributes = _attributes_of(file)
    return item._replace(mode=status.st_mode & modes, uid=status.st_uid, gid=status.st_gid, attributes=attributes)


def with_metadata_below(root: str, item: Item) -> Item:
    """Return an item with the metadata of the file or directory at its path.

    Raises:
        SourceError: it cannot be read, or is neither.
    """
    try:
        with (reading.open_below if item.kind == "directory" else reading.open_file)(root, item.path) as there:
            return with_metadata(item, there)
    except OSError as error:
        raise reading.SourceError(error.errno, reading.why_of(error), item.path) from None


def _attributes_of(file: int) -> dict[str, str]:
    """Return the access lists and the ``user.*`` attributes of an open file or directory, in base64.

    There are none where Python cannot read any, as on macOS.

    Raises:
        SourceError: one cannot be read, or they have more than `MOST` bytes.
    """
    if not hasattr(os, "listxattr"):
        return {}
    found: dict[str, bytes] = {}
    try:
        for name in filter(is_kept, os.listxattr(file)):
            found[name] = os.getxattr(file, name)
    except OSError as error:
        if not found and error.errno in KNOWS_NONE:
            return {}
        raise reading.SourceError(error.errno, f"its attributes: {reading.why_of(error)}") from None
    if sum(map(len, found.values())) > MOST:
        raise reading.SourceError(errno.E2BIG, f"its attributes are more than {MOST} bytes")
    return as_text(found)


def _remove_lists(copy: int, names: Iterable[str]) -> None:
    """Remove the access lists that a new file or directory has inherited from its directory."""
    for name in names if hasattr(os, "removexattr") else ():
        try:
            os.removexattr(copy, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, *KNOWS_NONE):
                raise


def set_link_owner(directory: int, name: str, item: Item) -> tuple[str, ...]:
    """Set owner and group of a link; return what could not be set."""
    chown = partial(os.chown, name, dir_fd=directory, follow_symlinks=False)
    return tuple(_set_owner(item, chown, lambda: os.lstat(name, dir_fd=directory)))


def _set_owner(item: Item, chown: Callable[[int, int], None], look: Callable[[], os.stat_result]) -> list[str]:
    """Set owner and group, or at least the group; return what could not be set."""
    if UNKNOWN in (item.uid, item.gid):
        return []
    for uid in (item.uid, -1):
        with contextlib.suppress(OSError):
            chown(uid, item.gid)
            break
    there = look()
    return [OWNER] * (there.st_uid != item.uid) + [GROUP] * (there.st_gid != item.gid)


def _chmod(copy: int, mode: int) -> list[str]:
    """Set the mode; return ``[MODE]`` where the file system keeps none (FAT)."""
    try:
        os.fchmod(copy, mode)
    except OSError as error:
        if error.errno not in KNOWS_NONE:
            raise
        return [MODE]
    return []


def _set(copy: int, name: str, value: bytes) -> bool:
    try:
        os.setxattr(copy, name, value)
    except (OSError, AttributeError):  # Python has no such function on macOS
        return False
    return True
