"""What a copy keeps beside its bytes: owner and group, mode, access lists, attributes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable

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

KNOWS_NONE = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM)  # a file system without modes, owners, attributes


def dress(copy: int, like: int) -> tuple[str, ...]:
    """Give an open copy what an open original has beside its bytes and times, and say what it could not be given.

    That is owner and group, mode, access lists, ``user.*`` attributes. At no moment may anybody do more with the copy
    than with the original, if the copy was made for its owner alone (`PRIVATE`).

    Returns:
        words for people: ``owner``, ``access list``, ``attribute user.note``. Where the group is not kept, or an access
        list, the mode is so narrow that nobody gains by it.

    Raises:
        SourceError: the attributes of the original cannot be read.
        OSError: the copy cannot be given a mode.
    """
    kind = looking.KINDS[stat.S_IFMT(os.fstat(like).st_mode)]
    return dress_as(copy, described(Item("", kind, 0, 0, 0), like, modes=0o7777))


def dress_as(copy: int, item: Item) -> tuple[str, ...]:
    """Give an open copy what an item says: `dress` without the original."""
    attributes = as_bytes(item.attributes)
    lists = {name: value for name, value in attributes.items() if name in LISTS}
    _take_off(copy, (ACCESS, DEFAULT) if item.kind == "directory" else (ACCESS,))
    others = [name for name in attributes if name not in LISTS]
    lost = [word(name) for name in others if not _set(copy, name, attributes[name])]  # while we may still write to it
    lost += _give_away(copy, item)
    mode = without_list(item.mode, lists[ACCESS]) if ACCESS in lists else item.mode
    lost += _chmod(copy, for_another_group(mode) if GROUP in lost else mode)
    kept = GROUP not in lost  # what a list says of the owning group is meant for that group
    return (*lost, *(word(name) for name in lists if not (kept and _set(copy, name, lists[name]))))


def dress_or_refuse(copy: int, like: int, name: str) -> None:
    """Dress what is to take the place of an original; it must not lose anything by that.

    Raises:
        OSError: EPERM, with what it would lose.
    """
    if lost := dress(copy, like):
        owner = reading.owner_name(os.fstat(like).st_uid)
        why = f"belongs to {owner}; {NOT_OURS}" if OWNER in lost else f"a copy would lose its {', its '.join(lost)}"
        raise OSError(errno.EPERM, why, name)


def described(item: Item, file: int, modes: int | None = None) -> Item:
    """Return an item with the mode, the owner and the attributes of an open file or directory.

    ``modes`` are the bits of the mode that count; where it is None, those that a backup keeps.

    Raises:
        SourceError: its attributes cannot be read.
    """
    status = os.fstat(file)
    if modes is None:
        modes = reading.DIRECTORY_MODES if stat.S_ISDIR(status.st_mode) else reading.FILE_MODES
    attributes = attributes_of(file)
    return item._replace(mode=status.st_mode & modes, uid=status.st_uid, gid=status.st_gid, attributes=attributes)


def described_below(root: str, item: Item) -> Item:
    """Return an item with the mode, the owner and the attributes of what stands at its path now.

    Raises:
        SourceError: it cannot be looked at, or is no plain file or directory.
    """
    try:
        with (reading.open_below if item.kind == "directory" else reading.open_file)(root, item.path) as there:
            return described(item, there)
    except OSError as error:
        raise reading.SourceError(error.errno, reading.why_of(error), item.path) from None


def attributes_of(file: int) -> dict[str, str]:
    """Return the access lists and the ``user.*`` attributes of an open file or directory, in base64.

    There are none where the system knows none (those of macOS are others, and are not read).

    Raises:
        SourceError: one cannot be read, or they are more than `MOST` bytes.
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


def _take_off(copy: int, names: Iterable[str]) -> None:
    """Remove the access lists that a new file or directory has from the directory that it was made in."""
    for name in names if hasattr(os, "removexattr") else ():
        try:
            os.removexattr(copy, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, *KNOWS_NONE):
                raise


def _give_away(copy: int, item: Item) -> list[str]:
    """Give a copy its owner and group, or at least its group; say what could not be given."""
    if UNKNOWN in (item.uid, item.gid):
        return []
    try:
        os.fchown(copy, item.uid, item.gid)
    except OSError:
        with contextlib.suppress(OSError):
            os.fchown(copy, -1, item.gid)
        return _not_given(os.fstat(copy), item)
    return []


def give_link_away(directory: int, name: str, item: Item) -> tuple[str, ...]:
    """Give a link its owner and group; say what could not be given."""
    if UNKNOWN in (item.uid, item.gid):
        return ()
    with contextlib.suppress(OSError):
        os.chown(name, item.uid, item.gid, dir_fd=directory, follow_symlinks=False)
    return tuple(_not_given(os.lstat(name, dir_fd=directory), item))


def _not_given(there: os.stat_result, item: Item) -> list[str]:
    return [OWNER] * (there.st_uid != item.uid) + [GROUP] * (there.st_gid != item.gid)


def _chmod(copy: int, mode: int) -> list[str]:
    """Give a copy its mode; say so where the file system keeps none (FAT)."""
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
    except (OSError, AttributeError):  # macOS has other ones
        return False
    return True
