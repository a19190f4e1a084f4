"""`doit check`: test the rules, and list them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ckptrules.engine.measures import count_of
from ckptrules.engine.ruleset import Policy, RuleSet
from ckptrules.engine.spelling import closest
from ckptrules.report.style import INDENT, Style, with_texts
from ckptrules.rules.load import load_rules
from ckptrules.rules.shipped import lines_to_add
from ckptrules.run import pinning
from ckptrules.run.finding import read_rules
from ckptrules.run.jobs import policy_hint
from ckptrules.run.options import Common, Planning
from ckptrules.run.outcome import Done, Prepared
from ckptrules.run.session import Session


class Options(Common):
    """The options of `doit check`."""

    needs_outputs = False


def prepare(session: Session, options: Options) -> Prepared:
    """Load the rules, which tests them by their examples."""
    pinning.pins_of(session, options)
    lines, style = lines_to_add(sorted(session.lacking), session.dodo), session.style(options)
    rules = load_rules(read_rules(session, options.rules_dir))
    return Prepared(partial(show_rules, rules, style, lines, without_default(rules, options)))


def without_default(rules: RuleSet, options: Options) -> str:
    """Return a note if no policy has the default name, so that ``delete_old=1`` needs ``policy=``."""
    usual = Planning.policy
    if usual in rules.policies:
        return ""
    if not rules.policies:
        return f"No rule file has 'retention', so delete_old=1 is refused.\n    hint: {policy_hint(options)}\n"
    near = closest(usual, rules.policies) or f"policy={min(rules.policies)} goes by that"
    return f"No policy is called '{usual}', so delete_old=1 is refused where policy= names none.\n    hint: {near}\n"


def show_rules(rules: RuleSet, style: Style, lines: Sequence[str], note: str) -> Done:
    """List every rule with its place and the number of its examples, and the commands that a dodo.py lacks."""
    rows = [
        (rule.id, count_of(len(rule.examples), "example"), rule.place.file_line, "")
        for rule in (*rules.targets, *rules.legacy, *rules.formats)
    ]
    rows += [
        (f"policy {policy.name}", count_of(len(policy.examples), "example"), policy.place.file_line, words(policy))
        for policy in rules.policies.values()
    ]
    lacks = ["dodo.py lacks commands that ckptrules knows; to have them, add:", *(f"    {line}" for line in lines)]
    more = "".join(f"{line}\n" for line in lacks) if lines else ""
    return Done(f"All rules hold.\n{with_texts((), rows, (), style.width, INDENT)}{note}{more}")


def words(policy: Policy) -> str:
    """Return a policy as one line."""
    per = [f"per: [{', '.join(policy.per)}]"] if policy.per else []
    return ", ".join([*map(str, policy.lines), f"keep_at_least: {policy.keep_at_least}", *per])
