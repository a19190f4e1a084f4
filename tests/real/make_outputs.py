"""Train a model of two numbers with Lightning, so that the tests have real checkpoints.

``python make_outputs.py OUT`` writes ``OUT/<experiment>/checkpoints/*.ckpt``, one
experiment for each of the three old ways to name a checkpoint. Nothing here is random.
Lightning writes absolute paths into a checkpoint, even when given a relative directory:
the tree in ``outputs/`` was therefore made with ``/outputs`` as OUT and moved here.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 15  # with SAVE_EVERY: epochs 2, 5 and 8 are early, 11 and 14 are late
SAVE_EVERY = 3
STEPS_PER_EPOCH = 4
BEST = "best-val_loss-{val_loss:.4f}"


@dataclass(frozen=True)
class Naming:
    """How an experiment names its periodic checkpoints; None leaves it to Lightning."""

    filename: str | None
    save_last: bool | Literal["link"]


EXPERIMENTS = {
    "doubled_prefix": Naming("epoch_epoch_{epoch:02d}_step_step_{step:06d}_20260107_081530", save_last=True),
    "underscores": Naming("epoch_{epoch:02d}_step_{step:06d}", save_last="link"),
    "lightning_default": Naming(None, save_last=True),
}


class Line(L.LightningModule):
    """A straight line, fitted to one slope and validated against a lower one.

    On its way to the slope of the training data it passes the other, so the best
    checkpoint is an early one: a clean-up by epoch alone would lose it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)
        self.epochs_run: list[int] = []

    def on_train_epoch_start(self) -> None:
        """Note the epoch: after a resume the list tells where it went on."""
        self.epochs_run.append(self.current_epoch)

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        """Return the loss against the steep line."""
        x, y = batch
        return mse_loss(self.layer(x), y)

    def validation_step(self, batch: list[torch.Tensor], _index: int) -> None:
        """Log the loss against a line 0.7 times as steep, and higher by a half."""
        x, y = batch
        self.log("val_loss", mse_loss(self.layer(x), 0.7 * y + 0.5))

    def test_step(self, batch: list[torch.Tensor], _index: int) -> None:  # noqa: PT019 - a hook, no test
        """Log the loss against the steep line."""
        x, y = batch
        self.log("test_loss", mse_loss(self.layer(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD without momentum, which has no state to fill a checkpoint with."""
        return torch.optim.SGD(self.parameters(), lr=0.05)


def train(outputs: Path, experiment: str, max_epochs: int, ckpt_path: str | None = None) -> L.Trainer:
    """Train below ``outputs``, from ``ckpt_path`` if given, and return the trainer."""
    naming = EXPERIMENTS[experiment]
    directory = outputs / experiment / "checkpoints"
    periodic = ModelCheckpoint(
        directory,
        naming.filename,
        save_last=naming.save_last,
        save_top_k=-1,
        every_n_epochs=SAVE_EVERY,
        auto_insert_metric_name=naming.filename is None,
    )
    best = ModelCheckpoint(directory, BEST, monitor="val_loss", auto_insert_metric_name=False)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=[periodic, best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    x = torch.linspace(-1, 1, 2 * STEPS_PER_EPOCH).unsqueeze(1)
    loader = DataLoader(TensorDataset(x, x), batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice: more workers, a directory not empty
        trainer.fit(Line(), loader, loader, ckpt_path=ckpt_path)
    return trainer


def main() -> None:
    """Train every experiment below the directory named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: make_outputs.py OUT")
    for experiment in EXPERIMENTS:
        train(Path(sys.argv[1]), experiment, EPOCHS)


if __name__ == "__main__":
    main()
