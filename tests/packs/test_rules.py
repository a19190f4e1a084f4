"""The rules R1 to R8 of packs, each by its name. Where more of one is tested, its docstring says so."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest

from ckptrules.commands.demo import sample_checkpoint
from ckptrules.engine.actions import Plan
from ckptrules.engine.names.naming import claim
from ckptrules.outputs.picking import Tree as Looked
from ckptrules.outputs.picking import pick_in, rules_here
from ckptrules.outputs.scouting import see
from ckptrules.rules.load import load_rules
from tests.conftest import Project
from tests.packs.test_trees2 import Tree, check, make, planned
from tests.support.torch_files import lightning_file

BOTH = "sft/checkpoint-{500,1000}/trainer_state.json={} {sft,lora}/cat-00000{1,2}.safetensors lora/cat-000001-state/x"


@pytest.mark.parametrize(
    "tree",
    [
        Tree("sft", BOTH, ["huggingface"], "checkpoint-500", "checkpoint-1000", unread="cat-000001.safetensors cat-000002.safetensors"),
        Tree("lora", f"{BOTH} lora/cat-000002-state/x", ["kohya"], "cat-000001.safetensors cat-000001-state", "cat-000002.safetensors cat-000002-state"),
    ],
)  # fmt: skip
def test_r1_only_the_packs_of_a_directory_judge_its_names(tmp_path: Path, tree: Tree) -> None:
    """More: outputs/test_picking.py."""
    check(tmp_path, tree)


@pytest.mark.parametrize("packs", [("huggingface", "kohya"), ("kohya", "huggingface")])
def test_r1_what_a_pack_ignores_it_ignores_only_in_its_own_directories(tmp_path: Path, packs: tuple[str, str]) -> None:
    make(tmp_path, "sft/checkpoint-5/trainer_state.json {sft,lora}/model.safetensors lora/cat-000001-state/x")
    rules = load_rules({"rules/x.yaml": f"packs: [{', '.join(packs)}]"}, proved=True)
    said = {
        folder: claim("model.safetensors", rules_here(Looked(str(tmp_path)), rules, folder), folder=False)
        for folder in ("sft", "lora")
    }
    assert {folder: one.kind for folder, one in said.items()} == {"sft": "ignored", "lora": "unrecognised"}


def test_r2_of_two_packs_with_one_reading_the_cautions_of_both_hold(tmp_path: Path) -> None:
    """More: engine/names/test_packs.py, engine/test_living.py."""
    make(tmp_path, "exp/epoch-{29,30}.pt")
    for packs in ("icefall, ultralytics", "ultralytics, icefall"):
        rules = load_rules({"rules/x.yaml": f"packs: [{packs}]"}, proved=True)
        here = rules_here(Looked(str(tmp_path)), rules, "exp")
        assert len(here.packs) == 2
        said = claim("epoch-30.pt", here, folder=False)
        assert (dict(said.fields), said.rule and bool(said.rule.keep_name)) == ({"epoch": "30"}, True)
        assert claim("best.pt", here, folder=False).kind == "protected"  # of ultralytics
        assert claim("best-valid-loss.pt", here, folder=False).kind == "protected"  # of icefall


R3 = [
    Tree(
        "logs",
        "logs/model_{1000,2000,3000}.pt",
        ["ignite", "rsl_rl", "vits"],
        "model_1000.pt model_2000.pt",
        "model_3000.pt",
    ),
    Tree(
        "logs",
        "logs/model_{1000,2000,3000}.pt",
        ["ignite", "rsl_rl", "vits"],
        "",
        "model_1000.pt model_2000.pt model_3000.pt",
        keep="min_step: 2500",
    ),
    Tree(
        "logs",
        "logs/model_{1000,2000,3000}.pt",
        ["ignite", "rsl_rl", "vits"],
        "",
        "model_1000.pt model_2000.pt model_3000.pt",
        keep="keep_every_steps: 5000",
    ),
]


@pytest.mark.parametrize("tree", R3)
def test_r3_of_two_readings_only_the_order_counts_and_the_plan_says_which_line_decides(
    tmp_path: Path, tree: Tree
) -> None:
    """More: engine/names/test_packs.py; packs/test_packs.py has the table of all such names."""
    check(tmp_path, tree)
    assert any(
        "only the order counts: the packs ignite and rsl_rl and vits count it otherwise; "
        "packs: [ignite] or packs: [rsl_rl] or packs: [vits] decides" in note.text
        for note in planned(tmp_path, tree)[1].notes
    )


@pytest.mark.parametrize("inside", ["", "random_states_0.pkl", "_CHECKPOINT_METADATA"])
def test_r3_what_no_reading_calls_whole_is_not(tmp_path: Path, inside: str) -> None:
    files = f"run/checkpoint_{{0,1,2}}/{inside or 'model.bin'}"
    make(tmp_path, files)
    rules = load_rules({"rules/x.yaml": "packs: [huggingface, orbax, ray]\nretention: {default: {keep_last: 1}}"})
    picked = pick_in(Looked(str(tmp_path)), rules.packs, "run")
    assert len(picked) == (2 if not inside else 1)
    _, plan = planned(tmp_path, Tree("run", files, [], "", ""))
    assert names_that_go(plan) == ({"checkpoint_0", "checkpoint_1"} if inside else set())


@pytest.mark.parametrize(
    ("inside", "packs", "text"),
    [
        ((2000, 4000, 6000), ("vits",), "3 of 3 numbers agree with those inside"),
        ((2001, 4001, 6001), ("vits",), "3 of 3 numbers inside are one higher"),
        ((2000, 4000, 9000), ("ignite", "vits"), ""),
    ],
)
def test_r4_content_proves(tmp_path: Path, inside: tuple[int, ...], packs: tuple[str, ...], text: str) -> None:
    """More: engine/names/test_comparing.py, cases/trees.yaml, commands/test_packs.py and test_explain.py."""
    make(tmp_path, "svc/model_{2000,4000,6000}.pt")
    for step, said in zip(inside, (2000, 4000, 6000), strict=True):
        (tmp_path / f"svc/model_{said}.pt").write_bytes(sample_checkpoint(0, step, 1500))
    rules = load_rules({"rules/x.yaml": "packs: [ignite, vits]"}, proved=True)
    (one,) = see(str(tmp_path), rules, rules).seen
    assert (one.packs, one.sure, one.compared.text) == (packs, bool(text), text)


def test_r5_a_folder_is_renamed_and_deleted_as_it_is(project: Project) -> None:
    """A run that may go on is left alone: engine/test_living.py."""
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    (project.folder / "rules" / "naming.yaml").write_text(
        "layout: ['*']\npacks: [lightning]\n"
        "legacy: [{id: old, match: 'epoch=(?P<epoch>\\d+)-step=(?P<step>\\d+).ckpt', examples: {epoch=1-step=2.ckpt: e1-s2.ckpt}}]\n"
        "target: {template: 'e{{ epoch }}-s{{ step }}.ckpt', match: 'e(?P<epoch>\\d+)-s(?P<step>\\d+).ckpt', examples: [e1-s2.ckpt]}\n"
        "retention: {default: {keep_last: 1}}\n"
    )
    for epoch in (1, 2):
        folder = project.outputs / f"run/epoch={epoch}-step={epoch}.ckpt"
        make(project.outputs, f"run/{folder.name}/checkpoint/mp_rank_00_model_states.pt run/{folder.name}/latest")
        (folder / "latest").write_text("checkpoint")
        os.utime(folder / "latest", (10**9, 10**9 + epoch))
        os.utime(folder / "checkpoint", (10**9, 10**9 + epoch))
        os.utime(folder, (10**9, 10**9 + epoch))
    before = {epoch: seen(project.outputs / f"run/epoch={epoch}-step={epoch}.ckpt") for epoch in (1, 2)}
    project.doit("migrate", "delete_old=1")
    (deleted,) = (project.outputs / ".ckptrules" / "trash").glob("*/run/*.trashed")
    assert seen(deleted) == before[1]
    assert seen(project.outputs / "run/e2-s2.ckpt") == before[2]
    project.doit("undo")
    assert {epoch: seen(project.outputs / f"run/epoch={epoch}-step={epoch}.ckpt") for epoch in (1, 2)} == before


def seen(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the time of a folder and of all in it, with the bytes."""
    inside = {path: path.read_bytes() if path.is_file() else b"" for path in (folder, *sorted(folder.rglob("*")))}
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, content) for path, content in inside.items()}


def test_r6_hard_links_count_once(tmp_path: Path) -> None:
    """More: whole/test_hard_links.py, packs/test_trees.py. A copy takes its own room and stays: it is protected."""
    tree = Tree(
        "run",
        "run/checkpoint{1,2,3}.pt run/checkpoint_{last,best}.pt",
        ["fairseq"],
        "checkpoint1.pt checkpoint2.pt",
        "checkpoint3.pt checkpoint_last.pt checkpoint_best.pt",
    )
    check(tmp_path, tree)


@pytest.mark.parametrize(
    "tree",
    [
        Tree(
            "vit",
            r"vit/checkpoint-{0..2}.pth.tar vit/args.yaml vit/summary.csv=epoch,eval_top1\n0,70.5\n1,60.5\n2,65.5\n",
            ["timm"],
            "checkpoint-1.pth.tar",
            "checkpoint-0.pth.tar checkpoint-2.pth.tar",
            keep="keep_best: {metric: eval_top1, mode: max, count: 1}",
        ),
        Tree(
            "sft",
            r"""sft/checkpoint-1/trainer_state.json={} sft/checkpoint-2/trainer_state.json={}
            sft/checkpoint-3/trainer_state.json={"best_model_checkpoint":"sft/checkpoint-1"}""",
            ["huggingface"],
            "checkpoint-2",
            "checkpoint-1 checkpoint-3",
        ),
    ],
)
def test_r7_files_tell_metrics_and_the_best(tmp_path: Path, tree: Tree) -> None:
    """More: outputs/test_facts.py, and the trees of packs."""
    check(tmp_path, tree)


@pytest.mark.parametrize("torn", ["", "500", "1000", "1500"])
def test_r7_nothing_goes_while_the_newest_that_names_the_best_is_torn(tmp_path: Path, torn: str) -> None:
    make(tmp_path, "sft/checkpoint-{500,1000,1500}/model.safetensors")
    for step in ("500", "1000", "1500"):
        state = '{"best_model_checkpoint": "sft/checkpoint-500", "log_history": []}'
        cut = state[:40] if step == torn else state
        (tmp_path / f"sft/checkpoint-{step}/trainer_state.json").write_text(cut)
    files = "sft/config.json"
    _, plan = planned(tmp_path, Tree("sft", files, ["huggingface"], "", ""))
    assert names_that_go(plan) == (set() if torn == "1500" else {"checkpoint-1000"})


@pytest.mark.parametrize(
    ("said", "goes", "words"),
    [
        ({}, [0, 1, 2, 3], ()),
        ({5: lightning_file("/home/me/run/epoch=1.ckpt")}, [0, 2, 3], ("epoch=5.ckpt calls it the best",)),
        (
            {4: lightning_file("/home/me/run/epoch=1.ckpt"), 5: pickle.dumps({}, 4)},
            [0, 2, 3],
            ("epoch=4.ckpt calls it the best",),
        ),
        (
            dict.fromkeys(range(6), b"PK"),
            [0, 1, 2, 3],
            ("which one is the best is not known from the newest: epoch=5.ckpt",),
        ),
    ],
)
def test_r7_what_the_newest_checkpoint_calls_the_best_stays(
    project: Project, said: dict[int, bytes], goes: list[int], words: tuple[str, ...]
) -> None:
    """More: outputs/test_inside.py."""
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    text = "layout: ['*']\npacks: [lightning]\nretention: {default: {keep_last: 2}}\n"
    (project.folder / "rules" / "naming.yaml").write_text(text)
    (project.outputs / "run").mkdir(parents=True)
    for epoch in range(6):
        file = project.outputs / f"run/epoch={epoch}.ckpt"
        file.write_bytes(said.get(epoch, lightning_file("")))
        os.utime(file, (10**9 + epoch, 10**9 + epoch))
    place = project.folder / "plan.json"
    told = project.doit("plan", "delete_old=1", "verbose=1", f"json={place}")
    assert [word for word in words if word not in told] == []
    rows = json.loads(place.read_text())["experiments"][0]["checkpoints"]
    assert [row["name"] for row in rows if row["best"]] == ["epoch=1.ckpt"] * (1 not in goes)
    project.doit("migrate", "delete_old=1")
    left = {f"epoch={epoch}.ckpt" for epoch in range(6) if epoch not in goes}
    assert {file.name for file in (project.outputs / "run").iterdir()} == left


def test_r8_a_series_is_a_run_and_a_kind_of_number(tmp_path: Path) -> None:
    """More: cases/plans/series.yaml, and the trees of packs."""
    tree = Tree(
        "exp",
        "exp/epoch-{1..3}.pt exp/checkpoint-{4000,8000}.pt exp/best-valid-loss.pt",
        ["icefall"],
        "epoch-1.pt epoch-2.pt checkpoint-4000.pt",
        "epoch-3.pt checkpoint-8000.pt best-valid-loss.pt",
    )
    check(tmp_path, tree)


def names_that_go(plan: Plan) -> set[str]:
    return {name for act in plan.actions for name in (act.name, *(old for old, _ in act.with_it))}
