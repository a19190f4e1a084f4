"""Find pinned checkpoints, which are never deleted, under their present names. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ckptrules.engine.entries import Directory, Entry, Spot, is_part_folder
from ckptrules.engine.measures import NS
from ckptrules.engine.ruleset import Location, Reason

GONE = "is not there"
OTHER = "is another one now: its size or time differs"


class Pin(NamedTuple):
    """A pinned checkpoint: its path below ``outputs_dir``, its bytes, and its time in nanoseconds since 1970.

    ``note`` is why the user keeps it. ``place`` is the place of the pin in its file.
    """

    path: str
    size: int
    mtime_ns: int
    note: str = ""
    place: Location | None = None

    @property
    def directory(self) -> str:
        """The folder of the checkpoint, a path below ``outputs_dir``."""
        return self.path.rpartition("/")[0]

    @property
    def reason(self) -> Reason:
        """Why the checkpoint stays."""
        return Reason(f"pinned: {self.note}" if self.note else "pinned", self.place)


class Found(NamedTuple):
    """A pin, and the present place of its checkpoint: a directory below ``outputs_dir``, and the name in it.

    ``fault`` is why the checkpoint was not found there; nothing may then be deleted in that directory.
    """

    pin: Pin
    directory: str
    name: str
    fault: str = ""

    @property
    def path(self) -> str:
        """The path below ``outputs_dir``."""
        return Spot(self.directory, self.name).path


def by_place(pins: Iterable[Pin]) -> dict[str, list[Pin]]:
    """Return pins by directory: each by its folder, and by the folder above, as its own may be a part folder."""
    found: dict[str, list[Pin]] = defaultdict(list)
    for pin in pins:
        found[pin.directory].append(pin)
        found[pin.directory.rpartition("/")[0]].append(pin)
    return found


def name_in(pin: Pin, found: Directory) -> str:
    """Return the name of a pinned path in the listing of a checkpoint directory; empty if it is not in there."""
    start = f"{found.directory}/".lstrip("/")
    name = pin.path.removeprefix(start)
    folder, _, _ = name.rpartition("/")
    lies_here = pin.path.startswith(start) and "/" not in folder
    return name if lies_here and (not folder or is_part_folder(folder, found.part_folders)) else ""


def find_pinned(
    pin: Pin, directory: str, entry_of: Callable[[str], Entry | None], moved: Callable[[str], Iterable[str]]
) -> Found:
    """Find a pinned checkpoint in a directory, under the name in the pin or a later one.

    ``entry_of`` returns the entry of a name in the directory. ``moved`` returns, from the journals, the paths that a
    path may have today; it is called only if the name in the pin does not lead to the checkpoint.
    """
    start = f"{directory}/".lstrip("/")
    name = pin.path.removeprefix(start)
    there = {name: entry} if (entry := entry_of(name)) else {}
    if not is_it(pin, entry):
        names = (path.removeprefix(start) for path in moved(pin.path) if path.startswith(start))
        there |= {one: entry for one in names if (entry := entry_of(one))}
    first = next((one for one, entry in there.items() if is_it(pin, entry)), next(iter(there), name))
    return Found(pin, directory, first, "" if is_it(pin, there.get(first)) else OTHER if first in there else GONE)


def is_it(pin: Pin, entry: Entry | None) -> bool:
    """Return whether an entry is the pinned checkpoint: a file or directory of its size and time.

    Times may differ in fractions of a second, which a copy of a tree may lose.
    """
    if entry is None or entry.kind not in ("file", "directory") or entry.size != pin.size:
        return False
    times = {pin.mtime_ns, entry.mtime_ns}
    return len(times) == 1 or (any(t % NS == 0 for t in times) and len({t // NS for t in times}) == 1)
