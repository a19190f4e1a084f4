"""Pure: what the packs of a directory say of a name, and the rules that they and the user make together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from ckptrules.engine.checkpoints import Claim, numbers_told
from ckptrules.engine.ruleset import Complete, Pack, Reason, Rule, RuleSet

PACKS_DIFFER = "the packs "
UNDECIDED = "undecided"  # in place of the id of a format
Said = Sequence[tuple[Pack, Claim]]


def claim_of_packs(said: Said) -> Claim | None:
    """Decide what several packs say of a name; None where none says anything.

    What one protects or ignores and another claims is left untouched, and what two read otherwise is nothing but a
    number: in both cases a line in the rules decides, and the reason says which. Where they read the same, the stricter
    holds: the one with parts, then the one that says what is complete. Packs that know nothing of it are left out.
    """
    if not said:
        return None
    if len({one.kind for _, one in said}) > 1 and {"format", "ambiguous"} & {one.kind for _, one in said}:
        return _ambiguous("claim it otherwise", said)
    if len(said) == 1 or said[0][1].kind != "format":
        protected = [one for _, one in said if one.kind == "protected"]
        return max(protected, key=_strictness) if protected else min(said, key=_as_all_packs_do)[1]
    agreed = agreed_fields(one.fields for _, one in said)
    if agreed is None:
        return _ambiguous("read it otherwise", said)
    agreeing = [one for _, one in said if numbers_told(one.fields) == agreed]
    if agreeing and all(agreed.items() <= numbers_told(one.fields).items() for _, one in said):
        return max(agreeing, key=_strictness)
    if any(one.rule and one.rule.has_parts for _, one in said):
        return _ambiguous("count it otherwise", said)
    reason, fields = _undecided("count it otherwise", said), {key: str(n) for key, n in agreed.items()}
    if runs := {one.fields["run"] for _, one in said if one.fields.get("run")}:
        fields["run"] = " ".join(sorted(runs))  # what one of them calls two runs is never compared
    return Claim("format", reason, _rule_of_all([one.rule for _, one in said if one.rule]), fields)


def is_undecided(rule: Rule | None) -> bool:
    """Say whether packs count a name otherwise, so that it has only the number on which they agree."""
    return rule is not None and rule.id == UNDECIDED


def _rule_of_all(rules: Sequence[Rule]) -> Rule:
    """Return what holds whichever of some formats it is: without anything that one of them asks for, none is whole."""
    asked = [rule.complete for rule in rules if rule.complete]
    patterns = tuple(dict.fromkeys(pattern for one in asked for pattern in (*one.any, *one.all)))
    complete = Complete(patterns, (), asked[0].place) if len(asked) == len(rules) else None
    return Rule(UNDECIDED, re.compile(""), "", rules[0].place, complete=complete)


def may_rename(said: Said) -> bool:
    """Say whether packs let a name be renamed that a format of one of them knows: all know it, and none keeps it."""
    decided = claim_of_packs(said)
    keeps = any(one.kind != "format" or (one.rule and one.rule.keep_name) for _, one in said)
    return decided is not None and decided.rule is not None and not is_undecided(decided.rule) and not keeps


def agreed_fields(readings: Iterable[Mapping[str, str]]) -> dict[str, int] | None:
    """Return the numbers on which readings of one name agree; None where they agree on nothing.

    Where only the unit differs, that is a ``number``.
    """
    found = [numbers_told(fields) for fields in readings]
    common = set.intersection(*(set(one) for one in found))
    if any(one[key] != found[0][key] for one in found for key in common):
        return None
    if common or not any(found):
        return {key: value for key, value in found[0].items() if key in common}
    values = {tuple(one.values()) for one in found}
    return {"number": next(iter(found[0].values()))} if len(values) == 1 and len(found[0]) == 1 else None


def _ambiguous(how: str, said: Said) -> Claim:
    """Leave a name alone, and with it the checkpoint that it would be a part of."""
    part = next((one for _, one in said if one.rule and one.rule.has_parts), None)
    return Claim("ambiguous", _undecided(how, said), part and part.rule, part.fields if part else {})


def _as_all_packs_do(said: tuple[Pack, Claim]) -> bool:
    """Say whether a pack knows a name only as a usual tracker: those stand where its first format does."""
    pack, one = said
    return one.reason.place in [rule.place for rule in pack.rules.formats[:1]]


def _strictness(said: Claim) -> tuple[bool, bool, bool, int]:
    rule = said.rule
    if rule is None:
        return False, False, False, 0
    return rule.has_parts, rule.complete is not None, bool(rule.keep_name), len(said.fields)


def _undecided(what: str, said: Said) -> Reason:
    names = [pack.name for pack, _ in said]
    lines = " or ".join(f"packs: [{name}]" for name in names)
    return Reason(f"{PACKS_DIFFER}{' and '.join(names)} {what}; {lines} decides", said[0][1].reason.place)


def with_packs(rules: RuleSet, picked: Sequence[Pack]) -> RuleSet:
    """Join the packs that were picked for a directory to the rules of the user."""
    if not rules.packs:
        return rules
    joined = _joined(rules, tuple(pack.name for pack in picked))
    return joined._replace(packs=tuple(picked))


@lru_cache(maxsize=64)
def _joined(rules: RuleSet, names: tuple[str, ...]) -> RuleSet:
    packs = [pack for pack in rules.packs if pack.name in names]
    others = {pack.file for pack in rules.packs if pack.name not in names}
    rules = rules._replace(legacy=tuple(rule for rule in rules.legacy if rule.place.file not in others))
    every = [rules, *(pack.rules for pack in packs)]
    return rules._replace(
        protected=tuple(pattern for one in every for pattern in one.protected),
        sidecars=tuple(dict.fromkeys(text for one in every for text in one.sidecars)),
        pointers=tuple(pattern for one in every for pattern in one.pointers),
        facts=tuple(fact for one in every for fact in one.facts),
        unfinished=tuple(ending for one in every for ending in one.unfinished),
        leftovers=tuple(leftover for one in every for leftover in one.leftovers),
        formats=tuple(rule for one in every for rule in one.formats),
        special="|".join(f"(?:{one.special})" for one in every),
        naming_digest=f"{rules.naming_digest} {' '.join(names)}",
        packs=tuple(packs),
        user=rules._replace(packs=()),
    )
