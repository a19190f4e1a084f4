"""Pure: what the name of a metric tells, which metrics a checkpoint tells, and which end of each is the best."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from string import digits

from ckptrules.engine.checkpoints import Checkpoint

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


def metrics_of(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield what a name or a sidecar tells: any metric that a name calls so, else what is known to be one."""
    fields = checkpoint.fields
    told = {**checkpoint.metrics, **fields}
    if "metric" in fields and "value" in fields:
        told[fields["metric"]] = fields["value"]
    yield from ((key, text) for key, text in told.items() if mode_of(key) or key == fields.get("metric"))
