"""The days of a policy are those of the zone of the run; another zone, or another split, is another plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from ckptrules.run.deciding import LOCAL
from tests.conftest import Project
from tests.support import crash

BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"  # written out: no machine needs to know its name
TOKYO = "JST-9"


@pytest.fixture
def live_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def live(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield live
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "seconds", "said"),
    [
        (BERLIN, 1_761_436_799, "2025-10-26 01:59:59 CEST"),
        (BERLIN, 1_761_436_800, "2025-10-26 02:00:00 CEST"),
        (BERLIN, 1_761_440_399, "2025-10-26 02:59:59 CEST"),
        (BERLIN, 1_761_440_400, "2025-10-26 02:00:00 CET"),
        (BERLIN, 1_743_296_399, "2025-03-30 01:59:59 CET"),
        (BERLIN, 1_743_296_400, "2025-03-30 03:00:00 CEST"),
        (TOKYO, 1_735_657_200, "2025-01-01 00:00:00 JST"),
        ("UTC0", 0, "1970-01-01 00:00:00 UTC"),
    ],
)
def test_a_time_is_what_the_machine_calls_it(
    live_in: Callable[[str], None], zone: str, seconds: int, said: str
) -> None:
    live_in(zone)
    assert f"{datetime.fromtimestamp(seconds, LOCAL):%Y-%m-%d %H:%M:%S %Z}" == said


def test_the_zone_decides_what_a_day_is_and_another_one_is_another_plan(
    project: Project, live_in: Callable[[str], None]
) -> None:
    (project.folder / "rules" / "mine.yaml").write_text("retention:\n  mine: {keep_daily: -1}\n")
    names = [f"epoch-{epoch:02}_step-000001.ckpt" for epoch in range(4)]
    project.make({f"exp/checkpoints/{name}": 100 for name in names})
    for name, hour in zip(names, (10, 14, 16, 21), strict=True):  # of 2025-06-01, in UTC
        at = 1_748_736_000 + hour * 3600
        os.utime(project.outputs / "exp/checkpoints" / name, (at, at))
    command = ("migrate", "delete_old=1", "policy=mine")

    def left(zone: str) -> list[str]:
        live_in(zone)
        ended = crash.run_in_turn(project.folder, *command)
        assert ended.code == 0, ended.output
        return project.names("exp")

    live_in(TOKYO)
    plan = crash.run_in_turn(project.folder, "plan", *command[1:], "verbose=1").output
    assert "not the newest of day 2025-06-02 (JST)" in plan
    assert "newest of day 2025-06-01 (JST)" in plan
    assert left(TOKYO) == [names[0], names[1], names[3]]  # the oldest of all stays as well
    assert "Nothing to do" in crash.run_in_turn(project.folder, *command).output
    assert left(BERLIN) == [names[0], names[3]]
    assert "Nothing to do" in crash.run_in_turn(project.folder, *command).output


def test_a_policy_that_is_split_otherwise_is_another_plan(project: Project) -> None:
    rules = """
formats: [{{id: fold, match: 'fold(?P<fold>[0-9])_(?P<step>[0-9]+)[.]pt', examples: {{fold0_1.pt: {{fold: '0'}}}}}}]
retention: {{mine: {{keep_last: 1{per}}}}}
"""
    mine, command = project.folder / "rules" / "mine.yaml", ("migrate", "delete_old=1", "policy=mine")
    project.make({f"exp/checkpoints/fold{fold}_{step}.pt": 100 for fold in (0, 1) for step in (1, 2)})
    mine.write_text(rules.format(per=", per: [fold]"))
    assert "Deleted: fold0_1.pt" in crash.run_in_turn(project.folder, *command).output
    assert project.names("exp") == ["fold0_2.pt", "fold1_2.pt"]
    assert "Nothing to do" in crash.run_in_turn(project.folder, *command).output
    mine.write_text(rules.format(per=", per: [step]"))
    assert "Nothing to do" not in crash.run_in_turn(project.folder, *command).output
