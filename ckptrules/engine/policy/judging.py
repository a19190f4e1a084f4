"""Give policy lines what they share: opinions on checkpoints, ranks, and a test for impossible file times. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, NamedTuple, TypeVar

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry, HardLinks, Spot
from ckptrules.engine.measures import NS
from ckptrules.engine.shapes import Shape

SKEW_NS = 60 * NS  # by which the clocks of two machines may differ


class Opinion(NamedTuple):
    """What a line says of one checkpoint.

    ``would`` is the value with which the line would keep it. ``note`` is shown even if nobody asks for reasons.
    """

    keeps: bool
    why: str
    would: Any = None
    note: str = ""


class Others(NamedTuple):
    """The checkpoints that stay in any case and are no candidates, for example protected ones.

    ``size`` is their total in bytes, ``shared`` are their files with several names. ``names`` are those that are whole
    but have no rank, the newest first; the floor counts them, but no file twice: ``twins`` are other names of these.
    ``disputed`` are those that are whole and in conflict; only the floor ranks them.
    """

    size: int = 0
    shared: tuple[HardLinks, ...] = ()
    names: tuple[str, ...] = ()
    twins: frozenset[str] = frozenset()
    disputed: tuple[Checkpoint, ...] = ()

    def and_also(self, entries: Collection[Entry]) -> Others:
        """Return it with the bytes of more entries."""
        size = self.size + sum(entry.size for entry in entries)
        return self._replace(size=size, shared=(*self.shared, *(link for one in entries for link in one.shared)))


Judged = Mapping[str, Opinion]
Key = TypeVar("Key", str, Spot)


class Around(NamedTuple):
    """What a line may know besides the checkpoints.

    ``now_ns`` is the present time in nanoseconds since 1970; 0 makes everything young. ``stays`` is what stays in any
    case. ``zone`` gives the day and hour of a time. ``tree`` holds the opinions of lines that were applied to the whole
    tree, by the value of the line and then by name.
    """

    now_ns: int
    stays: Others
    zone: tzinfo = UTC
    tree: Mapping[Any, Judged] = {}


class Line(NamedTuple):
    """One kind of policy line: its key, its syntax, and what it keeps. `ckptrules.engine.policy.lines` lists them.

    Attributes:
        key: its key in a rule file.
        shape: the values that may follow the key.
        judge: takes the value, the checkpoints (any order, distinct names) and an `Around`; returns an opinion on each
            name.
        read: turns the data in the file, which fit the shape, into the value.
        keeps_all: the value that keeps every checkpoint, and so makes all other lines useless.
        by_files: whether it depends on times or sizes of files, which may change while no name does.
        is_last: whether it judges only what no other line keeps.
        by_tree: takes the value; returns whether the line applies to all directories together. Such a line is decided
            before, and read from ``Around.tree``.
        ranked: takes the value, the opinions, the checkpoints and the time; returns the names that stay because of
            their rank: without one of them, another would stay.
        is_exceeded: takes the value and the bytes that stay in any case; returns whether these exceed the limit.
        all_or_none: takes the value, three or more checkpoints, and whether the line keeps all of them or none; returns
            the text that a note adds to this fact, or None where the line means just that.
        lasts: takes the value; returns for how many nanoseconds it keeps a file written now, or None for ever.
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
    """Return all names that a line keeps, as the value of ``Line.ranked``."""
    return [name for name, opinion in judged.items() if opinion.keeps]


def no_numbers(fields: Iterable[str], checkpoints: Iterable[Checkpoint]) -> str | None:
    """Return a text that no name has any of these numbers, so that a line keeps all; None where a name has one."""
    nouns = [f"an {field}" if field == "epoch" else f"a {field}" for field in fields]
    has_one = any(getattr(checkpoint, field) is not None for checkpoint in checkpoints for field in fields)
    return None if has_one else f": no name tells {' or '.join(nouns)}"


def yes(why: str, note: str = "") -> Opinion:
    """Return the opinion that a line keeps a checkpoint."""
    return Opinion(keeps=True, why=why, note=note)


def no(why: str, would: Any = None) -> Opinion:
    """Return the opinion that a line does not keep a checkpoint; with the value ``would``, it would."""
    return Opinion(keeps=False, why=why, would=would)


def place_of(place: int, count: int) -> str:
    """Write a place among the ``count`` that a line keeps: ``1 of 3``."""
    return f"{place} of {count}"


def is_misdated(time_ns: int, now_ns: int) -> bool:
    """Return whether a file time is impossible: over a minute ahead, or before 1970. If ``now_ns`` is 0, none is."""
    return now_ns > 0 and not 0 <= time_ns <= now_ns + SKEW_NS


def misdated_of(checkpoints: Iterable[Checkpoint], now_ns: int) -> list[Checkpoint]:
    """Return the checkpoints with an impossible file time."""
    return [checkpoint for checkpoint in checkpoints if is_misdated(checkpoint.entry.mtime_ns, now_ns)]


def newest_time(checkpoints: Iterable[Checkpoint], now_ns: int) -> int:
    """Return the newest possible file time, or the present time where there is none."""
    times = [checkpoint.entry.mtime_ns for checkpoint in checkpoints]
    return max((time for time in times if not is_misdated(time, now_ns)), default=now_ns)


def both_ranks(checkpoints: Sequence[Checkpoint], now_ns: int = 0) -> tuple[dict[str, int], dict[str, int]]:
    """Return two ranks of each checkpoint, 1 for the newest: by epoch and step, and by file time.

    A checkpoint with an impossible time lowers no other: the others are ranked as if it were older than they are.
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
    """Map names to numbers from 1, in the given order."""
    return {checkpoint.entry.name: number for number, checkpoint in enumerate(checkpoints, start=1)}


def _better(ranks: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return {name: min(rank, others.get(name, rank)) for name, rank in ranks.items()}
