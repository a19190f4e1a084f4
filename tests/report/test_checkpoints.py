"""What JSON tells of checkpoints agrees with the plan and with its sums, for every golden plan."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from ckptrules.engine.sorting import Sorted, sort_entries
from ckptrules.engine.values import Evidence, Listing, Plan
from ckptrules.report.checkpoints import Seen, Told, told_of
from ckptrules.report.text import tally
from ckptrules.rules.load import load_rules
from tests.engine.test_plan import GOLDEN, RULES, Case, entries, plan

every_golden_plan = pytest.mark.parametrize("case", GOLDEN)


class Made(NamedTuple):
    """A golden plan, with what it was made from."""

    plan: Plan
    found: Sorted
    told: Told


def make(case: Case) -> Made:
    rules = load_rules(RULES | case.rules)
    listing = Listing("ocr", "ocr/checkpoints", tuple(entries(case)))
    made = plan(case, listing.entries)
    return Made(made, sort_entries(rules, listing), told_of(Seen(listing, rules, Evidence()), made))


@every_golden_plan
def test_every_checkpoint_occurs_once_and_no_name_is_of_two(case: Case) -> None:
    made = make(case)
    names = [name for row in made.told.rows for name in row.names]
    assert len(names) == len(set(names))
    heads = [row.name for row in made.told.rows if not row.checkpoint.flaw or row.checkpoint.parts]
    assert sorted(heads) == sorted(one.entry.name for one in (*made.found.checkpoints, *made.found.protected))
    assert {row.name for row in made.told.stays}.isdisjoint(names)


@every_golden_plan
def test_states_agree_with_actions_and_problems(case: Case) -> None:
    made = make(case)
    goes = {action.name: action for action in made.plan.actions if action.kind == "trash"}
    renamed = {action.name: action.to for action in made.plan.actions if action.kind == "rename"}
    problems = {name for problem in made.plan.problems for name in problem.names}
    rows = made.told.rows
    assert {row.name for row in rows if row.state == "goes"} == goes.keys()
    assert {row.name: row.becomes for row in rows if row.becomes} == renamed
    assert {row.name for row in rows if row.state == "undecided"} == {row.name for row in rows} & problems
    assert all(row.reasons for row in rows)
    assert {row.name: row.saves for row in rows if row.saves} == {n: act.saves for n, act in goes.items() if act.saves}


@every_golden_plan
def test_the_rows_add_up_to_the_sums(case: Case) -> None:
    made, total = make(case), tally(plan(case, entries(case)))
    swept = sum(action.size for action in made.plan.actions if action.kind == "sweep")
    assert sum(row.size for row in made.told.rows if row.state == "goes") + swept == total.bytes_deleted
    stays = [*(row.size for row in made.told.rows if row.state == "stays"), *(row.size for row in made.told.stays)]
    assert sum(stays) == total.bytes_kept
