"""Killed in what `test_crash` does not kill: nothing is lost, the next run finishes, undo goes back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.crash import Fault
from tests.support.undisturbed import CASES, Place

pytestmark = pytest.mark.in_memory

EACH = {
    "undo in training": 1,
    "restore": 1,
    "migrate without a trash": 3,
    "drop_links": 3,
    "undo of drop_links": 3,
    "purge": 3,
}


@pytest.mark.parametrize("case", EACH)
def test_killed_at_changes(case: str, project: Project, tmp_path: Path) -> None:
    place = Place(project, CASES[case], tmp_path / "kept")
    for at in range(1, place.undisturbed.changes + 1, EACH[case]):
        how = ("before", "after")[at % 2]
        place.begin()
        assert place.run(*place.case.command, fault=Fault(at, how)).code == -signal.SIGKILL
        assert place.must_stay <= place.contents(), (at, how)
        place.finish((at, how))
        assert not place.dangling(), (at, how)
