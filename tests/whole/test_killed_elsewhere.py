"""Killed in what `test_crash` does not kill: nothing is lost, the next run finishes, undo goes back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.killing import kills
from tests.support.undisturbed import CASES, COMMAND, EARLY, EARLY_NEW, Place

pytestmark = pytest.mark.whole

EACH = {
    "undo in training": 1,
    "restore": 1,
    "migrate without a trash": 2,
    "drop_links": 2,
    "undo of drop_links": 2,
    "purge": 2,
}


@pytest.mark.parametrize("case", EACH)
def test_killed_at_changes(case: str, project: Project, tmp_path: Path) -> None:
    place = Place(project, CASES[case], tmp_path / "kept")
    place.begin()
    for at in kills(project, place.case.command)[:: EACH[case]]:
        place.begin()
        assert place.run(*place.case.command, fault=at).code == -signal.SIGKILL
        assert place.must_stay <= place.contents(), at
        place.finish(at)
        assert not place.dangling(), at


@pytest.mark.parametrize("case", ["migrate with a pin", "undo with a pin"])
def test_killed_at_any_change_a_pin_and_its_checkpoint_stay_together(
    case: str, project: Project, tmp_path: Path
) -> None:
    """Also before the next run has finished what was begun, and whatever stands in the file of the pins."""
    place, seen = Place(project, CASES[case], tmp_path / "kept"), set[str]()
    place.begin()
    for at in kills(project, place.case.command):
        place.begin()
        ended = place.run(*place.case.command, fault=at)
        assert ended.code == -signal.SIGKILL
        (name,) = {EARLY, EARLY_NEW}.intersection(project.names("ocr"))
        if (left := place.left(ended)) in seen:
            continue
        seen.add(left)
        listed, plan = place.run("pins"), place.run("plan", *COMMAND[1:], "verbose=1")
        assert (listed.code, f"{name}  200 B  Table 2" in listed.output) == (0, True), (at, listed.output)
        assert plan.output.count("pinned: Table 2  rules/pins.yaml:4") == 1, (at, plan.output)
        place.finish(at)
    assert len(seen) > 10
