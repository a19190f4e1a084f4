"""Pointer files and trackers: what a small text beside checkpoints, or above them, names."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from ckptrules.engine import pointers
from ckptrules.engine.entries import Directory, Stamp
from ckptrules.engine.pointers import stems
from ckptrules.outputs.listing import scan
from ckptrules.outputs.pointers import read_pointers
from ckptrules.rules.load import load_rules
from tests.commands.test_verify import lightning, put
from tests.conftest import Project, by_experiment
from tests.outputs.test_glancing import NAMES, fill, rules_of_lightning
from tests.support.torch_files import lightning_file, torch_zip


def test_each_of_many_pointers_is_tried_against_few_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each was tried against each name: a plan of 2,000 of both took four minutes."""
    rules = load_rules({"x.yaml": "layout: ['*']\npointers: ['last.*']\npacks: [words]\n"})
    fill(tmp_path / "run", {f"epoch-{n}.pt": b"x" for n in range(100)})
    fill(tmp_path / "run", {f"last.{n}": f"/data/epoch-{n}.pt\n".encode() for n in range(100)})
    tried = []

    def counted(name: str, part: str) -> list[str]:
        tried.append(name)
        return stems(name, part)

    monkeypatch.setattr(pointers, "stems", counted)
    listing = scan(str(tmp_path), Directory("run", "run", Stamp(0, 0, 0)))
    directory = os.open(tmp_path / "run", os.O_RDONLY)
    found, _ = read_pointers(directory, listing, rules)
    os.close(directory)
    assert {name: [one.name for one in said] for name, said in found.items()} == {
        f"last.{n}": [f"epoch-{n}.pt"] for n in range(100)
    }
    assert len(tried) < 1000


TEXTS = [
    ("resume.txt", "{}\n", True),
    ("best_model_path", "/another/place/{}", True),
    ("CURRENT", "\ufeff./{}\r\n", True),
    ("best_model.json", '{{"path": "/data/{}", "score": 0.9}}', True),
    ("best-model.csv", "epoch,path\n10,{}\n", True),
    ("last_good", "step: 100", True),
    ("resume.sh", "python train.py --ckpt_path {}\n", True),
    ("best_f1.json", '{{"path": "/data/{}", "f1": 0.9}}', True),
    ("bestModel.json", '{{"path": "/data/{}"}}', True),
    ("best_f1.json", '{{"path": "/data/{}", "of": "' + 16_000 * "x" + '"}}', True),
    ("fold0_best.txt", "{}\n", True),
    ("train_state.json", '{{"best_checkpoint": "/data/{}", "epoch": 12}}', True),
    ("info.json", '{{"all": ["{0}"], "of": {{"latest_ckpt": {{"net": "{0}"}}}}}}', True),  # of second.pytorch
    ("summary.yaml", "lr: 0.1\nbest_model: ./{}\n", True),
    ("summary.json", '{{"best_ckpt": "epoch=10-step=100", "of": "acc"}}', True),
    ("info.json", '{{"all": ["{}"], "best": 0.9}}', False),
    ("metrics.json", '{{"best_epoch": 10, "best_loss": 0.5, "epoch": 12}}', True),
    ("summary.json", '{{"best_val_epoch": 10, "best_val_acc": 0.5}}', True),
    ("summary.json", '{{"best": {{"epoch": 10, "acc": 0.5}}, "last": {{"epoch": 12}}}}', True),
    ("summary.json", '{{"bestIter": 100}}', True),
    ("summary.json", '{{"best_epoch": ' + 5000 * "1" + "}}", False),
    ("summary.json", '{{"best": {{"step": 10}}, "all": {{"epoch": 10}}, "best_round": 10}}', False),
    ("metrics.json", '{{"best_step": 10, "last_epoch": 10, "best": 10}}', False),
    ("summary.json", '{{"best_score": 0.5, "best_score_epoch": 10, "of": "acc"}}', True),
    ("summary.json", '{{"best_epoch_idx": 10, "max_epoch": 12}}', True),
    ("best epoch.txt", "acc at epoch 10\n", True),
    ("epoch3_best.txt", "{}\n", False),
    ("best_3.txt", "{}\n", False),
    ("elastic.txt", "at {}\n", False),
    ("latest.log", "saved {}\n", False),
    ("notes.txt", "the best is {}\n", False),
    ("seed.txt", "10", False),
    ("fold_1.txt", "{}\n", False),
]


def test_a_file_that_no_rule_knows_names_a_checkpoint_where_it_holds_nothing_else(project: Project) -> None:
    """Each lies in an experiment of its own."""
    old = "epoch=10-step=100.ckpt"
    texts = {f"{number}-{file}": (file, content, is_one) for number, (file, content, is_one) in enumerate(TEXTS)}
    for experiment, (file, content, _) in texts.items():
        for epoch in (10, 11, 12):
            put(project, f"epoch={epoch}-step={epoch}0.ckpt", lightning(epoch, 10 * epoch), experiment)
        put(project, file, content.format(old).encode(), experiment)
    expected = {experiment: is_one for experiment, (*_, is_one) in texts.items()}
    plans = by_experiment(project.doit("plan"))
    assert {experiment: "'pointers: [" in plan for experiment, plan in plans.items()} == expected
    project.doit("migrate", "delete_old=1", "keep_last=1")
    assert {experiment: old in project.names(experiment) for experiment in texts} == expected
    for experiment, (file, *_) in texts.items():
        put(project, file, b"nothing\n", experiment)
    project.doit("migrate", "delete_old=1", "keep_last=1")
    assert [experiment for experiment in texts if old in project.names(experiment)] == []


def test_the_number_of_the_best_may_be_of_an_unknown_unit_in_the_name(project: Project) -> None:
    rules = project.folder / "rules" / "mine.yaml"
    rules.write_text(r"formats: [{id: x, match: 'net_(?P<number>\d+)\.pt', examples: {net_1.pt: {number: 1}}}]")
    for number in (1, 2, 3):
        put(project, f"net_{number}.pt", lightning(number, number))
    put(project, "state.yaml", b"best_epoch: 1\nacc: 0.5\n")
    project.doit("migrate", "delete_old=1", "keep_last=1")
    assert project.names("exp") == ["net_1.pt", "net_3.pt", "state.yaml"]


def test_a_file_that_ignored_lists_by_its_name_names_nothing(project: Project) -> None:
    three_of_lightning(project)
    put(project, "resume.txt", b"epoch=10-step=100.ckpt\n")
    rules = project.folder / "rules" / "naming.yaml"
    naming = rules.read_text()
    rules.write_text(naming + "ignored: ['res*.txt']\n")
    assert "resume.txt names epoch=10-step=100.ckpt" in project.doit("plan", "delete_old=1")
    rules.write_text(naming + "ignored: [resume.txt]\n")
    project.doit("migrate", "delete_old=1")
    assert "epoch=10-step=100.ckpt" not in project.names("exp")


def three_of_lightning(project: Project) -> None:
    rules_of_lightning(project)
    for epoch in (10, 11, 12):
        put(project, f"epoch={epoch}-step={epoch}0.ckpt", lightning(epoch, 10 * epoch))


def test_a_number_in_a_file_that_is_called_after_epochs_is_one_of_them(project: Project) -> None:
    """The names tell a step as well, so that the number was looked for among the steps, and the best went."""
    three_of_lightning(project)
    put(project, "best_epoch.txt", b"10\n")
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == ["best_epoch.txt", "epoch=10-step=100.ckpt", "epoch=12-step=120.ckpt"]


def test_a_protected_file_may_name_a_checkpoint(project: Project) -> None:
    three_of_lightning(project)
    (project.folder / "rules" / "mine.yaml").write_text("protected: ['best_*']\n")
    put(project, "best_model.json", b'{"step": 100, "loss": 0.5}')
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == ["best_model.json", "epoch=10-step=100.ckpt", "epoch=12-step=120.ckpt"]


@pytest.mark.parametrize("content", ['{"epoch": 10}', '{"epoch": 10, "metric": "acc", "value": 0.5}'])
def test_a_file_that_tells_the_epoch_of_the_best_names_it(project: Project, content: str) -> None:
    """The names tell a step as well, or the file a word: so the best went."""
    three_of_lightning(project)
    put(project, "best_metrics.json", content.encode())
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == ["best_metrics.json", "epoch=10-step=100.ckpt", "epoch=12-step=120.ckpt"]


@pytest.mark.parametrize("marker", ["-incomplete", ".in-progress", ".saving", ".aria2"])
def test_a_usual_marker_is_asked_where_no_rule_names_it(project: Project, marker: str) -> None:
    """The newest counted as whole, and the last whole one went."""
    three_of_lightning(project)
    put(project, f"epoch=12-step=120.ckpt{marker}", b"")
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == [
        "epoch=11-step=110.ckpt",
        "epoch=12-step=120.ckpt",
        f"epoch=12-step=120.ckpt{marker}",
    ]


def test_the_best_of_each_series_that_a_policy_makes_stays(project: Project) -> None:
    """What the newest of all said was believed alone, so the best of another series went."""
    (project.folder / "rules" / "naming.yaml").write_text(
        "layout: ['*/checkpoints']\nretention: {default: {keep_last: 1, per: [lr]}}\nformats:\n"
        r"- {id: folder, match: 'lr(?P<lr>\d+)-(?P<step>\d+)', folder: true, examples: {lr1-3: {lr: 1}}}"
        "\n"
        r"- {id: file, match: 'lr(?P<lr>\d+)-(?P<step>\d+)\.ckpt', examples: {lr1-3.ckpt: {lr: 1}}}"
        "\nfacts:\n- {file: s.json, within: true, best: best}\n"
        "- {file: '*.ckpt', inside: true, best: 'callbacks/*/best_model_path'}\n"
    )
    (project.folder / "rules" / "retention.yaml").unlink()
    for lr in "12":
        for step in "1234":
            put(project, f"lr{lr}-{step}.ckpt", lightning_file(f"lr{lr}-2.ckpt"), "files")
            put(project, f"lr{lr}-{step}/model.pt", torch_zip({}), "folders")
            put(project, f"lr{lr}-{step}/s.json", json.dumps({"best": f"lr{lr}-1"}).encode(), "folders")
    project.doit("migrate", "delete_old=1")
    assert project.names("folders") == ["lr1-1", "lr1-4", "lr2-1", "lr2-4"]
    assert project.names("files") == [f"lr{lr}-{step}.ckpt" for lr in "12" for step in "24"]


def test_a_text_that_protects_a_checkpoint_is_no_leftover(project: Project) -> None:
    """It went with the run in which it held the checkpoint, and the checkpoint with the next."""
    (project.folder / "rules" / "mine.yaml").write_text("leftovers: {match: '*.txt', after: 1d}\n")
    for name in NAMES:
        put(project, name, lightning(12, 120))
    for name, text in (("resume.txt", NAMES[0]), ("other.txt", "no name")):
        os.utime(put(project, name, text.encode()), (1_000_000_000, 1_000_000_000))
    for _ in range(2):
        project.doit("migrate", "delete_old=1", "keep_last=1")
        assert project.names("exp") == [NAMES[0], NAMES[2], "resume.txt"]


def test_the_line_by_which_such_a_file_follows_can_be_copied(project: Project) -> None:
    old, file = "epoch=10-step=100.ckpt", "it's: the [best]"
    put(project, old, lightning(10, 100))
    put(project, file, old.encode())
    said = project.doit("plan")
    found = re.search(r"'(pointers: \[.*\])' lets it follow", said)
    assert found
    rules = project.folder / "rules/naming.yaml"
    rules.write_text(re.sub(r"(?m)^pointers: .*", lambda _: found[1], rules.read_text()))
    project.doit("migrate")
    new = NAMES[0]
    assert (project.outputs / "exp/checkpoints" / file).read_text() == new
    assert new in project.names("exp")


@pytest.mark.parametrize("place", ["one/checkpoints/last_checkpoint", "one/best_model.txt"])
def test_what_is_written_while_it_is_read_is_read_again_in_the_next_run(project: Project, place: str) -> None:
    """Its time may be the same after a change that is still to come: with the time of the next hour it is so."""
    project.make({f"one/checkpoints/epoch-0{n}_step-00000{n}.ckpt": n for n in (1, 2)})
    file = project.outputs / place
    file.write_text("epoch-01_step-000001.ckpt\n")
    for ahead, remembered in ((3600, False), (-3600, True)):
        os.utime(file, (time.time() + ahead,) * 2)
        again = [project.doit("migrate", "delete_old=1", "keep_last=1") for _ in range(2)][1]
        assert ("up to date" in again) == remembered
