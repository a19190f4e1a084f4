"""Find deletions that the user of a policy may not have meant: the best, nearly all, all that is large. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.lines.keep_best import as_float, shortened
from ckptrules.engine.measures import human_size
from ckptrules.engine.metrics import metrics_of, mode_of
from ckptrules.engine.ruleset import Policy, Reason

SMALLER = 0.9  # of the smallest deleted size; less is suspicious, as the states of one run have nearly one size
SERIES = 3  # the least number of checkpoints for a note that one or none is left


class Rated(NamedTuple):
    """The value of one metric for one name; ``text`` is the number as it is written."""

    value: float
    text: str
    name: str


class Losses(NamedTuple):
    """Notes on deletions that a person may miss, and the metrics whose best checkpoint is deleted."""

    notes: tuple[Reason, ...]
    metrics: tuple[str, ...]


class Extreme(NamedTuple):
    """The highest or lowest checkpoint by a metric; ``is_best`` if it is known to be the best."""

    metric: str
    name: str
    words: str
    is_best: bool


def losses(
    policy: Policy, series: Sequence[Checkpoint], protected: Iterable[Checkpoint], goes: Collection[str], of: str = ""
) -> Losses:
    """Return what a person may miss of the deletions in one series.

    ``series`` are its whole checkpoints, older first. ``protected`` ones stay in any case, and may have a metric.
    ``goes`` are the deleted names. ``of`` names the series at the end of a sentence, if there are several.
    """
    left = [checkpoint for checkpoint in series if checkpoint.entry.name not in goes]
    extremes = [*_extremes_that_go(policy, series, protected, goes)]
    notes = [Reason(text, policy.place) for text in _sentences(extremes)]
    if len(series) >= SERIES and len(left) <= 1:
        what = f"all but one of {len(series)}" if left else f"all of {len(series)}"
        notes.append(Reason(f"{what} checkpoints{of} go", policy.place))
    gone = [checkpoint.entry.size for checkpoint in series if checkpoint.entry.name in goes]
    most = max((checkpoint.entry.size for checkpoint in left), default=0)
    if left and gone and most < SMALLER * min(gone):
        sizes = f"{human_size(most)} at most, of {human_size(min(gone))} or more"
        notes.append(Reason(f"all that stays{of} is smaller than what goes ({sizes}): is it whole?", policy.place))
    return Losses(tuple(notes), tuple(one.metric for one in extremes if one.is_best))


def is_blind(policy: Policy, checkpoints: Iterable[Checkpoint], others: Iterable[str]) -> bool:
    """Return whether a policy deletes checkpoints although nothing says which one is the best.

    ``others`` are protected names, links and pointer files: ``best`` in one of them says it.
    """
    if any(line.key == "keep_best" for line in policy.lines) or any("best" in name.lower() for name in others):
        return False
    return not any(True for one in checkpoints for _ in metrics_of(one))


def _extremes_that_go(
    policy: Policy, series: Sequence[Checkpoint], protected: Iterable[Checkpoint], goes: Collection[str]
) -> Iterator[Extreme]:
    asked = {line.value.metric: line.value.mode for line in policy.lines if line.key == "keep_best"}
    for metric, rated in sorted(_by_metric([*series, *protected]).items()):
        mode = asked.get(metric) or mode_of(metric)
        for end in [mode] if mode else ["max", "min"] * (len(rated) > 1):
            extreme = (max if end == "max" else min)(one.value for one in rated)
            first = [one for one in rated if one.value == extreme]
            if all(one.name in goes for one in first):
                what = "best by" if mode else {"max": "highest", "min": "lowest"}[end]
                text = shortened(one.text for one in rated)[first[-1].text]
                yield Extreme(metric, first[-1].name, f"{what} {metric} ({text})", bool(mode))


def _sentences(extremes: Iterable[Extreme]) -> Iterator[str]:
    words: dict[str, list[str]] = defaultdict(list)
    for one in extremes:
        words[one.name].append(one.words)
    for name, texts in words.items():
        yield f"the {' and the '.join(texts)}, {name}, goes"


def _by_metric(checkpoints: Iterable[Checkpoint]) -> Mapping[str, list[Rated]]:
    rated: dict[str, list[Rated]] = defaultdict(list)
    for one in checkpoints:
        for metric, text in metrics_of(one):
            if (value := as_float(text)) is not None and math.isfinite(value):
                rated[metric].append(Rated(value, text, one.entry.name))
    return rated
