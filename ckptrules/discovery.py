"""Lists checkpoints by their names, for user interfaces and other programs.

Old names are read as well, so it works before, during and after a migration. It opens no checkpoint, and needs no
torch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import isfinite
from typing import Literal, NamedTuple

from ckptrules.engine.checkpoints import NUMBERS, Checkpoint, Claim, Evidence, numbers_told
from ckptrules.engine.entries import Directory, Entry, Listing, in_part_folder
from ckptrules.engine.facts import believed
from ckptrules.engine.measures import NS
from ckptrules.engine.names.metrics import mode_of
from ckptrules.engine.names.naming import CHECKPOINTS, named, reader
from ckptrules.engine.names.sorting import HOLDING, Sorted, sort_entries, unsound
from ckptrules.engine.pins import Pin, is_it, name_in
from ckptrules.engine.policy.lines.keep_best import as_float
from ckptrules.engine.ruleset import Reason, RuleSet
from ckptrules.engine.whole.wholeness import markers_in, unwhole, why_unfinished
from ckptrules.outputs.evidence import inside_of
from ckptrules.outputs.facts import all_facts
from ckptrules.outputs.listing import scan
from ckptrules.outputs.picking import Tree, rules_here, survey_by
from ckptrules.rules.load import load_rules
from ckptrules.rules.pins import read_pins
from ckptrules.rules.shipped import rule_texts
from ckptrules.verify import memory

Kind = Literal["epoch", "best", "last", "protected"]


class Record(NamedTuple):
    """One checkpoint, or a link beside checkpoints that leads to one, with the numbers of that.

    Attributes:
        path: begins with ``outputs_dir`` as it was given.
        experiment: the name of the experiment.
        kind: ``epoch`` for a name that a format fits, else how a protected name begins: ``best``, ``last``, or
            ``protected``.
        epoch, step, number: those in the name, ``number`` being one of unknown unit. If the name has none of them, the
            epoch and step that `doit verify` has read inside. Else None.
        metric, value: those in the name, or None.
        size: in bytes, of all files.
        time: of the file, in seconds since 1970.
        rule: file and line of the rule that claims the name.
        verified: whether `doit verify` has found this very content sound.
        pinned: the note of a pin, or ``yes`` if it has none; None without a pin.
        run: the run in the name, or None.
        files: the number of files.
        metrics: those in `facts`, and groups of the rule with the name of a metric; those of the policies come first.
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
    number: int | None = None
    run: str | None = None
    files: int = 1
    metrics: Mapping[str, float] = {}


def catalog(
    outputs_dir: str | os.PathLike[str] | None = None, rules: str | os.PathLike[str] | None = None
) -> Iterator[Record]:
    """Yield a record for each checkpoint, experiment by experiment, older before newer.

    Left out are checkpoints that are not whole, empty files, dangling links, unknown names, names that two rule files
    claim (`doit verify` reports all of these), and files that disappear meanwhile.

    Args:
        outputs_dir: the folder of the experiments; by default that in the rules, or ``outputs``.
        rules: the folder of the rule files; by default ``rules``, or the rules of the package if there is none.

    Raises:
        RuleError: the rules are invalid; the message has file, line and column.
        OSError: ``outputs_dir`` or a checkpoint directory cannot be read.
    """
    given = os.fspath(rules) if rules else None
    loaded, pins = load_rules(rule_texts(given)), read_pins(given)
    folder = os.fspath(outputs_dir) if outputs_dir is not None else loaded.outputs_dir or "outputs"
    with os.scandir(folder):
        pass
    tree = Tree(folder)
    for found in survey_by(folder, loaded)[0]:
        yield from records_in(folder, rules_here(tree, loaded, found.directory), found, pins)


def records_in(outputs_dir: str, rules: RuleSet, found: Directory, pins: Iterable[Pin] = ()) -> list[Record]:
    """Return the records of one checkpoint directory by its rules, older before newer; none if it is gone.

    Raises:
        OSError: the directory cannot be read.
        SlowRuleError: a rule takes too long for a name.
    """
    pinned = {name: pin for pin in pins if (name := name_in(pin, found))}
    try:
        return sorted(_records(outputs_dir, rules, scan(outputs_dir, found), pinned), key=_age)
    except FileNotFoundError:
        return []


def latest(records: Iterable[Record]) -> Record | None:
    """Return the newest record by epoch, then step, then file time, never by name; None if there are no records.

    Names with an epoch, with only a step, and with only a plain number cannot be compared. Of the newest of each kind,
    the one with the latest time is returned. Warns if a `last` checkpoint of its experiment has a later time, and its
    epoch and step are unknown.
    """
    found = _listed(records)
    by_kind = {_kind_of_number(record): record for record in sorted(found, key=_age)}
    unknown = by_kind.pop("", None)
    newest = max(by_kind.values(), key=lambda record: (record.time, _age(record)), default=unknown)
    if newest and _kind_of_number(newest):
        later = [one for one in found if one.kind == "last" and not _kind_of_number(one) and one.time > newest.time]
        for one in (one for one in later if one.experiment == newest.experiment):
            text = f"{one.path} may be newer than {newest.path}: run 'doit verify', which reads its epoch and step"
            warnings.warn(text, stacklevel=2)
    return newest


def best(records: Iterable[Record], mode: Literal["max", "min"], metric: str | None = None) -> Record | None:
    """Return the record with the highest (``max``) or lowest (``min``) finite value; None if none has a value.

    Args:
        records: those to choose from.
        mode: which end is the best.
        metric: the metric, in names or files; by default the one in names.

    Raises:
        ValueError: the names have several metrics and ``metric`` is None, or ``mode`` is neither.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', not {mode!r}")
    values = ((one.value if metric in (None, one.metric) else one.metrics.get(metric), one) for one in _listed(records))
    valued = [(value, record) for value, record in values if value is not None and isfinite(value)]
    metrics = sorted({str(record.metric) for _, record in valued}) if metric is None else []
    if len(metrics) > 1:
        raise ValueError(f"several metrics: {', '.join(metrics)}; say which")
    sign = 1 if mode == "max" else -1
    return max(valued, key=lambda pair: (sign * pair[0], _age(pair[1])), default=(0.0, None))[1]


def at(records: Iterable[Record], epoch: int) -> Record | None:
    """Return the newest record of an epoch; None if there is none."""
    return latest(record for record in _listed(records) if record.epoch == epoch)


def _listed(records: Iterable[Record]) -> list[Record]:
    if isinstance(records, str | os.PathLike):
        raise TypeError(f"records are wanted, such as those of catalog({os.fspath(records)!r}), not a path")
    return list(records)


def _kind_of_number(record: Record) -> str:
    return next((kind for kind in NUMBERS if getattr(record, kind) is not None), "")


def _age(record: Record) -> tuple[int, int, float, str]:
    epoch, step = record.epoch, record.step
    step = record.number if epoch is None and step is None else step
    return -1 if epoch is None else epoch, -1 if step is None else step, record.time, record.path


def _records(outputs_dir: str, rules: RuleSet, listing: Listing, pinned: Mapping[str, Pin]) -> Iterator[Record]:
    facts = all_facts(outputs_dir, listing, rules)
    found = sort_entries(rules, believed(listing, facts.times))
    known = memory.results_by_name(outputs_dir, listing)
    broken = {name: this.broken for name, this in known.items() if this.broken}
    proved = known.keys() - broken
    left_out, _ = unwhole(found, listing, rules, Evidence(inside=inside_of(outputs_dir, listing, rules), broken=broken))
    entries = {entry.name: entry for entry in listing.entries}
    read = reader(rules, len(entries))
    asked = {line.value.metric for one in rules.policies.values() for line in one.lines if line.key == "keep_best"}
    for name, one in _with_links(rules, listing, found, left_out):
        claim = read(in_part_folder(name)[1], entries[name].kind == "directory").claim
        fields = {**_by_verify(one, known), **one.fields, **claim.fields}
        by_name = {key: text for key, text in fields.items() if text and (key in asked or mode_of(key))}
        metrics = {key: text for own in one.names for key, text in facts.metrics.get(own, {}).items()} | by_name
        if len(by_name) == 1 and "metric" not in fields:
            fields |= dict(zip(("metric", "value"), *by_name.items(), strict=True))
        yield Record(
            path=os.path.join(outputs_dir, listing.directory, name),
            experiment=listing.experiment,
            kind=_kind(in_part_folder(name)[1], claim),
            **dict.fromkeys(NUMBERS) | numbers_told(fields),
            metric=fields.get("metric"),
            value=as_float(fields.get("value")),
            size=one.entry.size,
            time=one.entry.mtime_ns / NS,
            rule=claim.reason.place.file_line if claim.reason.place else "",
            verified=proved >= set(one.names),
            pinned=next(filter(None, (_pinned(pinned.get(own), entries[own]) for own in one.names)), None),
            run=fields.get("run"),
            files=len(one.names),
            metrics={
                key: value
                for key in sorted(metrics, key=lambda key: key not in asked)
                if (value := as_float(metrics[key])) is not None and isfinite(value)
            },
        )


def _with_links(
    rules: RuleSet, listing: Listing, found: Sorted, left_out: Collection[str]
) -> Iterator[tuple[str, Checkpoint]]:
    """Yield each name that leads to a whole checkpoint, with the checkpoint: its own name, and those of links."""
    every = {one.entry.name: one for one in found.every}
    yield from ((name, one) for name, one in every.items() if name not in left_out)
    markers = markers_in(listing, rules)
    others = {entry.name: entry for entry in listing.entries if entry.kind in HOLDING and not unsound(entry)}
    heads = found.heads
    for link in found.links:
        aim = heads.get(link.sibling or "", link.sibling or "")
        if aim in left_out or named(in_part_folder(link.name)[1], rules).claim.kind not in ("protected", *CHECKPOINTS):
            continue
        if aim in every:
            yield link.name, every[aim]
        elif aim in others and not why_unfinished([aim], markers):
            yield link.name, Checkpoint(others[aim], {}, aim, Reason("a link leads to it"))


def _by_verify(one: Checkpoint, known: Mapping[str, memory.CheckResult]) -> dict[str, str]:
    """Return the numbers that `doit verify` has read inside a checkpoint whose name has none."""
    if one.series[1] or one.entry.name not in known:
        return {}
    content = known[one.entry.name].content
    less = 1 if content.counts_from_1 else 0
    return {key: str(value - less) for key, value in content.inside.items() if value is not None and value >= less}


def _pinned(pin: Pin | None, entry: Entry) -> str | None:
    return (pin.note or "yes") if pin and is_it(pin, entry) else None


def _kind(name: str, claim: Claim) -> Kind:
    if claim.kind != "protected":
        return "epoch"
    return "best" if name.startswith("best") else "last" if name.startswith("last") else "protected"
