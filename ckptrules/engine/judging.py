"""What all lines of a policy are made of: what is said of a checkpoint, ranks, and times that cannot be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, NamedTuple, TypeVar

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry, HardLinks, Spot
from ckptrules.engine.measures import NS
from ckptrules.engine.shapes import Shape

SKEW_NS = 60 * NS  # what the clocks of two machines may differ by


class Opinion(NamedTuple):
    """What a line says of one checkpoint; ``would`` is the value with which it would keep it.

    ``note`` is what people are told also where they do not ask for reasons.
    """

    keeps: bool
    why: str
    would: Any = None
    note: str = ""


class Others(NamedTuple):
    """What stays in any case beside the candidates, as protected names do.

    ``size`` is the bytes of all of it, ``shared`` the files with several names among it. ``names`` are the whole ones
    that tell no rank and count for the floor, the newest first. ``disputed`` are whole ones in conflict: they have a
    rank for the floor alone.
    """

    size: int = 0
    shared: tuple[HardLinks, ...] = ()
    names: tuple[str, ...] = ()
    disputed: tuple[Checkpoint, ...] = ()

    def and_also(self, entries: Collection[Entry]) -> Others:
        """Return it with the bytes of more that stays."""
        size = self.size + sum(entry.size for entry in entries)
        return self._replace(size=size, shared=(*self.shared, *(link for one in entries for link in one.shared)))


Judged = Mapping[str, Opinion]
Key = TypeVar("Key", str, Spot)


class Around(NamedTuple):
    """What a line may know besides the checkpoints: the time, and what stays in any case.

    ``now_ns`` is the time by which ages are measured, in nanoseconds since 1970; 0 makes everything young. ``zone``
    says what day and hour a time is. ``tree`` is what lines that go by the whole tree say, by their value.
    """

    now_ns: int
    stays: Others
    zone: tzinfo = UTC
    tree: Mapping[Any, Judged] = {}


class Line(NamedTuple):
    """One line that a policy may have: how it is written, and what it keeps. `ckptrules.engine.lines` lists them.

    Attributes:
        key: how it is called in a rule file.
        shape: what may stand behind the key.
        judge: takes the value, the checkpoints (any order, distinct names) and what is around them; says of each name
            whether it keeps it, and why.
        read: turns what stands in the file into the value; it was checked by the shape.
        keeps_all: the value with which it keeps every checkpoint, so that all other lines are useless beside it.
        by_files: whether it goes by times or sizes of files, which may change while no name does.
        is_last: whether it judges after the others what none of them keeps.
        by_tree: takes the value; whether it goes by all directories together, which is worked out before.
        ranked: takes the value, what it said, the checkpoints and the time; names those that stay because of their rank
            among all: each takes the place of another.
        is_exceeded: takes the value and the bytes that stay in any case; whether these alone are more than it allows.
        all_or_none: takes the value, three or more checkpoints, and whether the line keeps all of them or none; returns
            what people are told behind that fact, or None where the meaning of the line makes it no news.
        lasts: takes the value; for how many nanoseconds it keeps a file that is written now, or None for ever.
    """

    key: str
    shape: Shape
    judge: Callable[[Any, Sequence[Checkpoint], Around], Judged]
    read: Callable[[Any], Any] = lambda value: value
    keeps_all: Any = None
    by_files: bool = False
    is_last: bool = False
    by_tree: Callable[[Any], bool] = lambda _: False
    ranked: Callable[[Any, Judged, Sequence[Checkpoint], int], Iterable[str]] = lambda *_: ()
    is_exceeded: Callable[[Any, int], bool] = lambda *_: False
    all_or_none: Callable[[Any, Sequence[Checkpoint], bool], str | None] = lambda *_: None
    lasts: Callable[[Any], int | None] = lambda _: None


def kept_by(_: Any, judged: Judged, __: Sequence[Checkpoint], ___: int) -> list[str]:
    """Name all that a line keeps: each of them takes the place of another."""
    return [name for name, said in judged.items() if said.keeps]


def untold(fields: Iterable[str], checkpoints: Iterable[Checkpoint]) -> str | None:
    """Say that no name tells any of some numbers, so that a line keeps all; None where one does."""
    names = [f"an {field}" if field == "epoch" else f"a {field}" for field in fields]
    told = any(getattr(checkpoint, field) is not None for checkpoint in checkpoints for field in fields)
    return None if told else f": no name tells {' or '.join(names)}"


def yes(why: str, note: str = "") -> Opinion:
    """Say that a line keeps it, and why."""
    return Opinion(keeps=True, why=why, note=note)


def no(why: str, would: Any = None) -> Opinion:
    """Say that a line does not keep it, and with which value it would."""
    return Opinion(keeps=False, why=why, would=would)


def place_of(place: int, count: int) -> str:
    """Write a place among those that a line keeps."""
    return f"{place} of {count} ({count - place} left)"


def is_misdated(time_ns: int, now_ns: int) -> bool:
    """Say whether a file time cannot be: it lies ahead, or before 1970. Where no time is known, any can be."""
    return now_ns > 0 and not 0 <= time_ns <= now_ns + SKEW_NS


def misdated_of(checkpoints: Iterable[Checkpoint], now_ns: int) -> list[Checkpoint]:
    """Return those whose file time cannot be."""
    return [checkpoint for checkpoint in checkpoints if is_misdated(checkpoint.entry.mtime_ns, now_ns)]


def newest_time(checkpoints: Iterable[Checkpoint], now_ns: int) -> int:
    """Return the newest file time that can be, or now where none can."""
    times = [checkpoint.entry.mtime_ns for checkpoint in checkpoints]
    return max((time for time in times if not is_misdated(time, now_ns)), default=now_ns)


def both_ranks(checkpoints: Sequence[Checkpoint], now_ns: int = 0) -> tuple[dict[str, int], dict[str, int]]:
    """Rank the checkpoints, the newest first: by epoch and step, and by file time.

    What has a time that cannot be takes no rank from the others: they are ranked as if it were not so new.
    """
    by_order = sorted(checkpoints, key=lambda c: c.age_order, reverse=True)
    by_time = sorted(by_order, key=lambda c: c.entry.mtime_ns, reverse=True)
    misdated = {checkpoint.entry.name for checkpoint in misdated_of(checkpoints, now_ns)}
    if not misdated:
        return numbered(by_order), numbered(by_time)
    doubtful_last = sorted(by_order, key=lambda c: (*c.age_order[:2], c.entry.name not in misdated), reverse=True)
    sure = [checkpoint for checkpoint in by_time if checkpoint.entry.name not in misdated]
    return _better(numbered(by_order), numbered(doubtful_last)), _better(numbered(by_time), numbered(sure))


def numbered(checkpoints: Iterable[Checkpoint]) -> dict[str, int]:
    """Give names the numbers from 1, in the order in which they come."""
    return {checkpoint.entry.name: number for number, checkpoint in enumerate(checkpoints, start=1)}


def _better(ranks: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return {name: min(rank, others.get(name, rank)) for name, rank in ranks.items()}
