"""Pure: pinned checkpoints, which are never deleted, and under which names they stand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from ckptrules.engine.entries import Directory, Entry
from ckptrules.engine.measures import NS
from ckptrules.engine.ruleset import Location, Reason

GONE = "is not there"
OTHER = "is another one now: its size or time differs"
UNSEEN = "cannot be looked at: "


class Pin(NamedTuple):
    """A checkpoint that is pinned: its path below ``outputs_dir``, its bytes, its time in nanoseconds since 1970.

    ``note`` says what it is kept for, in the words of the user. ``place`` is where the pin is written.
    """

    path: str
    size: int
    mtime_ns: int
    note: str = ""
    place: Location | None = None

    @property
    def directory(self) -> str:
        """The folder that it lies in, a path below ``outputs_dir``."""
        return self.path.rpartition("/")[0]

    @property
    def reason(self) -> Reason:
        """Why the checkpoint stays."""
        return Reason(f"pinned: {self.note}" if self.note else "pinned", self.place)


class Found(NamedTuple):
    """A pin, and where the checkpoint stands: the directory, a path below ``outputs_dir``, and the name in it.

    ``fault`` says why nothing that stands there is it; then nothing may be deleted in that directory.
    """

    pin: Pin
    directory: str
    name: str
    fault: str = ""

    @property
    def path(self) -> str:
        """The path below ``outputs_dir``."""
        return f"{self.directory}/{self.name}".lstrip("/")


def by_place(pins: Iterable[Pin]) -> dict[str, list[Pin]]:
    """Group pins by each directory that may be the one that they lie in: it may have folders that hold parts."""
    found: dict[str, list[Pin]] = defaultdict(list)
    for pin in pins:
        found[pin.directory].append(pin)
        found[pin.directory.rpartition("/")[0]].append(pin)
    return found


def name_in(pin: Pin, found: Directory) -> str:
    """Return the name that a pinned path has in a checkpoint directory; nothing where it does not lie in that."""
    start = f"{found.directory}/".lstrip("/")
    name = pin.path.removeprefix(start)
    folder, _, _ = name.rpartition("/")
    lies_here = pin.path.startswith(start) and "/" not in folder
    return name if lies_here and (not folder or any(fnmatchcase(folder, one) for one in found.part_folders)) else ""


def find_pinned(
    pin: Pin, directory: str, entry_of: Callable[[str], Entry | None], moved: Callable[[str], Iterable[str]]
) -> Found:
    """Find what is pinned in one directory: under its name, or under the one that it has got since.

    ``entry_of`` returns what stands under a name of it. ``moved`` returns where a path may lead today, by the journals;
    it is asked only where the name does not lead to it.
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
    """Say whether an entry is what was pinned: a file or directory of its size and time.

    A copy of a tree may have lost the fractions of the seconds.
    """
    if entry is None or entry.kind not in ("file", "directory") or entry.size != pin.size:
        return False
    times = {pin.mtime_ns, entry.mtime_ns}
    return len(times) == 1 or (any(t % NS == 0 for t in times) and len({t // NS for t in times}) == 1)
