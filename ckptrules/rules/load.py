"""``rules/*.yaml`` → a checked, compiled, self-tested `RuleSet`; the JSON Schema for editors."""

from __future__ import annotations

import fnmatch
import hashlib
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckptrules.engine.naming import SlowRuleError, TemplateError, claim, fits, target_name, template_variables
from ckptrules.engine.shapes import ListOf, MapOf, Number, Record, Text
from ckptrules.engine.values import STATE, Fault, Location, Pattern, Rule, RuleError, RuleSet
from ckptrules.rules import knowledge, policies
from ckptrules.rules.shape import Value, closest, read_yaml
from ckptrules.rules.shipped import says_outputs_dir

DEFAULT_TRASH_DAYS = 7
TARGET_ID = "target"
VariablesOf = Callable[[str], Sequence[str]]  # of a template
MAX_PIECES = 20_000  # of a pattern, some 300 bytes each: what is repeated is written out by regex
_BRACE = re.compile(r"(?<!\\)(?:\\\\)*\{(?![0-9]+(?:,[0-9]*)?\}|,[0-9]+\})")  # to regex, a{e} is an a with faults
_REPEAT = re.compile(r"([)\s]?)\{([0-9]+)")  # what a repeat behind anything else repeats is one character
SLOW_HINT = "make the pattern simpler: nested or alternative repetitions backtrack"


def _layout_fault(text: str) -> str:
    parts = text.split("/")
    if text == "**":
        return "'**' would take outputs_dir itself for a checkpoint directory; '**/checkpoints' says which ones"
    if text.startswith("/") or {"..", ".", ""} & set(parts):
        return f"'{text}' must be a path below outputs_dir, without '..' or empty parts"
    if STATE in parts:
        return f"'{text}' must not lead into '{STATE}', where the trash is"
    return ""


def _ending_fault(text: str) -> str:
    return f"'{text}' must be the end of a name, without '/'" if "/" in text else ""


def _suffix_fault(text: str) -> str:
    good = text.startswith(".") and len(text) > 1 and "/" not in text
    return "" if good else f"'{text}' must be a suffix like .metadata.json"


_TEMPLATE = Text("Jinja2 template of the new name; variables are captured groups, filters: pad(n), int, lower, upper.")
_MATCH = Text("Python regular expression, matched against the WHOLE name; (?P<epoch>\\d+) captures a field.")
SHAPE = Record(
    "Rules of ckptrules. Every *.yaml file of the folder is read; the keys may stand in any of them.",
    {
        "outputs_dir": Text("Folder that holds the experiments, from the current one; the option overrides it."),
        "layout": ListOf(
            "Where checkpoint directories lie below outputs_dir: * ? [a-z] and ** are known.",
            Text("e.g. */checkpoints", _layout_fault),
            empty=False,
        ),
        "target": Record(
            "The naming format that all checkpoints should have.",
            {
                "template": _TEMPLATE,
                "match": _MATCH,
                "examples": ListOf(
                    "Names in this format; tested before they are used.", Text("a file name"), empty=False
                ),
            },
            ("template", "match", "examples"),
        ),
        "protected": ListOf("Shell patterns; what they fit is never renamed, never deleted.", Text("a shell pattern")),
        "ignored": ListOf("Shell patterns; what they fit is no checkpoint.", Text("a shell pattern")),
        "sidecars": ListOf(
            "Suffixes of what belongs to a checkpoint: with .metadata.json, X.metadata.json goes with X.ckpt.",
            Text("e.g. .metadata.json", _suffix_fault),
        ),
        **knowledge.SHAPES,
        "unfinished": ListOf(
            "Endings of markers: X is not whole while X and such an ending, or X.ckpt and it, stands beside X.ckpt.",
            Text("e.g. -unfinished", _ending_fault),
        ),
        "legacy": ListOf(
            "Old naming formats; the first rule that fits the whole name wins.",
            Record(
                "One old naming format.",
                {
                    "id": Text("A short name for messages."),
                    "match": _MATCH,
                    "template": _TEMPLATE,
                    "examples": MapOf("Old name: new name; tested before they are used.", Text("the new name")),
                },
                ("id", "match", "examples"),
            ),
        ),
        **policies.SHAPES,
        "settle": Number("Seconds that a checkpoint must be unchanged before it is touched; 0 = none.", 0),
        "trash_days": Number("Days that deleted checkpoints wait in the trash; 0 = none, they are gone at once.", 0),
    },
)
_LISTS = ("layout", "protected", "ignored", "sidecars", "pointers", "unfinished", "legacy")


def load_rules(texts: Mapping[str, str], *, proved: bool = False) -> RuleSet:
    """Compile the rules and test them with their own examples.

    Args:
        texts: the content of each rule file by the name that messages should show.
        proved: whether this was done before with these very texts, so that templates and examples are not tested again.

    Raises:
        RuleError: with everything that is wrong, each with file, line and column.
    """
    faults: list[Fault] = []
    merged = _merge([_read(text, file, faults) for file, text in sorted(texts.items())], faults)
    first = Location(min(texts, default="rules"), 1, 1)
    if not faults:
        faults += [Fault(first, f"no rule file has '{key}'") for key in ("layout", "target") if key not in merged]
    if (said := merged.get("outputs_dir")) and not says_outputs_dir(texts):
        faults.append(Fault(said.key_place or said.place, "write outputs_dir without escapes"))
    rules = _compile(merged, sorted(texts), faults, _no_variables if proved else template_variables)
    if rules is None or faults:
        raise RuleError(faults)
    if proved:
        return rules
    try:
        failed = self_test(rules)
    except SlowRuleError as slow:
        what = "target" if slow.rule is rules.target else f"legacy rule '{slow.rule.id}'"
        failed = [Fault(slow.rule.place, f"{what} needs too long for '{slow.name}'", SLOW_HINT)]
    if failed:
        raise RuleError(failed)
    return rules


def outputs_dir_of(texts: Mapping[str, str]) -> str | None:
    """Return the ``outputs_dir`` of rule files, before anything else of them is believed.

    Raises:
        RuleError: a file is broken, or two have one.
    """
    faults: list[Fault] = []
    merged = _merge([_read(text, file, faults) for file, text in sorted(texts.items())], faults)
    if faults:
        raise RuleError(faults)
    return merged["outputs_dir"].data if "outputs_dir" in merged else None


def self_test(rules: RuleSet) -> list[Fault]:
    """Test every rule with its examples, all rules loaded together. Empty means: the rules are sound."""
    faults = [
        Fault(rules.target.example_places[name], f"target: example '{name}' {fact}", hint)
        for name in rules.target.examples
        for fact, hint in _test_target_example(name, rules)
    ]
    faults += [
        Fault(rule.example_places[name], f"legacy rule '{rule.id}': example '{name}' {fact}", hint)
        for rule in rules.legacy
        for name, wanted in rule.examples.items()
        for fact, hint in _test_legacy_example(name, wanted, rule, rules)
    ]
    return faults + policies.prove_examples(rules)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft-07) of a rule file, for completion and checks in editors."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ckptrules rule file",
        **SHAPE.schema(),
    }


def _read(text: str, file: str, faults: list[Fault]) -> Value:
    return read_yaml(text, file, SHAPE, faults) or Value({}, Location(file, 1, 1))


def _merge(files: Sequence[Value], faults: list[Fault]) -> dict[str, Any]:
    """Join the files: lists and policies add up, everything else may stand in one file only."""
    merged: dict[str, Any] = {}
    for file in files:
        for key, value in file.items():
            if key == "retention":
                by_name = merged.setdefault(key, {})
                for name, policy in value.items():
                    _claim_name(by_name, name, policy, f"retention policy '{name}'", faults)
            elif key in _LISTS and key != "layout":
                merged.setdefault(key, []).extend(value.data)
            else:
                _claim_name(merged, key, value, f"'{key}'", faults)
    return merged


def _claim_name(taken: dict[str, Any], name: str, value: Value, what: str, faults: list[Fault]) -> None:
    if name in taken:
        first = taken[name].key_place
        faults.append(Fault(value.key_place or value.place, f"{what} stands in {first.file_line} already"))
    else:
        taken[name] = value


def _compile(
    merged: Mapping[str, Any], files: Sequence[str], faults: list[Fault], variables_of: VariablesOf
) -> RuleSet | None:
    target = _compile_target(merged["target"], faults, variables_of) if "target" in merged else None
    legacy = [_compile_legacy(value, target, faults, variables_of) for value in merged.get("legacy", [])]
    ids: dict[str, Location] = {}
    for rule in filter(None, legacy):
        if rule.id in ids:
            faults.append(Fault(rule.place, f"legacy rule '{rule.id}' stands in {ids[rule.id].file_line} already"))
        ids.setdefault(rule.id, rule.place)
    naming = [rule for rule in (target, *legacy) if rule]
    sidecars = tuple(value.data for value in merged.get("sidecars", []))
    by_name = policies.compile_policies(merged.get("retention", {}), naming, sidecars, faults)
    experiments = policies.compile_experiments(merged.get("experiments"), by_name, faults)
    max_delete = policies.compile_max_delete(merged.get("max_delete"), faults)
    if target is None or "layout" not in merged or faults:
        return None
    rules = RuleSet(
        files=tuple(files),
        layout=tuple(value.data for value in merged["layout"].data),
        target=target,
        protected=_compile_patterns(merged.get("protected", [])),
        ignored=_compile_patterns(merged.get("ignored", [])),
        legacy=tuple(rule for rule in legacy if rule),
        sidecars=sidecars,
        policies=by_name,
        trash_days=merged["trash_days"].data if "trash_days" in merged else DEFAULT_TRASH_DAYS,
        settle=merged["settle"].data if "settle" in merged else 0,
        naming_digest="",
        experiments=experiments,
        max_delete=max_delete,
        pointers=knowledge.compile_pointers(merged.get("pointers", [])),
        unfinished=_compile_patterns(merged.get("unfinished", [])),
        special=_special(merged),
        outputs_dir=merged["outputs_dir"].data if "outputs_dir" in merged else None,
    )
    return rules._replace(naming_digest=_naming_digest(rules))


def _no_variables(_: str) -> list[str]:
    return []


def _compile_target(value: Value, faults: list[Fault], variables_of: VariablesOf) -> Rule | None:
    examples = value.get("examples")
    places = {example.data: example.place for example in examples.data} if examples else {}
    same = {name: name for name in places}
    return _compile_rule(TARGET_ID, "target", value, value.get("template"), places, same, faults, variables_of)


def _compile_legacy(value: Value, target: Rule | None, faults: list[Fault], variables_of: VariablesOf) -> Rule | None:
    identity, examples = value.get("id"), value.get("examples")
    if identity is None or examples is None:
        return None
    places = {name: example.key_place or example.place for name, example in examples.items()}
    wanted = {name: example.data for name, example in examples.items()}
    template = value.get("template") or (Value(target.template, value.place) if target else None)
    what = f"legacy rule '{identity.data}'"
    return _compile_rule(identity.data, what, value, template, places, wanted, faults, variables_of)


def _compile_rule(
    identity: str,
    what: str,
    value: Value,
    template: Value | None,
    places: Mapping[str, Location],
    examples: Mapping[str, str],
    faults: list[Fault],
    variables_of: VariablesOf,
) -> Rule | None:
    pattern = value.get("match")
    if pattern is None or template is None:
        return None
    try:
        match = _compile_match(pattern.data)
    except (re.error, RecursionError, OverflowError, ValueError, FutureWarning) as error:
        offset = getattr(error, "pos", None)
        column = pattern.place.column + (0 if offset is None else offset + pattern.quoted)
        place = pattern.place._replace(column=column)
        faults.append(Fault(place, f"{what}: not a regular expression: {getattr(error, 'msg', error)}"))
        return None
    try:
        variables = variables_of(template.data)
    except TemplateError as error:
        faults.append(Fault(template.place, f"{what}: {error}", error.hint))
        return None
    for variable in variables:
        if variable not in match.groupindex:
            captures = ", ".join(sorted(match.groupindex)) or "nothing"
            fact = f"{what}: template uses '{variable}', but match captures: {captures}"
            place = template.place if "template" in value.data else pattern.place
            faults.append(Fault(place, fact, closest(variable, match.groupindex)))
    return Rule(identity, match, template.data, value.place, examples, places)


def _compile_match(pattern: str) -> re.Pattern[str]:
    """Compile what Python and the library ``regex``, which matches it later, understand in one way.

    Raises:
        re.error, RecursionError, OverflowError, ValueError, FutureWarning: it is no such pattern.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of what sets may mean one day; to regex they mean it now
        match = re.compile(pattern, re.ASCII)
    if brace := _BRACE.search(pattern):
        raise re.error("'{' is no count here: write \\{", pattern, brace.end() - 1)
    repeats = _REPEAT.findall(pattern)
    once = sum(int(count) for group, count in repeats if not group)
    groups = math.prod(int(count) or 1 for group, count in repeats if group)
    if (len(pattern) + once) * groups > MAX_PIECES:
        raise ValueError("it is too long, or repeats too often")
    return match


def _compile_patterns(values: Sequence[Value]) -> tuple[Pattern, ...]:
    return tuple(Pattern(value.data, value.place) for value in values)


def _special(merged: Mapping[str, Any]) -> re.Pattern[str]:
    """Compile one expression for all shell patterns and endings: most names fit none, and are told so by one look."""
    shells = [value.data for key in ("protected", "ignored") for value in merged.get(key, [])]
    shells += map(knowledge.pointer_pattern, merged.get("pointers", []))
    endings = [f"(?s:.*{re.escape(value.data)})\\Z" for value in merged.get("unfinished", [])]
    return re.compile("|".join([*map(fnmatch.translate, shells), *endings]) or r"(?!)")


def _naming_digest(rules: RuleSet) -> str:
    """Digest what decides about names; places and examples change no decision."""
    parts = (
        rules.layout,
        [(rule.id, rule.match.pattern, rule.template) for rule in (rules.target, *rules.legacy)],
        [pattern.text for pattern in rules.protected],
        [pattern.text for pattern in rules.ignored],
        [(pattern.text, pattern.protects) for pattern in rules.pointers],
        [pattern.text for pattern in rules.unfinished],
        rules.sidecars,
    )
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _test_target_example(name: str, rules: RuleSet) -> list[tuple[str, str]]:
    found = claim(name, rules)
    if found.kind in ("protected", "ignored"):
        return [(f"is {found.reason.text}", "")]
    if found.kind != "target":
        return [("does not fit target.match", "match must fit the whole name")]
    try:
        target_name(found, rules)
    except TemplateError as error:
        return [(f"is not given back by the template: {error}", "")]
    return []


def _test_legacy_example(name: str, wanted: str, rule: Rule, rules: RuleSet) -> list[tuple[str, str]]:
    if fits(rule, name) is None:
        return [("does not fit its own match", "match must fit the whole name")]
    found = claim(name, rules)
    if found.kind == "ambiguous":
        return [(f"is ambiguous: {found.reason.text}", "let one file hold both rules, the narrower one first")]
    if found.kind in ("protected", "ignored", "target"):
        return [(f"is {found.reason.text}", "")]
    if found.rule is not rule:
        other = found.rule.id if found.rule else ""
        place = found.reason.place.file_line if found.reason.place else ""
        hint = f"move '{rule.id}' above '{other}', or make '{other}' narrower"
        return [(f"is taken by legacy rule '{other}' ({place}), which comes first", hint)]
    try:
        name_given, _ = target_name(found, rules)
    except TemplateError as error:
        return [(f"cannot be renamed: {error}", "")]
    if name_given != wanted:
        return [(f"becomes '{name_given}', not '{wanted}'", "")]
    again = claim(name_given, rules)
    if again.kind != "target":
        return [(f"becomes '{name_given}', which is {again.reason.text}", "")]
    return []
