"""Join the packs of a directory with the rules of the user, and decide what several packs say of a name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ckptrules.engine.checkpoints import Claim, numbers_told
from ckptrules.engine.ruleset import Complete, Pack, Reason, Rule, RuleSet

PACKS_DIFFER = "packs_differ"  # id of the reason of an ambiguous name
JOINED = ("protected", "sidecars", "pointers", "facts", "unfinished", "leftovers", "formats")  # keys of rules and packs
UNDECIDED = "undecided"  # the id of a rule that stands for the formats of several packs
Claims = Sequence[tuple[Pack, Claim]]  # of the packs that know a name


def claim_of_packs(claims: Claims) -> Claim | None:
    """Join the claims of several packs on a name; None where there is none.

    A name that one pack protects or ignores and another claims is ambiguous, and is left alone. A name whose number
    two packs count differently has only the number on which they agree. In both cases a line in the rules decides,
    which the reason gives. Where packs agree, the stricter holds: first one with parts, then one with ``complete``.
    """
    if not claims:
        return None
    every = [one for _, one in claims]
    kinds = {one.kind for one in every}
    if len(kinds) > 1 and {"format", "ambiguous"} & kinds:
        return _ambiguous("claim it otherwise", claims)
    if len(every) == 1 or every[0].kind != "format":
        protected = [one for one in every if one.kind == "protected"]
        return max(protected, key=_strictness) if protected else min(claims, key=_as_all_packs_do)[1]
    agreed = agreed_fields(one.fields for one in every)
    if agreed is None:
        return _ambiguous("read it otherwise", claims)
    agreeing = [one for one in every if numbers_told(one.fields) == agreed]
    if agreeing and all(agreed.items() <= numbers_told(one.fields).items() for one in every):
        return max(agreeing, key=_strictness)
    if any(one.rule and one.rule.has_parts for one in every):
        return _ambiguous("count it otherwise", claims)
    reason, fields = _undecided("count it otherwise", claims), {key: str(n) for key, n in agreed.items()}
    if runs := {one.fields["run"] for one in every if one.fields.get("run")}:
        fields["run"] = " ".join(sorted(runs))  # so that two runs by any pack are never compared
    return Claim("format", reason, _rule_of_all([one.rule for one in every if one.rule]), fields)


def is_undecided(rule: Rule | None) -> bool:
    """Return whether packs disagree on the unit of a name's number, so that only the number counts."""
    return rule is not None and rule.id == UNDECIDED


def _rule_of_all(rules: Sequence[Rule]) -> Rule:
    """Return a rule that stands for several formats: what has none of the files that any of them needs is not whole."""
    needs = [rule.complete for rule in rules if rule.complete]
    patterns = tuple(dict.fromkeys(pattern for one in needs for pattern in (*one.any, *one.all)))
    complete = Complete(patterns, (), needs[0].place) if len(needs) == len(rules) else None
    return Rule(UNDECIDED, re.compile(""), "", rules[0].place, complete=complete)


def may_rename(claims: Claims) -> bool:
    """Return whether a name may be renamed that formats of packs claim: the packs agree, and none keeps the name."""
    decided = claim_of_packs(claims)
    keeps = any(one.kind != "format" or (one.rule and one.rule.keep_name) for _, one in claims)
    return decided is not None and decided.rule is not None and not is_undecided(decided.rule) and not keeps


def agreed_fields(readings: Iterable[Mapping[str, str]]) -> dict[str, int] | None:
    """Return the numbers on which all readings of one name agree; None where they contradict each other.

    If they differ only in the unit, the result is a ``number``.
    """
    every = [numbers_told(fields) for fields in readings]
    common = set.intersection(*(set(one) for one in every))
    if any(one[key] != every[0][key] for one in every for key in common):
        return None
    if common or not any(every):
        return {key: value for key, value in every[0].items() if key in common}
    values = {tuple(one.values()) for one in every}
    return {"number": next(iter(every[0].values()))} if len(values) == 1 and len(every[0]) == 1 else None


def _ambiguous(how: str, claims: Claims) -> Claim:
    """Return the claim that leaves a name alone, and with it the checkpoint that the name may be a part of."""
    part = next((one for _, one in claims if one.rule and one.rule.has_parts), None)
    return Claim("ambiguous", _undecided(how, claims), part and part.rule, part.fields if part else {})


def _as_all_packs_do(claimed: tuple[Pack, Claim]) -> bool:
    """Return whether a pack knows a name only as a tracker of all packs: these have the place of its first format."""
    pack, one = claimed
    return one.reason.place in [rule.place for rule in pack.rules.formats[:1]]


def _strictness(claimed: Claim) -> tuple[bool, bool, bool, int]:
    rule = claimed.rule
    if rule is None:
        return False, False, False, 0
    return rule.has_parts, rule.complete is not None, bool(rule.keep_name), len(claimed.fields)


def _undecided(what: str, claims: Claims) -> Reason:
    names = [pack.name for pack, _ in claims]
    lines = " or ".join(f"packs: [{name}]" for name in names)
    return Reason(f"the packs {' and '.join(names)} {what}; {lines} decides", claims[0][1].reason.place, PACKS_DIFFER)


def with_packs(rules: RuleSet, picked: Sequence[Pack]) -> RuleSet:
    """Return the rules of the user joined with the packs that were picked for a directory."""
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
    joined: dict[str, Any] = {key: tuple(item for one in every for item in getattr(one, key)) for key in JOINED}
    return rules._replace(
        **joined,
        special="|".join(f"(?:{one.special})" for one in every),
        naming_digest=f"{rules.naming_digest} {' '.join(names)}",
        packs=tuple(packs),
        user=rules._replace(packs=()),
    )
