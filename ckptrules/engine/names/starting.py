"""Write the first rule files for a tree, from what was seen in it. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from typing import NamedTuple

from ckptrules.engine.checkpoints import numbers_told
from ckptrules.engine.measures import count_of, visible
from ckptrules.engine.names.comparing import Compared
from ckptrules.engine.names.lookalikes import as_line, patterns_for
from ckptrules.engine.names.metrics import NEGATED, mode_of
from ckptrules.engine.ruleset import pattern_of
from ckptrules.engine.shapes import in_yaml

SCHEMA = "# yaml-language-server: $schema=schema.json\n#\n"
NAMING_HEAD = (
    "# Where checkpoints lie and who wrote them, as 'ckptrules init' saw it; edit it. The keys: schema.json\n\n"
)
RETENTION_HEAD = "# What stays when `delete_old=1` is given: what a line keeps, and what is protected.\n\n"
PRESET_HEAD = (
    "# Who wrote the checkpoints; where they lie, the pack says, unless `layout` does. The keys: schema.json\n\n"
)
IGNORED = "ignored: ['.*', '*.tmp']     # no checkpoints, or not yet\n"
RETENTION_END = (
    "trash_days: 7                # how long deleted checkpoints wait in .ckptrules/trash; 0 = gone at once\n"
)
PLAIN = ("keep_last: 2",)
PROTOCOL = "protocol"  # instead of the name of a pack: the format of this package and its older forms
SCORES = ("ignite",)  # in its names the highest value is always the best, so `neg_loss` is clear
MANY = 20  # checkpoints in a directory; with more, the policy keeps some for good
HELD_OUT = r"(?:val|valid|validation|eval|test|dev)"
FOR_GOOD = 10  # about how many of them


class Numbers(NamedTuple):
    """The epoch and step in the name of a checkpoint, and the names of its metrics, in its name or in files."""

    epoch: int | None
    step: int | None
    metrics: frozenset[str]


class Seen(NamedTuple):
    """A directory of checkpoints as it was seen.

    ``directory`` is its path below ``outputs_dir``. ``packs`` are those that know its names, ``sure`` whether they may
    judge it: there is more evidence than names, and the packs agree. ``evidence`` is a text. ``checkpoints`` is their
    number, ``size`` their bytes. ``numbers`` are those of each checkpoint, ``compared`` compares names with contents.
    ``best_by`` is the metric by which a file of the framework names the best, and ``min`` or ``max``.
    """

    directory: str
    packs: tuple[str, ...]
    sure: bool
    evidence: str
    checkpoints: int
    size: int
    numbers: tuple[Numbers, ...] = ()
    compared: Compared = Compared()
    best_by: tuple[str, str] = ("", "")


class Decision(NamedTuple):
    """A question for the user: the line of the packs in naming.yaml, the directory, and the packs to choose from."""

    line: int
    directory: str
    text: str


def chosen_packs(seen: Iterable[Seen]) -> list[str]:
    """Return the packs to write: those of sure directories, and their rivals in unsure ones.

    Without its rivals, a pack would decide alone in a directory where packs disagree. `PROTOCOL` is no pack.
    """
    every = [one._replace(packs=tuple(name for name in one.packs if name != PROTOCOL)) for one in seen]
    chosen = dict.fromkeys(name for one in every if one.sure for name in one.packs)
    while more := [n for one in every if set(one.packs) & chosen.keys() for n in one.packs if n not in chosen]:
        chosen.update(dict.fromkeys(more))
    return list(chosen)


def naming_text(
    outputs_dir: str, seen: Sequence[Seen], prefix: str = "", more: str = IGNORED
) -> tuple[str, list[Decision]]:
    """Return the text of rules/naming.yaml for a tree, and the questions that it leaves open.

    ``prefix`` is the first part of all directories, which the layout begins with. ``more`` are further lines at the
    end.
    """
    known = [one for one in seen if one.packs]
    chosen, unsure = chosen_packs(known), [one for one in known if not one.sure]
    lines = [*(SCHEMA + NAMING_HEAD).splitlines(), f"outputs_dir: {in_yaml(outputs_dir)}", "layout:"]
    for pattern, several in by_pattern(known, prefix).items():
        checkpoints = sum(one.checkpoints for one in several)
        where = f"{count_of(len(several), 'folder')}, {count_of(checkpoints, 'checkpoint')}"
        lines.append(_commented(f"  - {in_yaml(pattern)}", where))
    lines.append("packs:" if chosen else _commented("packs: []", "who wrote them? put one between the brackets"))
    at = len(lines)
    for name in chosen:
        theirs = [one for one in known if one.sure and name in one.packs]
        why = theirs[0].evidence if theirs else "so that nothing is guessed, see 'Decide' below"
        lines.append(_commented(f"  - {name}", why))
    decisions = []
    for one in [*{one.packs: one for one in reversed(unsure)}.values()][::-1]:  # the first of each set of packs
        left = [name for name in one.packs if name not in chosen]
        row = "  # - {}" if chosen else "#  {}"
        lines += [_commented(row.format(name), f"{visible(one.directory)}: {one.evidence}") for name in left]
        decisions.append(Decision(len(lines) if left and chosen else at, one.directory, " or ".join(one.packs)))
    return "\n".join([*lines, more]), decisions


def preset_text(pack: str, outputs_dir: str, layout: Sequence[str] = ()) -> str:
    """Return the text of rules/naming.yaml for one pack, for any tree; without ``layout``, that of the pack holds."""
    where = [f"outputs_dir: {in_yaml(outputs_dir)}"] * bool(outputs_dir)
    where += [f"layout: {as_line(layout)}"] * bool(layout)
    return "\n".join([*(SCHEMA + PRESET_HEAD).splitlines(), *where, f"packs: [{pack}]", IGNORED])


def by_pattern(seen: Iterable[Seen], prefix: str = "") -> dict[str, list[Seen]]:
    """Return directories by the layout pattern that covers them: shallow ones first, `checkpoints` before `*`."""
    inner = {one: _starred(one.directory[len(prefix) + 1 :] if prefix else one.directory) for one in seen}
    patterns = patterns_for(inner.values())
    found: dict[str, list[Seen]] = defaultdict(list)
    for one, path in inner.items():
        found["/".join(filter(None, (pattern_of(prefix), patterns.get(path))))].append(one)
    return {key: found[key] for key in sorted(found, key=lambda key: (key.count("/"), key.split("/").count("*"), key))}


def retention_text(seen: Collection[Seen], experiment_of: Mapping[str, str]) -> tuple[str, str]:
    """Return the text of rules/retention.yaml for the sure directories, and a sentence on what it keeps.

    ``experiment_of`` maps each directory to its experiment.
    """
    every_name = {experiment_of[one.directory] for one in seen}
    groups: dict[tuple[tuple[str, ...], tuple[str, str]], list[Seen]] = defaultdict(list)
    for one in seen:
        if one.sure and one.numbers:
            groups[one.packs, best_by(one)].append(one)
    policies: dict[tuple[str, ...], list[Seen]] = defaultdict(list)
    for (_, (metric, mode)), members in groups.items():
        policies[policy_lines(metric, mode, members)].extend(members)
    default = max(policies, key=_keeps_most, default=PLAIN)  # new experiments have it, too
    text, matches = SCHEMA + RETENTION_HEAD + "retention:\n" + _policy("default", default), ""
    names: list[str] = []
    for lines, members in (one for one in policies.items() if one[0] != default):
        names.append(name := policy_name(lines, names))
        text += _policy(name, lines)
        fitting = experiments_of({experiment_of[one.directory] for one in members}, every_name)
        matches += "".join(f"  - {{match: {in_yaml(pattern)}, policy: {name}}}\n" for pattern in fitting)
    if matches:
        text += (
            f"\nexperiments:                 # the first pattern that fits picks the policy, else default\n{matches}"
        )
    metrics = sorted({metric for _, (metric, _) in groups if metric})
    words = ["the newest 2 of each run"]
    words += [f"the best 1 by {' or '.join(map(visible, metrics))}"] * bool(metrics)
    words += ["some along the way"] * any(line.startswith("keep_every") for lines in policies for line in lines)
    return f"{text}\n{RETENTION_END}", ", ".join(words)


def policy_lines(metric: str, mode: str, members: Sequence[Seen]) -> tuple[str, ...]:
    """Return the lines of the policy for directories of one kind."""
    lines = [*PLAIN]
    if metric:
        lines.append(f"keep_best: {{metric: {in_yaml(metric)}, mode: {mode}, count: 1}}")
    every = [numbers for one in members for numbers in one.numbers]
    if max(one.checkpoints for one in members) > MANY:
        for unit in ("step", "epoch"):
            values = [getattr(one, unit) for one in every]
            if None not in values and max(values) > FOR_GOOD:
                lines.append(f"keep_every_{unit}s: {{every: {rounded(max(values) // FOR_GOOD)}, nearest: true}}")
                break
    return tuple(lines)


def policy_name(lines: Iterable[str], taken: Collection[str]) -> str:
    """Name a policy by what it keeps, as several frameworks may share it: ``newest``, ``best_val_loss``."""
    metric = re.search(r"metric: '?([^',]*)", "\n".join(lines))
    name = "best_" + re.sub(r"\W+", "_", metric[1], flags=re.ASCII).strip("_") if metric else "newest"
    name += "_and_some" * any(line.startswith("keep_every") for line in lines)
    return next(one for one in chain([name], (f"{name}_{number}" for number in count(2))) if one not in taken)


def best_by(one: Seen) -> tuple[str, str]:
    """Return the metric for the policy of a directory, and ``min`` or ``max``; both empty if none is known.

    Every checkpoint must have the metric, as a policy keeps all that do not.
    """
    common = frozenset[str].intersection(*(numbers.metrics for numbers in one.numbers)) if one.numbers else frozenset()
    if one.best_by[0] in common:
        return one.best_by
    metric = min((name for name in common if mode_of(name)), key=_preference, default="")
    if not metric and one.packs == SCORES:
        metric = min((name for name in common if NEGATED & set(re.findall("[a-z]+", name.lower()))), default="")
        return metric, "max" if metric else ""
    return metric, mode_of(metric)


def _keeps_most(lines: Sequence[str]) -> tuple[bool, int]:
    """Return a sort key for a policy: one with a metric keeps whatever does not tell it."""
    return any(line.startswith("keep_best") for line in lines), len(lines)


def rounded(value: int) -> int:
    """Round down to 1, 2 or 5 with zeros."""
    power = int(10 ** (len(str(value)) - 1))
    return next(power * digit for digit in (5, 2, 1) if power * digit <= value)


def experiments_of(names: Collection[str], every: Collection[str]) -> list[str]:
    """Return patterns that fit these experiments and no others of ``every``."""
    found: list[str] = []
    for top in sorted({name.split("/")[0] for name in names}):
        beside = {name for name in every if name.split("/")[0] == top}
        mine = {name for name in names if name.split("/")[0] == top}
        whole = beside == mine and top not in mine and top.isprintable()
        found += [f"{pattern_of(top)}/*"] if whole else sorted(map(pattern_of, filter(str.isprintable, mine)))
    return found


def _preference(metric: str) -> tuple[int, str]:
    """Return a sort key: first the loss on held-out data, then a score, then other metrics not of the training data."""
    lower = metric.lower()
    ranks = (
        re.fullmatch(rf"{HELD_OUT}[-_/. ]?loss", lower) is not None,
        mode_of(metric) == "max" and "train" not in lower,
        re.match(HELD_OUT, lower) is not None,
        "train" not in lower,
        True,
    )
    return ranks.index(True), lower


def _policy(name: str, lines: Iterable[str]) -> str:
    return f"  {name}:\n" + "".join(f"    {line}\n" for line in lines)


def _starred(path: str) -> str:
    """Return a path with a star for each name that cannot be written into a rule file."""
    return "/".join(part if part.isprintable() else "*" for part in path.split("/"))


def _commented(line: str, comment: str) -> str:
    return f"{line.ljust(28)} # {comment}"


def numbers_of(fields: Mapping[str, str | None], metrics: Iterable[str]) -> Numbers:
    """Return the numbers of a checkpoint from the fields of its name and the metrics in files.

    A negative loss in a name does not count: it is likely a score, a loss with its sign turned.
    """
    metric, value = fields.get("metric"), fields.get("value") or ""
    metric = metric if value and not (value.startswith("-") and mode_of(metric or "") == "min") else None
    metrics = [name for name in metrics if name.isprintable()]
    by_name = {key for key, text in fields.items() if text and mode_of(key)}
    numbers = numbers_told(fields)
    return Numbers(
        numbers.get("epoch"),
        numbers.get("step"),
        frozenset({*by_name, *metrics, *([metric] if metric else [])}),
    )
