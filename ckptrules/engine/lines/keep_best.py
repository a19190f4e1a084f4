"""`keep_best`: the best by a metric."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.judging import Around, Judged, Key, Line, Opinion, kept_by, no, place_of, yes
from ckptrules.engine.ruleset import Best
from ckptrules.engine.shapes import MODE, Either, Keys, ListOf, Number, Text

DIGITS = 6  # of a metric, for people
MANY = 10**DIGITS  # from here on a number would be written with an exponent


def keep_best(best: Best, checkpoints: Sequence[Checkpoint], around: Around) -> Judged:
    """Keep the best by a metric, of this directory or of many; what was not ranked among these is kept."""
    if not best.across:
        return best_of(best, {checkpoint.entry.name: checkpoint for checkpoint in checkpoints})
    note = f"what is not whole or of no experiment '{best.across}' stays, as nobody ranked it"
    ranked, unknown = around.tree.get(best, {}), yes(f"not ranked across '{best.across}'", note)
    return {c.entry.name: ranked.get(c.entry.name, unknown) for c in checkpoints}


def best_of(best: Best, checkpoints: Mapping[Key, Checkpoint]) -> dict[Key, Opinion]:
    """Keep the best by a metric; of equal ones the newer. NaN and infinity are never best; what tells none stays."""
    texts = {key: metric_of(checkpoint, best.metric) for key, checkpoint in checkpoints.items()}
    rated = [
        (value, checkpoint.age_order, key)
        for key, checkpoint in checkpoints.items()
        if (value := goodness(texts[key], best.mode)) is not None and math.isfinite(value)
    ]
    places = {key: place for place, (_, _, key) in enumerate(sorted(rated, reverse=True), start=1)}
    short = shortened(text for text in texts.values() if text)
    among = f" across '{best.across}'" if best.across else ""

    def say(name: Key) -> Opinion:
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

    return {name: say(name) for name in texts}


def metric_of(checkpoint: Checkpoint, metric: str) -> str | None:
    """Return a metric as its name has it: a group of that name, or the pair of groups ``metric`` and ``value``.

    What a name does not tell, a sidecar may.
    """
    fields = checkpoint.fields
    by_name = fields.get(metric, fields.get("value") if fields.get("metric") == metric else None)
    return checkpoint.metrics.get(metric) if by_name is None else by_name


def shortened(texts: Iterable[str]) -> dict[str, str]:
    """Map metrics to what people read of them: six digits, but all of them where two would look the same."""
    short = {text: six_digits(text) for text in texts}
    count = Counter(short.values())
    return {text: one if count[one] == 1 else text for text, one in short.items()}


def six_digits(text: str) -> str:
    """Write a number with a fraction in six digits; a text that is none, or is short, stays."""
    value = as_float(text)
    is_long = value is not None and "." in text and abs(value) < MANY and sum(map(str.isdigit, text)) > DIGITS
    return f"{value:.{DIGITS}g}" if is_long else text


def goodness(text: str | None, mode: str) -> float | None:
    """Read a metric so that more is better; what is not finite is the worst. None where it is no number."""
    value = as_float(text)
    if value is not None and not math.isfinite(value):
        return -math.inf
    return -value if value is not None and mode == "min" else value


def as_float(text: str | None) -> float | None:
    """Read a metric; ``nan`` and ``inf`` are numbers too, ``1_000`` is none."""
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
        lambda said: Best(said["metric"], said["mode"], said["count"], said.get("across", "")),
        by_tree=lambda best: bool(best.across),
        ranked=kept_by,
        all_or_none=lambda best, _, keeps_all: None if keeps_all or best.across else "",
    ),
)
