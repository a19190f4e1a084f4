"""mmengine's Runner: training by epoch, and ``resume=True``, which follows ``last_checkpoint``."""

from pathlib import Path
from typing import Any

import pytest

from tests.real.resumes import prune, stand_ins

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
for needed in ("mmengine", "cv2", "matplotlib"):
    pytest.importorskip(needed, reason=f"mmengine needs {needed}: pip install -e '.[real]'")
pytestmark = pytest.mark.filterwarnings("ignore")

with stand_ins():
    from mmengine.evaluator import BaseMetric
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

RUNS = iter(range(99))  # mmengine asks for a name of its own for each run of a process


class Line(BaseModel):  # type: ignore[misc]
    """A model of one weight and one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x: Any, y: Any, mode: str = "tensor") -> Any:
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        return {"loss": loss} if mode == "loss" else [loss.item()]


class Odd(BaseMetric):  # type: ignore[misc]
    """A score that is the best in the second epoch."""

    epoch = 0

    def process(self, _: Any, errors: Any) -> None:
        self.results.extend(errors)

    def compute_metrics(self, _: Any) -> dict[str, float]:
        Odd.epoch += 1
        return {"acc": 1 / (1 + abs(Odd.epoch - 2))}


def train(folder: Path, epochs: int, *, resume: bool = False) -> Any:
    """Train with a checkpoint an epoch, as a new process would, and return the runner."""
    torch.manual_seed(0)
    Odd.epoch = 0 if not resume else 5
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x), batch_size=2)
    runner = Runner(
        Line(), str(folder), loader, loader, train_cfg={"by_epoch": True, "max_epochs": epochs, "val_interval": 1},
        val_cfg={}, val_evaluator=[Odd()], optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1, "save_best": "acc", "rule": "greater"}},
        resume=resume, experiment_name=f"line{next(RUNS)}", log_level="ERROR",
    )  # fmt: skip
    runner.train()
    return runner


def test_a_run_resumes_from_the_newest_and_keeps_its_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of mmengine is a file of its own, and what it remembers of it is in the newest checkpoint."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # its state has classes of its own
    whole = train(tmp_path / "whole", 7)
    train(tmp_path / "runs/line", 5)

    pruned = prune(tmp_path)
    assert pruned.packs == ["mmengine"]
    assert pruned.gone == [f"line/epoch_{epoch}.pth" for epoch in (1, 2, 3)]
    left = [path for path in pruned.stays if path.endswith(".pth")]
    assert left == ["line/best_acc_epoch_2.pth", "line/epoch_4.pth", "line/epoch_5.pth"]

    again = train(tmp_path / "runs/line", 7, resume=True)
    assert (again.epoch, again.iter) == (7, 28)
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict())
    assert (tmp_path / "runs/line/best_acc_epoch_2.pth").is_file()
