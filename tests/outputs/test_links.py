"""Links that do not lead straight: through links outside of the tree, and those that a backup keeps."""

from __future__ import annotations

import json
import os

import pytest

from ckptrules.outputs.links import Links
from tests.conftest import Project, by_experiment

HERE = "one/checkpoints"
OLD, NEWER, NEWEST = (f"epoch={epoch}-step={epoch}.ckpt" for epoch in (1, 12, 13))
LINKS = {"elsewhere": "two/pretrained.ckpt", "beside it": f"{HERE}/last.ckpt"}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("hops", [1, 2])
def test_what_a_link_leads_to_through_one_outside_stays_under_its_name(project: Project, link: str, hops: int) -> None:
    project.make({f"{HERE}/{name}": 50 for name in (OLD, NEWER, NEWEST)})
    to = project.outputs / HERE / OLD
    for hop in range(hops):
        outside = project.folder / f"best-{hop}.ckpt"
        outside.symlink_to(to)
        to = outside
    project.make({link: f"-> {to}"})
    assert f"{link} points to it" in project.doit("plan", "delete_old=1", "verbose=1")
    project.doit("migrate", "delete_old=1")
    assert (project.outputs / link).exists()
    assert OLD in project.names("one")


def test_links_outside_that_lead_in_a_circle_lead_nowhere(project: Project) -> None:
    project.make({f"{HERE}/{name}": 50 for name in (OLD, NEWER)} | {"two/pretrained.ckpt": f"-> {project.folder}/a"})
    (project.folder / "a").symlink_to("b")
    (project.folder / "b").symlink_to("a")
    project.doit("migrate", "delete_old=1")
    assert OLD not in project.names("one")


def test_a_link_in_a_backup_stays_as_it_was(project: Project) -> None:
    project.make({f"{HERE}/{name}": 50 for name in (NEWER, NEWEST)})
    project.make({f"{HERE}/last.ckpt": f"-> {project.outputs / HERE / NEWER}"})
    project.doit("backup")
    (backup,) = project.folder.glob("outputs_backup_*")
    backup.rename(project.outputs / backup.name)
    project.doit("migrate")
    assert os.readlink(project.outputs / backup.name / HERE / "last.ckpt") == f"{project.outputs / HERE / NEWER}"
    assert "damaged" not in project.doit("backups", "to=outputs", "verify=1")


def keeping_one(project: Project, experiment: str = "one") -> None:
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep_last: 1}}\n")
    project.make({f"{experiment}/checkpoints/{name}": 50 for name in (OLD, NEWER, NEWEST)})


TRACKERS = [
    ("best_checkpoint.txt", f"checkpoints/{OLD}\n", True),
    ("best_f1.txt", f"checkpoints/{OLD}\n", True),
    ("best_checkpoint", f"/another/machine/one/checkpoints/{OLD}", True),
    ("best.json", json.dumps({"path": f"D:\\runs\\checkpoints\\{OLD}", "acc": 0.5}), True),
    ("latest.txt", OLD, True),
    ("best_metrics.json", '{"epoch": 1, "metric": "acc"}', True),
    ("last_model.txt", "see ./epoch=1-step=1.ckpt", True),
    ("resume.sh", f"python train.py --ckpt_path checkpoints/{OLD}\n", True),
    ("best_model.ini", f"[best]\npath = checkpoints/{OLD}\n", True),
    ("best_checkpoint.txt", f"others/{OLD}\n", False),
    ("best_checkpoint.txt", f"/runs/two/others/{OLD}\n", False),
    ("notes.txt", f"checkpoints/{OLD}\n", False),
    ("best.log", f"checkpoints/{OLD}\n", False),
]


def test_a_tracker_in_the_folder_above_names_what_lies_in_this_one(project: Project) -> None:
    """It was looked for beside the checkpoints only, and the best went. Each lies in an experiment of its own."""
    trackers = {
        f"{number}-{file}": (file, content, is_meant) for number, (file, content, is_meant) in enumerate(TRACKERS)
    }
    for experiment, (file, content, _) in trackers.items():
        keeping_one(project, experiment)
        (project.outputs / experiment / file).write_text(content.replace("/one/", f"/{experiment}/"))
    expected = {experiment: is_meant for experiment, (*_, is_meant) in trackers.items()}
    plans = by_experiment(project.doit("plan", "delete_old=1"))
    assert {
        experiment: f"../{file} names {OLD}, which stays as it is: 'ignored: [{file}]' lets it name nothing"
        in plans[experiment]
        for experiment, (file, *_) in trackers.items()
    } == expected
    for _ in range(2):
        project.doit("migrate", "delete_old=1")
        assert {experiment: OLD in project.names(experiment) for experiment in trackers} == expected
    for experiment, (file, *_) in trackers.items():
        (project.outputs / experiment / file).write_text("nothing\n")
    project.doit("migrate", "delete_old=1")
    assert [experiment for experiment in trackers if OLD in project.names(experiment)] == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (f"one/checkpoints/{OLD}\n", OLD),
        (
            json.dumps({"two": f"two/checkpoints/{NEWER}", "one": f"/any/outputs/one/checkpoints/{OLD}", "acc": 0.5}),
            OLD,
        ),
        (json.dumps({"one": f"one/checkpoints/{OLD}", "two": f"C:\\two\\checkpoints\\{NEWER}"}), OLD),
        (f"two/checkpoints/{OLD}\n", ""),
        (f"{OLD}\n", ""),
        ('{"epoch": 1}', ""),
    ],
)
def test_a_tracker_further_up_names_by_a_path(project: Project, content: str, named: str) -> None:
    """Beside many experiments a mere name, or an epoch, is of none of them."""
    keeping_one(project)
    (project.outputs / "best.json").write_text(content)
    project.doit("migrate", "delete_old=1")
    assert {OLD, NEWER}.intersection(project.names("one")) == {named} - {""}


def test_a_tracker_in_the_folder_above_names_a_part_by_its_folder(project: Project) -> None:
    (project.folder / "rules" / "retention.yaml").write_text(
        "retention: {default: {keep_last: 1}}\npart_folders: ['rank_*']\n"
    )
    parts = [f"rank_{rank}/{name}" for name in (OLD, NEWER, NEWEST) for rank in (0, 1)]
    project.make({f"{HERE}/{part}": 50 for part in parts})
    (project.outputs / "one/best.txt").write_text(f"checkpoints/rank_0/{OLD}\n")
    project.doit("migrate", "delete_old=1")
    left = {str(path.relative_to(project.outputs / HERE)) for path in (project.outputs / HERE).glob("*/*")}
    assert left == {part for part in parts if NEWER not in part}


def test_a_tracker_in_the_folder_above_that_ignored_lists_names_nothing(project: Project) -> None:
    keeping_one(project)
    (project.outputs / "one/best.txt").write_text(OLD)
    (project.folder / "rules" / "mine.yaml").write_text("ignored: [best.txt]\n")
    project.doit("migrate", "delete_old=1")
    assert OLD not in project.names("one")


@pytest.mark.parametrize(
    ("file", "base"),
    [
        ("two/adapter_config.json", f"../{HERE}/{OLD}"),
        ("two/checkpoint-5/adapter_config.json", f"outputs/{HERE}/{OLD}"),
        ("one/lora/adapter_config.json", f"checkpoints/{OLD}"),
        ("two/adapter_config.json", f"/another/machine/{HERE}/{OLD}"),
        ("two/adapter_config.json", f"outputs\\{HERE}\\{OLD}".replace("/", "\\")),
        ("two/adapter_config.json", "{here}"),
    ],
)
def test_the_base_of_an_adapter_stays_under_its_name(project: Project, file: str, base: str) -> None:
    """It is nothing without its base, which went without a word."""
    keeping_one(project)
    project.make({file: 1})
    text = base.format(here=project.outputs / HERE / OLD)
    (project.outputs / file).write_text(json.dumps({"base_model_name_or_path": text, "r": 8}))
    assert f"{file} points to it" in project.doit("plan", "delete_old=1", "verbose=1")
    project.doit("migrate", "delete_old=1")
    assert OLD in project.names("one")


HOLD_NOTHING = [
    b"",
    b"[]",
    b"{",
    b"\xff",
    b"{}",
    *(
        json.dumps({"base_model_name_or_path": base}).encode()
        for base in (
            None,
            "",
            "/",
            "gpt2",
            "org/model",
            "../..",
            "..",
            f"/elsewhere/{NEWER}",
            "a\0b",
            "x" * 5000,
            5,
        )
    ),
]


def test_an_adapter_whose_base_is_not_in_the_tree_holds_nothing(project: Project) -> None:
    for number, content in enumerate(HOLD_NOTHING):
        keeping_one(project, f"of {number}")
        project.make({f"two {number}/adapter_config.json": 1})
        (project.outputs / f"two {number}/adapter_config.json").write_bytes(content)
    project.doit("migrate", "delete_old=1")
    assert [project.names(f"of {number}") for number in range(len(HOLD_NOTHING))] == [
        ["epoch-13_step-000013.ckpt"]
    ] * len(HOLD_NOTHING)


def test_a_worker_is_sent_what_leads_into_its_directory(project: Project) -> None:
    keeping_one(project)
    (project.outputs / "one/best.txt").write_text(OLD)
    project.make({"two/pretrained.ckpt": f"-> ../{HERE}/{OLD}", "two/adapter_config.json": 1})
    (project.outputs / "two/adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": f"../{HERE}/{OLD}"})
    )
    links = Links(str(project.outputs))
    assert len(links.into(HERE)) == 2
    assert links.above(HERE) == ("../best.txt",)
    assert links.only(HERE).into(HERE) == links.into(HERE)
    assert links.only(HERE).above(HERE) == links.above(HERE)
    assert not links.only("two").into(HERE)
    assert not links.only("two").above("")
