"""SpeechBrain's Brain, whose ``fit`` calls ``Checkpointer.recover_if_possible``."""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.real.resumes import prune, stand_ins

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
if find_spec("speechbrain") is None:
    NEEDS = "needs SpeechBrain without torchaudio, whose wheel does not fit the CPU build of torch: pip install --no-deps speechbrain"
    pytest.skip(NEEDS, allow_module_level=True)
with stand_ins("torchaudio", "sentencepiece"):  # nothing here is heard, and no text is split
    from speechbrain.core import Brain, Stage
    from speechbrain.utils.checkpoints import Checkpointer
    from speechbrain.utils.epoch_loop import EpochCounter
pytestmark = pytest.mark.filterwarnings("ignore")

WER = [9.0, 2.0, 5.0, 4.0, 6.0, 5.5, 5.2]  # of the epochs: the best is an early one


class Line(Brain):  # type: ignore[misc]
    """Fits a line, and saves after each epoch; ``epochs`` are those that it ran."""

    def compute_forward(self, batch: Any, stage: Any) -> Any:  # noqa: ARG002 - SpeechBrain's
        return self.modules.model(batch[0])

    def compute_objectives(self, predictions: Any, batch: Any, stage: Any) -> Any:  # noqa: ARG002
        return torch.nn.functional.mse_loss(predictions, batch[1])

    def on_fit_start(self) -> None:
        super().on_fit_start()  # recovers
        self.epochs: list[int] = []

    def on_stage_end(self, stage: Any, stage_loss: float, epoch: int | None = None) -> None:  # noqa: ARG002
        if stage == Stage.VALID and epoch:
            self.epochs.append(epoch)
            self.checkpointer.save_checkpoint(meta={"WER": WER[epoch - 1]})
            time.sleep(1.01)  # a name tells seconds


def train(folder: Path, epochs: int) -> Line:
    """Train as a new process would; it goes on from what is there."""
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x), batch_size=2)
    model, counter = torch.nn.Linear(1, 1), EpochCounter(epochs)
    brain = Line(
        {"model": model}, lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9), run_opts={"device": "cpu"},
        checkpointer=Checkpointer(folder, {"model": model, "counter": counter}),
    )  # fmt: skip
    brain.fit(counter, loader, loader, progressbar=False)
    return brain


def checkpoints(folder: Path) -> list[str]:
    """Return their names, the oldest first: they begin with the time."""
    return sorted(path.name for path in folder.iterdir())


def test_a_run_recovers_from_the_newest_and_the_best_is_there(tmp_path: Path) -> None:
    """The names tell a time and no number; the metric stands in CKPT.yaml."""
    whole = train(tmp_path / "whole", 7)
    folder = tmp_path / "runs/line/1234/save"
    train(folder, 5)
    names = checkpoints(folder)

    pruned = prune(tmp_path)
    assert pruned.packs == ["speechbrain"]
    assert pruned.gone == [f"line/1234/save/{names[epoch - 1]}" for epoch in (1, 3)]
    assert checkpoints(folder) == [names[epoch - 1] for epoch in (2, 4, 5)]

    best = Checkpointer(folder, {"counter": (counter := EpochCounter(9))}).recover_if_possible(min_key="WER")
    assert (best.path.name, counter.current) == (names[1], 2)
    again = train(folder, 7)
    assert again.epochs == [6, 7]
    torch.testing.assert_close(again.modules.state_dict(), whole.modules.state_dict())
