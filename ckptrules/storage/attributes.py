"""Pure: the attributes of files that copies keep: POSIX access lists and ``user.*`` (``acl(5)``, ``xattr(7)``).

Attributes of the system (``security.*``, ``trusted.*``: file capabilities, labels) are not kept.
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
OWNER, GROUP, MODE = "owner", "group", "mode"  # what else a copy may lose
USER = "user."
LONGEST_NAME = 255  # bytes, linux/limits.h: XATTR_NAME_MAX
LONGEST = 1 << 16  # bytes of a value, linux/limits.h: XATTR_SIZE_MAX
MOST = 1 << 20  # bytes of all values of one file
UNKNOWN = -1  # the owner, in a manifest of an earlier version
LAST_ID = (1 << 32) - 2  # the number after it means nobody
HEAD, ENTRY, VERSION = struct.Struct("<I"), struct.Struct("<HHI"), 2  # linux/posix_acl_xattr.h, like the tags
NAMED_USER, OWNING_GROUP, NAMED_GROUP, MASK = 0x02, 0x04, 0x08, 0x10
NEEDED = (0x01, OWNING_GROUP, 0x20)  # the first is the owner, the last all others
TAGS = (*NEEDED, NAMED_USER, NAMED_GROUP, MASK)
ALL = 0o7


def is_kept(name: str) -> bool:
    """Return whether copies keep an attribute."""
    return name in LISTS or name.startswith(USER)


def word(name: str) -> str:
    """Return a name for people: ``access list``, ``attribute user.note``."""
    return LISTS.get(name, f"attribute {name}")


def as_text(attributes: Mapping[str, bytes]) -> dict[str, str]:
    """Encode values for a manifest."""
    return {name: b64encode(value).decode("ascii") for name, value in attributes.items()}


def as_bytes(attributes: Mapping[str, str]) -> dict[str, bytes]:
    """Decode values that `as_text` encoded."""
    return {name: b64decode(value) for name, value in attributes.items()}


def are_sound(attributes: object) -> bool:
    """Return whether a manifest may hold these attributes: of kinds that are kept, within bounds, lists that parse."""
    if not isinstance(attributes, dict) or not all(_is_sound(name, text) for name, text in attributes.items()):
        return False
    return sum(map(len, as_bytes(attributes).values())) <= MOST


def without_list(mode: int, access_list: bytes) -> int:
    """Return a mode for a copy without the access list of its original: nobody may do more than mode and list allow.

    The group bits of a file with a list are its mask; the rights of the group are in the list. A list can also deny:
    a user that it names with fewer rights than others would, without it, have the rights of others.

    Args:
        mode: the permission bits of the original.
        access_list: its bytes; if they do not parse, only the owner keeps rights.
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
    """Return a mode for a copy that belongs to another group: neither group may do more than with the original."""
    least = mode >> 3 & mode & ALL
    return mode & ~0o077 | least << 3 | least


def entries(access_list: bytes) -> list[tuple[int, int, int]]:
    """Parse an access list into tag, permissions and id of each entry; ValueError if it is none."""
    head, rest = access_list[: HEAD.size], access_list[HEAD.size :]
    if head != HEAD.pack(VERSION) or len(rest) % ENTRY.size:
        raise ValueError("is no access list")
    found = list(ENTRY.iter_unpack(rest))
    tags = {tag for tag, _, _ in found}
    if not tags.issuperset(NEEDED) or not tags.issubset(TAGS) or any(allowed > ALL for _, allowed, _ in found):
        raise ValueError("is no access list")
    return found


def disbelieved(item: Item) -> Item:
    """Return an item of an untrusted manifest without what gives rights to users: owner, group and access lists."""
    access_list = as_bytes(item.attributes).get(ACCESS)
    mode = item.mode if access_list is None else without_list(item.mode, access_list)
    own = {name: value for name, value in item.attributes.items() if name.startswith(USER)}
    return item._replace(mode=mode, uid=UNKNOWN, gid=UNKNOWN, attributes=own)


def _least(found: list[tuple[int, int, int]], tag: int, mask: int = ALL) -> int:
    """Return the permissions that all entries with a tag have; `ALL` if no entry has it."""
    return functools.reduce(operator.and_, (permissions & mask for kind, permissions, _ in found if kind == tag), ALL)


def _is_sound(name: object, text: object) -> bool:
    try:
        if not (isinstance(name, str) and is_kept(name) and isinstance(text, str)):
            return False
        value = b64decode(text, validate=True)
        if name in LISTS:
            entries(value)
        encoded = name.encode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):  # a name that cannot be encoded is a ValueError, too
        return False
    return len(encoded) <= LONGEST_NAME and b"\0" not in encoded and len(value) <= LONGEST
