"""Finds packs: rule files for the checkpoints of frameworks, of this package or of others."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from ckptrules.engine.ruleset import Fault, Location, RuleError
from ckptrules.engine.spelling import one_of
from ckptrules.rules.shape import Value
from ckptrules.rules.shipped import PACKAGE, readable
from ckptrules.storage.believing import read_plain

FOLDER = os.path.join(PACKAGE, "packs")
ENTRY_POINTS = "ckptrules.packs"
KEYS = (
    *("layout", "protected", "ignored", "sidecars", "pointers", "facts"),
    *("part_folders", "unfinished", "leftovers", "formats"),
)


def sources(wanted: Collection[str] | None = None) -> dict[str, str]:
    """Return the paths of all packs by name: shipped ones, and those of the entry points ``ckptrules.packs``.

    An entry point leads to the path of a YAML file; it is ignored if a shipped pack has its name. If all ``wanted``
    packs are shipped, entry points are not read: that would read the metadata of all installed packages.

    Raises:
        RuleError: an entry point leads to no path.
    """
    found = {name[:-5]: os.path.join(FOLDER, name) for name in sorted(os.listdir(FOLDER)) if name.endswith(".yaml")}
    if wanted is not None and found.keys() >= set(wanted):
        return found
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        if point.name not in found:
            try:
                found[point.name] = os.fspath(point.load())
            except (ImportError, AttributeError, TypeError) as error:
                fact = f"cannot be found by the entry point '{point.value}' of another package: {error}"
                raise RuleError([Fault(Location(shown(point.name), 1, 1), fact)]) from None
    return found


def text_of(name: str, path: str) -> str:
    """Read a pack.

    Raises:
        RuleError: it cannot be read.
    """
    with readable(Location(shown(name), 1, 1)):
        return read_plain(path)


def shown(name: str) -> str:
    """Return the name of a pack's file in messages."""
    return f"packs/{name}.yaml"


def chosen(names: Sequence[Value], faults: list[Fault]) -> dict[str, str]:
    """Return the path of each pack that rules list; add faults for unknown packs."""
    known = sources([value.data for value in names]) if names else {}
    strange = [value for value in names if value.data not in known]
    faults += [Fault(value.place, f"no pack '{value.data}'", one_of(value.data, known)) for value in strange]
    return {value.data: known[value.data] for value in names if value.data in known}
