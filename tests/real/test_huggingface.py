"""The Trainer goes on from what is left: by our callback while it trains, or pruned when it had stopped."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.real.resumes import prune
from tests.real.test_real_checkpoints import NEEDS

torch = pytest.importorskip("torch", reason=NEEDS)
transformers = pytest.importorskip("transformers", reason=NEEDS)
pytest.importorskip("accelerate", reason=NEEDS)
pytestmark = pytest.mark.filterwarnings("ignore")

from ckptrules.huggingface import RulesCallback  # noqa: E402

RULES = {"naming": "layout: ['*']\npacks: [huggingface]\n", "retention": "retention: {default: {keep_last: 2}}\n"}


def trainer(folder: Path, steps: int, *, callback: bool = True, **more: Any) -> Any:
    """Return a Trainer of a tiny model that saves every second step, with our callback or without."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=8)
    rows = [{"input_ids": torch.arange(8) % 4 + row % 4, "labels": torch.arange(8) % 4 + row % 4} for row in range(8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, save_strategy="steps", save_steps=2, eval_strategy="steps",
        eval_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True,
        save_total_limit=None, metric_for_best_model="eval_loss", **more,
    )  # fmt: skip
    return transformers.Trainer(
        transformers.GPT2LMHeadModel(config), arguments, train_dataset=rows, eval_dataset=rows[:2],
        callbacks=[RulesCallback(delete_old=True)] * callback,
    )  # fmt: skip


def steps_of(folder: Path) -> list[int]:
    """Return at which steps there are checkpoints."""
    return sorted(int(name.removeprefix("checkpoint-")) for name in os.listdir(folder) if "checkpoint-" in name)


def test_the_trainer_goes_on_from_what_the_policy_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The best is that of a greater loss, so an early one: it stays, and so does what the run was resumed from."""
    (tmp_path / "rules").mkdir()
    for name, text in RULES.items():
        (tmp_path / "rules" / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "run"
    trainer(folder, 8, greater_is_better=True).train()
    assert steps_of(folder) == [2, 6, 8]
    again = trainer(folder, 14, greater_is_better=True)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-6"))
    assert steps_of(folder) == [2, 6, 12, 14]
    assert again.state.global_step == 14
    told = json.loads((folder / "checkpoint-14/trainer_state.json").read_text())
    assert Path(told["best_model_checkpoint"]).name == "checkpoint-2"
    assert [row["step"] for row in told["log_history"] if "eval_loss" in row] == [2, 4, 6, 8, 10, 12, 14]
    assert "ckptrules" not in caplog.text


def test_a_run_that_was_pruned_goes_on_as_if_nothing_had_gone(tmp_path: Path) -> None:
    """``resume_from_checkpoint=True`` takes the newest; what was the best stays, and is loaded at the end."""
    more = {
        "greater_is_better": True,
        "lr_scheduler_type": "constant",
        "load_best_model_at_end": True,
        "callback": False,
    }
    whole = trainer(tmp_path / "whole", 12, **more)
    whole.train()
    folder = tmp_path / "runs" / "sft"
    trainer(folder, 8, **more).train()

    pruned = prune(tmp_path)
    assert pruned.packs == ["huggingface"]
    assert steps_of(folder) == [2, 6, 8]

    again = trainer(folder, 12, **more)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 12
    assert steps_of(folder) == [2, 6, 8, 10, 12]
    assert Path(again.state.best_model_checkpoint).name == "checkpoint-2"
    losses = [[row["eval_loss"] for row in one.state.log_history if "eval_loss" in row] for one in (whole, again)]
    assert losses[0] == pytest.approx(losses[1])
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict())
