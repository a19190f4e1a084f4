"""Checkpoints of several files on a real disk: all of their files go, come back and stay, or none."""

from __future__ import annotations

import pytest

from tests.conftest import Project

RULES = r"""
part_folders: ['mp_rank_*']
formats:
  - id: ranks
    match: 'ck_(?P<step>\d+)-rank(?P<part>\d+)\.pt'
    examples: {ck_5-rank0.pt: {step: 5, part: 0}}
  - id: trainer
    match: 'checkpoint-(?P<step>\d+)'
    folder: true
    complete: {any: [trainer_state.json]}
    examples: {checkpoint-500: {step: 500}}
  - id: tensorflow
    match: 'model\.ckpt-(?P<step>\d+)(?P<part>\.index|\.meta|\.data-\d{5}-of-\d{5})?'
    complete: {all: ['.index', '.data-*']}
    examples: {model.ckpt-5.index: {step: 5, part: .index}}
  - id: nemo
    match: 'gpt--step=(?P<step>\d+)\.ckpt'
    examples: {gpt--step=8.ckpt: {step: 8}}
retention:
  mine: {keep_last: 1}
"""


@pytest.fixture
def parts(project: Project) -> Project:
    (project.folder / "rules" / "mine.yaml").write_text(RULES)
    return project


def at(path: str, *names: str) -> dict[str, int | str]:
    return {f"{path}/checkpoints/{name}": 1000 for name in names}


CASES = {
    "ranks": (
        at("x", *(f"ck_{step}-rank{rank}.pt" for step in (100, 200) for rank in range(4)), "ck_300-rank0.pt"),
        at("x", *(f"ck_100-rank{rank}.pt" for rank in range(4))),
        "ck_100-rank0.pt (4 files)",
    ),
    "a folder that is not complete": (
        at("x", *(f"checkpoint-{step}/{name}" for step in (500, 1000) for name in ("a.bin", "trainer_state.json")))
        | at("x", "checkpoint-1500/a.bin"),
        at("x", "checkpoint-500/a.bin", "checkpoint-500/trainer_state.json"),
        "checkpoint-500",
    ),
    "part folders": (
        at("x", *(f"mp_rank_0{rank}/gpt--step={step}.ckpt" for step in (100, 200) for rank in (0, 1)))
        | at("x", "mp_rank_00/gpt--step=300.ckpt"),
        at("x", *(f"mp_rank_0{rank}/gpt--step=100.ckpt" for rank in (0, 1))),
        "mp_rank_00/gpt--step=100.ckpt (2 files)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_goes_is_whole_and_comes_back(parts: Project, case: str) -> None:
    files, goes, told = CASES[case]
    parts.make(files)
    before = parts.tree()
    planned = parts.doit("plan", "delete_old=1", "policy=mine")
    assert f"Would delete: {told} (not of the newest 1)" in planned
    assert parts.tree() == before
    out = parts.doit("migrate", "delete_old=1", "policy=mine")
    assert f"Deleted: {told} (not of the newest 1)" in out
    assert "is not whole" in out
    assert set(before) - set(parts.tree()) == set(goes)
    assert "\n  deleted     0" in parts.doit("migrate", "delete_old=1", "policy=mine")
    parts.doit("undo")
    assert parts.tree() == before


def test_a_part_folder_without_anything_makes_nothing_go(parts: Project) -> None:
    parts.make(at("x", *(f"mp_rank_0{rank}/gpt--step={step}.ckpt" for step in (100, 200) for rank in (0, 1))))
    (parts.outputs / "x/checkpoints/mp_rank_02").mkdir()
    out = parts.doit("migrate", "delete_old=1", "policy=mine")
    assert "mp_rank_00/gpt--step=200.ckpt is not whole: nothing of it is in 'mp_rank_02'" in out
    assert "\n  deleted     0" in out


def test_a_stem_in_a_pointer_file_protects_all_files_of_a_checkpoint(parts: Project) -> None:
    endings = (".index", ".meta", ".data-00000-of-00001")
    parts.make(at("x", *(f"model.ckpt-{step}{end}" for step in (1000, 2000, 3000, 4000) for end in endings)))
    (parts.outputs / "x/checkpoints/checkpoint").write_text('model_checkpoint_path: "model.ckpt-2000"\n')
    parts.doit("migrate", "delete_old=1", "policy=mine")
    left = [name for name in parts.names("x") if name != "checkpoint"]
    assert left == sorted(f"model.ckpt-{step}{end}" for step in (2000, 4000) for end in endings)


def test_a_link_into_a_part_folder_holds_what_is_in_all_of_them(parts: Project) -> None:
    parts.make(at("x", *(f"mp_rank_0{rank}/gpt--step={step}.ckpt" for step in (1, 2, 3) for rank in (0, 1))))
    parts.make(
        {
            "x/checkpoints/latest.ckpt": "-> mp_rank_01/gpt--step=1.ckpt",
            "y/checkpoints/from_x.ckpt": "-> ../../x/checkpoints/mp_rank_00/gpt--step=2.ckpt",
        }
    )
    assert "deleted     0" in parts.doit("migrate", "delete_old=1", "policy=mine")


def test_a_folder_that_loses_what_completes_it_is_planned_again(parts: Project) -> None:
    parts.make(at("x", "checkpoint-1/a.bin", "checkpoint-1/trainer_state.json"))
    assert "is not whole" not in parts.doit("migrate", "delete_old=1", "policy=mine")
    parts.make(at("x", "checkpoint-2/a.bin", "checkpoint-2/trainer_state.json"))
    (parts.outputs / "x/checkpoints/checkpoint-2/trainer_state.json").unlink()
    out = parts.doit("migrate", "delete_old=1", "policy=mine")
    assert "checkpoint-2 is not whole: it has none of 'trainer_state.json'" in out
    assert parts.names("x") == ["checkpoint-1", "checkpoint-2"]
    parts.make(at("x", "checkpoint-2/trainer_state.json"))
    assert "Deleted: checkpoint-1" in parts.doit("migrate", "delete_old=1", "policy=mine")
