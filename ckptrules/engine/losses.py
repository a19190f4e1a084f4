"""Pure: what a policy takes away that a person may not have meant: the best, nearly all, or whatever is large."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from string import digits
from typing import NamedTuple

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.lines.keep_best import as_float, shortened
from ckptrules.engine.measures import human_size
from ckptrules.engine.ruleset import Policy, Reason

SMALLER = 0.9  # times the size of the smallest that goes; states of one run have nearly the same
SERIES = 3  # so many checkpoints are a series; of fewer it is no news that one is left
LOW = frozenset(
    "loss err error perplexity ppl wer cer mae mape mse rmse nll bpb bpc bpd fid kid lpips eer ece epe mcd ade minade"
    " fde minfde distance".split()
)
HIGH = frozenset(
    "acc accuracy f1 auc auroc ap map iou miou dice hmean bleu chrf rouge rougel rougelsum meteor cider precision"
    " recall psnr ssim pesq stoi sdr pck nds score reward return success r2 top corr spearman pearson mrr ndcg kappa"
    " mcc".split()
)
NEGATED = frozenset("neg negative negated minus".split())
NO_VALUE = frozenset(
    "change changed coef coefficient decay decrease decreased delta diff difference drop dropped factor gain gap"
    " gradient growth improved improvement increase increased inverse inverted ratio reduced reduction scale scaler"
    " std threshold variance weight weights".split()
)
"""Words for how far a metric has moved, or what it is multiplied with: ``acc_drop``, ``loss_scale``."""
_WORD = re.compile(r"[A-Za-z]+\d*")
_SINGLE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # of `valLossDrop` as well


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


@lru_cache(maxsize=1000)
def mode_of(metric: str) -> str:
    """Say which end of a metric is the best by its name: ``min``, ``max``, or nothing where it does not tell.

    ``neg_loss`` may be a loss with its sign turned, of which the highest is the best, or the loss on negatives. Of
    ``acc_drop`` and ``loss_improvement`` the words for the metric tell the wrong end, or none. Where words for both
    ends stand in it (``acc_error``), only a ``dice_loss`` and a ``top1_err`` are clear.
    """
    words = [word.lower() for word in _WORD.findall(metric)]
    single = [word.lower() for word in _SINGLE.findall(metric)]
    if not (NEGATED | NO_VALUE).isdisjoint([*words, *single]):
        return ""
    low, high = [*filter(_is_low, words)], [*filter(_is_high, words)]
    telling = [word for word in words if word in low or word in high]
    if low and (telling[-1].endswith("loss") or all(word.startswith("top") for word in high)):
        return "min"
    return "max" if high and not low else ""


def _is_low(word: str) -> bool:
    return word.endswith(("loss", "error", "inaccuracy")) or not LOW.isdisjoint((word, word.rstrip(digits)))


def _is_high(word: str) -> bool:
    return word.endswith("accuracy") or not HIGH.isdisjoint((word, word.rstrip(digits)))


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


def metrics_of(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield what a name or a sidecar tells: any metric that a name calls so, else what is known to be one."""
    fields = checkpoint.fields
    told = {**checkpoint.metrics, **fields}
    if "metric" in fields and "value" in fields:
        told[fields["metric"]] = fields["value"]
    yield from ((key, text) for key, text in told.items() if mode_of(key) or key == fields.get("metric"))
