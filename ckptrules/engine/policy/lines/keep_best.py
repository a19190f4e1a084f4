"""`keep_best`: keep the best by a metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.policy.judging import Around, Judged, Key, Line, Opinion, kept_by, no, place_of, yes
from ckptrules.engine.ruleset import Best
from ckptrules.engine.shapes import MODE, Either, Keys, ListOf, Number, Text

DIGITS = 6  # of a metric in messages
MANY = 10**DIGITS  # numbers from here on would be written with an exponent


def keep_best(best: Best, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
    """Keep the best by a metric, of this series or of all experiments that ``across`` fits; keep what has no rank."""
    if not best.across:
        return best_of(best, {checkpoint.entry.name: checkpoint for checkpoint in checkpoints})
    note = f"what is not whole or of no experiment '{best.across}' stays, as nobody ranked it"
    ranked, unknown = around.tree.get(best, {}), yes(f"not ranked across '{best.across}'", note)
    return {c.entry.name: ranked.get(c.entry.name, unknown) for c in checkpoints}


def best_of(best: Best, checkpoints: Mapping[Key, Checkpoint]) -> dict[Key, Opinion]:
    """Keep the best by a metric, of equal ones the newer. NaN and infinity are never the best.

    A checkpoint without the metric is kept: nobody knows how good it is.
    """
    texts = {key: metric_of(checkpoint, best.metric) for key, checkpoint in checkpoints.items()}
    rated = [
        (value, checkpoint.age_order, key)
        for key, checkpoint in checkpoints.items()
        if (value := goodness(texts[key], best.mode)) is not None and math.isfinite(value)
    ]
    places = {key: place for place, (_, _, key) in enumerate(sorted(rated, reverse=True), start=1)}
    short = shortened(text for text in texts.values() if text)
    among = f" across '{best.across}'" if best.across else ""

    def opinion_on(name: Key) -> Opinion:
        if as_float(texts[name]) is None:
            lack = f"no {best.metric} in its name or a sidecar"
            return yes(
                lack if texts[name] is None else f"its {best.metric} is no number",
                note=f"a checkpoint that tells no {best.metric} stays, as nobody knows how good it is",
            )
        if name not in places:
            return no(f"{best.metric} is {texts[name]}, never the best")
        what = f"{best.metric} {short[texts[name] or '']} is"
        if places[name] <= best.top:
            return yes(f"{what} best {place_of(places[name], best.top)}{among}")
        return no(f"{what} not of the best {best.top}{among}", best._replace(top=places[name]))

    return {name: opinion_on(name) for name in texts}


def metric_of(checkpoint: Checkpoint, metric: str) -> str | None:
    """Return a metric as text: from the name of the checkpoint, else from its sidecars; None where neither has it.

    In the name it is the group of that name, or the group ``value`` beside a group ``metric`` with that text.
    """
    fields = checkpoint.fields
    by_name = fields.get(metric, fields.get("value") if fields.get("metric") == metric else None)
    return checkpoint.metrics.get(metric) if by_name is None else by_name


def shortened(texts: Iterable[str]) -> dict[str, str]:
    """Map metrics to their texts in messages: six digits, or all of them where two would look the same."""
    rounded = {text: six_digits(text) for text in texts}
    count = Counter(rounded.values())
    return {text: short if count[short] == 1 else text for text, short in rounded.items()}


def six_digits(text: str) -> str:
    """Round a number with a fraction to six digits; return any other text as it is."""
    value = as_float(text)
    is_long = value is not None and "." in text and abs(value) < MANY and sum(map(str.isdigit, text)) > DIGITS
    return f"{value:.{DIGITS}g}" if is_long else text


def goodness(text: str | None, mode: str) -> float | None:
    """Return a metric as a number of which more is better; NaN and infinity are the worst. None if it is no number."""
    value = as_float(text)
    if value is not None and not math.isfinite(value):
        return -math.inf
    return -value if value is not None and mode == "min" else value


def as_float(text: str | None) -> float | None:
    """Return a metric as a number, which may be NaN or infinite; None if it is none, as ``1_000``."""
    try:
        return float(text) if text and text.isascii() and "_" not in text else None
    except ValueError:
        return None


_ONE = Keys(
    "Keep the best by a metric that names carry.",
    {
        "metric": Text("A captured group of that name, or the text of the group 'metric' beside a group 'value'."),
        "mode": MODE,
        "count": Number("Keep so many.", 1),
        "across": Text("Of all experiments together that this shell pattern fits."),
    },
    ("metric", "mode", "count"),
)
SHAPE = Either((_ONE, ListOf("Several metrics, each with its own best.", _ONE, empty=False)))
LINES = (
    Line(
        "keep_best",
        SHAPE,
        keep_best,
        lambda data: Best(data["metric"], data["mode"], data["count"], data.get("across", "")),
        by_tree=lambda best: bool(best.across),
        ranked=kept_by,
        all_or_none=lambda best, _, keeps_all: None if keeps_all or best.across else "",
    ),
)
