"""Killed at every change of the disk while checkpoints of several files are renamed and deleted: all files, or none."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.undisturbed import Undisturbed, contents

pytestmark = pytest.mark.whole
RULES = r"""
layout: ['*/checkpoints']
sidecars: [.json]
pointers: [latest]
target:
  template: 'step-{{ step | pad(4) }}-rank{{ part }}.pt'
  match: 'step-(?P<step>\d{4})-rank(?P<part>\d)\.pt'
  examples: [step-0100-rank0.pt]
legacy:
  - id: ranks
    match: 's(?P<step>\d+)_r(?P<part>\d)\.pt'
    examples: {s100_r0.pt: step-0100-rank0.pt}
"""
POLICY = "retention:\n  default: {keep_last: 2}\ntrash_days: 7\n"
FOLDER = "exp/checkpoints"
TREE: dict[str, int | str] = {
    **{f"{FOLDER}/s{step}_r{rank}.pt": step + rank for step in (100, 200, 300) for rank in range(2)},
    f"{FOLDER}/s200_r1.json": 20,
    f"{FOLDER}/last.pt": "-> s300_r1.pt",
}
STEPS = {"1": 2, "2": 2, "3": 2}  # files of each checkpoint, by the first digit of its step


@pytest.fixture
def ranks(project: Project, tmp_path: Path, request: pytest.FixtureRequest) -> Undisturbed:
    old_system, *options = request.param
    (project.folder / "rules" / "naming.yaml").write_text(RULES)
    (project.folder / "rules" / "retention.yaml").write_text(POLICY)
    project.make(TREE)
    (project.outputs / FOLDER / "latest").write_text("s300_r0.pt\n")
    made = Undisturbed(project, tmp_path / "kept", ("migrate", "delete_old=1", *options), old_system=old_system)
    assert "Renamed: s200_r0.pt (2 files)\n" in made.output
    assert "Deleted: s100_r0.pt (2 files)" in made.output
    return made


def parted(project: Project) -> list[str]:
    """List the checkpoints of which some files have another name, or place, than others."""
    names = [name for name in os.listdir(project.outputs / FOLDER) if "r" in name and name.endswith(".pt")]
    old, new = ({name for name in names if name.startswith(start)} for start in ("s", "step-"))
    old -= new
    found = []
    for step, files in STEPS.items():
        counts = (
            sum(name.startswith(f"s{step}") for name in old),
            sum(name.startswith(f"step-0{step}") for name in new),
        )
        if counts not in ((files, 0), (0, files), (0, 0)):
            found.append(f"{step}: {counts}")
    return found


@pytest.mark.parametrize("ranks", [(False,), (True,)], ids=["", "old system"], indirect=True)
def test_killed_at_any_change_all_files_of_a_checkpoint_have_their_new_names_or_none(ranks: Undisturbed) -> None:
    in_parts = 0
    files = {text for path, text in ranks.start.items() if path.endswith((".pt", ".json"))} - {"-> s300_r1.pt"}
    for at in ranks.kills():
        ranks.begin()
        ended = ranks.run(*ranks.command, fault=at)
        assert ended.code == -signal.SIGKILL, (at, ended)
        assert files <= set(contents(ranks.project)), at
        if not ranks.leaves_another_disk():
            continue
        in_parts += bool(parted(ranks.project))
        ended = ranks.run("drop_links")  # has nothing to do but to finish what was begun
        assert (ended.code, parted(ranks.project)) == (0, []), (at, ended.output)
        ended = ranks.run(*ranks.command)
        assert (ended.code, ranks.project.tree()) == (0, ranks.final), (at, ended.output)
        ranks.take_back(at)
    assert in_parts > 2


@pytest.mark.parametrize("ranks", [(False, "leave_links=1")], ids=[""], indirect=True)
def test_killed_while_links_are_left_under_all_old_names(ranks: Undisturbed) -> None:
    files = {text for path, text in ranks.start.items() if path.endswith((".pt", ".json"))} - {"-> s300_r1.pt"}
    for at in ranks.kills():
        ranks.begin()
        ranks.run(*ranks.command, fault=at)
        assert files <= set(contents(ranks.project)), at
        if ranks.leaves_another_disk():
            ended = ranks.run(*ranks.command)
            assert (ended.code, ranks.project.tree()) == (0, ranks.final), (at, ended.output)
            ranks.take_back(at)
