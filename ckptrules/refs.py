"""Pure: where a text asks for a checkpoint by a name that it no longer has, and what should stand there."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.history import Run

_APART = r"\s\"'`<>|,;:(){}\[\]\\/"
_TOKEN = re.compile(rf"[^{_APART}]+")
_FOLDER = re.compile(r"[^\s\"'`<>|,;(){}\[\]]*/\Z")
_NOT_IN_TOKENS = re.compile(rf"[{_APART}]")
JSON_SUFFIXES = (".json", ".ipynb")


class Renamed(NamedTuple):
    """A checkpoint that got another name: its directory below ``outputs_dir``, and what it is called now."""

    directory: str
    name: str


class Reference(NamedTuple):
    """An old name in a text: where it stands (characters from the start), and the name to put there.

    ``new`` is empty where that is not certain; ``why`` says so then.
    """

    start: int
    old: str
    new: str
    why: str = ""


def renames(runs: Iterable[Run], only: str | None = None) -> dict[str, tuple[Renamed, ...]]:
    """Map each old name to what became of it, by what the journals say and still stands.

    Args:
        runs: all runs, oldest first.
        only: the one run to go by, or None for all.
    """
    now: dict[tuple[str, str], str] = {}
    for run in runs:
        if run.takes_back or only not in (None, run.id):
            continue
        for record, intent in run.intents:
            for place, unit in enumerate(intent.units):
                standing = (record.run, record.process, intent.number, place) in run.standing
                if unit.kind == "rename" and standing:
                    old, new = unit.head.name, unit.head.to
                    now |= {key: new for key, name in now.items() if key[0] == intent.directory and name == old}
                    now[intent.directory, old] = new
    found: dict[str, list[Renamed]] = defaultdict(list)
    for (directory, old), new in sorted(now.items()):
        if old != new:
            found[old].append(Renamed(directory, new))
    return {old: tuple(rows) for old, rows in found.items()}


def find(text: str, renamed: Mapping[str, Sequence[Renamed]]) -> list[Reference]:
    """Find the old names in a text, in order."""
    found = []
    for start, old in _mentions(text, renamed):
        folder = _FOLDER.search(text, max(0, start - 4096), start)
        spelled_out = [odd for odd in renamed[old] if _is_odd(odd) and _spells_out(text, start, odd.directory)]
        if len(spelled_out) == 1:
            found.append(Reference(start, old, spelled_out[0].name))
        elif reference := judge(start, old, folder[0] if folder else "", renamed[old]):
            found.append(reference)
    return found


def _spells_out(text: str, end: int, directory: str) -> bool:
    """Say whether a directory stands right before a place in a text, from the beginning of one of its names on."""
    start = end - len(directory) - 1
    return text.endswith(f"{directory}/", 0, end) and start >= 0 and text[start - 1 : start] in ("", *"/\"'`=")


def _is_odd(candidate: Renamed) -> bool:
    """Say whether a directory has a space, a comma or the like in its name: a path in a text seems to begin there."""
    return _FOLDER.fullmatch(f"{candidate.directory}/") is None


def judge(start: int, old: str, folder: str, candidates: Sequence[Renamed]) -> Reference | None:
    """Say what an old name should become, given the path before it; None where that leads to another directory.

    The path decides between experiments; a name without one is only told.
    """
    parts = [part for part in folder.split("/") if part not in ("", ".", "..")]
    if not parts:
        where = ", ".join(sorted({candidate.directory for candidate in candidates}))
        return Reference(start, old, "", f"no path stands before it; it was in {where}")
    fitting = [candidate for candidate in candidates if _leads_to(parts, candidate.directory)]
    if not fitting:
        return None
    if len(fitting) == 1:
        return Reference(start, old, fitting[0].name)
    return Reference(start, old, "", f"it was in {' and in '.join(c.directory for c in fitting)}")


def rewritten(text: str, references: Iterable[Reference]) -> str:
    """Put the new names in the places of the old ones that are certain."""
    parts, done = [], 0
    for reference in references:
        if reference.new:
            parts += [text[done : reference.start], reference.new]
            done = reference.start + len(reference.old)
    return "".join([*parts, text[done:]])


def stays_valid(suffix: str, old: str, new: str) -> bool:
    """Say whether a JSON file or notebook is still one (or was none before)."""
    if suffix not in JSON_SUFFIXES:
        return True
    try:
        json.loads(old)
    except ValueError:
        return True
    try:
        json.loads(new)
    except ValueError:
        return False
    return True


def _leads_to(parts: Sequence[str], directory: str) -> bool:
    """Say whether a path ends in a directory, or in as much of its end as the path has."""
    wanted = directory.split("/")
    length = min(len(parts), len(wanted))
    return list(parts[-length:]) == wanted[-length:]


def _mentions(text: str, names: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    found = []
    for match in _TOKEN.finditer(text):
        word = match[0]
        name = word if word in names else word.rstrip(".!?*_")
        if name in names:
            found.append((match.start(), name))
        elif (short := name.rpartition("=")[2]) in names:  # an option: ckpt=old.ckpt
            found.append((match.start() + len(name) - len(short), short))
    for name in names:
        if _NOT_IN_TOKENS.search(name):
            found += [(match.start(), name) for match in re.finditer(re.escape(name), text)]
    return iter(sorted(found))
