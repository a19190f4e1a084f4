"""Find the checkpoint directories that a layout describes, and folders that none covers."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from itertools import islice

from ckptrules.engine.entries import Directory, Stamp, folders_above, is_part_folder
from ckptrules.engine.ruleset import is_pattern
from ckptrules.engine.state_folder import MANIFEST
from ckptrules.storage.looking import stamp_of

UNREADABLE = Stamp(-1, -1, -1)  # of a folder that could not be listed: its content is unknown

MOST_NAMES = 20_000
Lister = Callable[[str, str], list[str]]  # takes ``outputs_dir`` and a folder below it, returns the folders in that


def survey(
    outputs_dir: str,
    layout: Sequence[str],
    is_claimed: Callable[[str], bool] = lambda _: False,
    part_folders: tuple[str, ...] = (),
    listed: Lister | None = None,
) -> tuple[list[Directory], list[str]]:
    """Return the checkpoint directories that fit the layout, sorted, and sentences on those that lie in a checkpoint.

    The name of an experiment is its path below ``outputs_dir``, without the last part if the pattern spells that part
    out (``*/checkpoints`` → ``ocr_training``). If two experiments would have one name, the second gets its whole path.

    If two patterns fit one directory, the first counts. ``is_claimed`` returns whether the directory of a path belongs
    to a checkpoint, so that nothing in it is a checkpoint of its own. ``listed`` lists the folders in a folder, to
    restrict the search.

    Raises:
        OSError: ``outputs_dir`` cannot be read.
    """
    stamps: dict[str, Stamp] = {}
    pattern_of: dict[str, str] = {}
    for pattern in layout:
        for path, stamp in sorted(_walk(outputs_dir, "", tuple(pattern.split("/")), listed or _subdirectories)):
            if path not in stamps:
                stamps[path], pattern_of[path] = stamp, pattern
    inner = _inner_directories(pattern_of, is_claimed) if len(layout) > 1 or "**" in "".join(layout) else {}
    apart = [path for path in pattern_of if _lies_inside(path, pattern_of, part_folders)]
    for path in {*apart, *inner}:
        del stamps[path]
    taken: set[str] = set()
    found = []
    for path, stamp in stamps.items():
        experiment = _experiment(path, pattern_of[path], taken)
        taken.add(experiment)
        found.append(Directory(experiment, path, stamp, part_folders))
    return sorted(found), [*inner.values()]


def find_holders(
    outputs_dir: str,
    layout: Sequence[str],
    is_claimed: Callable[[str], bool],
    part_folders: tuple[str, ...],
    path: str,
) -> list[Directory]:
    """Return the checkpoint directories that contain a path below ``outputs_dir``, or are it, the innermost first.

    Only folders on the way to the path are looked at. The experiments have the same names as by `survey`: a directory
    that could take such a name lies on that way, too.
    """
    parts = path.split("/")
    way = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}

    def on_the_way(outputs_dir: str, above: str) -> list[str]:
        below = (one for one in sorted(way) if os.path.dirname(one) == above)
        return [
            one for one in below if not os.path.basename(one).startswith(".") and list(_directory(outputs_dir, one))
        ]

    found = {one.directory: one for one in survey(outputs_dir, layout, is_claimed, part_folders, on_the_way)[0]}
    return [found[one] for one in sorted(way, key=len, reverse=True) if one in found]


def _lies_inside(path: str, directories: Collection[str], part_folders: Iterable[str]) -> bool:
    """Return whether a directory is a part folder of another one: alone, it would be pruned without the other parts."""
    outer, _, name = path.rpartition("/")
    return outer in directories and is_part_folder(name, part_folders)


def _experiment(path: str, pattern: str, taken: Collection[str]) -> str:
    _, slash, tail = pattern.rpartition("/")
    experiment = path.rpartition("/")[0] if slash and not is_pattern(tail) else path
    experiment = experiment or path
    while experiment in taken:
        experiment = path if len(experiment) < len(path) else f"{experiment}/."
    return experiment


def _inner_directories(pattern_of: Mapping[str, str], is_claimed: Callable[[str], bool]) -> dict[str, str]:
    """Map the directories that lie inside a checkpoint of another one to sentences that say so."""
    found = {}
    for path in sorted(pattern_of):
        outer, name = next((one for one in _names_around(path, pattern_of) if is_claimed("/".join(one))), ("", ""))
        if outer:
            where = f"lies in '{name}', a checkpoint of '{outer}' (layout: {pattern_of[outer]})"
            found[path] = f"'{path}' (layout: {pattern_of[path]}) {where}"
    return found


def holding(directories: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return, by checkpoint directory, the names in it that contain another checkpoint directory."""
    known = set(directories)
    found: dict[str, set[str]] = defaultdict(set)
    for outer, name in (one for path in known for one in _names_around(path, known)):
        found[outer].add(name)
    return {outer: frozenset(names) for outer, names in found.items()}


def _names_around(path: str, directories: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield the directories that contain a path, the uppermost first, each with the name in it on the way there."""
    return ((one, path[len(one) + 1 :].partition("/")[0]) for one in folders_above(path) if one in directories)


def not_followed(outputs_dir: str) -> list[tuple[str, str]]:
    """Return the folders at the top of ``outputs_dir`` that are not searched, each with what it is."""
    with os.scandir(outputs_dir) as entries:
        folders = sorted((entry.name, entry.is_symlink()) for entry in entries if entry.is_dir())
    links = [(name, "a link") for name, is_link in folders if is_link]
    return [*links, *((name, "a backup") for name, is_link in folders if not is_link and is_backup(outputs_dir, name))]


def is_backup(folder: str, name: str) -> bool:
    """Return whether a folder is one of our backups, by its name and its manifest; nothing in it is ever changed."""
    return "_backup_" in name and has_manifest(folder, name)


def has_manifest(folder: str, name: str) -> bool:
    """Return whether a folder has the manifest of a backup, under whatever name."""
    return os.path.lexists(os.path.join(folder, name, MANIFEST))


def backups_around(outputs_dir: str, directory: str) -> list[str]:
    """Return the folders below ``outputs_dir`` that contain a checkpoint directory and have a backup's manifest."""
    return [path for path in folders_above(directory) if has_manifest(outputs_dir, path)]


def lookalikes(
    outputs_dir: str, covered: Collection[str], looks_like: Callable[[str], bool], is_judged: Callable[[str], bool]
) -> tuple[list[tuple[str, int, str]], bool]:
    """Return folders with names that look like checkpoints and that no layout covers: path, number, an example.

    At most `MOST_NAMES` names are looked at, upper folders first. The second value is whether there were more. Names
    directly in a checkpoint directory are not counted: its own plan has them.

    ``covered`` are the checkpoint directories. ``is_judged`` returns whether the rules know a folder in one of these,
    by its path; such a folder is not searched.
    """
    found = []
    above = {folder for path in covered for folder in folders_above(path)}
    pending, looked, is_cut = deque([""]), 0, False
    while pending and looked < MOST_NAMES:
        path = pending.popleft()
        alike, is_covered = [], path in covered
        left = MOST_NAMES if is_covered else MOST_NAMES - looked  # a checkpoint directory was listed before
        folder = os.path.join(outputs_dir, path)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in islice(entries, left):
                if is_covered and not entry.is_dir(follow_symlinks=False):
                    continue
                looked += not is_covered
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.name.startswith(".") or entry.is_symlink():
                    continue
                is_on_the_way = below in above or below in covered
                if not is_on_the_way and entry.is_dir() and has_manifest(folder, entry.name):
                    continue
                may_be_one = looks_like(entry.name) and not is_on_the_way
                if may_be_one and not is_covered:
                    alike.append(entry.name)
                elif not may_be_one and entry.is_dir(follow_symlinks=False) and not (is_covered and is_judged(below)):
                    pending.append(below)
            is_cut |= next(entries, None) is not None
        if alike:
            found.append((path, len(alike), min(alike)))
        looked += 1
    return sorted(found), is_cut or bool(pending)


def _walk(outputs_dir: str, path: str, parts: Sequence[str], listed: Lister) -> Iterator[tuple[str, Stamp]]:
    """Yield the directories that fit the parts of a pattern. As in a shell, links and hidden names are left out.

    A folder that cannot be listed is yielded as well: reading it will give the reason.
    """
    if not parts:
        yield from _directory(outputs_dir, path)
        return
    part, rest = parts[0], parts[1:]
    if not is_pattern(part):
        yield from _walk(outputs_dir, os.path.join(path, part), rest, listed)
        return
    try:
        names = listed(outputs_dir, path)
    except FileNotFoundError:
        return
    except OSError:
        if not path:  # without it, no directory is known
            raise
        yield path, UNREADABLE
        return
    if part == "**":
        here = list(_walk(outputs_dir, path, rest, listed))
        yield from here
        found = {inner for inner, _ in here}
        for inner in names:
            if inner not in found:
                yield from _walk(outputs_dir, inner, parts, listed)
    else:
        fits = re.compile(translate(part)).match
        for inner in names:
            if fits(inner.rpartition("/")[2]):
                yield from _walk(outputs_dir, inner, rest, listed)


def _directory(outputs_dir: str, path: str) -> Iterator[tuple[str, Stamp]]:
    try:
        status = os.lstat(f"{outputs_dir}/{path}" if path else outputs_dir)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        yield path, UNREADABLE
        return
    if stat.S_ISDIR(status.st_mode):
        yield path, stamp_of(status)


def _subdirectories(outputs_dir: str, path: str) -> list[str]:
    folder, start = os.path.join(outputs_dir, path), f"{path}/" if path else ""
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
    return [start + name for name in names if not is_backup(folder, name)]
