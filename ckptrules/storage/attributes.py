"""Pure: what a file has beside its bytes, mode and times: its owner, its access lists, what a person noted on it.

Kept are POSIX access lists and ``user.*`` attributes, as Linux gives them (``xattr(7)``, ``acl(5)``). What belongs to
the system (``security.*``, ``trusted.*``: file capabilities, labels) is not copied.
"""

from __future__ import annotations

import binascii
import functools
import operator
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping

from ckptrules.engine.entries import Item

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"
LISTS = {ACCESS: "access list", DEFAULT: "default access list"}
OWNER, GROUP, MODE = "owner", "group", "mode"  # what a copy may lose, beside lists and attributes
USER = "user."
LONGEST_NAME = 255  # bytes, linux/limits.h: XATTR_NAME_MAX
LONGEST = 1 << 16  # bytes of a value, linux/limits.h: XATTR_SIZE_MAX
MOST = 1 << 20  # bytes of all values of one file
UNKNOWN = -1  # the owner, in a manifest of an earlier version
LAST_ID = (1 << 32) - 2  # the number after it means nobody
HEAD, ENTRY, VERSION = struct.Struct("<I"), struct.Struct("<HHI"), 2  # linux/posix_acl_xattr.h, like the tags
NAMED_USER, OWNING_GROUP, NAMED_GROUP, MASK = 0x02, 0x04, 0x08, 0x10
NEEDED = (0x01, OWNING_GROUP, 0x20)  # the owner and the others are the first and the last
TAGS = (*NEEDED, NAMED_USER, NAMED_GROUP, MASK)
ALL = 0o7


def is_kept(name: str) -> bool:
    """Say whether an attribute goes with a copy."""
    return name in LISTS or name.startswith(USER)


def word(name: str) -> str:
    """Return what people call an attribute: ``access list``, ``attribute user.note``."""
    return LISTS.get(name, f"attribute {name}")


def as_text(attributes: Mapping[str, bytes]) -> dict[str, str]:
    """Write values as a manifest holds them."""
    return {name: b64encode(value).decode("ascii") for name, value in attributes.items()}


def as_bytes(attributes: Mapping[str, str]) -> dict[str, bytes]:
    """Read what `as_text` wrote."""
    return {name: b64decode(value) for name, value in attributes.items()}


def are_sound(attributes: object) -> bool:
    """Say whether a manifest may give a file these attributes: such that are kept, within bounds, lists that parse."""
    if not isinstance(attributes, dict) or not all(_is_sound(name, text) for name, text in attributes.items()):
        return False
    return sum(map(len, as_bytes(attributes).values())) <= MOST


def without_list(mode: int, access_list: bytes) -> int:
    """Return the mode of a copy that has to do without the access list: nobody may do more than with both.

    The group bits of a file with a list are its mask; what the group may do stands in the list. A list can also deny:
    who is named in it and may do less than others would count as one of the others.

    Args:
        mode: the permission bits beside the list.
        access_list: as the system gives it; where it does not parse, only the owner keeps rights.
    """
    try:
        found = entries(access_list)
    except ValueError:
        return mode & ~0o077
    mask = _least(found, MASK)
    users = _least(found, NAMED_USER, mask)
    group = _least(found, OWNING_GROUP, mask) & users
    others = mode & users & _least(found, NAMED_GROUP, mask)
    return mode & ~0o077 | group << 3 | others & ALL


def for_another_group(mode: int) -> int:
    """Return the mode of a copy that belongs to another group: neither group may do more than with the original."""
    least = mode >> 3 & mode & ALL
    return mode & ~0o077 | least << 3 | least


def entries(access_list: bytes) -> list[tuple[int, int, int]]:
    """Read an access list: tag, permissions and number of each entry.

    Raises:
        ValueError: it is none.
    """
    head, rest = access_list[: HEAD.size], access_list[HEAD.size :]
    if head != HEAD.pack(VERSION) or len(rest) % ENTRY.size:
        raise ValueError("is no access list")
    found = list(ENTRY.iter_unpack(rest))
    tags = {tag for tag, _, _ in found}
    if not tags.issuperset(NEEDED) or not tags.issubset(TAGS) or any(allowed > ALL for _, allowed, _ in found):
        raise ValueError("is no access list")
    return found


def disbelieved(item: Item) -> Item:
    """Return an item of a manifest that somebody else may have written: who may do what is not taken from it."""
    access_list = as_bytes(item.attributes).get(ACCESS)
    mode = item.mode if access_list is None else without_list(item.mode, access_list)
    own = {name: value for name, value in item.attributes.items() if name.startswith(USER)}
    return item._replace(mode=mode, uid=UNKNOWN, gid=UNKNOWN, attributes=own)


def _least(found: list[tuple[int, int, int]], tag: int, mask: int = ALL) -> int:
    """Return what all entries of a kind allow; all where there is none."""
    return functools.reduce(operator.and_, (permissions & mask for kind, permissions, _ in found if kind == tag), ALL)


def _is_sound(name: object, text: object) -> bool:
    try:
        if not (isinstance(name, str) and is_kept(name) and isinstance(text, str)):
            return False
        value = b64decode(text, validate=True)
        if name in LISTS:
            entries(value)
        encoded = name.encode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):  # a name that the system cannot be handed is a ValueError, too
        return False
    return len(encoded) <= LONGEST_NAME and b"\0" not in encoded and len(value) <= LONGEST
