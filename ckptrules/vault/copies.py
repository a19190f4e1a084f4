"""Copies of files that wait under names of their own until they are moved to their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ckptrules.engine.entries import Item
from ckptrules.storage import copying, making, writing
from ckptrules.storage.reading import Progress, SourceError, why_of

Tell = Callable[[str, tuple[str, ...]], object]  # of a copy: its path, and what could not be kept, if anything


class Way(NamedTuple):
    """How files are copied side by side: out of the folder ``origin`` into ``folder`` below ``root``, where they wait.

    ``as_item`` is that of `copying.copy_file`, and ``how`` as well.
    """

    origin: str
    root: str
    folder: str
    how: str
    as_item: bool = False


class Copied(NamedTuple):
    """A copy that waits under a path of its own, how it came there, and what of the original it has not got."""

    item: Item
    path: str
    how: str
    lost: tuple[str, ...]


class Failed(NamedTuple):
    """Why something was not copied or unpacked: an error number, if there is one, and words.

    ``in_origin``: it cannot be read, else not written.
    """

    number: int | None
    why: str
    in_origin: bool = False


def copy_apart(way: Way, item: Item, progress: Progress = lambda _: None) -> Copied | Failed:
    """Copy a file or a link to where it waits, or make an empty directory there, under a name that nobody else takes.

    So it is of no matter who dies of it, or still goes on with the same when another one has begun it anew.
    """
    path, lost, how = f"{way.folder}/{writing.temporary_name('')}", tuple[str, ...](), ""
    try:
        if item.kind == "directory":
            making.make_directory(way.root, path)
        elif item.kind == "link":
            lost = making.make_link(way.root, item._replace(path=path))
        else:
            to = (way.root, path, way.how)
            item, how, lost = copying.copy_file(way.origin, item, *to, progress, as_item=way.as_item)
    except OSError as error:
        return Failed(error.errno, why_of(error), in_origin=isinstance(error, SourceError))
    return Copied(item, path, how, lost)


def apart(items: Iterable[Item]) -> list[Item]:
    """Return what is copied side by side; directories are made before."""
    return [item for item in items if item.kind in ("file", "link")]
