"""Find the best checkpoint by what the newest ones say inside; reading is bounded, and executes nothing.

Lightning writes the path of its best checkpoint into each one, and without a logger nowhere else.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache

from ckptrules.engine.checkpoints import order_of, series_by
from ckptrules.engine.entries import Entry, Listing, in_part_folder
from ckptrules.engine.facts import Names
from ckptrules.engine.names.naming import named
from ckptrules.engine.ruleset import Fact, Reason, RuleSet
from ckptrules.engine.state_folder import LONGEST_NAME
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.limits import NotReadError
from ckptrules.formats.machine import entries_of
from ckptrules.formats.torchstate import read_state
from ckptrules.outputs.facts import GONE, NOT_TO_BE_HAD, InsideSource
from ckptrules.stopping import heed
from ckptrules.storage import reading

MOST_TRIED = 4  # of the newest of a series: some may be torn, or may not say it


def rows_of(listing: Listing, facts: Iterable[Fact], names: Names, per: Sequence[str] = ()) -> tuple[InsideSource, ...]:
    """Return the files to read: the newest of each series by number, and by time: a copy or restart upsets one order.

    Names without a number, such as ``last.ckpt``, are no series: every one counts.
    """
    found = []
    for fact in facts:
        series: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
        for entry in listing.entries:
            if entry.kind == "file" and entry.name in names and fnmatchcase(in_part_folder(entry.name)[1], fact.file):
                series[series_by(names[entry.name], per)].append(entry)
        for (_, kind, *_), members in sorted(series.items()):  # sorted, as a disk lists names in any order
            by_time = sorted(members, key=lambda one: (one.mtime_ns, one.name), reverse=True)
            by_number = sorted(by_time, key=lambda one: order_of(names[one.name]), reverse=True)
            rows = [tuple(one.name for one in order[:MOST_TRIED]) for order in (by_number, by_time)]
            found += [InsideSource(fact, row, all_count=not kind) for row in dict.fromkeys(rows)]
    return tuple(found)


def best_inside(
    outputs_dir: str, listing: Listing, rows: Sequence[InsideSource], rules: RuleSet, names: Names, out: Collection[str]
) -> tuple[Mapping[str, str], tuple[Reason, ...]]:
    """Return the checkpoints that others call the best inside, each with the name of one that does, and notes.

    The path inside may be of another machine, or older than a rename: only its last part counts, or the new name that
    the rules give it. Checkpoints in ``out`` are not whole: what they say counts, but older ones are read as well.

    Raises:
        OSError: a file cannot be read, for another reason than missing rights.
    """
    best: dict[str, str] = {}
    notes: dict[Fact, Reason] = {}
    read = cache(lambda fact, name: _texts_in(outputs_dir, f"{listing.directory}/{name}", fact.best))
    of_base = {in_part_folder(name)[1]: name for name in names}
    for row in rows:
        faults = []
        for name in row.names:
            heed()
            texts = read(row.fact, name)
            if isinstance(texts, str):
                faults.append(f"{name}: {texts}")
                continue
            for one in {of_base[base] for text in texts if (base := _base_of(text, of_base, rules))}:
                best.setdefault(one, name)
            if texts and name not in out and not row.all_count:
                break
        if len(faults) == len(row.names):
            text = f"which one is the best is not known from the newest: {faults[0]}"
            notes.setdefault(row.fact, Reason(text, row.fact.place))
    return best, tuple({note.text: note for note in notes.values()}.values())  # two packs may read the same files


def _texts_in(outputs_dir: str, path: str, where: str) -> list[str] | str:
    """Return the texts at a path of keys inside a checkpoint, or the reason why they are unknown."""
    try:
        with reading.open_file(outputs_dir, path) as descriptor, open(descriptor, "rb", closefd=False) as file:
            state = read_state(file).value
    except OSError as error:
        if error.errno not in (*GONE, *NOT_TO_BE_HAD):
            raise
        return f"it cannot be read: {reading.why_of(error)}"
    except (UnsoundError, NotReadError) as error:
        return str(error)
    return [text for text in _below(state, where.split("/")) if isinstance(text, str) and text]


def _below(value: object, keys: Sequence[str]) -> Iterator[object]:
    """Yield the values at a path of keys, each of which may be a shell pattern."""
    if not keys:
        yield value
        return
    for key, inner in entries_of(value).items():
        if isinstance(key, str) and fnmatchcase(key, keys[0]):
            yield from _below(inner, keys[1:])


def _base_of(text: str, of_base: Mapping[str, str], rules: RuleSet) -> str:
    """Return the present name of the checkpoint that a path leads to; empty if it is none of this directory."""
    base = os.path.basename(text.replace("\\", "/"))
    if base in of_base or len(base) > LONGEST_NAME or not base.isprintable():  # a long text may slow a pattern down
        return base if base in of_base else ""
    target = named(base, rules, folder=False).target
    return target if target in of_base else ""
