"""What rule files say of deletion beyond policies: ``leftovers`` and ``budget``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckptrules.engine import measures
from ckptrules.engine.lines import LINES
from ckptrules.engine.lines.budget import OLDEST
from ckptrules.engine.ruleset import Budget, Bytes, Fault, Leftover, PolicyLine, Rule
from ckptrules.engine.shapes import Either, ListOf, Record, Shape, Text, fault_of
from ckptrules.rules.policies import unknown_metric
from ckptrules.rules.shape import Value


def _pattern_fault(text: str) -> str:
    return "'*' would take every name for a leftover" if not text.strip("*") else ""


_PATTERN = Text("A shell pattern, or several.", _pattern_fault)
_LEFTOVER = Record(
    "What is no checkpoint and goes when it is old, by shell patterns.",
    {
        "match": Either((_PATTERN, ListOf("Several shell patterns.", _PATTERN, empty=False))),
        "after": Text("How old, by the newest time inside: 7d.", fault_of(measures.seconds)),
    },
    ("match", "after"),
)
SHAPES: Mapping[str, Shape] = {
    "leftovers": Either((_LEFTOVER, ListOf("Several, each with its own age.", _LEFTOVER, empty=False))),
    "budget": LINES["budget"].shape,
}


def compile_leftovers(values: Sequence[Value]) -> tuple[Leftover, ...]:
    """Turn checked YAML into one pattern each."""
    rows = [(value.data["match"], value.data["after"].data) for value in values if value.whole]
    return tuple(
        Leftover(one.data, measures.seconds(after), after, one.place) for match, after in rows for one in several(match)
    )


def several(value: Value) -> list[Value]:
    """Return the values of a list, or the one that stands in its place."""
    return value.data if isinstance(value.data, list) else [value]


def compile_budget(
    value: Value | None, rules: Sequence[Rule], faults: list[Fault], *, told_by_files: bool
) -> PolicyLine | None:
    """Turn the limit for the whole tree into a line of every policy; arguments as of `policies.compile_policies`."""
    if value is None or not value.whole:
        return None
    total, order = value.data["total"].data, []
    entries = order_value.data if (order_value := value.get("order")) else []
    for number, entry in enumerate(entries):
        if entry.data == OLDEST:
            if number < len(entries) - 1:
                fact = f"budget: what stands behind '{OLDEST}' is never reached, as every checkpoint has an age"
                faults.append(Fault(entries[number + 1].place, fact))
            break
        metric = entry.data["metric"]
        order.append((metric.data, entry.data["mode"].data))
        if not told_by_files:
            faults += unknown_metric(metric.data, rules, metric.place, "budget")
    return PolicyLine("budget", Budget(Bytes(measures.size(total), total), tuple(order)), value.key_place)
