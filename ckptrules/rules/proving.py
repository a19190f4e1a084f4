"""Proves naming rules by their own examples."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.engine.checkpoints import Claim
from ckptrules.engine.naming import CHECKPOINTS, claim, fits, same_text, target_name
from ckptrules.engine.ruleset import Fault, Rule, RuleSet
from ckptrules.engine.templates import TemplateError


def prove(rules: RuleSet) -> Iterator[Fault]:
    """Test every format with its examples and near misses, all of them loaded together; yield what is wrong."""
    for rule in (*rules.targets, *rules.legacy, *rules.formats):
        test = _test_target if rule in rules.targets else _test_format if rule.fields else _test_legacy
        what = rule.called
        for name, place in rule.example_places.items():
            yield from (
                Fault(place, f"{what}: example '{name}' {fact}", hint) for fact, hint in test(name, rule, rules)
            )
        for name, place in rule.near_misses.items():
            if fits(rule, name) is not None:
                yield Fault(place, f"{what}: counterexample '{name}' fits", "make the match narrower")


def _test_target(name: str, _: Rule, rules: RuleSet) -> list[tuple[str, str]]:
    found = claim(name, rules)
    if found.kind in ("protected", "ignored"):
        return [(f"is {found.reason.text}", "")]
    if found.kind != "target":
        what = "target.match" if len(rules.targets) == 1 else "the match of any target"
        return [(f"does not fit {what}", "match must fit the whole name")]
    try:
        target_name(found, rules)
    except TemplateError as error:
        return [(f"is not given back by the template: {error}", "")]
    return []


def _test_legacy(name: str, rule: Rule, rules: RuleSet) -> list[tuple[str, str]]:
    found = claim(name, rules)
    if faults := _taken(name, rule, found):
        return faults
    if name_fault := _test_rename(found, rules):
        return name_fault
    given, _ = target_name(found, rules)
    if given != rule.examples[name]:
        return [(f"becomes '{given}', not '{rule.examples[name]}'", "")]
    return []


def _test_rename(found: Claim, rules: RuleSet) -> list[tuple[str, str]]:
    try:
        given, _ = target_name(found, rules)
    except TemplateError as error:
        return [(f"cannot be renamed: {error}", "")]
    again = claim(given, rules)
    return [] if again.kind == "target" else [(f"becomes '{given}', which is {again.reason.text}", "")]


def _test_format(name: str, rule: Rule, rules: RuleSet) -> list[tuple[str, str]]:
    found = claim(name, rules, folder=None if rule.folder == "any" else rule.folder == "true")
    if found.kind == "protected" and found.rule is rule:
        found = found._replace(kind="format")
    if faults := _taken(name, rule, found):
        return faults
    for field, wanted in rule.fields[name].items():
        read = found.fields.get(field)
        if not (read == wanted or (read is not None and wanted is not None and same_text(read, wanted))):
            shown = "is not captured" if read is None else f"is '{read}'"
            return [(f"reads otherwise: {field} {shown}, not {'null' if wanted is None else repr(wanted)}", "")]
    return _test_rename(found, rules) if found.kind == "legacy" else []


def _taken(name: str, rule: Rule, found: Claim) -> list[tuple[str, str]]:
    """Say where a name goes that does not go to the rule whose example it is."""
    if fits(rule, name) is None:
        return [("does not fit its own match", "match must fit the whole name")]
    if found.kind == "ambiguous":
        return [(f"is ambiguous: {found.reason.text}", "let one file hold both rules, the narrower one first")]
    if found.kind in ("protected", "ignored", "target"):
        return [(f"is {found.reason.text}", "")]
    if found.rule is not rule and found.kind in CHECKPOINTS:
        other = found.rule.id if found.rule else ""
        place = found.reason.place.file_line if found.reason.place else ""
        hint = f"move '{rule.id}' above '{other}', or make '{other}' narrower"
        return [(f"is taken by {found.reason.text} ({place}), which comes first", hint)]
    return []
