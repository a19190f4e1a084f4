"""`keep_best`: the best by a metric."""

from __future__ import annotations

from collections.abc import Sequence

from ckptrules.engine.judging import Around, Judged, Line, Opinion, kept_by, no, place_of, yes
from ckptrules.engine.shapes import Choice, Either, ListOf, Number, Record, Text
from ckptrules.engine.values import Best, Checkpoint


def keep_best(best: Best, checkpoints: Sequence[Checkpoint], _: Around) -> Judged:
    """Keep the best by a metric; of equal ones the newer. NaN is never best; what tells no number is kept."""
    texts = {checkpoint.entry.name: metric_of(checkpoint, best.metric) for checkpoint in checkpoints}
    values = {name: as_float(text) for name, text in texts.items()}
    sign = 1 if best.mode == "max" else -1
    rated = [(sign * value, c) for c in checkpoints if (value := values[c.entry.name]) is not None and value == value]  # noqa: PLR0124
    rated.sort(key=lambda pair: (pair[0], pair[1].age_order), reverse=True)
    places = {checkpoint.entry.name: place for place, (_, checkpoint) in enumerate(rated, start=1)}

    def say(name: str) -> Opinion:
        if values[name] is None:
            lack = f"no {best.metric} in its name or a sidecar"
            return yes(
                lack if texts[name] is None else f"its {best.metric} is no number",
                note=f"what tells no {best.metric} stays, since nobody knows how good it is",
            )
        if name not in places:
            return no(f"{best.metric} is nan, never the best")
        what = f"{best.metric} {texts[name]} is"
        if places[name] <= best.top:
            return yes(f"{what} best {place_of(places[name], best.top)}")
        return no(f"{what} not of the best {best.top}", best._replace(top=places[name]))

    return {name: say(name) for name in texts}


def metric_of(checkpoint: Checkpoint, metric: str) -> str | None:
    """Return a metric as its name has it: a group of that name, or the pair of groups ``metric`` and ``value``.

    What a name does not tell, a sidecar may.
    """
    fields = checkpoint.fields
    by_name = fields.get(metric, fields.get("value") if fields.get("metric") == metric else None)
    return checkpoint.metrics.get(metric) if by_name is None else by_name


def as_float(text: str | None) -> float | None:
    """Read a metric; ``nan`` and ``inf`` are numbers too, ``1_000`` is none."""
    try:
        return float(text) if text and text.isascii() and "_" not in text else None
    except ValueError:
        return None


_ONE = Record(
    "Keep the best by a metric that names carry.",
    {
        "metric": Text("A captured group of that name, or the text of the group 'metric' beside a group 'value'."),
        "mode": Choice("Whether the highest is best, or the lowest.", {word: word for word in ("max", "min")}),
        "count": Number("Keep so many.", 1),
    },
    ("metric", "mode", "count"),
)
SHAPE = Either((_ONE, ListOf("Several metrics, each with its own best.", _ONE, empty=False)))
LINES = (
    Line(
        "keep_best",
        SHAPE,
        keep_best,
        lambda said: Best(said["metric"], said["mode"], said["count"]),
        ranked=kept_by,
        all_or_none=lambda _, __, keeps_all: None if keeps_all else "",
    ),
)
