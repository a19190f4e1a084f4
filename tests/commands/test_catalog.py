"""``ckptrules.catalog`` and ``doit catalog``: what an interface sees before, during and after a migration."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ckptrules
from ckptrules.commands.demo import sample_checkpoint
from ckptrules.discovery import Record
from tests.conftest import ROOT, Project

TREE: dict[str, int | str] = {
    "a/checkpoints/epoch=9-step=80.ckpt": 10,
    "a/checkpoints/epoch_10_step_90.ckpt": 20,
    "a/checkpoints/epoch-120_step-001000_hmean-0.8756.ckpt": 30,
    "a/checkpoints/best-hmean-0.9.ckpt": 40,
    "a/checkpoints/best-loss--1.5.ckpt": 41,
    "a/checkpoints/best.ckpt": 42,
    "a/checkpoints/last.ckpt": "-> epoch_10_step_90.ckpt",
    "a/checkpoints/hparams.yaml": 5,
    "a/checkpoints/what is this.ckpt": 5,
    "a/checkpoints/epoch_11_step_90.ckpt": 0,
    "a/checkpoints/best-gone.ckpt": "-> gone.ckpt",
    "b/checkpoints/epoch_1_step_2.ckpt/shard.pt": 7,
}


def records(project: Project) -> list[Record]:
    return list(ckptrules.catalog(project.outputs, project.folder / "rules"))


def said(found: list[Record]) -> list[tuple[object, ...]]:
    return [(os.path.basename(r.path), r.kind, r.epoch, r.step, r.metric, r.value, r.size) for r in found]


def make(project: Project, *left_out: str) -> None:
    """Make the tree; the later a name is, the newer its file."""
    project.make({path: content for path, content in TREE.items() if not path.endswith(left_out)})
    for number, path in enumerate(TREE):
        if (project.outputs / path).is_file():
            os.utime(project.outputs / path, (number, number))


def test_names_of_every_format_become_records_older_before_newer(project: Project) -> None:
    make(project, "nothing is left out")
    found = records(project)
    assert said(found) == [
        ("best-hmean-0.9.ckpt", "best", None, None, "hmean", 0.9, 40),
        ("best-loss--1.5.ckpt", "best", None, None, "loss", -1.5, 41),
        ("best.ckpt", "best", None, None, None, None, 42),
        ("epoch=9-step=80.ckpt", "epoch", 9, 80, None, None, 10),
        ("epoch_10_step_90.ckpt", "epoch", 10, 90, None, None, 20),
        ("last.ckpt", "last", 10, 90, None, None, 20),
        ("epoch-120_step-001000_hmean-0.8756.ckpt", "epoch", 120, 1000, "hmean", 0.8756, 30),
        ("epoch_1_step_2.ckpt", "epoch", 1, 2, None, None, 7),
    ]
    assert [r.experiment for r in found] == ["a"] * 7 + ["b"]
    assert all(os.path.exists(r.path) and not r.verified for r in found)
    assert found[3].rule.endswith("naming.yaml:29")


def test_a_migration_changes_names_and_nothing_else_of_the_catalog(project: Project) -> None:
    make(project, "epoch_11_step_90.ckpt", "best-gone.ckpt")
    before = sorted(map(str, (row[1:] for row in said(records(project)))))
    project.doit("migrate")
    assert sorted(map(str, (row[1:] for row in said(records(project))))) == before


def test_what_was_verified_is_known_under_its_new_name(project: Project) -> None:
    project.make({"a/checkpoints/epoch_3_step_352.ckpt": 1, "a/checkpoints/last.ckpt": "-> epoch_3_step_352.ckpt"})
    path = project.outputs / "a/checkpoints/epoch_3_step_352.ckpt"
    path.write_bytes(sample_checkpoint(3, 352, 2000))
    os.utime(path, (10**9, 10**9))
    project.doit("verify", check=1)
    project.doit("migrate")
    assert [r.verified for r in records(project)] == [True, True]
    (project.outputs / "a/checkpoints/epoch-03_step-000352.ckpt").write_bytes(b"something else")
    assert [r.verified for r in records(project)] == [False, False]


def test_the_helpers_choose(project: Project) -> None:
    make(project, "nothing is left out")
    found = records(project)
    chosen = [
        ckptrules.latest(found), ckptrules.at(found, 10),
        ckptrules.best(found, "max", "hmean"), ckptrules.best(found, "min", "hmean"),
    ]  # fmt: skip
    assert [(r.epoch, r.step, r.value) for r in chosen if r] == [
        (120, 1000, 0.8756), (10, 90, None), (None, None, 0.9), (120, 1000, 0.8756),
    ]  # fmt: skip
    assert (ckptrules.latest([]), ckptrules.at(found, 11), ckptrules.best(found, "max", "wer")) == (None, None, None)
    odd = [found[0]._replace(value=value) for value in (math.nan, math.inf, -math.inf)]
    assert [ckptrules.best([*odd, *found], mode, "hmean") for mode in ("max", "min")] == chosen[2:]
    with pytest.raises(ValueError, match="several metrics: hmean, loss; say which"):
        ckptrules.best(found, "max")
    with pytest.raises(ValueError, match="mode must be 'max' or 'min', not 'maximum'"):
        ckptrules.best(found, "maximum")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"records are wanted, such as those of catalog\('runs'\), not a path"):
        ckptrules.latest("runs")  # type: ignore[arg-type]


def put(project: Project, name: str, content: bytes, seconds: int) -> None:
    path = project.outputs / "a/checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))


def test_the_last_is_ordered_by_what_verify_has_read_in_it(project: Project) -> None:
    put(project, "epoch=0-step=437.ckpt", sample_checkpoint(0, 437, 2000), 10**9)
    put(project, "last.ckpt", sample_checkpoint(41, 18_000, 2000), 10**9 + 5)
    with pytest.warns(UserWarning, match=r"last.ckpt may be newer than .*step=437.ckpt: run 'doit verify'"):
        chosen = ckptrules.latest(records(project))
    assert chosen
    assert chosen.path.endswith("epoch=0-step=437.ckpt")
    project.doit("verify", check=1)
    chosen = ckptrules.latest(records(project))
    assert chosen
    assert (os.path.basename(chosen.path), chosen.epoch, chosen.step) == ("last.ckpt", 41, 18_000)


def test_an_older_last_is_no_news(project: Project, recwarn: pytest.WarningsRecorder) -> None:
    put(project, "last.ckpt", b"x", 10**9)
    put(project, "epoch=0-step=437.ckpt", b"x", 10**9 + 5)
    assert ckptrules.latest(records(project))
    assert not recwarn.list


FORMATS = r"""
layout: ['*/checkpoints']
protected: [last*]
formats:
  - {id: pair, match: '(?P<part>[GD])_(?P<step>\d+)\.pth', examples: {G_1.pth: {step: 1}}}
  - {id: save, match: 'save(?P<number>\d+)', folder: true, complete: {any: [done]}, examples: {save1: {number: 1}}}
facts:
  - {file: ../log.csv, by: {step: step}}
  - {file: meta.json, within: true, by: {number: n}, time: at}
retention: {default: {keep: all}}
"""


def test_recognised_formats_parts_and_facts_stand_in_the_catalog(project: Project) -> None:
    for path in (project.folder / "rules").glob("*.yaml"):
        path.unlink()
    (project.folder / "rules/formats.yaml").write_text(FORMATS)
    for name in ("G_100.pth", "D_100.pth", "G_200.pth", "D_200.pth", "G_300.pth"):
        put(project, name, b"12345", 1000)
    (project.outputs / "a/log.csv").write_text("step,loss,val_fid\n100,1,0.5\n200,1,0.25\n300,1,inf\n")
    for number in (1, 2):
        put(project, f"save{number}/done", b"1", 1000)
        put(project, f"save{number}/meta.json", f'{{"n": {number}, "at": {number}e9, "acc": 0.{number}}}'.encode(), 50)
    put(project, "save3/model.pt", b"1", 1000)
    project.make({"a/checkpoints/last.pth": "-> G_200.pth"})
    found = records(project)
    rows = [(os.path.basename(r.path), r.kind, r.step, r.number, r.files, dict(r.metrics), r.size) for r in found]
    assert rows == [
        ("save1", "epoch", None, 1, 1, {"acc": 0.1}, 32),
        ("save2", "epoch", None, 2, 1, {"acc": 0.2}, 32),
        ("D_100.pth", "epoch", 100, None, 2, {"loss": 1.0, "val_fid": 0.5}, 10),
        ("D_200.pth", "epoch", 200, None, 2, {"loss": 1.0, "val_fid": 0.25}, 10),
        ("last.pth", "last", 200, None, 2, {"loss": 1.0, "val_fid": 0.25}, 10),
    ]
    assert [r.time for r in found[:2]] == [1e9, 2e9]
    best = (
        ckptrules.best(found, "max", "acc"),
        ckptrules.best(found, "min", "val_fid"),
        ckptrules.best(found, "min", "x"),
    )
    assert [r and os.path.basename(r.path) for r in best] == ["save2", "last.pth", None]
    assert ckptrules.best(found, "max") is None
    table = project.doit("catalog")
    assert re.search(r"D_200.pth \(2 files\) +epoch +200 +val_fid 0.25 +10 B\n", table)
    assert "acc=0.2" in project.doit("catalog", "format=csv")


def test_a_group_that_is_called_by_a_metric_tells_it(project: Project) -> None:
    """As a policy reads it: what plan keeps for its val_loss, best finds by it."""
    for path in (project.folder / "rules").glob("*.yaml"):
        path.unlink()
    rules = project.folder / "rules/rules.yaml"
    rules.write_text("packs: [words]\nlayout: ['*']\n")
    for number, name in enumerate(("epoch=1_val_loss=0.5.pt", "epoch=2_val_loss=0.25.pt", "epoch=3_val_loss=nan.pt")):
        put(project, f"../{name}", b"12345", 1000 + number)
    found = records(project)
    rows = [(r.epoch, r.metric, str(r.value), dict(r.metrics)) for r in found]
    assert rows == [
        (1, "val_loss", "0.5", {"val_loss": 0.5}),
        (2, "val_loss", "0.25", {"val_loss": 0.25}),
        (3, "val_loss", "nan", {}),
    ]
    assert [found.index(one) for mode in ("min", "max") if (one := ckptrules.best(found, mode))] == [1, 0]
    assert "val_loss 0.25" in project.doit("catalog")
    put(project, "../epoch=4_val_loss=0.1_acc=0.123456789.pt", b"12345", 2000)
    last = records(project)[-1]
    assert (last.metric, last.value, dict(last.metrics)) == (None, None, {"val_loss": 0.1, "acc": 0.123456789})
    rules.write_text(rules.read_text() + "retention: {default: {keep_best: {metric: acc, mode: max, count: 1}}}\n")
    assert [*records(project)[-1].metrics] == ["acc", "val_loss"]


def test_the_latest_of_epochs_and_of_steps_is_the_one_that_was_written_last(project: Project) -> None:
    rules = r"formats: [{id: steps, match: 's(?P<step>\d+)\.pt', examples: {s5.pt: {step: 5}}}]"
    (project.folder / "rules" / "steps.yaml").write_text(f"{rules}\n")
    names = ["epoch-30_step-000300.ckpt", "s900.pt", "epoch-40_step-000400.ckpt", "s800.pt"]
    for time, name in enumerate(names, start=10**9):
        project.make({f"a/checkpoints/{name}": 5})
        os.utime(project.outputs / "a/checkpoints" / name, (time, time))
    for newest in (names[2], names[1]):
        found = ckptrules.latest(records(project))
        assert found
        assert os.path.basename(found.path) == newest
        os.utime(project.outputs / "a/checkpoints/s900.pt", (2 * 10**9, 2 * 10**9))


def test_what_cannot_be_read_is_raised(project: Project) -> None:
    with pytest.raises(FileNotFoundError):
        next(ckptrules.catalog(project.folder / "nowhere", project.folder / "rules"))


def test_the_command_writes_the_same_in_three_forms(project: Project) -> None:
    make(project, "nothing is left out")
    project.make({"a/checkpoints/best-\udcff,\x1b.ckpt": 3})
    table = project.doit("catalog")
    assert "a           epoch_10_step_90.ckpt                    epoch     10    90                20 B" in table
    assert "best-\\xff,\\x1b.ckpt" in table
    assert table.endswith("\n9 checkpoints\n")
    rows = json.loads(project.doit("catalog", "format=json"))
    assert [tuple(row) for row in rows] == [Record._fields] * 9
    assert project.doit("catalog", "format=csv", "out=c.csv") == "c.csv: 9 checkpoints\n"
    with (project.folder / "c.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["epoch"] for row in read] == ["" if row["epoch"] is None else str(row["epoch"]) for row in rows]
    assert not (project.outputs / ".ckptrules").exists()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_value_that_is_no_number_makes_no_other_json(project: Project, value: str) -> None:
    (project.folder / "rules/naming.yaml").write_text("packs: [lightning]\nlayout: ['*/checkpoints']\n")
    (project.folder / "rules/retention.yaml").unlink()
    project.make({f"a/checkpoints/epoch=3-step=40-val_loss={value}.ckpt": 7})
    (row,) = json.loads(project.doit("catalog", "format=json"), parse_constant=pytest.fail)
    assert (row["metric"], row["value"]) == ("val_loss", None)


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ("catalog format=xml", "format=xml: must be one of table, json, csv"),
        ("catalog out=no/c.csv", "out=no/c.csv: there is no such folder to write in"),
        ("plan out=c.csv", "option 'out' is not for 'plan'"),
        ("catalog outputs_dir=no", "outputs_dir 'no': No such file or directory"),
    ],
)
def test_what_does_not_fit_is_refused(project: Project, words: str, fact: str) -> None:
    assert fact in project.doit(*words.split(), check=3)


@pytest.mark.whole
def test_the_example_runs_and_is_the_one_in_the_docs(project: Project) -> None:
    make(project, "nothing is left out")
    script = ROOT / "examples/choose_checkpoint.py"
    assert f"```python\n{script.read_text()}```" in (ROOT / "docs/catalog.md").read_text()
    assert len(script.read_text().splitlines()) == 15
    command = [sys.executable, str(script), "outputs", "a"]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("load: outputs/a/checkpoints/best-hmean-0.9.ckpt\n")


@pytest.mark.whole
def test_importing_the_package_is_cheap_and_the_catalog_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, ckptrules; assert 'yaml' not in sys.modules; list(ckptrules.catalog('.')); "
        "assert not {'torch', 'tqdm', 'doit'} & set(sys.modules); hasattr(ckptrules, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
