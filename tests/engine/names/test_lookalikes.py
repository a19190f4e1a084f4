"""Nothing found and nothing understood is no success: what looks like checkpoints is told, with the line that helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from ckptrules.engine.names.lookalikes import layout_for, looks_like, uncovered_text
from ckptrules.outputs import find
from tests.conftest import ROOT, Project
from tests.support.tables import every

CKPT = "epoch=20-step=200.ckpt"
TREES = {
    "hydra": ([f"2026-11-26/10-12-13/checkpoints/{CKPT}", "2026-11-26/10-12-13/.hydra/config.yaml"], ["*/*/checkpoints"]),
    "lightning": ([f"exp/lightning_logs/version_0/checkpoints/{CKPT}"], ["*/*/*/checkpoints"]),
    "logs of lightning": ([f"lightning_logs/version_{n}/checkpoints/{CKPT}" for n in (0, 1)], ["*/*/checkpoints"]),
    "hugging face": ([f"x/checkpoint-{n}/model.safetensors" for n in (500, 1000)], ["*"]),
    "results of hugging face": (["results/x/checkpoint-500/model.safetensors"], ["*/*"]),
    "ultralytics": (["detect/train3/weights/best.pt", "detect/train3/weights/last.pt"], ["*/*/weights"]),
    "runs of ultralytics": (["runs/detect/train/weights/best.pt", "runs/segment/train2/weights/last.pt"], ["*/*/*/weights"]),
    "two depths": ([f"a/final/{CKPT}", f"b/final/{CKPT}", f"c/d/e/{CKPT}"], ["*/final", "*/*/*"]),
    "megatron": (["gpt/iter_0005000/mp_rank_00/model_optim_rng.pt"], ["*"]),
    "odd names": ([f"a[1]/weights/{CKPT}", f"it's/x y/weights/{CKPT}"], ["*/weights", "*/*/weights"]),
}  # fmt: skip
COMMANDS = ("plan", "migrate", "verify", "catalog", "usage")


@pytest.mark.parametrize("tree", TREES)
def test_what_no_layout_covers_is_told_with_a_line_that_covers_it(project: Project, tree: str) -> None:
    files, patterns = TREES[tree]
    project.make(dict.fromkeys(files, 9))
    lines = set()
    for command in COMMANDS:
        out = project.doit(command, check=1)
        assert "No checkpoint directory in 'outputs' (layout: */checkpoints)." in out
        assert "These look like checkpoints, and no layout covers them:" in out
        lines |= {*re.findall(r"hint: in rules/naming\.yaml: (layout: .*)", out)}
    (line,) = lines
    assert yaml.safe_load(line) == {"layout": ["*/checkpoints", *patterns]}
    edit(project, line)
    out = project.doit("plan", check=0 if CKPT in files[0] else 1)
    assert "These look like checkpoints" not in out
    assert "No checkpoint directory" not in out


@pytest.mark.parametrize("beside", [[], ["s/weights/a.pth"]], ids=["alone", "beside others"])
def test_the_line_for_what_lies_in_outputs_dir_itself_covers_all_that_is_covered_now(
    project: Project, beside: list[str]
) -> None:
    project.make(dict.fromkeys([f"r/checkpoints/{CKPT}", "keepme.pth", *beside], 9))
    told = [project.doit(command).partition("These look like checkpoints")[2] for command in ("plan", "migrate")]
    assert told[0] == told[1].partition("For your experiment log")[0]
    (line,) = re.findall(r"rules/naming\.yaml: (layout: .*)", told[0])
    edit(project, line)
    out = project.doit("plan", "outputs_dir=.", "verbose=1")
    assert "These look like checkpoints" not in out
    assert "keepme.pth" in out
    assert "Processing experiment: outputs/r\n" in out


def edit(project: Project, line: str) -> None:
    rules = project.folder / "rules/naming.yaml"
    rules.write_text(re.sub(r"^layout: .*$", lambda _: line, rules.read_text(), flags=re.MULTILINE))
    project.doit("check")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "files", [[], ["exp/events.out.tfevents.1", "exp/train.log", "exp/epoch_3.log", "exp/epoch_3.mp4"]]
)
def test_an_empty_tree_is_no_success(project: Project, command: str, files: list[str]) -> None:
    project.make(dict.fromkeys(files, 9))
    out = project.doit(command, check=1)
    assert "No checkpoint directory in 'outputs'" in out
    assert "look like" not in out


@pytest.mark.parametrize("command", ["plan", "migrate", "catalog", "usage"])
@pytest.mark.parametrize("names", [["model-final.ckpt"], ["a.ckpt", "b.bin"], ["step_5.pt/x"]])
def test_where_nothing_is_understood_nothing_is_up_to_date(project: Project, command: str, names: list[str]) -> None:
    project.make({f"exp/checkpoints/{name}": 9 for name in names})
    for _ in range(2):
        out = project.doit(command, check=1)
        assert "Nothing was understood: there is no checkpoint here, or no rule fits its name.\n    hint: write" in out
        assert "\n      or add to 'packs' what 'doit packs' finds here" in out
        assert "up to date" not in out
    project.make({f"exp/checkpoints/{CKPT}": 9})
    project.doit(command)


def test_a_directory_in_which_nothing_was_understood_is_looked_at_again_beside_others(project: Project) -> None:
    project.make({f"good/checkpoints/{CKPT}": 9, "odd/checkpoints/model-final.ckpt": 9})
    project.doit("migrate")
    out = project.doit("migrate")
    assert "Skipped: model-final.ckpt" in out
    assert "1  experiment, 1 up to date" in out


def test_what_lies_beside_what_is_covered_is_told_and_is_no_failure(project: Project) -> None:
    project.make(
        {f"exp/checkpoints/{CKPT}": 9, f"exp/old/run3/checkpoints/{CKPT}": 9, "exp/checkpoints/best.pt/x.pt": 9}
    )
    for command in ("plan", "usage", "catalog", "migrate dry_run=1", "migrate"):
        assert "look like" not in project.doit("plan:exp")
        assert "look like" not in project.doit("plan", "experiments=exp")
        out = project.doit(*command.split())
        assert f"    exp/old/run3/checkpoints: 1, such as {CKPT}\n" in out
        assert "layout: ['*/checkpoints', '*/*/*/checkpoints']" in out
        assert "best.pt" not in out.partition("These look like")[2]
    again = project.doit("migrate")
    assert "Nothing to do" in again
    assert "look like" not in again  # it walks nowhere


def test_checkpoints_in_outputs_dir_itself_are_told_with_the_folder_above(project: Project) -> None:
    project.make({CKPT: 9, "last.ckpt": 9})
    out = project.doit("plan", check=1)
    assert f"{project.outputs}: 2, such as {CKPT}\n" in out
    assert "name the folder above with outputs_dir=PATH" in out
    edit(project, re.findall(r"layout: \[.*\]", out)[-1])
    assert "Would rename" in project.doit("plan", "outputs_dir=.")


def test_default_rules_are_written_before_they_are_edited(tmp_path: Path) -> None:
    folder = Project(tmp_path)
    (tmp_path / "dodo.py").write_bytes((ROOT / "dodo.py").read_bytes())
    folder.make({f"a/b/checkpoints/{CKPT}": 9})
    assert "hint: in rules/naming.yaml ('ckptrules init' writes it): layout: [" in folder.doit("plan", check=1)


def test_names_are_escaped_and_links_and_hidden_folders_passed_over(project: Project) -> None:
    project.make({f"a\x1b[31m/b/{CKPT}": 9, f".hidden/x/{CKPT}": 9, "link": f"-> {project.folder}"})
    out = project.doit("plan", check=1)
    assert "    a\\x1b[31m/b: 1, such as" in out
    assert "hidden" not in out


def test_a_quiet_run_says_it_all_the_same(project: Project) -> None:
    assert "No checkpoint directory" in project.doit("migrate", "quiet=1", check=1)


def test_the_glance_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "MOST_NAMES", 50)
    for number in range(30):
        (tmp_path / f"{number:02}").mkdir()
        for name in range(10):
            (tmp_path / f"{number:02}/{name}.ckpt").write_text("x")
    found, more = find.lookalikes(str(tmp_path), set(), looks_like, lambda _: False)
    assert 0 < sum(number for _, number, _ in found) <= 20
    assert more
    assert find.lookalikes(str(tmp_path / "00"), set(), looks_like, lambda _: False) == ([("", 10, "0.ckpt")], False)
    told = uncovered_text([], [], "outputs", "rules", more=True)
    assert told == "There is too much beside the checkpoint directories to look for others in all of it."
    assert uncovered_text([], [], "outputs", "rules") == ""


class Hostile(NamedTuple):
    """Rules, files (one that ends in / is an empty folder), the exit code of a plan, and what it tells besides."""

    rules: str
    files: str
    code: int
    told: tuple[str, ...] = ()


KEEPS = "retention: {default: {keep_last: 1}}\n"
STAR = f"packs: [lightning]\nlayout: ['*']\n{KEEPS}"
WIDE = f"packs: [huggingface]\n{KEEPS}"
COVERS = "and no layout covers them"
NO_PACK = "no pack that is listed knows any there"
HOSTILE = {
    "three depths, of which one is covered": Hostile(
        STAR, "a/epoch=1.ckpt b/x/epoch=1.ckpt c/x/y/epoch=1.ckpt", 0, (COVERS, "b/x: 1", "c/x/y: 1", "layout: ['*', '*/*', '*/*/*']")
    ),
    "deep below what is covered": Hostile(
        STAR, "a/epoch=1.ckpt a/s/t/checkpoints/epoch=3.ckpt", 0, (COVERS, "a/s/t/checkpoints: 1", "layout: ['*', '*/*/*/checkpoints']")
    ),
    "in a checkpoint, and in what is no checkpoint": Hostile(
        WIDE, "a/checkpoint-1/trainer_state.json a/checkpoint-1/x/epoch_3.pth a/runs/epoch_3.pth", 0
    ),
    "beside checkpoints, in a folder that nobody knows": Hostile(
        WIDE, "a/checkpoint-1/trainer_state.json a/final/epoch_3.pth", 0, (NO_PACK, "a/final: 1", "'doit packs' tells")
    ),
    "a layout covers it, and no pack knows it": Hostile(
        WIDE, "a/checkpoint-1/trainer_state.json b/epoch_1.pth b/epoch_2.pth", 0, (NO_PACK, "b: 2, such as epoch_1.pth")
    ),
    "no pack knows any": Hostile(WIDE, "b/epoch_1.pth", 1, ("No checkpoint directory", NO_PACK)),
    "digits, and what lies below": Hostile(f"packs: [orbax]\nlayout: ['*']\n{KEEPS}", "x/2024/run/epoch=1.ckpt", 1, (COVERS, "x/2024/run: 1")),
    "names that nobody reads": Hostile(STAR, "a/foo_1.bar a/foo_2.bar", 1, ("Nothing was understood",)),
    "empty folders": Hostile(STAR, "a/ b/c/", 1, ("Nothing was understood",)),
    "what is no checkpoint": Hostile(f"{STAR}ignored: ['*.tmp']\n", "a/1.tmp a/2.tmp", 1, ("Nothing was understood",)),
    "nothing": Hostile(STAR, "", 1, ("No checkpoint directory",)),
    "in outputs itself": Hostile(STAR, "epoch=1.ckpt", 1, (COVERS, "some lie in outputs_dir itself")),
    "part folders": Hostile(
        f"packs: [nemo]\nlayout: ['*']\n{KEEPS}", "a/mp_rank_00/gpt--loss=3.5-step=1.ckpt a/mp_rank_01/gpt--loss=3.5-step=1.ckpt", 0
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_covered_in_part_without_a_word(project: Project, name: str) -> None:
    tree = HOSTILE[name]
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    (project.folder / "rules" / "x.yaml").write_text(tree.rules)
    project.outputs.mkdir(exist_ok=True)
    for path in tree.files.split():
        if path.endswith("/"):
            (project.outputs / path).mkdir(parents=True)
        else:
            project.make({path: 9})
    for state in project.outputs.rglob("trainer_state.json"):
        state.write_text("{}")
    out = project.doit("plan", "delete_old=1", check=tree.code)
    assert [text for text in tree.told if text not in out] == [], out
    assert ("These look like checkpoints" in out) == any(text in (COVERS, NO_PACK) for text in tree.told), out


YES = """x.ckpt X.PT a.pth a.pth.tar model.safetensors w.h5 w.keras w.npz epoch_3.npy w.msgpack 0.distcp checkpoint-500 checkpoint_3
epoch_3 epoch=3 step-100 step100 iter_0005000 global_step100 model.ckpt-1000.index ckpt-7 my-checkpoint-500 epoch-3_step-5
checkpoint-500.backup run_epoch_3"""
NO = """version_0 train3 2026-11-26 10-12-13 run-1 checkpoint.txt epoch_3.log events.out.1 config.yaml checkpoints steps
metrics_step_3.json last_step epoch stepper1 wandb step-3.png"""


@every([*YES.split()])
def test_it_looks_like_a_checkpoint(name: str) -> None:
    assert looks_like(name)


@every([*NO.split()])
def test_it_does_not(name: str) -> None:
    assert not looks_like(name)


def test_few_patterns_cover_many_folders() -> None:
    assert layout_for([f"{a}/{b}/checkpoints" for a in "ab" for b in "cd"]) == ["*/*/checkpoints"]
    assert layout_for(["a/1", "b/2", "c"]) == ["*", "*/*"]
    assert layout_for([f"{a}/{b}" for a in "ab" for b in ("exp", "aux")]) == ["*/aux", "*/exp"]
    assert layout_for([f"{a}/{b}" for a in "ab" for b in ("seed1", "seed2", "fold_0")]) == ["*/*"]
    assert layout_for([""]) == []
