"""What JSON tells of checkpoints agrees with the plan and with its sums, for every golden plan."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Evidence, Mention
from ckptrules.engine.entries import Entry, Listing, OutsideLink
from ckptrules.engine.names.sorting import Sorted, sort_entries
from ckptrules.engine.plan import make_plan
from ckptrules.engine.ruleset import Reason
from ckptrules.report.checkpoints import Before, Details, details_of, line_as_data
from ckptrules.report.text import tally
from ckptrules.rules.load import load_rules
from tests.engine.test_plan import GOLDEN, RULES, Case, entries, golden, rules_of
from tests.support.tables import every

every_golden_plan = every(GOLDEN)


class Made(NamedTuple):
    """A golden plan, with what it was made from."""

    plan: Plan
    found: Sorted
    told: Details


@functools.cache
def make(case: Case) -> Made:
    rules, made = rules_of(case), golden(case)
    listing = Listing("ocr", "ocr/checkpoints", tuple(entries(case)))
    return Made(made, sort_entries(rules, listing), details_of(Before(listing, rules, Evidence()), made))


@every_golden_plan
def test_every_checkpoint_occurs_once_and_no_name_is_of_two(case: Case) -> None:
    made = make(case)
    names = [name for row in made.told.rows for name in (row["name"], *row["parts"])]
    assert len(names) == len(set(names))
    heads = {one.entry.name for one in (*made.found.checkpoints, *made.found.protected)}
    assert heads == {row["name"] for row in made.told.rows if row["whole"] or row["name"] in heads}
    assert {row.name for row in made.told.stays}.isdisjoint(names)


@every_golden_plan
def test_states_agree_with_actions_and_problems(case: Case) -> None:
    made = make(case)
    goes = {action.name: action for action in made.plan.actions if action.kind == "trash"}
    renamed = {action.name: action.to for action in made.plan.actions if action.kind == "rename"}
    problems = {name for problem in made.plan.problems for name in problem.names}
    rows = made.told.rows
    assert {row["name"] for row in rows if row["state"] == "goes"} == goes.keys()
    assert {row["name"]: row["becomes"] for row in rows if row["becomes"]} == renamed
    assert {row["name"] for row in rows if row["state"] == "undecided"} == {row["name"] for row in rows} & problems
    assert all(row["reasons"] for row in rows)
    saves = {name: [*map(line_as_data, action.saves)] for name, action in goes.items() if action.saves}
    assert {row["name"]: row["saves"] for row in rows if row["saves"]} == saves


@every_golden_plan
def test_the_rows_add_up_to_the_sums(case: Case) -> None:
    made, total = make(case), tally(golden(case))
    swept = sum(action.size for action in made.plan.actions if action.kind == "sweep")
    assert sum(row["bytes"] for row in made.told.rows if row["state"] == "goes") + swept == total.bytes_deleted
    stays = [
        *(row["bytes"] for row in made.told.rows if row["state"] == "stays"),
        *(row.size for row in made.told.stays),
    ]
    assert sum(stays) == total.bytes_kept
    states = [row["state"] for row in made.told.rows]
    assert (states.count("stays"), states.count("goes")) == (total.kept, total.deleted)


# --- what stands out --------------------------------------------------------------------------------------------------

OLD, MID, NEW = (f"epoch-{n:02}_step-{n * 100:06}.ckpt" for n in (1, 2, 3))
FILES = dict.fromkeys((OLD, MID, NEW), "100")


def tell(evidence: Evidence = Evidence(), listing: Mapping[str, str] = FILES, **more: Any) -> Details:  # noqa: B008 - a value
    rules = load_rules(RULES)
    listed = Listing("ocr", "ocr/checkpoints", tuple(entries(Case("", [], dict(listing)))))
    seen = Before(listed, rules, evidence, rules.policies["default"], **more)
    return details_of(seen, make_plan(rules, listed, evidence=evidence))


def called(said: Details, flag: str) -> list[str]:
    return [row["name"] for row in said.rows if row[flag]]


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ({}, []),
        ({OLD: "0.5", MID: "0.1", NEW: "0.3"}, [MID]),
        ({OLD: "0.1", MID: "0.1"}, [MID]),
        ({OLD: "nan", MID: "inf", NEW: "-inf"}, []),
        ({OLD: "none", MID: "7"}, [MID]),
    ],
)
def test_the_best_is_that_by_the_metric_and_of_equal_ones_the_newer(losses: Mapping[str, str], best: list[str]) -> None:
    said = tell(Evidence(metrics={name: {"val_loss": text} for name, text in losses.items()}))
    assert (called(said, "best"), said.metric) == (best, ("val_loss", "min") if losses else None)
    assert (
        best == []
        or called(tell(Evidence(metrics={best[0]: {"val_loss": "1"}}), unwhole=frozenset(best)), "best") == []
    )


def test_the_policy_says_by_which_metric() -> None:
    rules = load_rules({**RULES, "mine.yaml": "retention: {mine: {keep_best: {metric: acc, mode: max, count: 1}}}"})
    listed = Listing("ocr", "ocr/checkpoints", tuple(entries(Case("", [], FILES))))
    evidence = Evidence(metrics={MID: {"acc": "3", "val_loss": "9"}, NEW: {"acc": "2", "val_loss": "8"}})
    said = details_of(
        Before(listed, rules, evidence, rules.policies["mine"]), make_plan(rules, listed, evidence=evidence)
    )
    assert (called(said, "best"), said.metric) == ([MID], ("acc", "max"))


@pytest.mark.parametrize(
    ("more", "best", "last"),
    [
        ({}, [], [NEW]),
        ({"last.ckpt": f"link -> {OLD}"}, [], [OLD, NEW]),
        ({"best.ckpt": f"link -> {OLD}"}, [OLD], [NEW]),
        ({"last.ckpt": "100"}, [], [NEW, "last.ckpt"]),
        ({"best.ckpt": "100"}, ["best.ckpt"], [NEW]),
        ({"best-hmean-0.87.ckpt": "100"}, ["best-hmean-0.87.ckpt"], [NEW]),
    ],
)
def test_what_leads_to_a_checkpoint_says_what_it_is(more: Mapping[str, str], best: list[str], last: list[str]) -> None:
    said = tell(listing={**FILES, **more})
    assert (called(said, "best"), called(said, "last")) == (best, last)


def test_a_pointer_file_and_facts_say_what_it_is() -> None:
    said = tell(Evidence(pointers={"latest": (Mention(OLD, OLD),)}), best=frozenset({MID}))
    assert (called(said, "best"), called(said, "last")) == ([MID], [OLD, NEW])


@pytest.mark.parametrize(
    ("leader", "best", "last"),
    [("pretrained.ckpt", [], []), ("adapter_config.json", [], []), ("best.pt", [OLD], []), ("latest.pt", [], [OLD])],
)
def test_what_leads_here_from_elsewhere_says_only_by_its_name_what_it_is(
    leader: str, best: list[str], last: list[str]
) -> None:
    """What another training needed was called the last."""
    link = OutsideLink("two", Entry(leader, "link", 0, 0, f"../ocr/checkpoints/{OLD}", OLD))
    said = tell(Evidence(links=(link,)))
    assert (called(said, "best"), called(said, "last")) == (best, [*last, NEW])


def test_the_newest_that_is_not_whole_is_not_the_last() -> None:
    said = tell(unwhole=frozenset({NEW}))
    assert (called(said, "last"), called(said, "whole")) == ([MID], [OLD, MID])


def test_what_verify_found_and_what_is_pinned() -> None:
    evidence = Evidence(broken={OLD: "as verify found: it is cut off"}, pins={NEW: Reason("pinned")})
    said = tell(evidence, verified=frozenset({OLD, MID}))
    assert [row["verified"] for row in said.rows] == ["broken", "whole", None]
    assert called(said, "pinned") == [NEW]
    held = said.rows[0]
    assert (held["state"], held["reasons"][0]["text"]) == ("undecided", "is broken, as verify found: it is cut off")


def test_an_empty_file_tells_what_facts_say_of_it() -> None:
    said = tell(Evidence(metrics={OLD: {"val_loss": "0.1"}, MID: {"val_loss": "0.3"}}), {**FILES, OLD: "0"})
    assert [row["metrics"] for row in said.rows] == [{"val_loss": 0.1}, {"val_loss": 0.3}, {}]
    assert called(said, "best") == [MID]


def test_checkpoints_come_by_their_numbers_and_behind_them_what_tells_none() -> None:
    said = tell(listing={"best.ckpt": "100", NEW: "100", "epoch=0-step=7.ckpt": "0", OLD: "100"})
    assert [row["name"] for row in said.rows] == ["epoch=0-step=7.ckpt", OLD, NEW, "best.ckpt"]
    assert [row["state"] for row in said.rows] == ["undecided", "stays", "stays", "stays"]
    assert said.number == "step"
