"""timm's own saver and ``resume_checkpoint`` around a pruned folder, in the way of its train.py."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.real.resumes import prune, stand_ins

NEEDS = "needs timm without torchvision, whose wheel does not fit the CPU build of torch: pip install --no-deps timm"
torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
pytestmark = pytest.mark.filterwarnings("ignore")

if find_spec("timm") is None:
    pytest.skip(NEEDS, allow_module_level=True)
VISION = ["transforms", "transforms.functional", "datasets", "models", "models.feature_extraction", "ops", "ops.misc"]
with stand_ins("torchvision", *(f"torchvision.{name}" for name in VISION)):
    from timm.models import resume_checkpoint
    from timm.utils import CheckpointSaver, get_outdir, update_summary

TOP1 = [10.0, 50.0, 20.0, 30.0, 25.0, 24.0, 22.0, 21.0]  # of the epochs: the best is an early one
FIRST, ALL = 6, 8
ENDING = ".pth.tar"


class Run(NamedTuple):
    """What train.py has in its hands."""

    folder: Path
    model: Any
    optimizer: Any
    saver: Any


def start(base: Path) -> Run:
    """Begin a run, as a new process would; its folder is that of train.py."""
    torch.manual_seed(0)
    folder = (
        get_outdir(str(base), "train", "20260107-081530-linear-4")
        if not base.exists()
        else str(next(base.glob("train/*")))
    )
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    arguments = argparse.Namespace(model="linear", lr=0.1)
    saver = CheckpointSaver(model, optimizer, arguments, checkpoint_dir=folder, recovery_dir=folder, max_history=10)
    Path(folder, "args.yaml").write_text("model: linear\nlr: 0.1\n")
    return Run(Path(folder), model, optimizer, saver)


def train(run: Run, epochs: range) -> Any:
    """Train, save in the midst and at the end of each epoch, and return what the saver calls the best."""
    best = None
    for epoch in epochs:
        for batch in range(3):
            loss = run.model(torch.ones(2, 4) * batch).square().mean()
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            if batch == 1:
                run.saver.save_recovery(epoch, batch_idx=batch)
        update_summary(epoch, {"loss": loss.item()}, {"top1": TOP1[epoch]}, str(run.folder / "summary.csv"), lr=0.1)
        best = run.saver.save_checkpoint(epoch, metric=TOP1[epoch])
        if epoch == 2:
            run.saver.save_milestone(epoch + 1)
    return best


def test_a_run_resumes_from_last_and_knows_its_best(tmp_path: Path) -> None:
    """The milestone is there as its user asked; the saver drops what is gone from its history."""
    whole = start(tmp_path / "whole")
    best = train(whole, range(ALL))
    first = start(tmp_path / "output")
    train(first, range(FIRST))

    pruned = prune(tmp_path, "output")
    assert pruned.packs == ["timm"]
    within = f"train/{first.folder.name}/"
    assert pruned.gone == [f"{within}checkpoint-{epoch}{ENDING}" for epoch in (0, 2, 3)]
    names = [
        "checkpoint-1",
        "checkpoint-4",
        "checkpoint-5",
        "last",
        "milestone-3",
        "model_best",
        "recovery-4-1",
        "recovery-5-1",
    ]
    assert pruned.stays == sorted(
        f"{within}{name}" for name in [*(name + ENDING for name in names), "args.yaml", "summary.csv"]
    )

    again = start(tmp_path / "output")
    last = str(again.folder / f"last{ENDING}")
    assert resume_checkpoint(again.model, last, again.optimizer, weights_only=False) == FIRST
    assert again.saver.load_state_dict_from_checkpoint(last)
    assert {Path(path).name for path, _ in again.saver.checkpoint_files} == {
        f"checkpoint-{n}{ENDING}" for n in (1, 4, 5)
    }
    assert train(again, range(FIRST, ALL)) == best == (TOP1[1], 1)
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict())
    assert torch.load(again.folder / f"model_best{ENDING}", weights_only=False)["epoch"] == 1
