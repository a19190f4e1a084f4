"""Check quickly the checkpoints that let others be deleted: a training killed while saving leaves a broken file."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from ckptrules.engine.entries import Entry
from ckptrules.engine.whole.wholeness import as_sentence
from ckptrules.stopping import heed
from ckptrules.storage.reading import why_of

LOOKED_AT = 3  # deleted checkpoints of one kind that are read, the largest first: broken files are small
_NUMBERS = re.compile(r"-?(?:\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|(?<![A-Za-z])(?:nan|inf)(?![A-Za-z]))")


class Glances:
    """Checks checkpoints in an open directory, each once."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._seen: dict[str, tuple[str, Mapping[str, str]]] = {}

    def broken(self, entries: Iterable[Entry], going: Iterable[Entry]) -> dict[str, str]:
        """Return what is wrong with checkpoints, by name; ``going`` are those that are deleted because of them.

        A file in an unknown format may be sound. It is broken if a deleted checkpoint of the same kind of name has a
        known format.
        """
        glances = {entry.name: self._at(entry) for entry in entries}
        wrong = {name: fault for name, (fault, _) in glances.items() if fault}
        files = [(name, path) for name, (_, formats) in glances.items() for path, form in formats.items() if not form]
        known = self._known(going, {_kinds(name)[0] for name, _ in files}) if files else {}
        for name, path in files:
            if other := known.get((_kinds(name)[0], _NUMBERS.sub("#", path))):
                where = f"its part '{path}'" if path else "it"
                wrong.setdefault(name, f"{where} is in no known format, and {other}")
        return {name: f"as a glance at it shows: {fault}" for name, fault in wrong.items()}

    def _known(self, going: Iterable[Entry], wanted: Collection[str]) -> dict[tuple[str, str], str]:
        """Return sentences on the known formats of deleted files, by the kind of the checkpoint and the path in it."""
        found, looked = dict[tuple[str, str], str](), Counter[str]()
        for entry in sorted(going, key=lambda one: (one.size, one.mtime_ns), reverse=True):
            kinds = [kind for kind in _kinds(entry.name) if kind in wanted and looked[kind] < LOOKED_AT]
            looked.update(kinds)
            for path, form in self._at(entry)[1].items() if kinds else ():
                sentence = f"{os.path.join(entry.name, path) if path else entry.name} is {form}"
                found |= {(kind, _NUMBERS.sub("#", path)): sentence for kind in kinds if form}
        return found

    def _at(self, entry: Entry) -> tuple[str, Mapping[str, str]]:
        if entry.name not in self._seen:
            self._seen[entry.name] = _glance(self._directory, entry)
        return self._seen[entry.name]


def _glance(directory: int, entry: Entry) -> tuple[str, Mapping[str, str]]:
    """Return what is wrong with a checkpoint, and the format of each of its files by path; each may be empty."""
    from ckptrules.formats.content import BROKEN, UnsoundError  # imported here, as most runs delete nothing
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
        pass  # the file belongs to somebody else; it may be sound
    except OSError as error:
        return f"it cannot be read: {why_of(error)}", {}
    return "", {}


def _kinds(name: str) -> tuple[str, ...]:
    """Return the kinds of a name: the name without its numbers, and its ending; of ``last.ckpt``, the ending alone."""
    stem, ending = os.path.splitext(_NUMBERS.sub("#", name))
    return (stem + ending, ending) if "#" in stem else (ending,)
