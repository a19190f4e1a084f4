"""accelerate's own ``save_state`` and ``load_state`` around a pruned folder."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.real.resumes import prune

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
pytest.importorskip("accelerate", reason="needs accelerate: pip install -e '.[real]'")
pytestmark = pytest.mark.filterwarnings("ignore")

from accelerate import Accelerator  # noqa: E402
from accelerate.utils import ProjectConfiguration  # noqa: E402

SAVES = 5


class Run(NamedTuple):
    """What accelerate saves and loads; ``done`` counts the epochs and is a part of its state."""

    accelerator: Any
    model: Any
    optimizer: Any
    loader: Any
    done: Any


class Epochs:
    """A number with a state of its own, as accelerate wants it."""

    def __init__(self) -> None:
        self.number = 0

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def start(folder: Path, *, iteration: int = 0) -> Run:
    """Begin a run, as a new process would."""
    torch.manual_seed(0)
    config = ProjectConfiguration(str(folder), automatic_checkpoint_naming=True, iteration=iteration)
    accelerator = Accelerator(cpu=True, project_config=config)
    model = torch.nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x), batch_size=2, shuffle=True)
    done = Epochs()
    accelerator.register_for_checkpointing(done)
    return Run(accelerator, *accelerator.prepare(model, torch.optim.Adam(model.parameters(), 0.1), loader), done)


def train(run: Run, epochs: int) -> None:
    """Train and save, epoch by epoch."""
    for _ in range(epochs):
        for x, y in run.loader:
            run.accelerator.backward(torch.nn.functional.mse_loss(run.model(x), y))
            run.optimizer.step()
            run.optimizer.zero_grad()
        run.done.number += 1
        run.accelerator.save_state()


def test_a_run_loads_the_newest_that_is_left_and_goes_on_as_if_nothing_had_gone(tmp_path: Path) -> None:
    """``load_state()`` without a path takes the highest number; ``iteration`` must be said by the user, pruned or not."""
    whole = start(tmp_path / "whole")
    train(whole, SAVES + 1)
    train(start(tmp_path / "runs/one"), SAVES)

    pruned = prune(tmp_path)
    assert pruned.packs == ["huggingface"]
    assert pruned.gone == [f"one/checkpoints/checkpoint_{number}" for number in range(3)]
    assert pruned.stays == ["one/checkpoints/checkpoint_3", "one/checkpoints/checkpoint_4"]

    again = start(tmp_path / "runs/one", iteration=SAVES)
    again.accelerator.load_state()
    assert again.done.number == SAVES
    train(again, 1)
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict())
    assert (tmp_path / "runs/one/checkpoints/checkpoint_5").is_dir()
