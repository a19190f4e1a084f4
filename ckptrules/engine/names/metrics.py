"""Tell from the name of a metric whether high or low is best, and list the metrics of a checkpoint. Pure."""

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
"""Words for a change or a factor of a metric, instead of its value: ``acc_drop``, ``loss_scale``."""
_WORD = re.compile(r"[A-Za-z]+\d*")
_SINGLE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")  # of `valLossDrop` as well


@lru_cache(maxsize=1000)
def mode_of(metric: str) -> str:
    """Return whether the lowest (``min``) or highest (``max``) value of a metric is best; empty if its name is unclear.

    ``neg_loss`` is unclear: a loss with its sign turned, or the loss on negatives. So are changes and factors:
    ``acc_drop``, ``loss_improvement``. Of names with words for both ends (``acc_error``), only those like ``dice_loss``
    and ``top1_err`` are clear.
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
    """Yield the metrics of a name or its sidecars, as texts: those that `mode_of` knows, and the field ``metric``."""
    fields = checkpoint.fields
    values = {**checkpoint.metrics, **fields}
    if "metric" in fields and "value" in fields:
        values[fields["metric"]] = fields["value"]
    yield from ((key, text) for key, text in values.items() if mode_of(key) or key == fields.get("metric"))
