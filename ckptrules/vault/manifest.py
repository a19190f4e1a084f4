"""Pure: the manifest of a backup or archive, and its JSON, all of which is checked when it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ckptrules.engine.entries import Item
from ckptrules.engine.state_folder import STATE
from ckptrules.storage.attributes import LAST_ID, UNKNOWN, are_sound, disbelieved
from ckptrules.storage.streams import is_checksum

SCHEMA_VERSION = 2  # 1 has `sha256` in place of `checksum`, which names its algorithm
LIMIT = 2**63
LONGEST = 1 << 30  # bytes: some four million names
ROW = 4096  # bytes of one item at the most, but for its path and link
HEAD = 1 << 20  # bytes of all but the items: the names of the experiments, and of files that could not be read
VALUES = 24  # in one item, at the most
SPARSE = 8  # bytes for each value, at the least, if the number of items is not known; `to_json` writes 15 and more
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)


class ManifestError(ValueError):
    """A manifest is not sound; the message is one fact."""


class Manifest(NamedTuple):
    """The contents of a backup or archive.

    ``created`` is a local time with its offset (ISO 8601), ``source`` the absolute path of what was backed up. ``mode``
    is how the files were copied: ``clone``, ``copy``, ``clone and copy`` or ``link``; or the format of an archive.
    ``experiments`` are the paths of the experiments in it, ``missing`` the paths that were left out. A backup that is
    not ``complete`` is being made, or was interrupted: ``items`` are then what is to be copied, without checksums.
    """

    created: str
    source: str
    mode: str
    complete: bool
    experiments: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def disbelieved(self) -> Manifest:
        """The manifest without owners and access lists, for one that somebody else could have written."""
        return self._replace(items=tuple(map(disbelieved, self.items)))

    @property
    def files(self) -> int:
        """The number of files and links."""
        return sum(item.kind != "directory" for item in self.items)

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(item.size for item in self.items)


def to_json(manifest: Manifest) -> str:
    """Return a manifest as JSON. Bytes in names that are not UTF-8 become lone surrogates, which `from_json` reads."""
    rows = [
        {key: value for key, value in item._asdict().items() if value != Item._field_defaults.get(key)}
        for item in manifest.items
    ]
    return json.dumps({"schema_version": SCHEMA_VERSION, **manifest._asdict(), "items": rows}, indent=1) + "\n"


def longest(items: Iterable[Item]) -> int:
    """Return how many bytes a manifest of these items has at the most; a character of a name may take six."""
    return HEAD + sum(ROW + 6 * (len(item.path) + len(item.link)) for item in items)


def from_json(text: str, rows: int | None = None) -> Manifest:
    """Read a manifest and check it.

    Its values are counted before it is parsed: ``[],[],…`` would take thirty times its length in memory.

    Args:
        text: the manifest.
        rows: the number of items that it may have, or None if that is not known.

    Raises:
        ManifestError: it is not sound; or a path in it leads out of the folder.
    """
    data = _parsed(text, rows)
    items: dict[str, Item] = {}
    for number, row in enumerate(data["items"]):
        item = _item(row, number, data["schema_version"])
        if data["complete"] and item.kind == "file" and not item.checksum:
            raise ManifestError(f"path {item.path!r} has no checksum")
        parent = item.path.rpartition("/")[0]
        if parent and (parent not in items or items[parent].kind != "directory"):
            raise ManifestError(f"path {item.path!r} does not lie in a directory of the manifest")
        if item.path in items:
            raise ManifestError(f"path {item.path!r} stands in it twice")
        items[item.path] = item
    return Manifest(**{**{key: data[key] for key in Manifest._fields}, "items": tuple(items.values())})


def count_values(text: str) -> int:
    """Count the values of a JSON text, by the characters that end one, without parsing it."""
    bare = _STRING.sub("", text)
    return sum(map(bare.count, ",]}"))


def unsafe_path(path: str) -> str:
    """Return why a path may not be restored, or an empty text."""
    parts = path.split("/")
    if path.startswith("/"):
        return "is absolute"
    if ".." in parts:
        return "leads outside, with '..'"
    if "" in parts or "." in parts or not _is_name(path):
        return "is no path"
    return f"leads into {STATE}" if parts[0] == STATE else ""


def _parsed(text: str, rows: int | None) -> dict[str, Any]:
    """Parse a manifest, and check all of it but the items."""
    if count_values(text) > (len(text) // SPARSE if rows is None else VALUES * rows) + VALUES:
        raise ManifestError("holds more values than a manifest has")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ManifestError("is not JSON") from None
    if not isinstance(data, dict) or type(data.get("schema_version")) is not int:
        raise ManifestError("has no schema_version")
    if (version := data["schema_version"]) not in (1, SCHEMA_VERSION):
        raise ManifestError(f"has schema_version {version}; this version of ckptrules reads 1 and {SCHEMA_VERSION}")
    for key, kind in {"created": str, "source": str, "mode": str, "complete": bool, "items": list}.items():
        if not isinstance(data.get(key), kind):
            raise ManifestError(f"has no sound '{key}'")
    for key in ("experiments", "missing"):
        if not isinstance(data.get(key), list) or not all(isinstance(path, str) for path in data[key]):
            raise ManifestError(f"has no sound '{key}'")
        data[key] = tuple(data[key])
    return data


def _item(row: object, number: int, version: int) -> Item:
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise ManifestError(f"item {number} has no path")
    if version == 1:
        old = row.get("sha256", "")
        row = {**row, "checksum": old if old == "" else f"sha256:{old}"}
    item = Item._make(row.get(key, Item._field_defaults.get(key)) for key in Item._fields)
    if fault := unsafe_path(item.path):
        raise ManifestError(f"path {item.path!r} {fault}")
    for key, holds in SOUND.items():
        if not holds(item):
            raise ManifestError(f"path {item.path!r} has no sound {key}")
    return item


def _is_number(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_name(text: object) -> bool:
    """Return whether this can be a file name."""
    try:
        return isinstance(text, str) and b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


SOUND: Mapping[str, Callable[[Item], bool]] = {
    "kind": lambda item: item.kind in ("file", "directory", "link"),
    "size": lambda item: _is_number(item.size, 0, LIMIT if item.kind == "file" else 0),
    "mtime_ns": lambda item: _is_number(item.mtime_ns, -LIMIT, LIMIT - 1),
    "mode": lambda item: _is_number(item.mode, 0, 0o3777 if item.kind == "directory" else 0o777),
    "link": lambda item: _is_name(item.link) and bool(item.link) == (item.kind == "link"),
    "checksum": lambda item: item.checksum == "" or (item.kind == "file" and is_checksum(item.checksum)),
    "changed": lambda item: isinstance(item.changed, bool),
    "uid": lambda item: _is_number(item.uid, UNKNOWN, LAST_ID),
    "gid": lambda item: _is_number(item.gid, UNKNOWN, LAST_ID),
    "attributes": lambda item: are_sound(item.attributes) and not (item.attributes and item.kind == "link"),
    "holes": lambda item: _is_number(item.holes, 0, item.size),
}
