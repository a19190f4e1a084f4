"""Proves naming rules by their own examples."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.engine.checkpoints import Claim
from ckptrules.engine.naming import CHECKPOINTS, claim, fits, same_text, target_name
from ckptrules.engine.ruleset import Example, Fault, Rule, RuleSet
from ckptrules.engine.templates import TemplateError

Wrong = tuple[str, str]  # a fact and a hint; the fact is empty where nothing is wrong


def prove(rules: RuleSet) -> Iterator[Fault]:
    """Test every format with its examples and near misses, all of them loaded together; yield what is wrong."""
    for rule in (*rules.targets, *rules.legacy, *rules.formats):
        for name, example in rule.examples.items():
            found = claim(name, rules, folder=rule.folder)
            fact, hint = (
                _test_target(found, rules) if rule in rules.targets else _test(name, example, rule, found, rules)
            )
            if fact:
                yield Fault(example.place, f"{rule.called}: example '{name}' {fact}", hint)
        for name, place in rule.near_misses.items():
            if fits(rule, name) is not None:
                yield Fault(place, f"{rule.called}: counterexample '{name}' fits", "make the match narrower")


def _test_target(found: Claim, rules: RuleSet) -> Wrong:
    if found.kind in ("protected", "ignored"):
        return f"is {found.reason.text}", ""
    if found.kind != "target":
        what = "target.match" if len(rules.targets) == 1 else "the match of any target"
        return f"does not fit {what}", "match must fit the whole name"
    try:
        target_name(found, rules)
    except TemplateError as error:
        return f"is not given back by the template: {error}", ""
    return "", ""


def _test(name: str, example: Example, rule: Rule, found: Claim, rules: RuleSet) -> Wrong:
    is_read = example.fields and found.kind == "protected" and found.rule is rule
    if not is_read and (taken := _taken(name, rule, found)):
        return taken
    for field, wanted in example.fields.items():
        read = found.fields.get(field)
        if not (read == wanted or (read is not None and wanted is not None and same_text(read, wanted))):
            shown = "is not captured" if read is None else f"is '{read}'"
            return f"reads otherwise: {field} {shown}, not {'null' if wanted is None else repr(wanted)}", ""
    if found.kind != "legacy":
        return "", ""
    try:
        given, _ = target_name(found, rules)
    except TemplateError as error:
        return f"cannot be renamed: {error}", ""
    again = claim(given, rules)
    if again.kind != "target":
        return f"becomes '{given}', which is {again.reason.text}", ""
    return f"becomes '{given}', not '{example.becomes}'" if example.becomes not in ("", given) else "", ""


def _taken(name: str, rule: Rule, found: Claim) -> Wrong | None:
    """Say where a name goes that does not go to the rule whose example it is."""
    if fits(rule, name) is None:
        return "does not fit its own match", "match must fit the whole name"
    if found.kind == "ambiguous":
        return f"is ambiguous: {found.reason.text}", "let one file hold both rules, the narrower one first"
    if found.kind in ("protected", "ignored", "target"):
        return f"is {found.reason.text}", ""
    if found.rule is not rule and found.kind in CHECKPOINTS:
        other = found.rule.id if found.rule else ""
        place = found.reason.place.file_line if found.reason.place else ""
        hint = f"move '{rule.id}' above '{other}', or make '{other}' narrower"
        return f"is taken by {found.reason.text} ({place}), which comes first", hint
    return None
