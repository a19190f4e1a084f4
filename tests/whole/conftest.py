"""What one command makes of a project when nothing goes wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.undisturbed import COMMAND, IN_TRAINING, TREE, Undisturbed, trained


@pytest.fixture
def undisturbed(project: Project, tmp_path: Path, request: pytest.FixtureRequest) -> Undisturbed:
    project.make(TREE)
    made = Undisturbed(project, tmp_path / "kept", COMMAND, old_system=getattr(request, "param", False))
    assert len(made.instants) > len(TREE)
    return made


@pytest.fixture
def training(project: Project, tmp_path: Path, request: pytest.FixtureRequest) -> Undisturbed:
    """Make a project with a pointer file and real checkpoints."""
    folder = trained(project)
    (folder / "latest").write_text("".join(f"{name}\n" for name in sorted(os.listdir(folder))))
    made = Undisturbed(project, tmp_path / "kept", IN_TRAINING, old_system=getattr(request, "param", False))
    assert all(word in made.output for word in ("Repointed", "State fixed", "a link stays")), made.output
    return made
