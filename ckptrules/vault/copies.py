"""Copies files to temporary names, in any process; the main process moves the copies to their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ckptrules.engine.entries import Item
from ckptrules.storage import copying, making, writing
from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import Lost

OnLost = Callable[[str, tuple[str, ...]], object]  # takes the path of a copy, and the metadata that it lost, if any


class CopyRoute(NamedTuple):
    """From which folder (``origin``) to which other (``folder`` below ``root``), and how; see `copying.copy_file`."""

    origin: str
    root: str
    folder: str
    how: str
    as_item: bool = False


class Copied(NamedTuple):
    """A copy at a temporary path, ``how`` it was made, and what metadata it lost."""

    item: Item
    path: str
    how: str
    lost: tuple[str, ...]


Answer = Copied | OSError | Lost  # a SourceError if it cannot be read, else it cannot be written


def stage_copy(route: CopyRoute, item: Item, progress: Progress = lambda _: None) -> Copied | OSError:
    """Copy a file or a link, or make an empty directory, under a temporary name that no other process takes.

    So a worker that dies, or that goes on after another one has begun the same copy, does no harm. An error is
    returned: others may be copied all the same.
    """
    path, lost, how = f"{route.folder}/{writing.temporary_name('')}", tuple[str, ...](), ""
    try:
        if item.kind == "directory":
            making.make_directory(route.root, path)
        elif item.kind == "link":
            lost = making.make_link(route.root, item._replace(path=path))
        else:
            to = (route.root, path, route.how)
            item, how, lost = copying.copy_file(route.origin, item, *to, progress, as_item=route.as_item)
    except OSError as error:
        return error
    return Copied(item, path, how, lost)


def files_and_links(items: Iterable[Item]) -> list[Item]:
    """Return the items without directories, which are made before any copy."""
    return [item for item in items if item.kind in ("file", "link")]
