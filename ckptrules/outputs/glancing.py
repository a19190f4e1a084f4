"""A glance at what others go for, before they go: whoever was killed while saving leaves a name like any other."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from ckptrules.engine.entries import Entry
from ckptrules.engine.wholeness import as_sentence
from ckptrules.stopping import heed
from ckptrules.storage.reading import why_of

LOOKED_AT = 3  # of those that go and are called alike, the largest: stubs are small
_NUMBERS = re.compile(r"-?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|(?<![A-Za-z])(?:nan|inf)(?![A-Za-z]))")


class Glances:
    """Looks at checkpoints in an open directory, at each once."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._seen: dict[str, tuple[str, Mapping[str, str]]] = {}

    def broken(self, entries: Iterable[Entry], going: Iterable[Entry]) -> dict[str, str]:
        """Say what is seen to be wrong with some checkpoints, by name; others are ``going`` as they are there.

        A file in no known format may be sound. It is broken where one that goes and is called alike is in a known one.
        """
        found = {entry.name: self._at(entry) for entry in entries}
        wrong = {name: fault for name, (fault, _) in found.items() if fault}
        files = [(name, path) for name, (_, formats) in found.items() for path, form in formats.items() if not form]
        known = self._known(going, {_kinds(name)[0] for name, _ in files}) if files else {}
        for name, path in files:
            if said := known.get((_kinds(name)[0], _NUMBERS.sub("#", path))):
                where = f"its part '{path}'" if path else "it"
                wrong.setdefault(name, f"{where} is in no known format, and {said}")
        return {name: f"as a glance at it shows: {fault}" for name, fault in wrong.items()}

    def _known(self, going: Iterable[Entry], wanted: Collection[str]) -> dict[tuple[str, str], str]:
        """Say of files of what goes which format they are in, by the kind of their checkpoint and the path in it."""
        found, looked = dict[tuple[str, str], str](), Counter[str]()
        for entry in sorted(going, key=lambda one: (one.size, one.mtime_ns), reverse=True):
            kinds = [kind for kind in _kinds(entry.name) if kind in wanted and looked[kind] < LOOKED_AT]
            looked.update(kinds)
            for path, form in self._at(entry)[1].items() if kinds else ():
                said = f"{os.path.join(entry.name, path) if path else entry.name} is {form}"
                found |= {(kind, _NUMBERS.sub("#", path)): said for kind in kinds if form}
        return found

    def _at(self, entry: Entry) -> tuple[str, Mapping[str, str]]:
        if entry.name not in self._seen:
            self._seen[entry.name] = _glance(self._directory, entry)
        return self._seen[entry.name]


def _glance(directory: int, entry: Entry) -> tuple[str, Mapping[str, str]]:
    """Say what is wrong with a checkpoint, if anything, else the format of each file of it, or nothing, by its path."""
    from ckptrules.formats.content import BROKEN, UnsoundError  # not above: most runs delete nothing
    from ckptrules.formats.files import glance, open_file
    from ckptrules.formats.folders import glance_at_folder
    from ckptrules.formats.tensorflow import check_beside_index

    heed()
    try:
        if entry.kind == "directory":
            return "", glance_at_folder(directory, entry.name, lambda _: heed())
        if entry.kind == "file":
            with open_file(directory, entry.name) as file:
                size = os.fstat(file.fileno()).st_size
                known = check_beside_index(directory, entry.name, size, lambda _: heed())
                return "", {"": known.kind if known else glance(file, size)}
    except UnsoundError as fault:
        return as_sentence(fault.fact) if fault.id in BROKEN else "", {}
    except PermissionError:
        pass  # somebody else's: that tells nothing of what is in it
    except OSError as error:
        return f"it cannot be read: {why_of(error)}", {}
    return "", {}


def _kinds(name: str) -> tuple[str, ...]:
    """Return what checkpoints have in common that are called alike: all but numbers; of ``last.ckpt``, the ending."""
    stem, ending = os.path.splitext(_NUMBERS.sub("#", name))
    return (stem + ending, ending) if "#" in stem else (ending,)
