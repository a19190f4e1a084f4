"""`max_total_size`: delete what no other line keeps, the oldest first, until the rest fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.entries import Entry
from ckptrules.engine.measures import human_size, size, taken, written
from ckptrules.engine.policy.judging import Around, Judged, Key, Line, Opinion, Others, both_ranks, no, yes
from ckptrules.engine.ruleset import Bytes
from ckptrules.engine.shapes import Text, fault_of


def max_total_size(limit: Bytes, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
    """Keep the newest candidates that fit beside what must stay; a file with several names counts once."""
    by_order, by_time = both_ranks(checkpoints, around.now_ns)
    names = sorted(by_order, key=lambda name: (min(by_order[name], by_time[name]), by_order[name]))
    entries = {checkpoint.entry.name: checkpoint.entry for checkpoint in checkpoints}
    return fitting(limit, {name: entries[name] for name in names}, around.stays)


def fitting(limit: Bytes, entries: Mapping[Key, Entry], stays: Others, called: str = "") -> dict[Key, Opinion]:
    """Keep the first entries that fit beside what must stay; a file with several names counts once.

    ``entries`` come in the order in which they should stay. ``called`` is the name of the limit in messages.
    """
    where = called or str(limit)
    used = must = taken(stays.size, stays.shared)
    beside = f" beside {human_size(must)} that must stay" if must else ""
    counted = {link[:2] for link in stays.shared}
    staying = set(counted)
    opinions = {}
    for name, entry in entries.items():
        own, shared = entry.size, entry.shared
        used += taken(own, shared, counted)
        if used <= limit.size:
            opinions[name] = yes(f"fits in {where} ({human_size(limit.size - used)} left)")
            staying.update(link[:2] for link in shared)
        elif own and own == sum(link.size * link.here for link in shared if link[:2] in staying):
            opinions[name] = yes("takes no room: its bytes have another name that stays")
        else:
            opinions[name] = no(f"does not fit in {where}{beside}", Bytes(used, written(used)))
    return opinions


LINES = (
    Line(
        "max_total_size",
        Text("What nobody keeps goes oldest first, until the rest fits: 200GB.", fault_of(size)),
        max_total_size,
        lambda text: Bytes(size(text), text),
        by_files=True,
        is_last=True,
        is_exceeded=lambda limit, must: must > limit.size,
    ),
)
