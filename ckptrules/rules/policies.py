"""Compiles policies, leftovers and limits of rule files. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from ckptrules.engine import measures
from ckptrules.engine.entries import Entry, EntryKind
from ckptrules.engine.measures import NS
from ckptrules.engine.names.naming import captures
from ckptrules.engine.policy.lines import IN_POLICIES, LINES
from ckptrules.engine.policy.lines.budget import OLDEST
from ckptrules.engine.ruleset import (
    Assignment,
    Budget,
    Bytes,
    Fault,
    Leftover,
    Location,
    MaxDelete,
    Pattern,
    Policy,
    PolicyExample,
    PolicyLine,
    Rule,
)
from ckptrules.engine.shapes import TRUTH, Choice, Either, Keys, ListOf, MapOf, Number, Shape, Text, fault_of
from ckptrules.engine.spelling import closest, one_of
from ckptrules.rules.shape import Value, name_fault

EXAMPLE_NOW_NS = 2_000_000_000 * NS  # any time will do, as examples have ages


def _pattern_fault(text: str) -> str:
    return "'*' would take every name for a leftover" if not text.strip("*") else name_fault(text)


_EXAMPLES = ListOf(
    "Directories and what the policy keeps of them; tested before it is used.",
    Keys(
        "A directory, and what is kept of it.",
        {
            "given": ListOf(
                "NAME, NAME SIZE AGE (as 30GB, 5d), FOLDER/, or LINK -> NAME.", Text("a file name"), empty=False
            ),
            "kept": ListOf("The names that stay.", Text("a file name")),
        },
        ("given", "kept"),
    ),
    empty=False,
)
POLICY = Keys(
    "What keeps a checkpoint: any line is enough.",
    {
        **{line.key: line.shape for line in IN_POLICIES.values()},
        "keep_at_least": Number("Never let fewer checkpoints than this remain in an experiment (default 1).", 0),
        "per": ListOf(
            "Captured groups: the policy is applied to each set of checkpoints that agree in them.",
            Text("a captured group"),
            empty=False,
        ),
        "allow_empty": Choice("true lets keep_at_least be 0.", TRUTH),
        "examples": _EXAMPLES,
    },
)
_PATTERN = Text("A shell pattern, or several.", _pattern_fault)
_LEFTOVER = Keys(
    "Names that are no checkpoints, and go when they are old.",
    {
        "match": Either((_PATTERN, ListOf("Several shell patterns.", _PATTERN, empty=False))),
        "after": Text("How old, by the newest time inside: 7d.", fault_of(measures.seconds)),
    },
    ("match", "after"),
)
SHAPES: Mapping[str, Shape] = {
    "retention": MapOf("Policies by name: what stays. policy=NAME picks one, or else 'default' holds.", POLICY),
    "experiments": ListOf(
        "Which experiments have a policy of their own; the first pattern that fits the name decides.",
        Keys(
            "A pattern and a policy.",
            {"match": Text("A shell pattern for names of experiments."), "policy": Text("A name in retention.")},
            ("match", "policy"),
        ),
    ),
    "max_delete": Keys(
        "The most that one run may delete; a run that would delete more is refused.",
        {"count": Number("The most checkpoints.", 1), "percent": Number("The most of a hundred checkpoints.", 1, 100)},
    ),
    "leftovers": Either((_LEFTOVER, ListOf("Several, each with its own age.", _LEFTOVER, empty=False))),
    "budget": LINES["budget"].shape,
}


# --- compiling --------------------------------------------------------------------------------------------------------


def compile_policies(
    values: Mapping[str, Value], rules: Sequence[Rule], faults: list[Fault], *, metrics_in_files: bool
) -> dict[str, Policy]:
    """Compile policies. The metrics that ``rules`` capture are known; with ``metrics_in_files``, any may be."""
    policies = {}
    for name, value in values.items():
        policy = policies[name] = _compile_policy(name, value, faults)
        for group in per.data if (per := value.get("per")) else ():
            faults += _uncaptured(group.data, rules, group.place, f"retention policy '{name}': per")
        faults += _useless_lines(policy)
        for line in policy.lines:
            if line.key == "keep_best" and not metrics_in_files:
                what = f"retention policy '{name}': keep_best"
                faults += unknown_metric(line.value.metric, rules, line.place or policy.place, what)
    return policies


def compile_experiments(
    value: Value | None, policies: Mapping[str, Policy], faults: list[Fault]
) -> tuple[Assignment, ...]:
    """Compile the list of experiments with a policy; each row must name a policy, and be reached."""
    chosen: list[Assignment] = []
    for item in value.data if value else ():
        match, policy = item.data["match"], item.data["policy"]
        if policy.data not in policies:
            fact = f"experiments: no policy '{policy.data}'"
            faults.append(Fault(policy.place, fact, one_of(policy.data, policies)))
        pattern = Pattern(match.data, match.place)
        if first := next((c.pattern for c in chosen if _covers(c.pattern, pattern)), None):
            fact = f"experiments: '{pattern.text}' is never reached"
            faults.append(
                Fault(match.place, f"{fact}, as '{first.text}' ({first.place.file_line}) takes all that it fits")
            )
        chosen.append(Assignment(pattern, policy.data))
    return tuple(chosen)


def compile_max_delete(value: Value | None, faults: list[Fault]) -> MaxDelete | None:
    """Compile the limit for one run."""
    if value is None:
        return None
    if not value.given:
        faults.append(Fault(value.place, "max_delete says neither 'count' nor 'percent'"))
    numbers = {key: number.data for key, number in value.items()}
    return MaxDelete(numbers.get("count"), numbers.get("percent"), value.key_place or value.place)


def compile_leftovers(values: Sequence[Value]) -> tuple[Leftover, ...]:
    """Compile leftovers, one for each pattern."""
    rows = [(value.data["match"], value.data["after"].data) for value in values if value.whole]
    return tuple(
        Leftover(one.data, measures.seconds(after), after, one.place) for match, after in rows for one in match.several
    )


def compile_budget(
    value: Value | None, rules: Sequence[Rule], faults: list[Fault], *, metrics_in_files: bool
) -> PolicyLine | None:
    """Compile the limit for the whole tree; arguments as for `compile_policies`."""
    if value is None or not value.whole:
        return None
    total, order = value.data["total"].data, []
    entries = order_value.data if (order_value := value.get("order")) else []
    by_age = not entries or any(entry.data == OLDEST for entry in entries)
    for number, entry in enumerate(entries):
        if entry.data == OLDEST:
            if number < len(entries) - 1:
                fact = f"budget: what stands behind '{OLDEST}' is never reached, as every checkpoint has an age"
                faults.append(Fault(entries[number + 1].place, fact))
            break
        metric = entry.data["metric"]
        order.append((metric.data, entry.data["mode"].data))
        if not metrics_in_files:
            faults += unknown_metric(metric.data, rules, metric.place, "budget")
    return PolicyLine("budget", Budget(Bytes(measures.size(total), total), tuple(order), by_age), value.key_place)


def _compile_policy(name: str, value: Value, faults: list[Fault]) -> Policy:
    place = value.key_place or value.place
    lines = tuple(line for key, one in value.items() if key in IN_POLICIES for line in _lines(key, one))
    if not value.given & set(IN_POLICIES) and value.given <= set(value.data):  # else a key may be mistyped
        hint = f"add one of: {', '.join(IN_POLICIES)}"
        faults.append(Fault(place, f"retention policy '{name}' has no line that keeps anything", hint))
    at_least = value.get("keep_at_least")
    faults += _floor_faults(name, at_least, value.get("allow_empty"))
    floor_place = at_least.key_place if at_least else None
    examples = value.get("examples")
    return Policy(
        name,
        lines,
        keep_at_least=at_least.data if at_least else 1,
        place=place,
        floor_place=floor_place or place,
        examples=tuple(_compile_example(example) for example in examples.data) if examples else (),
        per=tuple(dict.fromkeys(group.data for group in per.data)) if (per := value.get("per")) else (),
    )


def _lines(key: str, value: Value) -> Iterator[PolicyLine]:
    """Compile a line, or each line of a list."""
    several = isinstance(value.data, list)
    for one in value.data if several else [value] * value.whole:
        data = {name: part.data for name, part in one.items()} if isinstance(one.data, dict) else one.data
        yield PolicyLine(key, LINES[key].read(data), one.place if several else one.key_place)


def _floor_faults(name: str, at_least: Value | None, allow_empty: Value | None) -> Iterator[Fault]:
    empty = at_least is not None and at_least.data == 0
    if at_least and empty and not (allow_empty and allow_empty.data):
        fact = f"retention policy '{name}': keep_at_least: 0 lets an experiment lose its last checkpoint"
        yield Fault(at_least.place, fact, "put 'allow_empty: true' beside it if that is meant")
    if allow_empty and allow_empty.data and not empty:
        fact = f"retention policy '{name}': allow_empty: true is useless without keep_at_least: 0"
        yield Fault(allow_empty.key_place or allow_empty.place, fact)


def _useless_lines(policy: Policy) -> Iterator[Fault]:
    """Yield faults of lines that another line makes useless: their author expects something else of the policy."""
    strong = next((line for line in policy.lines if LINES[line.key].keeps_all == line.value), None)
    for line in policy.lines:
        what = f"retention policy '{policy.name}': '{line}' is useless"
        place = line.place or policy.place
        if strong and line is not strong:
            where = strong.place.line if strong.place else ""
            yield Fault(place, f"{what}, as '{strong}' (line {where}) keeps every checkpoint")
        elif (line.key, line.value) == ("keep", "protected") and len(policy.lines) > 1:
            yield Fault(place, f"{what} beside other lines, as what is protected stays in any case")


def unknown_metric(metric: str, rules: Sequence[Rule], place: Location, what: str) -> Iterator[Fault]:
    """Yield the fault of a metric that no name can have."""
    if not any({"metric", "value"} <= set(captures(rule)) or "metrics" in captures(rule) for rule in rules):
        yield from _uncaptured(metric, rules, place, what)


def _uncaptured(group: str, rules: Sequence[Rule], place: Location, what: str) -> Iterator[Fault]:
    groups = sorted({group for rule in rules for group in captures(rule)})
    if group not in groups:
        hint = closest(group, groups) or f"the rules of naming capture: {', '.join(groups) or 'nothing'}"
        yield Fault(place, f"{what}: no rule captures '{group}'", hint)


def _covers(first: Pattern, later: Pattern) -> bool:
    """Say whether the first pattern surely fits all that the later one fits."""
    return not set("?[") & set(first.text) and fnmatchcase(later.text, first.text)


# --- examples ---------------------------------------------------------------------------------------------------------


def _compile_example(value: Value) -> PolicyExample:
    entries = [(_given(item.data), item.place) for item in value.data["given"].data]
    places = {entry.name: place for entry, place in entries}
    names = {item.data.rstrip("/"): item.place for item in value.data["kept"].data}
    return PolicyExample(tuple(entry for entry, _ in entries), frozenset(names), {**places, **names}, value.place)


def _given(text: str) -> Entry:
    """Read ``NAME``, ``NAME 30GB 5d``, ``FOLDER/`` or ``LINK -> NAME``."""
    name, arrow, to = text.partition(" -> ")
    if arrow:
        return Entry(name, "link", 0, EXAMPLE_NOW_NS, to, to)
    size, age = 1, 0
    for word in reversed(text.split(" ")):
        try:
            if word[-1:] == "B":
                size = measures.size(word)
            else:
                age = measures.seconds(word)
        except ValueError:
            break
        text = text[: -len(word)].rstrip(" ")
    kind: EntryKind = "directory" if text.endswith("/") else "file"
    return Entry(text.rstrip("/"), kind, size, EXAMPLE_NOW_NS - age * NS)
