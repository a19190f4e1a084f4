"""A11: whatever the framework, a plan says when the best by a known metric goes, or all but one of a run."""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

import pytest

from tests.conftest import Project
from tests.packs.test_trees2 import make

SHIPPED = "min_epoch: 10, keep_at_least: 1"  # the policy default of the package
FIRST = "keep_last: 1"


class Run(NamedTuple):
    """A checkpoint directory with its files, a policy, and the notes of what may be missed."""

    pack: str
    directory: str
    files: str
    notes: tuple[str, ...]
    policy: str = FIRST


TRAINER = """hf/checkpoint-1/trainer_state.json={"log_history":[{"step":1,"eval_loss":0.2}]}
    hf/checkpoint-{2,3,4}/trainer_state.json={"log_history":[{"step":2,"eval_loss":0.4},{"step":3,"eval_loss":0.5},{"step":4,"eval_loss":0.6}]}"""
RESULTS = r"yolo/args.yaml yolo/results.csv=epoch,mAP\n1,0.9\n2,0.1\n3,0.4\n4,0.5\n"
SUMMARY = r"vit/args.yaml vit/summary.csv=epoch,eval_top1\n0,70.5\n1,60.5\n2,65.5\n"
RUNS = {
    "lightning: names": Run(
        "lightning", "lit",
        "lit/epoch=0-step=10-val_loss=0.1.ckpt lit/epoch=1-step=20-val_loss=0.5.ckpt lit/epoch=2-step=30-val_loss=0.6.ckpt",
        ("the best by val_loss (0.1), epoch=0-step=10-val_loss=0.1.ckpt, goes", "all but one of 3 checkpoints go"), SHIPPED,
    ),
    "lightning: a log": Run(
        "lightning", "v/checkpoints",
        r"v/checkpoints/epoch={0,1,2}-step=10.ckpt v/metrics.csv=epoch,step,val_loss\n0,9,0.1\n1,19,0.5\n2,29,0.7\n",
        ("all but one of 3 checkpoints go",), SHIPPED,
    ),
    "lightning: no metric": Run("lightning", "lit", "lit/epoch={0,1,2,3}.ckpt", ("all but one of 4 checkpoints go",), SHIPPED),
    "lightning: nothing goes": Run("lightning", "lit", "lit/epoch={10,11,12}.ckpt", (), SHIPPED),
    "huggingface": Run(
        "huggingface", "hf", TRAINER,
        ("the best by eval_loss (0.2), checkpoint-1, goes", "all but one of 4 checkpoints go"),
    ),
    "mmengine": Run("mmengine", "mm", "mm/epoch_{1..4}.pth mm/last_checkpoint=mm/epoch_4.pth", ("all but one of 4 checkpoints go",), SHIPPED),
    "detectron2": Run(
        "detectron2", "det",
        r"""det/model_{0000999,0001999,0002999}.pth det/last_checkpoint=model_0002999.pth
        det/metrics.json={"iteration":999,"bbox/AP":50}\n{"iteration":1999,"bbox/AP":20}\n{"iteration":2999,"bbox/AP":30}\n""",
        ("the best by bbox/AP (50), model_0000999.pth, goes", "all but one of 3 checkpoints go"),
    ),
    "ultralytics": Run(
        "ultralytics", "yolo/weights", f"yolo/weights/epoch{{0,1,2,3}}.pt yolo/weights/last.pt {RESULTS}",
        ("the best by mAP (0.9), epoch0.pt, goes", "all of 4 checkpoints go"), SHIPPED,
    ),
    "timm": Run(
        "timm", "vit", f"vit/checkpoint-{{0..2}}.pth.tar {SUMMARY}",
        ("the best by eval_top1 (70.5), checkpoint-0.pth.tar, goes", "all but one of 3 checkpoints go"), SHIPPED,
    ),
    "keras: values without a name": Run("keras", "unet", "unet/weights.{01-0.10,02-0.77,03-0.66}.hdf5", ("all but one of 3",), SHIPPED),
    "opennmt, before 1.0": Run(
        "opennmt", "nmt", "nmt/m_acc_60.00_ppl_1.00_e1.pt nmt/m_acc_50.00_ppl_2.00_e2.pt nmt/m_acc_40.00_ppl_3.00_e3.pt",
        ("the best by acc (60.00) and the best by ppl (1.00), m_acc_60.00_ppl_1.00_e1.pt, goes", "all but one of 3"), SHIPPED,
    ),
    "rl_games": Run(
        "rl_games", "cart/nn", "cart/nn/last_cart_ep_{100_rew_9.5,200_rew_8.5,300_rew_7.5}.pth",
        ("the highest rew (9.5), last_cart_ep_100_rew_9.5.pth, goes", "all but one of 3 checkpoints"),
    ),
    "ray": Run(
        "ray", "exp/trial_0",
        r"""exp/trial_0/checkpoint_{000000,000001,000002}/rllib_checkpoint.json exp/experiment_state-1.json
        exp/trial_0/result.json={"checkpoint_dir_name":"checkpoint_000000","reward":9}\n{"checkpoint_dir_name":"checkpoint_000001","reward":2}\n""",
        ("the best by reward (9), checkpoint_000000, goes", "all but one of 3 checkpoints"),
    ),
    "sb3: nothing is known of metrics": Run("sb3", "logs", "logs/rl_model_{1000,2000,3000}_steps.zip", ("all but one of 3 checkpoints",)),
    "words: the only one that tells a metric was saved for it": Run(
        "words", "rob", "rob/model_epoch_{10,60_Lift_success_0.5,80,90}.pth",
        ("the best by Lift_success (0.5), model_epoch_60_Lift_success_0.5.pth, goes", "all but one of 4 checkpoints"),
    ),
    "two series": Run(
        "icefall", "exp", "exp/epoch-{1..3}.pt exp/checkpoint-{4000,8000,9000}.pt exp/best-valid-loss.pt",
        ("all but one of 3 checkpoints named by epoch go", "all but one of 3 checkpoints named by step go"),
    ),
}  # fmt: skip

BLIND = {  # nothing tells which one is the best
    "lightning: no metric",
    "mmengine",
    "keras: values without a name",
    "sb3: nothing is known of metrics",
}


@pytest.mark.parametrize("name", RUNS)
def test_a_plan_tells_what_a_policy_takes_that_may_be_missed(project: Project, name: str) -> None:
    run = RUNS[name]
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    text = f"packs: [{run.pack}]\nlayout: ['{run.directory}']\nretention: {{default: {{{run.policy}}}}}\n"
    (project.folder / "rules" / "x.yaml").write_text(text)
    make(project.outputs, run.files)
    before = time.time() - 7200  # the run is over
    for path in project.outputs.rglob("*"):
        os.utime(path, (before, before))
    out = project.doit("plan", "delete_old=1")
    told = re.findall(r"Note: (.* goe?s?|all .*)$", out, re.MULTILINE)
    assert len(told) == len(run.notes), out
    assert [note for note in run.notes if not any(note in one for one in told)] == [], out
    told_once = out.count(
        "No metric is known of 1 experiment, so no best is kept.\n    hint: name one with keep_best, or"
    )
    assert told_once == (name in BLIND), out
