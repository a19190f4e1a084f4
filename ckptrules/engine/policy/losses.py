"""Find deletions that the user of a policy may not have meant: the best, nearly all, all that is large. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.measures import human_size
from ckptrules.engine.names.comparing import NumbersInside, misleading
from ckptrules.engine.names.metrics import metrics_of, mode_of
from ckptrules.engine.names.sorting import Sorted, with_metrics
from ckptrules.engine.policy.judging import SKEW_NS, is_misdated
from ckptrules.engine.policy.lines.keep_best import as_float, shortened
from ckptrules.engine.policy.series import Series, called, counts_in, series_of
from ckptrules.engine.ruleset import Policy, Reason, RuleSet

SMALLER = 0.9  # of the smallest deleted size; less is suspicious, as the states of one run have nearly one size
SERIES = 3  # the least number of checkpoints for a note that one or none is left


class Losses(NamedTuple):
    """Notes on deletions that a person may miss, and the metrics whose best checkpoint is deleted."""

    notes: tuple[Reason, ...]
    metrics: tuple[str, ...]


def deleted(plan: Plan) -> set[str]:
    """Return the checkpoints that a policy deletes in a plan: not those that lost a conflict."""
    return {action.name for action in plan.actions if action.kind == "trash" and not action.keep_in_trash}


def with_losses(
    plan: Plan, found: Sorted, rules: RuleSet, policy: Policy, known: Evidence, inside: Mapping[str, NumbersInside]
) -> Plan:
    """Add notes on deletions that a person may not have meant, such as the best by a metric.

    ``known`` has all metrics that files tell. ``inside`` are the numbers in checkpoints, by name.
    """
    out = {name for problem in plan.problems for name in problem.names}.union(plan.unwhole)
    out |= {action.name for action in plan.actions if action.keep_in_trash}
    by_series: dict[Series, list[Checkpoint]] = defaultdict(list)
    for checkpoint in found.checkpoints:
        if checkpoint.entry.name not in out:
            by_series[series_of(checkpoint, policy)].append(with_metrics(checkpoint, known))
    shields = [checkpoint for checkpoint in found.protected if checkpoint.entry.name not in out]
    goes, missed = deleted(plan), []
    for series, members in by_series.items():
        protected = [checkpoint for checkpoint in shields if counts_in(checkpoint, series, by_series, policy)]
        missed.append(losses(policy, members, protected, goes, called(series, by_series), known.now_ns))
    texts = filter(None, (misleading(members, inside) for members in by_series.values()))
    misled = (Reason(f"a name misleads: {text}, as verify found; what goes was decided by names") for text in texts)
    return plan._replace(
        notes=(*plan.notes, *(note for lost in missed for note in lost.notes), *misled),
        best_goes=tuple(sorted({metric for lost in missed for metric in lost.metrics})),
        blind=is_blind(policy, chain.from_iterable(by_series.values()), names_of_the_best(found, rules, known)),
    )


def names_of_the_best(found: Sorted, rules: RuleSet, known: Evidence) -> list[str]:
    """Return the names that may show which checkpoint is the best: protected names, links and pointer files.

    A pin, and a file that names the best by a fact, count as ``best``, whatever their names.
    """
    links = [*(entry.name for entry in found.links), *(link.entry.name for link in known.links)]
    files = [fact.file for fact in rules.facts if fact.best]
    trackers = ["best" for path in known.pointers if any(fnmatchcase(path, f"*{file}") for file in files)]
    return [
        *(checkpoint.entry.name for checkpoint in found.protected),
        *links,
        *known.pointers,
        *trackers,
        *(["best"] * bool(known.pins)),
    ]


def losses(
    policy: Policy,
    series: Sequence[Checkpoint],
    protected: Sequence[Checkpoint],
    goes: Collection[str],
    of: str = "",
    now_ns: int = 0,
) -> Losses:
    """Return what a person may miss of the deletions in one series.

    ``series`` are its whole checkpoints, older first. ``protected`` ones stay in any case, and may have a metric.
    ``goes`` are the deleted names. ``of`` names the series at the end of a sentence, if there are several.
    """
    left = [checkpoint for checkpoint in series if checkpoint.entry.name not in goes]
    words, metrics = _extremes_that_go(policy, [*series, *protected], goes)
    texts = (f"the {' and the '.join(several)}, {name}, goes" for name, several in words.items())
    notes = [Reason(text, policy.place) for text in texts]
    if name := _last_that_goes([*series, *protected], goes, now_ns):
        why = "a run that begins again counts from the start; keep_last: 1 keeps what it writes"
        notes.append(Reason(f"{name}, written last, goes: {why}", policy.place))
    if len(series) >= SERIES and len(left) <= 1:
        what = f"all but one of {len(series)}" if left else f"all of {len(series)}"
        notes.append(Reason(f"{what} checkpoints{of} go", policy.place))
    gone = [checkpoint.entry.size for checkpoint in series if checkpoint.entry.name in goes]
    most = max((checkpoint.entry.size for checkpoint in left), default=0)
    if left and gone and most < SMALLER * min(gone):
        sizes = f"{human_size(most)} at most, of {human_size(min(gone))} or more"
        notes.append(Reason(f"all that stays{of} is smaller than what goes ({sizes}): is it whole?", policy.place))
    return Losses(tuple(notes), tuple(metrics))


def _last_that_goes(checkpoints: Iterable[Checkpoint], goes: Collection[str], now_ns: int) -> str:
    """Return the deleted name that was written last, where that was more than a minute after all that stays."""
    times = {one.entry.name: one.entry.mtime_ns for one in checkpoints if not is_misdated(one.entry.mtime_ns, now_ns)}
    staying = max((time for name, time in times.items() if name not in goes), default=None)
    last = max(times, key=lambda name: times[name], default="")
    return last if staying is not None and times[last] > staying + SKEW_NS else ""


def is_blind(policy: Policy, checkpoints: Iterable[Checkpoint], others: Iterable[str]) -> bool:
    """Return whether a policy deletes checkpoints although nothing says which one is the best.

    ``others`` are protected names, links and pointer files: ``best`` in one of them says it.
    """
    if any(line.key == "keep_best" for line in policy.lines) or any("best" in name.lower() for name in others):
        return False
    return not any(True for one in checkpoints for _ in metrics_of(one))


def _extremes_that_go(
    policy: Policy, checkpoints: Iterable[Checkpoint], goes: Collection[str]
) -> tuple[Mapping[str, list[str]], list[str]]:
    """Return what each deleted name is the best, highest or lowest by, and the metrics whose best one is deleted.

    If a policy takes the highest loss for the best, the lowest is one of these.
    """
    asked = {line.value.metric: line.value.mode for line in policy.lines if line.key == "keep_best"}
    words: dict[str, list[str]] = defaultdict(list)
    metrics = []
    for metric, rated in sorted(_by_metric(checkpoints).items()):
        usual = mode_of(metric)
        mode = asked.get(metric) or usual
        for end in sorted({mode, usual or mode}) if mode else ["max", "min"] * (len(rated) > 1):
            extreme = (max if end == "max" else min)(value for value, _ in rated.values())
            first = [name for name, (value, _) in rated.items() if value == extreme]
            if all(name in goes for name in first):
                what = "best by" if mode == end else {"max": "highest", "min": "lowest"}[end]
                text = shortened(text for _, text in rated.values())[rated[first[-1]][1]]
                text += f"; keep_best has mode: {mode}" * bool(mode and mode != end)
                words[first[-1]].append(f"{what} {metric} ({text})")
                metrics += [metric] * (mode == end)
    return words, metrics


def _by_metric(checkpoints: Iterable[Checkpoint]) -> Mapping[str, dict[str, tuple[float, str]]]:
    """Return the numbers of each metric, by name, also as they are written."""
    rated: dict[str, dict[str, tuple[float, str]]] = defaultdict(dict)
    for one in checkpoints:
        for metric, text in metrics_of(one):
            if (value := as_float(text)) is not None and math.isfinite(value):
                rated[metric][one.entry.name] = value, text
    return rated
