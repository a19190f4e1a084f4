"""The links of an outputs folder that lead into checkpoint directories."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ckptrules.engine.entries import Entry, OutsideLink, lies_in
from ckptrules.engine.state_folder import STATE
from ckptrules.outputs.find import is_backup
from ckptrules.storage.reading import why_of

MOST_HOPS = 40  # as many links as Linux follows for one name: path_resolution(7)


class Links:
    """The links below ``outputs_dir`` that lead from one directory into *another*: looked for once, when first asked.

    A link that leads through others outside of the tree leads into any directory by these, and has no text there: what
    would have to be changed for it is not ours. Backups are not looked into: nothing in them is changed.

    ``unsearched`` tells which directories could not be searched for links, and why.
    """

    def __init__(self, outputs_dir: str, into: Mapping[str, tuple[OutsideLink, ...]] | None = None) -> None:
        self.outputs_dir, self.unsearched = outputs_dir, dict[str, str]()
        self._into, self._lock = into, threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Links, (self.outputs_dir, self.by_target())

    def by_target(self) -> Mapping[str, tuple[OutsideLink, ...]]:
        """Map real directories to the links that lead into them."""
        with self._lock:
            if self._into is None:
                self._into = self._look()
            return self._into

    def into(self, directory: str) -> tuple[OutsideLink, ...]:
        """Return the links in other directories that lead into one, which is a path below ``outputs_dir``."""
        every = self.by_target()
        return every.get(self._real(directory), ()) if every else ()

    def only(self, directory: str) -> Links:
        """Return what another process needs to know for one directory."""
        links = self.into(directory)
        return Links(self.outputs_dir, {self._real(directory): links} if links else {})

    def _real(self, directory: str) -> str:
        return os.path.realpath(os.path.join(self.outputs_dir, directory))

    def _look(self) -> Mapping[str, tuple[OutsideLink, ...]]:
        found: dict[str, list[OutsideLink]] = defaultdict(list)
        for folder, name in self._links():
            own = self._real(folder)
            try:
                hops = list(_hops(own, name, self._real("")))
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unsearched[f"{folder}/{name}".lstrip("/")] = why_of(error)
                continue
            for number, (here, text) in enumerate(hops):
                for parent, sibling, behind in ways_to_read(text):
                    real = os.path.realpath(os.path.join(here, parent))
                    if real != own or number:
                        entry = Entry(name, "link", 0, 0, "" if number else text, sibling, behind=behind)
                        found[real].append(OutsideLink(folder, entry))
        return {real: tuple(sorted(links)) for real, links in found.items()}

    def _links(self) -> Iterator[tuple[str, str]]:
        """Yield the folder, below ``outputs_dir``, and the name of each link."""
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
                if entry.is_file(follow_symlinks=False):  # first: most are
                    continue
                if entry.is_symlink():
                    yield path, entry.name
                elif entry.is_dir(follow_symlinks=False) and start + entry.name != STATE:
                    pending += [start + entry.name] * (not is_backup(f"{self.outputs_dir}/{path}", entry.name))


def _hops(here: str, name: str, root: str) -> Iterator[tuple[str, str]]:
    """Yield the folder and the text of a link, and of those outside of a root that it leads through, one by one."""
    for _ in range(MOST_HOPS):
        text = os.readlink(os.path.join(here, name))
        yield here, text
        folder, name = os.path.split(os.path.join(here, text))
        here = os.path.realpath(folder)
        if lies_in(here, root) or not os.path.islink(os.path.join(here, name)):
            return


def ways_to_read(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the ways to read a link as directory, name in it, and what is behind."""
    path, behind = text, ""
    while path.strip("/"):
        parent, name = os.path.split(path)
        if name:
            yield parent, name, behind
        path, behind = parent, path[len(parent) :] + behind
