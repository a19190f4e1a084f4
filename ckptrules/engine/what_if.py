"""Make variants of a policy or of rules, to show what each line and each protection changes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ckptrules.engine.actions import DELETES, Plan
from ckptrules.engine.policy.judging import Judged
from ckptrules.engine.ruleset import Pattern, Policy, PolicyLine, RuleSet

COUNTS = (1, 2, 3, 5)  # values of keep_last to compare
FLOOR = "keep_at_least"
PROTECTED, PINS, POINTERS = "protected", "pins", "pointers"


class LineInUse(NamedTuple):
    """A line of the rules, and the name of its policy; None for the budget."""

    policy: str | None
    line: PolicyLine


class Other(NamedTuple):
    """Another policy for a directory, and the opinions of its lines for the whole tree, by value."""

    policy: Policy | None
    tree: Mapping[Any, Judged] = {}


class WhatIf(NamedTuple):
    """Further policies that a directory is planned by.

    ``base`` is its own, as if it deleted. ``rows`` are policies of other options, ``lines`` its own without one line.
    """

    base: Other
    rows: tuple[Other, ...]
    lines: tuple[tuple[LineInUse, Other], ...]


def lines_in_use(policy: Policy | None) -> list[LineInUse]:
    """Return the lines of a policy that can keep something, with the floor if the rules give one."""
    if policy is None:
        return []
    lines = [line for line in policy.lines if line[:2] != ("keep", PROTECTED)]
    if policy.floor_place != policy.place:
        lines.append(PolicyLine(FLOOR, policy.keep_at_least, policy.floor_place))
    return [LineInUse(None if line.key == "budget" else policy.name, line) for line in lines]


def without(policy: Policy, line: PolicyLine) -> Policy:
    """Return a policy without one of its lines."""
    if line.key == FLOOR:
        return policy._replace(keep_at_least=0)
    return policy._replace(lines=tuple(one for one in policy.lines if one != line))


def unprotected(rules: RuleSet, pattern: Pattern) -> RuleSet:
    """Return rules without one of the protected patterns."""
    left = tuple(one for one in rules.protected if one != pattern)
    return rules._replace(protected=left, user=rules.user and unprotected(rules.user, pattern))


def with_more(plan: Plan, other: Plan) -> Plan:
    """Return a plan that also deletes what only another plan deletes."""
    goes = plan.going
    more = (action for action in other.actions if action.kind in DELETES and action.name not in goes)
    return plan._replace(actions=(*plan.actions, *more))
