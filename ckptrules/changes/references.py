"""Pure: where a text asks for a checkpoint by a name that it no longer has, and what should stand there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.changes.history import Run
from ckptrules.changes.units import head_of, parts_of
from ckptrules.engine.entries import Spot

_APART = r"\s\"'`<>|,;:(){}\[\]\\/"
_TOKEN = re.compile(rf"[^{_APART}]+")
_APART_OR_IS = re.compile(rf"[{_APART}=]")
_ENDS_PATH = re.compile(r"[\s\"'`<>|,;(){}\[\]]")
_FOLDER = re.compile(r"[^\s\"'`<>|,;(){}\[\]]*/\Z")
_NOT_IN_TOKENS = re.compile(rf"[{_APART}]")
_PUNCTUATION = ".!?*_"
JSON_SUFFIXES = (".json", ".ipynb")
LONGEST_PATH = 4096  # letters
FEW = 3


class Reference(NamedTuple):
    """An old name in a text: where it stands (characters from the start), and the name to put there.

    ``new`` is empty where that is not certain; ``why`` says so then.
    """

    start: int
    old: str
    new: str
    why: str = ""


def renames(runs: Iterable[Run], only: str | None = None) -> dict[str, tuple[Spot, ...]]:
    """Map each old name to what stands there now, by what runs (oldest first, or ``only`` one) did and stands."""
    becomes: dict[tuple[str, str], str] = {}  # what a name that stands here at the time is called in the end
    now: dict[tuple[str, str], str] = {}
    for directory, old, new in reversed(list(_standing(runs, only))):
        becomes[directory, old] = becomes.get((directory, new), new)
        now.setdefault((directory, old), becomes[directory, old])
    found: dict[str, list[Spot]] = defaultdict(list)
    for (directory, old), new in sorted(now.items()):
        if old != new:
            found[old].append(Spot(directory, new))
    return {old: tuple(rows) for old, rows in found.items()}


def _standing(runs: Iterable[Run], only: str | None) -> Iterator[tuple[str, str, str]]:
    """Yield directory, old and new name of each renaming that stands, oldest first."""
    for run in runs:
        if run.takes_back or only not in (None, run.id):
            continue
        for _, unit in run.standing.values():
            if unit.kind == "rename":
                yield from ((one.directory, one.name, one.to) for one in (head_of(unit), *parts_of(unit)))


class Candidates:
    """What became of one old name, by the ends of the paths that lead there: asking costs the same for one or many."""

    def __init__(self, rows: Sequence[Spot]) -> None:
        self.where = _few(sorted({row.directory for row in rows}), ", ")
        self.odd = {row.directory: row for row in rows if _is_odd(row)}
        self.odd_lengths = sorted({len(directory) for directory in self.odd})
        self._whole = {row.directory: row for row in rows}
        self._by_end: dict[str, list[Spot]] = defaultdict(list)
        self._deepest = max(row.directory.count("/") + 1 for row in rows)
        for row in rows:
            for end in _ends(row.directory.split("/")):
                self._by_end[end].append(row)

    def fitting(self, parts: Sequence[str]) -> list[Spot]:
        """Return those whose directory a path ends in, or ends as, as far as the path goes."""
        shorter = [end for end in _ends(parts[-self._deepest - 1 :]) if end in self._whole]
        path = "/".join(parts)
        return [self._whole[end] for end in shorter if end != path] + self._by_end.get(path, [])


class OldNames:
    """The old names, so that a text is gone through once, however many there are."""

    def __init__(self, renamed: Mapping[str, Sequence[Spot]]) -> None:
        self._renamed = {name: rows for name, rows in renamed.items() if "\n" not in name}
        self._candidates: dict[str, Candidates] = {}
        self.around: dict[str, set[tuple[int, int]]] = defaultdict(set)
        for name in self._renamed:
            if _NOT_IN_TOKENS.search(name) and (tokens := list(_TOKEN.finditer(name))):
                last = tokens[-1]
                self.around[last[0]].add((last.start(), len(name) - last.end()))

    def __contains__(self, name: object) -> bool:
        return name in self._renamed

    def candidates(self, name: str) -> Candidates:
        """Return what became of a name."""
        if name not in self._candidates:
            self._candidates[name] = Candidates(self._renamed[name])
        return self._candidates[name]


def find(text: str, names: OldNames) -> list[Reference]:
    """Find the old names in a text, in order. A name inside a longer one is none."""
    found, done = [], 0
    for start, old in sorted(_mentions(text, names), key=lambda mention: (mention[0], -len(mention[1]))):
        if start < done:
            continue
        done = start + len(old)
        candidates = names.candidates(old)
        spelled_out = _spelled_out(text, start, candidates)
        if len(spelled_out) == 1:
            found.append(Reference(start, old, spelled_out[0].name))
        elif reference := judge(start, old, folder_before(text, start), candidates):
            found.append(reference)
    return found


def folder_before(text: str, start: int) -> str:
    """Return the path that ends right before a place in a text, with the slash at its end; or nothing."""
    if not text.endswith("/", 0, start):
        return ""
    backwards = text[max(0, start - LONGEST_PATH) : start][::-1]
    end = _ENDS_PATH.search(backwards)
    return backwards[: end.start() if end else None][::-1]


def _spelled_out(text: str, end: int, candidates: Candidates) -> list[Spot]:
    """Return whose odd directory stands right before a place in a text, from the beginning of one of its names on."""
    if not text.endswith("/", 0, end):
        return []
    starts = [end - 1 - length for length in candidates.odd_lengths if length < end]
    return [
        candidates.odd[text[start : end - 1]]
        for start in starts
        if text[start : end - 1] in candidates.odd and (not start or text[start - 1] in "/\"'`=")
    ]


def _is_odd(candidate: Spot) -> bool:
    """Say whether a directory has a space, a comma or the like in its name: a path in a text seems to begin there."""
    return _FOLDER.fullmatch(f"{candidate.directory}/") is None


def _ends(parts: Sequence[str]) -> Iterator[str]:
    """Yield the ends of a path, the shortest first."""
    for start in range(len(parts) - 1, -1, -1):
        yield "/".join(parts[start:])


def judge(start: int, old: str, folder: str, candidates: Candidates) -> Reference | None:
    """Say what an old name should become, given the path before it; None where that leads to another directory.

    The path decides between experiments; a name without one is only told.
    """
    parts = [part for part in folder.split("/") if part not in ("", ".", "..")]
    if not parts:
        return Reference(start, old, "", f"no path stands before it; it was in {candidates.where}")
    fitting = candidates.fitting(parts)
    if not fitting:
        return None
    if len(fitting) == 1:
        return Reference(start, old, fitting[0].name)
    where = _few(sorted(candidate.directory for candidate in fitting), " and in ")
    return Reference(start, old, "", f"it was in {where}")


def _few(names: Sequence[str], between: str) -> str:
    rest = [f"{len(names) - FEW} others"] * (len(names) > FEW)
    return between.join([*names[:FEW], *rest])


def rewritten(text: str, references: Iterable[Reference]) -> str:
    """Put the new names in the places of the old ones that are certain."""
    parts, done = [], 0
    for reference in references:
        if reference.new:
            parts += [text[done : reference.start], reference.new]
            done = reference.start + len(reference.old)
    return "".join([*parts, text[done:]])


def stays_valid(suffix: str, references: Iterable[Reference]) -> bool:
    """Say whether a JSON file or notebook is still one: no name may hold what begins, ends or escapes a text in it."""
    return suffix not in JSON_SUFFIXES or not any(
        mark in f"{reference.old}{reference.new}" for reference in references if reference.new for mark in '"\\'
    )


def _mentions(text: str, names: OldNames) -> Iterator[tuple[int, str]]:
    for match in _TOKEN.finditer(text):
        word = match[0]
        name = word if word in names else word.rstrip(_PUNCTUATION)
        if name in names:
            yield match.start(), name
        elif (short := name.rpartition("=")[2]) in names:  # an option: ckpt=old.ckpt
            yield match.start() + len(name) - len(short), short
        for last in {word, word.rstrip(_PUNCTUATION)} & names.around.keys() if names.around else ():
            for before, behind in names.around[last]:
                start, end = match.start() - before, match.start() + len(last) + behind
                if start >= 0 and text[start:end] in names and (not start or _APART_OR_IS.match(text[start - 1])):
                    yield start, text[start:end]
