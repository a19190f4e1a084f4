"""R5: below a run that deletes by a list of its own, nothing is touched while it may go on."""

from __future__ import annotations

from typing import NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.names.packs import with_packs
from ckptrules.engine.plan import make_plan
from ckptrules.engine.ruleset import RuleSet
from ckptrules.rules.load import load_rules
from tests.support.tables import every

NS = 1_000_000_000
NOW = 1_700_000_000
MINUTE = 60
DELETES = "retention: {default: {keep_last: 1}}\n"
OLD = r"""
formats:
  - {id: any, match: 'any-(?P<step>\d+)', examples: {any-3: {step: 3}}}
  - {id: old, match: 'old-(?P<step>\d+)', live: it wants them, examples: {old-3: {step: 3}}}
  - {id: pair, match: 'pair-(?P<step>\d+)\.(?P<part>a|b)', live: it wants them, examples: {pair-3.a: {step: 3}}}
target: {template: 'new-{{ step }}', match: 'new-(?P<step>\d+)', examples: [new-3]}
rename: [old]
"""


class Case(NamedTuple):
    """Names with the minutes since they changed; what goes or is renamed; the problem's text, as far as given."""

    entries: dict[str, int]
    touched: str
    told: str = ""
    rules: str = "packs: [composer]\n"
    policy: bool = True
    kind: str = "file"


def ranks(*minutes: int) -> dict[str, int]:
    return {f"ep{n}-ba{n}0-rank{r}.pt": age for n, age in enumerate(minutes) for r in (0, 1)}


FIRST = "ep0-ba00-rank0.pt ep0-ba00-rank1.pt"
LIVE = "is left alone: its newest file changed {} ago, so a run may go on, and it removes"
QUEUE = "is left alone: its newest file changed {} ago, so a run may go on, and with -keep_checkpoint it removes"
IGNITE = "is left alone: its newest file changed {} ago, so a run may go on, and with n_saved it removes"
CONTROLLER = "is left alone: its newest file changed {} ago, so a run may go on, and its controller goes back"
CASES = {
    "composer: changed a minute ago": Case(ranks(90, 1), "", LIVE.format("1m")),
    "composer: changed an hour ago": Case(ranks(90, 60), FIRST),
    "composer: changed within the hour": Case(ranks(9000, 59), "", LIVE.format("59m")),
    "composer: another file has changed": Case({**ranks(900, 800), "log.txt": 2}, "", LIVE.format("2m")),
    "composer: its clock is ahead": Case({**ranks(90, 80), "x.txt": -5}, "", "is left alone: its newest file is dated ahead"),
    "composer: settle says how long": Case(ranks(90, 1), FIRST, rules="packs: [composer]\nsettle: 30\n"),
    "composer: nothing would go": Case(ranks(1), ""),
    "composer: no policy, so nothing goes": Case(ranks(90, 1), "", policy=False),
    "composer: folders": Case({"ep0-ba10": 90, "ep1-ba20": 1}, "", LIVE.format("1m"), kind="directory"),
    "opennmt": Case(
        {"m_step_1.pt": 90, "m_step_2.pt": 1}, "", QUEUE.format("1m"), rules="packs: [opennmt]\n"
    ),
    "opennmt: of old": Case(
        {"m_acc_1.0_ppl_2.0_e1.pt": 90, "m_acc_1.0_ppl_2.0_e2.pt": 1}, "", QUEUE.format("1m"), rules="packs: [opennmt]\n"
    ),
    "ignite": Case({"checkpoint_3.pt": 90, "checkpoint_6.pt": 1}, "", IGNITE.format("1m"), rules="packs: [ignite]\n"),
    "ignite: over": Case(
        {"checkpoint_3.pt": 90, "checkpoint_6.pt": 61}, "checkpoint_3.pt", rules="packs: [ignite]\n"
    ),
    "ray": Case(
        {"checkpoint_000000": 90, "checkpoint_000001": 1}, "", CONTROLLER.format("1m"),
        rules="packs: [ray]\n", kind="directory",
    ),
    "ray: the cautions of all packs hold that read a name": Case(
        {"checkpoint_000000": 90, "checkpoint_000001": 1}, "", CONTROLLER.format("1m"),
        rules="packs: [orbax, ray]\n", kind="directory",
    ),
    "ray: over": Case({"checkpoint_000000": 90, "checkpoint_000001": 61}, "checkpoint_000000", rules="packs: [ray]\n", kind="directory"),
    "mine: a rename": Case({"old-1": 1}, "", "is left alone: its newest file changed 1m ago", rules=OLD, policy=False),
    "mine: a rename later": Case({"old-1": 70}, "old-1", rules=OLD, policy=False),
    "mine: what would go is of another format": Case({"any-1": 1, "any-2": 1}, "any-1", rules=OLD),
    "mine: another format beside it": Case(
        {"any-1": 1, "any-2": 1, "pair-1.a": 5, "pair-2.a": 5}, "", "is left alone", rules=OLD
    ),
}  # fmt: skip


def planned(case: Case) -> tuple[Plan, RuleSet]:
    rules = load_rules({"rules/x.yaml": f"layout: ['*']\n{case.rules}{DELETES * case.policy}"})
    inside = {name: frozenset([".metadata", "_CHECKPOINT_METADATA"]) for name in case.entries}
    entries = tuple(Entry(n, case.kind, 9, (NOW - age * MINUTE) * NS) for n, age in case.entries.items())  # type: ignore[arg-type]
    here = with_packs(rules, rules.packs)
    policy = rules.policies.get("default")
    listing = Listing("x", "run/ckpt", entries)
    return make_plan(here, listing, policy, evidence=Evidence(now_ns=NOW * NS, inside=inside)), here


@every([*CASES])
def test_nothing_is_touched_while_a_run_may_go_on_that_keeps_a_list_of_its_own(name: str) -> None:
    case = CASES[name]
    plan, _ = planned(case)
    touched = {old for act in plan.actions for old in (act.name, *(old for old, _ in act.with_it))}
    assert touched == set(case.touched.split())
    found = [problem for problem in plan.problems if problem.id == "live_run"]
    assert [problem.names for problem in found] == [("run/ckpt",)] * bool(case.told)
    assert not case.told or found[0].text.startswith(case.told)
    assert plan.problems == tuple(found)


def test_the_reason_and_the_hint_say_what_helps() -> None:
    plan, _ = planned(CASES["composer: changed a minute ago"])
    why = {row.name: [reason.text for reason in row.reasons] for row in plan.kept}
    assert why["ep0-ba00-rank0.pt"][-1].startswith("a run may go on: it removes old ones by name")
    assert len(why["ep1-ba10-rank0.pt"]) == 1
    assert "'doit plan delete_old=1 settle=60'" in plan.problems[0].hint
    plan, _ = planned(CASES["mine: a rename"])
    assert "'doit plan settle=60'" in plan.problems[0].hint
