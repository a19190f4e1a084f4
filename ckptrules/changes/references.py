"""Pure: finds the old names of checkpoints in a text, and the new names for them."""

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
    """An old name in a text: its place (characters from the start), and the new name.

    If the new name is not certain, ``new`` is empty, and ``why`` gives the reason.
    """

    start: int
    old: str
    new: str
    why: str = ""


def renames(runs: Iterable[Run], only: str | None = None) -> dict[str, tuple[Spot, ...]]:
    """Map each old name to the names that it has now, by the standing renames of all runs, or of ``only`` one.

    ``runs`` are ordered, the oldest first.
    """
    becomes: dict[tuple[str, str], str] = {}  # from a name at the time to its last one
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
    """Yield directory, old and new name of each rename that stands, oldest first."""
    for run in runs:
        if run.takes_back or only not in (None, run.id):
            continue
        for _, unit in run.standing.values():
            if unit.kind == "rename":
                yield from ((one.directory, one.name, one.to) for one in (head_of(unit), *parts_of(unit)))


class Candidates:
    """The checkpoints that had one old name, found by the ends of their paths in the same time for one or many."""

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
        """Return those that a path may mean: it ends with their directory, or their directory ends with it."""
        shorter = [end for end in _ends(parts[-self._deepest - 1 :]) if end in self._whole]
        path = "/".join(parts)
        return [self._whole[end] for end in shorter if end != path] + self._by_end.get(path, [])


class OldNames:
    """All old names, found in a text in one pass."""

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
        """Return the checkpoints that had an old name."""
        if name not in self._candidates:
            self._candidates[name] = Candidates(self._renamed[name])
        return self._candidates[name]


def find(text: str, names: OldNames) -> list[Reference]:
    """Find the old names in a text, in order. A name within a longer one does not count."""
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
    """Return the path right before a place in a text, with its slash at the end; empty if there is none."""
    if not text.endswith("/", 0, start):
        return ""
    backwards = text[max(0, start - LONGEST_PATH) : start][::-1]
    end = _ENDS_PATH.search(backwards)
    return backwards[: end.start() if end else None][::-1]


def _spelled_out(text: str, end: int, candidates: Candidates) -> list[Spot]:
    """Return the candidates whose odd directory (`_is_odd`) stands whole right before a place in a text."""
    if not text.endswith("/", 0, end):
        return []
    starts = [end - 1 - length for length in candidates.odd_lengths if length < end]
    return [
        candidates.odd[text[start : end - 1]]
        for start in starts
        if text[start : end - 1] in candidates.odd and (not start or text[start - 1] in "/\"'`=")
    ]


def _is_odd(candidate: Spot) -> bool:
    """Return whether a directory has a space, a comma or the like, at which a path in a text seems to begin."""
    return _FOLDER.fullmatch(f"{candidate.directory}/") is None


def _ends(parts: Sequence[str]) -> Iterator[str]:
    """Yield the ends of a path, the shortest first."""
    for start in range(len(parts) - 1, -1, -1):
        yield "/".join(parts[start:])


def judge(start: int, old: str, folder: str, candidates: Candidates) -> Reference | None:
    """Return the new name for an old one, given the path before it; None if the path leads to another directory.

    The path decides between experiments; without a path, no new name is certain.
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
    """Return a text with the certain new names in place of the old ones."""
    parts, done = [], 0
    for reference in references:
        if reference.new:
            parts += [text[done : reference.start], reference.new]
            done = reference.start + len(reference.old)
    return "".join([*parts, text[done:]])


def stays_valid(suffix: str, references: Iterable[Reference]) -> bool:
    """Return whether a JSON file or notebook stays valid: no name may have a quote or a backslash."""
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
