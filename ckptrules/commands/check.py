"""`doit check`: the rules, tested and shown."""

from __future__ import annotations

from collections.abc import Iterator

from doit.task import Task

from ckptrules.engine.values import Policy, RuleSet
from ckptrules.report.style import count_of, table
from ckptrules.run.jobs import load
from ckptrules.run.options import Options
from ckptrules.run.reporter import Told
from ckptrules.run.startup import TaskDict


def check(options: Options) -> Iterator[TaskDict]:
    """Test the rules (loading them does) and show them."""
    yield {"basename": "check", "actions": [(show_rules, [load(options.rules_dir)])]}


def show_rules(rules: RuleSet, task: Task) -> None:
    """Show every rule with the place where it stands and the number of examples that prove it."""
    rows = [
        (rule.id, count_of(len(rule.examples), "example"), rule.place.file_line, "")
        for rule in (rules.target, *rules.legacy)
    ]
    rows += [
        (f"policy {policy.name}", count_of(len(policy.examples), "example"), policy.place.file_line, words(policy))
        for policy in rules.policies.values()
    ]
    task.meta = {"told": Told("All rules hold.\n" + table((), [("", *row) for row in rows]))}


def words(policy: Policy) -> str:
    """Write a policy in one line."""
    return ", ".join([*map(str, policy.lines), f"keep_at_least: {policy.keep_at_least}"])
