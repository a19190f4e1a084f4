"""``verified=1``: nothing is deleted where nothing that stays is proved whole. With the real doit on real files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptrules.commands.demo import sample_checkpoint
from tests.conftest import Project

EARLY, STAYS = "epoch_2_step_176.ckpt", "epoch_20_step_1760.ckpt"
EARLY_NEW, STAYS_NEW = "epoch-02_step-000176.ckpt", "epoch-20_step-001760.ckpt"
DELETE = ("delete_old=1", "verified=1")
TOLD = (
    "  ! Problem: {0}/checkpoints loses nothing (1 could go): no checkpoint that stays is verified\n"
    "      hint: run 'doit verify', then this again\n"
)


def put(project: Project, name: str, epoch: int, step: int, experiment: str = "exp") -> Path:
    """Write a checkpoint that is old enough to be remembered."""
    path = project.outputs / experiment / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sample_checkpoint(epoch, step, 2000))
    os.utime(path, (10**9, 10**9))
    return path


def make(project: Project, experiment: str = "exp") -> Path:
    put(project, EARLY, 2, 176, experiment)
    return put(project, STAYS, 20, 1760, experiment)


def test_only_experiments_with_a_proof_lose_something_and_the_others_are_told(project: Project) -> None:
    make(project, "one")
    make(project, "two")
    project.doit("verify:two", check=1)  # the names are still to be changed
    plan = project.doit("plan", *DELETE, check=1)
    assert TOLD.format("one") in plan
    assert f"Would delete: {EARLY} (epoch < 10)\n" in plan.partition("experiment: two")[2]
    out = project.doit("migrate", *DELETE, "json=r.json", check=1)
    assert TOLD.format("one") in out
    assert "two/checkpoints loses" not in out
    assert (project.names("one"), project.names("two")) == ([EARLY_NEW, STAYS_NEW], [STAYS_NEW])
    (problem,) = json.loads((project.folder / "r.json").read_text())["experiments"][0]["problems"]
    assert (problem["id"], problem["names"]) == ("unverified", ["one/checkpoints"])
    project.doit("verify")
    project.doit("migrate", *DELETE)
    assert project.names("one") == [STAYS_NEW]
    assert "verified=1" in project.doit("history").splitlines()[1]


def test_it_is_told_again_until_it_is_solved_and_then_nothing_is_left_to_do(project: Project) -> None:
    make(project)
    for _ in range(2):
        assert TOLD.format("exp") in project.doit("migrate", *DELETE, check=1)
    project.doit("verify")
    project.doit("migrate", *DELETE)
    nothing = "Nothing to do: 1 experiment is up to date.\n"
    assert project.doit("migrate", *DELETE).startswith(nothing)
    assert nothing not in project.doit("migrate", "delete_old=1")
    assert project.doit("migrate", "delete_old=1").startswith(nothing)
    assert nothing not in project.doit("migrate", *DELETE)


def test_the_proof_goes_with_the_checkpoint_through_rename_and_undo(project: Project) -> None:
    make(project)
    project.doit("verify", check=1)
    project.doit("migrate")
    project.doit("undo")
    project.doit("migrate")
    project.doit("migrate", *DELETE)
    assert project.names("exp") == [STAYS_NEW]
    project.doit("undo")
    project.doit("migrate", *DELETE)
    assert project.names("exp") == [STAYS_NEW]


def other_content(path: Path) -> None:
    """Write other bytes: the time is another."""
    path.write_bytes(path.read_bytes())


def other_size(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")
    os.utime(path, (10**9, 10**9))


def other_file(path: Path) -> None:
    """Put a copy with the same size and time in its place."""
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)


def no_memory(path: Path) -> None:
    shutil.rmtree(path.parents[2] / ".ckptrules/verified")


@pytest.mark.parametrize("change", [other_content, other_size, other_file, no_memory])
def test_what_was_verified_must_still_be_the_same(project: Project, change: Callable[[Path], None]) -> None:
    stays = make(project)
    project.doit("verify", check=1)
    change(stays)
    assert TOLD.format("exp") in project.doit("migrate", *DELETE, check=1)
    assert project.names("exp") == [EARLY_NEW, STAYS_NEW]


@pytest.mark.parametrize("case", ["quick", "other epoch", "damaged", "preview"])
def test_what_is_no_proof(project: Project, case: str) -> None:
    stays = make(project)
    if case == "other epoch":
        put(project, STAYS, 7, 1760)
    if case == "damaged":
        stays.write_bytes(stays.read_bytes()[:-1])
        os.utime(stays, (10**9, 10**9))
    words = {"quick": ["quick=1"], "preview": ["dry_run=1"]}.get(case, [])
    project.doit("verify", *words, check=1)
    project.doit("migrate", *DELETE, check=1)
    assert project.names("exp") == [EARLY_NEW, STAYS if case == "damaged" else STAYS_NEW]


def test_without_delete_old_it_asks_for_nothing(project: Project) -> None:
    make(project)
    project.doit("migrate", "verified=1")
    assert project.names("exp") == [EARLY_NEW, STAYS_NEW]


@pytest.mark.parametrize("holder", ["latest", "../best", "pinned"])
def test_what_stays_in_any_case_needs_no_proof(project: Project, holder: str) -> None:
    """The plan without a proof is asked first: what a pointer file or a link elsewhere holds could not go."""
    early = put(project, EARLY_NEW, 2, 176)
    put(project, STAYS_NEW, 20, 1760)
    if holder == "latest":
        early.with_name(holder).write_text(EARLY_NEW)
    elif holder == "pinned":
        project.doit("pin", f"name={EARLY_NEW}")
    else:
        early.parent.joinpath(holder).symlink_to(f"checkpoints/{EARLY_NEW}")
    project.doit("plan", *DELETE)
    project.doit("migrate", *DELETE)


def test_a_checkpoint_that_is_a_directory_proves_as_well(project: Project) -> None:
    put(project, EARLY, 2, 176)
    put(project, f"{STAYS}/a.pt", 20, 1760)
    put(project, f"{STAYS}/b.pt", 20, 1760)
    project.doit("verify", check=1)
    (project.outputs / "exp/checkpoints" / STAYS / "b.pt").unlink()
    project.doit("plan", *DELETE, check=1)
    project.doit("verify", check=1)
    project.doit("-n", "2", "migrate", *DELETE)
    assert project.names("exp") == [STAYS_NEW]
