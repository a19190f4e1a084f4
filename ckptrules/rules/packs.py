"""Packs: rule files for the checkpoints of frameworks, shipped with this package or by others."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ckptrules.engine.ruleset import Fault, Location, RuleError
from ckptrules.engine.spelling import one_of
from ckptrules.rules.shape import Value
from ckptrules.rules.shipped import PACKAGE

FOLDER = os.path.join(PACKAGE, "packs")
ENTRY_POINTS = "ckptrules.packs"
KEYS = (
    *("layout", "protected", "ignored", "sidecars", "pointers", "facts"),
    *("part_folders", "unfinished", "leftovers", "formats"),
)


def sources() -> dict[str, str]:
    """Return the paths of all packs by name: the shipped ones, and those of the entry points ``ckptrules.packs``.

    An entry point leads to the path of a YAML file; a name that is taken by a shipped pack is passed over.

    Raises:
        RuleError: an entry point leads to no path.
    """
    from importlib.metadata import entry_points

    found = {name[:-5]: os.path.join(FOLDER, name) for name in sorted(os.listdir(FOLDER)) if name.endswith(".yaml")}
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
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError([Fault(Location(shown(name), 1, 1), f"cannot be read: {error}")]) from None


def shown(name: str) -> str:
    """Return how messages call the file of a pack."""
    return f"packs/{name}.yaml"


def chosen(names: Iterable[Value], faults: list[Fault]) -> list[str]:
    """Return the names of the packs that rules list; what is no pack is added to ``faults``."""
    wanted, found = list(names), []
    known = sources() if wanted else {}  # which looks through all that is installed
    for value in wanted:
        if value.data not in known:
            faults.append(Fault(value.place, f"no pack '{value.data}'", one_of(value.data, known)))
        elif value.data not in found:
            found.append(value.data)
    return found
