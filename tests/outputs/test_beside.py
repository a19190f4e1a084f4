"""The files of one save in folders beside each other: the newest save that all of them have stays."""

from __future__ import annotations

import os
import re

import pytest

from tests.conftest import Project
from tests.support.torch_files import torch_zip


def put(project: Project, names: str, content: bytes = b"some bytes") -> None:
    for name in names.split():
        path = project.outputs / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (1_700_000_000, 1_700_000_000))


def pairs(project: Project, *numbers: int, content: bytes = b"some bytes") -> None:
    for number in numbers:
        put(project, f"models/model_epoch_{number}.pt optimizers/optimizer_epoch_{number}.pt", content)


def left(project: Project) -> list[str]:
    folders = [folder for folder in sorted((project.outputs / "run").iterdir()) if folder.is_dir()]
    return [
        f"{folder.name[0]}{re.findall('[0-9]+', file.name)[-1]}"
        for folder in folders
        for file in sorted(folder.iterdir())
    ]


@pytest.fixture
def tree(project: Project) -> Project:
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    text = "packs: [words]\nlayout: ['run/*']\nretention: {default: {keep_last: 1}}\n"
    (project.folder / "rules" / "mine.yaml").write_text(text)
    return project


def test_the_newest_pair_stays_where_one_of_its_folders_has_something_newer(tree: Project) -> None:
    """The newest model was kept, the newest optimizer, and no model for it."""
    pairs(tree, 10, 20, 30)
    put(tree, "models/model_epoch_40.pt")
    out = tree.doit("migrate", "delete_old=1", "verbose=1")
    assert left(tree) == ["m30", "m40", "o30"]
    assert "no newer save is whole in ../optimizers, too" in out
    assert "up to date" in tree.doit("migrate", "delete_old=1")
    put(tree, "optimizers/optimizer_epoch_40.pt")
    assert "model_epoch_30.pt" in tree.doit("plan", "delete_old=1")
    tree.doit("migrate", "delete_old=1")
    assert left(tree) == ["m40", "o40"]


def test_folders_of_which_no_rule_reads_the_names_count_too(tree: Project) -> None:
    pairs(tree, 10, 20, 30)
    put(tree, "models/model_epoch_40.pt states/30.state states/20.state")
    (tree.folder / "rules" / "mine.yaml").write_text(
        "packs: [words]\nlayout: ['run/models']\nretention: {default: {keep_last: 1}}\n"
    )
    (tree.outputs / "run/states/30.state").unlink()
    tree.doit("migrate", "delete_old=1")
    assert left(tree) == ["m20", "m40", "o10", "o20", "o30", "s20"]


@pytest.mark.parametrize(
    "folders",
    [
        "ModelParameters OptimizerParameters LatentCodes",
        "unet vae",
        "backbone head",
        "Model LRScheduler RNG",
        "rank_0 rank_1 rank_2",
        "mp_rank_00 mp_rank_01",
        "critic1 critic2",
        "G_A D_B",
        "policies buffers",
        "gpu0 gpu1",
    ],
)
def test_folders_are_known_by_words_in_camel_case_and_of_parts(tree: Project, folders: str) -> None:
    """DeepSDF writes ModelParameters/2500.pth first: the last model with codes went, and its codes stayed."""
    names = [f"{folder}/epoch_{n}.pth" for n in (10, 20, 30) for folder in folders.split()]
    put(tree, " ".join(names) + f" {folders.split(maxsplit=1)[0]}/epoch_40.pth")
    tree.doit("migrate", "delete_old=1")
    assert sorted(left(tree)) == sorted([*(f"{folder[0]}30" for folder in folders.split()), f"{folders[0]}40"])


@pytest.mark.parametrize(
    "folders", ["bert gpt", "fold_0 fold_1", "10 20", "a b", "checkpoint_1 checkpoint_2", "seed1 seed2"]
)
def test_other_folders_are_runs_of_their_own(tree: Project, folders: str) -> None:
    put(tree, " ".join(f"{folder}/epoch_{n}.pth" for n in (10, 20, 30) for folder in folders.split()))
    put(tree, f"{folders.split(maxsplit=1)[0]}/epoch_40.pth")
    tree.doit("migrate", "delete_old=1")
    assert [name[1:] for name in left(tree)] == ["40", "30"]


@pytest.mark.parametrize("half", ["models/model_epoch_40.pt", "optimizers/optimizer_epoch_40.pt"])
@pytest.mark.parametrize("content", [b"", torch_zip({})[:-30]])
def test_a_save_of_which_one_file_is_no_good_is_no_pair(tree: Project, half: str, content: bytes) -> None:
    pairs(tree, 10, 20, 30, 40, content=torch_zip({}))
    put(tree, half, content)
    tree.doit("migrate", "delete_old=1", check=1)
    assert left(tree) == ["m30", "m40", "o30", "o40"]


def test_one_folder_may_tell_fewer_numbers_than_the_other(tree: Project) -> None:
    for step in (10, 20, 30):
        put(tree, f"models/model_epoch_{step // 10}_step_{step}.pt optimizers/optimizer_step_{step}.pt")
    put(tree, "models/model_epoch_4_step_40.pt")
    tree.doit("migrate", "delete_old=1")
    assert left(tree) == ["m30", "m40", "o30"]


def test_experiments_that_are_only_beside_each_other_hold_nothing(tree: Project) -> None:
    put(tree, "lr1/model_epoch_10.pt lr1/model_epoch_20.pt lr2/model_epoch_10.pt best/model_epoch_10.pt")
    tree.doit("migrate", "delete_old=1")
    assert left(tree) == ["b10", "l20", "l10"]
    put(tree, "models/model_epoch_10.pt models/model_epoch_20.pt optimizers/optimizer_epoch_15.pt")
    tree.doit("migrate", "delete_old=1")
    assert left(tree) == ["b10", "l20", "l10", "m20", "o15"]
