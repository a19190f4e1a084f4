"""`doit check`: the rules, tested and shown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ckptrules.engine.ruleset import Policy, RuleSet
from ckptrules.report.style import count_of, table
from ckptrules.rules.shipped import lines_to_add
from ckptrules.run.finding import load
from ckptrules.run.jobs import pins_of
from ckptrules.run.options import Common
from ckptrules.run.outcome import Done, Output
from ckptrules.run.session import Session, lacking
from ckptrules.run.tasks import Prepared


class Options(Common):
    """What `doit check` may be told."""

    needs_outputs = False
    believes_state = False


def prepare(session: Session, options: Options) -> Prepared:
    """Test the rules: loading them does."""
    pins_of(session, options)
    lines = lines_to_add(lacking(session.dodo), session.dodo)
    return Prepared(partial(show_rules, load(session, options.rules_dir), lines))


def show_rules(rules: RuleSet, lines: Sequence[str]) -> Done:
    """Show every rule with its place and the number of examples that prove it, and what a dodo.py may lack."""
    rows = [
        (rule.id, count_of(len(rule.example_places), "example"), rule.place.file_line, "")
        for rule in (*rules.targets, *rules.legacy, *rules.formats)
    ]
    rows += [
        (f"policy {policy.name}", count_of(len(policy.examples), "example"), policy.place.file_line, words(policy))
        for policy in rules.policies.values()
    ]
    more = (
        "\n    ".join(["dodo.py lacks commands that ckptrules knows; to have them, add:", *lines]) + "\n"
        if lines
        else ""
    )
    return Done(Output("All rules hold.\n" + table((), [("", *row) for row in rows]) + more))


def words(policy: Policy) -> str:
    """Write a policy in one line."""
    per = [f"per: [{', '.join(policy.per)}]"] if policy.per else []
    return ", ".join([*map(str, policy.lines), f"keep_at_least: {policy.keep_at_least}", *per])
