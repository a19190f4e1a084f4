"""Pure: what a policy takes away that a person may not have meant: the best, nearly all, or whatever is large."""

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

SMALLER = 0.9  # times the size of the smallest that goes; states of one run have nearly the same
SERIES = 3  # so many checkpoints are a series; of fewer it is no news that one is left


class Rated(NamedTuple):
    """What one name says of one metric; ``text`` is the number as it stands there."""

    value: float
    text: str
    name: str


class Losses(NamedTuple):
    """What goes that a person may miss, as notes, and the metrics by which the best goes."""

    notes: tuple[Reason, ...]
    metrics: tuple[str, ...]


class Extreme(NamedTuple):
    """The highest or the lowest by a metric; ``is_best`` where it is known which of the two is the best."""

    metric: str
    name: str
    words: str
    is_best: bool


def losses(
    policy: Policy, series: Sequence[Checkpoint], protected: Iterable[Checkpoint], goes: Collection[str], of: str = ""
) -> Losses:
    """Tell what goes of a series that a person may miss.

    The series are its whole checkpoints, the older first. What is protected stays in any case, and may tell a metric.
    ``of`` tells the series from others, for the end of a sentence.
    """
    left = [checkpoint for checkpoint in series if checkpoint.entry.name not in goes]
    extremes = [*_extremes_that_go(policy, series, protected, goes)]
    found = [Reason(text, policy.place) for text in _told(extremes)]
    if len(series) >= SERIES and len(left) <= 1:
        what = f"all but one of {len(series)}" if left else f"all of {len(series)}"
        found.append(Reason(f"{what} checkpoints{of} go", policy.place))
    gone = [checkpoint.entry.size for checkpoint in series if checkpoint.entry.name in goes]
    most = max((checkpoint.entry.size for checkpoint in left), default=0)
    if left and gone and most < SMALLER * min(gone):
        sizes = f"{human_size(most)} at most, of {human_size(min(gone))} or more"
        found.append(Reason(f"all that stays{of} is smaller than what goes ({sizes}): is it whole?", policy.place))
    return Losses(tuple(found), tuple(one.metric for one in extremes if one.is_best))


def is_blind(policy: Policy, checkpoints: Iterable[Checkpoint], others: Iterable[str]) -> bool:
    """Say whether a policy lets checkpoints go without knowing which one is the best.

    ``others`` may say which one is the best by being called so: what is protected, links, pointer files.
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
        for end, words in (("max", "highest {}"), ("min", "lowest {}")):
            if mode == end or (not mode and len(rated) > 1):
                best = (max if end == "max" else min)(one.value for one in rated)
                first = [one for one in rated if one.value == best]
                if all(one.name in goes for one in first):
                    what = "best by {}" if mode else words
                    text = shortened(one.text for one in rated)[first[-1].text]
                    yield Extreme(metric, first[-1].name, f"{what.format(metric)} ({text})", bool(mode))


def _told(extremes: Iterable[Extreme]) -> Iterator[str]:
    said: dict[str, list[str]] = defaultdict(list)
    for one in extremes:
        said[one.name].append(one.words)
    for name, texts in said.items():
        yield f"the {' and the '.join(texts)}, {name}, goes"


def _by_metric(checkpoints: Iterable[Checkpoint]) -> Mapping[str, list[Rated]]:
    rated: dict[str, list[Rated]] = defaultdict(list)
    for one in checkpoints:
        for metric, text in metrics_of(one):
            if (value := as_float(text)) is not None and math.isfinite(value):
                rated[metric].append(Rated(value, text, one.entry.name))
    return rated
