"""Tests rules and policies with their own examples."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.engine.actions import Action, Kept, Plan
from ckptrules.engine.checkpoints import Claim, Evidence
from ckptrules.engine.entries import Listing
from ckptrules.engine.names.naming import CHECKPOINTS, claim, fits, same_text, target_name
from ckptrules.engine.names.templates import TemplateError
from ckptrules.engine.plan import make_plan
from ckptrules.engine.policy.retention import by_tree
from ckptrules.engine.ruleset import Example, Fault, Location, Policy, PolicyExample, Rule, RuleSet, needed_inside
from ckptrules.engine.spelling import closest
from ckptrules.engine.tree import of_one
from ckptrules.rules.policies import EXAMPLE_NOW_NS

_UNREAD = "write it as a name that the rules of naming understand"
UNNAMED = "cannot be renamed"
Wrong = tuple[str, str]  # a fact and a hint; the fact is empty if nothing is wrong


def prove(rules: RuleSet) -> Iterator[Fault]:
    """Test the examples and counterexamples of every format, with all formats loaded; yield the faults."""
    for rule in (*rules.targets, *rules.legacy, *rules.formats):
        for name, example in rule.examples.items():
            found = claim(name, rules, folder=rule.folder)
            fact, hint = (
                _test_target(found, rules) if rule in rules.targets else _test(name, example, rule, found, rules)
            )
            of_pack = fact.startswith(UNNAMED) and "/" in rule.id
            if of_pack:  # whose examples the user cannot edit: one of them tells enough
                hint = f"to rename some of its names, write a rule below 'legacy' in place of rename: [{rule.id}]"
            if fact:
                yield Fault(example.place, f"{rule.called}: example '{name}' {fact}", hint)
            if of_pack:
                break
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
    if not is_read and (taken := _claimed_otherwise(name, rule, found)):
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
        return f"{UNNAMED}: {error}", error.hint
    again = claim(given, rules)
    if again.kind != "target":
        return f"becomes '{given}', which is {again.reason.text}", ""
    return f"becomes '{given}', not '{example.becomes}'" if example.becomes not in ("", given) else "", ""


def _claimed_otherwise(name: str, rule: Rule, found: Claim) -> Wrong | None:
    """Return what claims a name instead of the rule whose example it is; None if that rule does."""
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


# --- policies ---------------------------------------------------------------------------------------------------------


def prove_policies(rules: RuleSet) -> list[Fault]:
    """Test every policy with its examples by `make_plan`, as a run does; return the faults.

    A new target may make the names in all examples unknown, so all unknown names are one fault.
    """
    faults = [
        Fault(place, f"retention policy '{policy.name}': {fact}", hint)
        for policy in rules.policies.values()
        for example in policy.examples
        for place, fact, hint in _test_kept(policy, example, rules)
    ]
    unread = [fault for fault in faults if fault.hint == _UNREAD]
    if len(unread) <= 1:
        return faults
    more = f"so are {len(unread) - 1} more names" if unread[2:] else "so is 1 more name"
    hint = "write them as names that the rules of naming understand, or leave out 'examples'"
    merged = unread[0]._replace(fact=f"{unread[0].fact}; {more} in examples of policies", hint=hint)
    return [merged, *(fault for fault in faults if fault.hint != _UNREAD)]


def _test_kept(policy: Policy, example: PolicyExample, rules: RuleSet) -> Iterator[tuple[Location, str, str]]:
    given = [entry.name for entry in example.given]
    if twice := next((name for name in given if given.count(name) > 1), None):
        yield example.places[twice], f"the example gives '{twice}' twice", ""
        return
    complete = frozenset(pattern for rule in (*rules.legacy, *rules.formats) for pattern in needed_inside(rule))
    inside = {entry.name: complete for entry in example.given if entry.kind == "directory"}
    evidence = Evidence(now_ns=EXAMPLE_NOW_NS, inside=inside)
    listing = Listing(policy.name, policy.name, example.given)
    if by_tree(policy):
        evidence = evidence._replace(tree=of_one(rules, listing, policy, "report", evidence))
    plan = make_plan(rules, listing, policy, evidence=evidence)
    rows: tuple[Kept | Action, ...] = (*plan.kept, *plan.actions)
    goes = plan.going
    for name in given:
        place = example.places[name]
        why = "; ".join(reason.text for row in rows if name in row.names for reason in row.reasons)
        if fault := _not_understood(name, plan):
            yield place, f"the example gives '{name}', which {fault}", _UNREAD
        elif name in goes and name in example.kept:
            yield place, f"the example does not keep '{name}': {why}", ""
        elif name not in goes and name not in example.kept:
            yield place, f"the example keeps '{name}': {why}", "add it to 'kept', or change the policy"
    for name in sorted(example.kept - set(given)):
        fact = f"the example keeps '{name}', which is not among what is given"
        yield example.places[name], fact, closest(name, given)


def _not_understood(name: str, plan: Plan) -> str:
    problems = [problem.text for problem in plan.problems if name in problem.names]
    skipped = [f"is skipped: {row.reason.text}" for row in plan.skipped if row.name == name]
    return next(iter([*problems, *skipped]), "")
