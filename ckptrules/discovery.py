"""What checkpoints there are, read from their names: what a user interface calls in place of globbing.

Legacy names are read as well, so it works before, during and after a migration. No file is opened, torch is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Literal, NamedTuple

from ckptrules.engine.naming import BEST, is_claimed, named
from ckptrules.engine.pins import Pin, is_it, name_in
from ckptrules.engine.sorting import is_left_link, unsound
from ckptrules.engine.values import Claim, Directory, Entry, Listing, RuleSet, number
from ckptrules.engine.wholeness import markers_in, why_unfinished
from ckptrules.outputs import find
from ckptrules.outputs.listing import scan
from ckptrules.outputs.picking import rules_here
from ckptrules.rules.load import load_rules
from ckptrules.rules.pins import read_pins
from ckptrules.rules.shipped import rule_texts
from ckptrules.verify import memory

Kind = Literal["epoch", "best", "last", "protected"]


class Record(NamedTuple):
    """One checkpoint, as its name has it.

    ``path`` begins with the ``outputs_dir`` that was given. ``kind`` is ``epoch`` for a name that a format fits, else
    how a protected name begins: ``best``, ``last``, or ``protected``. ``epoch``, ``step``, ``metric`` and ``value``
    are None where the name does not say them; a link says what the checkpoint beside it that it leads to says.
    ``size`` is in bytes, ``time`` is the file's, in seconds since 1970. ``rule`` is file and line of the rule that
    claims the name. ``verified`` says that `doit verify` has found this very content sound. ``pinned`` is the note of
    a pinned checkpoint, or ``yes`` where it has none; None for all others.
    """

    path: str
    experiment: str
    kind: Kind
    epoch: int | None
    step: int | None
    metric: str | None
    value: float | None
    size: int
    time: float
    rule: str
    verified: bool
    pinned: str | None = None


def catalog(
    outputs_dir: str | os.PathLike[str] | None = None, rules: str | os.PathLike[str] | RuleSet | None = None
) -> Iterator[Record]:
    """Yield a record for each checkpoint, experiment by experiment, older before newer.

    Empty files, dangling links, names that no rule knows and names that two rule files claim are left out; `doit
    verify` tells of them. What a marker calls unfinished is left out, and what disappears while it is looked at.

    Args:
        outputs_dir: the folder that holds the experiments; without one that of the rules, or ``outputs``.
        rules: the folder with the rule files; without one ``rules`` where that is, else the rules of the package.

    Raises:
        RuleError: the rules do not hold; the message names file, line and column.
        OSError: ``outputs_dir`` or a checkpoint directory cannot be read.
    """
    given = os.fspath(rules) if rules and not isinstance(rules, RuleSet) else None
    loaded = rules if isinstance(rules, RuleSet) else load_rules(rule_texts(given))
    pins = () if isinstance(rules, RuleSet) else read_pins(given)
    folder = os.fspath(outputs_dir) if outputs_dir is not None else loaded.outputs_dir or "outputs"
    with os.scandir(folder):
        pass
    for found in find.find_directories(folder, loaded.layout, partial(is_claimed, rules=loaded), loaded.part_folders):
        yield from records_in(folder, loaded, found, pins)


def records_in(outputs_dir: str, rules: RuleSet, found: Directory, pins: Iterable[Pin] = ()) -> list[Record]:
    """Return the records of one checkpoint directory, older before newer; none where it is gone.

    Raises:
        OSError: it cannot be read.
        SlowRuleError: a rule needs too long for one of the names.
    """
    rules = rules_here(outputs_dir, rules, found.directory)
    try:
        listing = scan(outputs_dir, found)
    except FileNotFoundError:
        return []
    pinned = {name: pin for pin in pins if (name := name_in(pin, found))}
    return sorted(_records(outputs_dir, rules, listing, pinned), key=_age)


def latest(records: Iterable[Record]) -> Record | None:
    """Return the newest by epoch, then step, then file time; None where there are no records. Never by name."""
    return max(records, key=_age, default=None)


def best(records: Iterable[Record], mode: Literal["max", "min"], metric: str | None = None) -> Record | None:
    """Return the record with the highest (``max``) or lowest (``min``) value; None where no name has one.

    Raises:
        ValueError: no ``metric`` is given and the names have several, or ``mode`` is neither.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', not {mode!r}")
    valued = [record for record in records if record.value is not None and metric in (None, record.metric)]
    metrics = sorted({str(record.metric) for record in valued})
    if len(metrics) > 1:
        raise ValueError(f"several metrics: {', '.join(metrics)}; say which")
    sign = 1 if mode == "max" else -1
    return max(valued, key=lambda record: (sign * (record.value or 0.0), _age(record)), default=None)


def at(records: Iterable[Record], epoch: int) -> Record | None:
    """Return the newest of an epoch; None where there is none."""
    return latest(record for record in records if record.epoch == epoch)


def _age(record: Record) -> tuple[int, int, float, str]:
    epoch, step = record.epoch, record.step
    return -1 if epoch is None else epoch, -1 if step is None else step, record.time, record.path


def _records(outputs_dir: str, rules: RuleSet, listing: Listing, pinned: Mapping[str, Pin]) -> Iterator[Record]:
    known = memory.known_names(outputs_dir, listing)
    entries = {entry.name: entry for entry in listing.entries}
    markers = markers_in(listing, rules)
    for entry in listing.entries:
        name = named(entry.name, rules)
        said = name.claim
        aim = entries.get(entry.sibling or "") if entry.kind == "link" else entry
        if entry.kind == "link" and is_left_link(entry, name):
            continue
        if said.kind not in ("protected", "target", "legacy") or aim is None or aim.kind == "link" or unsound(aim):
            continue
        if markers and why_unfinished((aim.name, named(aim.name, rules).target), markers):
            continue
        fields = {**_fields(aim, named(aim.name, rules).claim), **_fields(entry, said)}
        value = fields.get("value")
        yield Record(
            path=os.path.join(outputs_dir, listing.directory, entry.name),
            experiment=listing.experiment,
            kind=_kind(entry, said),
            epoch=number(fields.get("epoch")),
            step=number(fields.get("step")),
            metric=fields.get("metric"),
            value=_value(value),
            size=aim.size,
            time=aim.mtime_ns / 1e9,
            rule=said.reason.place.file_line if said.reason.place else "",
            verified=aim.name in known,
            pinned=_pinned(pinned.get(aim.name), aim),
        )


def _fields(entry: Entry, said: Claim) -> Mapping[str, str]:
    match = BEST.fullmatch(entry.name) if said.kind == "protected" else None
    return match.groupdict() if match else said.fields


def _pinned(pin: Pin | None, entry: Entry) -> str | None:
    return (pin.note or "yes") if pin and is_it(pin, entry) else None


def _kind(entry: Entry, said: Claim) -> Kind:
    if said.kind != "protected":
        return "epoch"
    return "best" if entry.name.startswith("best") else "last" if entry.name.startswith("last") else "protected"


def _value(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
