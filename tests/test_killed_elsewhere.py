"""Killed at every change of what `test_crash` does not kill: nothing is lost, the next run finishes, undo goes back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.crash import Fault
from tests.undisturbed import CASES, Place


@pytest.mark.parametrize(
    "case", ["migrate without a trash", "undo in training", "drop_links", "undo of drop_links", "restore", "purge"]
)
def test_killed_at_any_change(case: str, project: Project, tmp_path: Path) -> None:
    place = Place(project, CASES[case], tmp_path / "kept")
    for at in range(1, place.undisturbed.changes + 1):
        how = ("before", "after")[at % 2]
        place.begin()
        assert place.run(*place.case.command, fault=Fault(at, how)).code == -signal.SIGKILL
        assert place.must_stay <= place.contents(), (at, how)
        place.finish((at, how))
        assert not place.dangling(), (at, how)
