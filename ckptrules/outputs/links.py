"""Find links and trackers anywhere below ``outputs_dir`` that lead into a checkpoint directory."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from ckptrules.engine.entries import Entry, OutsideLink, folders_above, lies_in
from ckptrules.engine.state_folder import STATE
from ckptrules.outputs.find import is_backup
from ckptrules.storage import reading, streams
from ckptrules.storage.looking import WEIGHTS
from ckptrules.storage.reading import why_of

MOST_HOPS = 40  # links that Linux follows for one name: path_resolution(7)
ADAPTER, BASE = "adapter_config.json", "base_model_name_or_path"  # of peft: an adapter is useless without its base
# Names that say that a file is a tracker (best_f1.json, last_good, resume.sh), but not of a single save, nor a log.
_TRACKS = (
    r"(?is)(?!(?:.*[^a-z0-9])?(?:epoch|ep|step|iter|iteration|it)?[0-9])"
    r"(?:.*[-_. ])?(?:best|last|latest|newest|current|resume|selected|keep)(?:model|epoch|checkpoint|ckpt)?"
    r"(?:[-_. ].*)?(?<!\.log|\.out|\.err)"
)


def tracks(name: str) -> bool:
    """Return whether a file is a tracker by its name: it says best or last, and has no number of a save."""
    return re.fullmatch(_TRACKS, name) is not None


class Leading(NamedTuple):
    """The ``links`` into directories, by the real path of the directory, and the ``trackers`` in each folder."""

    links: Mapping[str, tuple[OutsideLink, ...]] = {}
    trackers: Mapping[str, tuple[str, ...]] = {}


class Links:
    """Finds the links and trackers below ``outputs_dir`` that lead into a directory; the tree is searched once.

    A link that leads into a directory through links outside of the tree has no text: those are not ours to change. The
    file of an adapter, which leads to its base, has none either. Backups are not searched, as nothing in them changes.

    ``unsearched`` maps the directories that could not be searched to the reason.
    """

    def __init__(
        self, outputs_dir: str, leading: Leading | None = None, unsearched: Mapping[str, str] | None = None
    ) -> None:
        self.outputs_dir, self.unsearched = outputs_dir, dict(unsearched or {})
        self._leading, self._lock = leading, threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Links, (self.outputs_dir, self.leading(), self.unsearched)

    def leading(self) -> Leading:
        """Return all links and trackers of the tree, searching it at the first call."""
        with self._lock:
            if self._leading is None:
                self._leading = self._look()
            return self._leading

    def into(self, directory: str) -> tuple[OutsideLink, ...]:
        """Return the links in other directories that lead into a directory, a path below ``outputs_dir``."""
        every = self.leading().links
        return every.get(self._real(directory), ()) if every else ()

    def below(self, path: str) -> list[OutsideLink]:
        """Return the links that lead to a path below ``outputs_dir``, or to something in there, from outside of it."""
        folder, top = os.path.dirname(path), self._real(path)
        leading = self.leading().links.items()
        found = [link for real, links in leading for link in links if _leads_below(real, link, top)]
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with reading.open_below(self.outputs_dir, folder) as here, os.scandir(here) as entries:
                names = [entry.name for entry in entries if entry.is_symlink()]
            beside = (name for name in names if lies_in(self._real(os.path.join(folder, name)), top))
            found += [OutsideLink(folder, Entry(name, "link", 0, 0)) for name in beside]
        return [link for link in found if not lies_in(link.directory, path)]

    def above(self, directory: str) -> tuple[str, ...]:
        """Return the trackers in the folders above a directory, up to ``outputs_dir``, as paths from the directory."""
        trackers, folders = self.leading().trackers, _folders_around(directory)
        return tuple("../" * up + name for up, folder in enumerate(folders, 1) for name in trackers.get(folder, ()))

    def only(self, directory: str) -> Links:
        """Return the links and trackers that concern one directory, for another process."""
        links, trackers = self.into(directory), self.leading().trackers
        around = {folder: trackers[folder] for folder in _folders_around(directory) if folder in trackers}
        return Links(self.outputs_dir, Leading({self._real(directory): links} if links else {}, around))

    def only_below(self, directory: str) -> Links:
        """Return the links and trackers that concern a directory, and all below it, for another process."""
        every, top = self.leading(), self._real(directory)
        links = {
            real: tuple(link for link in found if lies_in(real, top) or _leads_below(real, link, top))
            for real, found in every.links.items()
        }
        around = {*_folders_around(directory)}
        trackers = {
            folder: names for folder, names in every.trackers.items() if lies_in(folder, directory) or folder in around
        }
        leading = Leading({real: found for real, found in links.items() if found}, trackers)
        return Links(self.outputs_dir, leading, self.unsearched)

    def _real(self, directory: str) -> str:
        return os.path.realpath(os.path.join(self.outputs_dir, directory))

    def _look(self) -> Leading:
        found: dict[str, list[OutsideLink]] = defaultdict(list)
        trackers: dict[str, list[str]] = defaultdict(list)
        for folder, name, is_link in self._names():
            if not is_link and name != ADAPTER:
                trackers[folder].append(name)
                continue
            try:
                hops = list(_hops(self._real(folder), name, self._real(""))) if is_link else self._base(folder, name)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unsearched[os.path.join(folder, name)] = why_of(error)
                continue
            for real, link in _leads(folder, name, hops, is_link=is_link):
                found[real].append(link)
        return Leading(
            {real: tuple(sorted(links)) for real, links in found.items()},
            {folder: tuple(sorted(names)) for folder, names in trackers.items()},
        )

    def _names(self) -> Iterator[tuple[str, str, bool]]:
        """Yield folder (below ``outputs_dir``) and name of each link, tracker and adapter, and whether it is a link."""
        pending = [""]
        while pending:
            path = pending.pop()
            start = f"{path}/" if path else ""
            try:
                entries = list(os.scandir(f"{self.outputs_dir}/{path}"))
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unsearched[path or self.outputs_dir] = why_of(error)
                continue
            for entry in entries:
                if entry.is_file(follow_symlinks=False):  # tested first, as most entries are files
                    name = entry.name
                    if name == ADAPTER or (not name.endswith(WEIGHTS) and tracks(name)):
                        yield path, name, False
                elif entry.is_symlink():
                    yield path, entry.name, True
                elif entry.is_dir(follow_symlinks=False) and start + entry.name != STATE:
                    pending += [start + entry.name] * (not is_backup(f"{self.outputs_dir}/{path}", entry.name))

    def _base(self, folder: str, name: str) -> list[tuple[str, str]]:
        """Return a folder, and the path from there to the base of an adapter; empty if it is not in this tree.

        The path in the file is of a training that ran anywhere. So the path, and each end of it, is tried from the
        folder of the adapter and from each folder above.
        """
        from ckptrules.formats.limits import NotReadError  # imported here, as few trees have an adapter
        from ckptrules.formats.plainjson import parse

        path = os.path.join(folder, name)
        with reading.open_file(self.outputs_dir, path) as file:
            content = b"".join(streams.chunks(file, streams.CHUNK))
        try:
            config = parse(content)
        except (NotReadError, ValueError):
            return []
        text = config.get(BASE) if isinstance(config, dict) else None
        if not isinstance(text, str) or "\0" in text:
            return []
        parts = re.split(r"[/\\]", text)  # the training may have run on Windows
        ends = [text, *("/".join(parts[number:]) for number in range(len(parts) - 1))]
        ways = ((os.path.join(self.outputs_dir, place), end) for end in ends for place in _folders_around(path))
        return list(islice((way for way in ways if os.path.lexists(os.path.join(*way))), 1))


def _leads_below(real: str, link: OutsideLink, top: str) -> bool:
    return lies_in(f"{real}/{link.entry.sibling}", top)


def _folders_around(path: str) -> list[str]:
    """Return the folders that contain a path below ``outputs_dir``, the innermost first and ``outputs_dir`` last."""
    return [*reversed(folders_above(path)), ""] if path else []


def _hops(here: str, name: str, root: str) -> Iterator[tuple[str, str]]:
    """Yield folder and text of a link, and then of each link outside of ``root`` that it leads through."""
    for _ in range(MOST_HOPS):
        text = os.readlink(os.path.join(here, name))
        yield here, text
        folder, name = os.path.split(os.path.join(here, text))
        here = os.path.realpath(folder)
        if lies_in(here, root) or not os.path.islink(os.path.join(here, name)):
            return


def _leads(
    folder: str, name: str, hops: Iterable[tuple[str, str]], *, is_link: bool
) -> Iterator[tuple[str, OutsideLink]]:
    """Yield the real path of each directory that a link or an adapter leads into, and the link as seen from there."""
    for number, (start, text) in enumerate(hops):
        is_ours = is_link and not number  # later hops lie outside of the tree
        for parent, sibling, behind in ways_to_read(text):
            real = os.path.realpath(os.path.join(start, parent))
            if real != start or not is_ours:
                entry = Entry(name, "link", 0, 0, text if is_ours else "", sibling, behind=behind)
                yield real, OutsideLink(folder, entry)


def ways_to_read(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each way to split the text of a link into a directory, a name in it, and the rest."""
    path, behind = text, ""
    while path.strip("/"):
        parent, name = os.path.split(path)
        if name:
            yield parent, name, behind
        path, behind = parent, path[len(parent) :] + behind
