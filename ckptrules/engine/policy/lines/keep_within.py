"""`keep_within`: keep what is younger than a given age."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.measures import NS, human_time, seconds
from ckptrules.engine.policy.judging import Around, Judged, Line, Opinion, newest_time, no, yes
from ckptrules.engine.ruleset import Within
from ckptrules.engine.shapes import Text, fault_of

FROM_NEWEST = " from newest"


def keep_within(within: Within, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
    """Keep what was written within a time before now, or before the newest checkpoint was written.

    A checkpoint dated before 1970 has no age, and is kept. One with an impossible time never counts as the newest.
    """
    now_ns = around.now_ns
    end = newest_time(checkpoints, now_ns) if within.from_newest else now_ns
    old = "older than the newest" if within.from_newest else "old"

    def opinion_at(age_ns: int) -> Opinion:
        age = human_time(age_ns // NS)
        if age_ns <= within.seconds * NS:
            return yes(f"{age} {old}, within {within.time} ({human_time(within.seconds - age_ns // NS)} left)")
        needed = -(-age_ns // NS)
        would = within._replace(seconds=needed, time=human_time(needed, up=True))
        return no(f"{age} {old}, not within {within.time}", would)

    unknown = {c.entry.name for c in checkpoints if c.entry.mtime_ns < 0} if now_ns else ()
    return {
        name: yes("its time is before 1970") if name in unknown else opinion_at(max(end - mtime_ns, 0))
        for name, mtime_ns in ((c.entry.name, c.entry.mtime_ns) for c in checkpoints)
    }


def ranked(within: Within, _: Judged, checkpoints: Sequence[Checkpoint], now_ns: int) -> Iterator[str]:
    """Yield the newest names, where ages are counted from them."""
    if within.from_newest:
        newest = newest_time(checkpoints, now_ns)
        yield from (c.entry.name for c in checkpoints if c.entry.mtime_ns == newest)


def within(text: str) -> Within:
    """Read ``7d`` or ``7d from newest``.

    Raises:
        ValueError: it is neither.
    """
    time = text.removesuffix(FROM_NEWEST)
    return Within(seconds(time), time, from_newest=time != text)


LINES = (
    Line(
        "keep_within",
        Text("Keep what was written within 7d from now, or '7d from newest'.", fault_of(within)),
        keep_within,
        within,
        by_files=True,
        ranked=ranked,
        lasts=lambda value: None if value.from_newest else value.seconds * NS,
    ),
)
