"""A file time that cannot be (ahead of the clock, before 1970) is no anchor, and is told."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from ckptrules.engine.measures import NS
from ckptrules.engine.policy import retention
from ckptrules.engine.ruleset import Policy, PolicyLine, Within
from tests.conftest import Project
from tests.support import crash

DAY = 86_400
YEAR = 365 * DAY


class Case(NamedTuple):
    """A policy, ages in days by epoch (negative: ahead), the epochs that stay, and the note on a time."""

    policy: str
    ages: dict[int, float]
    stay: set[int]
    note: str = "epoch-{}_step-000001.ckpt is dated"
    dated: int = 0
    directories: bool = False


WEEK = "{keep_within: 7d from newest}"
CASES = {
    "one is a year ahead": Case(WEEK, {11: 9, 12: 3, 13: 1, 14: -365}, {12, 13, 14}, dated=14),
    "the one ahead is the oldest by epoch": Case(WEEK, {10: -365, 11: 9, 12: 3, 13: 1}, {10, 12, 13}, dated=10),
    "directories": Case(WEEK, {11: 9, 12: 3, 13: 1, 14: -365}, {12, 13, 14}, dated=14, directories=True),
    "all are ahead": Case(WEEK, {11: -400, 12: -20, 13: -1}, {11, 12, 13}, dated=11),
    "one is some seconds ahead, as another machine's clock is": Case(
        WEEK, {11: 9, 12: 3, 13: -20 / DAY}, {12, 13}, note=""
    ),
    "far ahead, in the year 9000": Case(WEEK, {11: 9, 12: 3, 13: 1, 14: -365 * 7000}, {12, 13, 14}, dated=14),
    "before 1970": Case(WEEK, {11: 9, 12: 3, 13: 1, 14: 365 * 100}, {12, 13, 14}, dated=14),
    "keep_last by file time": Case("{keep_last: 1}", {20: 9, 3: 1, 2: -365, 1: 30}, {20, 3, 2}, dated=2),
    "keep_last, ahead by epoch as well": Case("{keep_last: 1}", {20: -365, 3: 1, 2: 3}, {20, 3}, dated=20),
    "what fits": Case("{max_total_size: 200B}", {20: 9, 3: 1, 2: -365, 1: 30}, {20, 3}, dated=2),
    "within a time from now": Case("{keep_within: 7d}", {11: 9, 12: 3, 13: -365}, {12, 13}, note=""),
}


def put(project: Project, name: str, age_days: float, *, directory: bool = False) -> Path:
    project.make({f"exp/checkpoints/{name}" + "/model.pt" * directory: 100})
    path = project.outputs / "exp/checkpoints" / name
    seconds = time.time() - age_days * DAY
    for one in (path / "model.pt", path) if directory else (path,):
        os.utime(one, (seconds, seconds))
    return path


@pytest.mark.parametrize("name", CASES)
def test_a_time_that_cannot_be_makes_nothing_go(project: Project, name: str) -> None:
    case = CASES[name]
    (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {case.policy}\n")
    paths = {
        epoch: put(project, f"epoch-{epoch:02}_step-000001.ckpt", age, directory=case.directories)
        for epoch, age in case.ages.items()
    }
    ended = crash.run_in_turn(project.folder, "migrate", "delete_old=1", "policy=mine")
    assert ended.code == 0, ended.output
    assert {epoch for epoch, path in paths.items() if path.exists()} == case.stay
    assert (" is dated " in ended.output) == bool(case.note)
    assert case.note.format(f"{case.dated:02}") in ended.output


def test_the_newest_wins_no_conflict_by_a_time_that_cannot_be(project: Project) -> None:
    real, ahead = put(project, "epoch=1-step=1.ckpt", 1), put(project, "epoch_1_step_1.ckpt", -365)
    ahead.write_bytes(b"other")
    os.utime(ahead, (time.time() + YEAR, time.time() + YEAR))
    ended = crash.run_in_turn(project.folder, "migrate", "on_conflict=keep_newest")
    assert ended.code == 1
    assert real.exists()
    assert ahead.exists()
    assert "newer" not in ended.output


def test_of_names_without_numbers_the_real_newest_stays(project: Project) -> None:
    (project.folder / "rules" / "naming.yaml").write_text(
        "layout: ['*/checkpoints']\ntarget: {template: '{{ id }}.ckpt', match: '(?P<id>[a-z]+)\\.ckpt', examples: [a.ckpt]}\n"
    )
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep: protected}}\n")
    paths = [put(project, f"{name}.ckpt", age) for name, age in {"a": 9, "b": 3, "c": 1, "d": -365}.items()]
    crash.run_in_turn(project.folder, "migrate", "delete_old=1")
    assert [path.exists() for path in paths] == [False, False, True, True]


@pytest.mark.parametrize(("ahead_s", "wanted"), [(30, None), (3600, 3600 - 60)])
def test_what_is_remembered_holds_until_a_time_ahead_is_there(ahead_s: int, wanted: int | None) -> None:
    now_ns = 2_000_000_000 * NS
    place = PolicyLine("keep_within", Within(10, "10s", from_newest=True), None)
    policy = Policy("p", (place,), 1, None, None)  # type: ignore[arg-type]
    until = retention.holds_until(policy, [now_ns - 5, now_ns + ahead_s * NS], now_ns)
    assert until == (None if wanted is None else now_ns + wanted * NS - 1)


def test_a_clock_that_was_set_back_has_everything_looked_at_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder / "rules" / "mine.yaml").write_text("retention:\n  mine: {keep_within: 7d}\n")
    put(project, "epoch-11_step-000001.ckpt", 20)
    put(project, "epoch-12_step-000001.ckpt", 1)
    command = ("migrate", "delete_old=1", "policy=mine")
    assert "Summary" in crash.run_in_turn(project.folder, *command).output
    assert "Nothing to do" in crash.run_in_turn(project.folder, *command).output
    really = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: really() - 10 * DAY * NS)
    assert "Summary" in crash.run(project.folder, *command).output
