"""Short trainings with callbacks of the test's choice."""

import warnings
from types import ModuleType
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


class Trained(NamedTuple):
    """A trainer after ``fit``, the loss of each epoch that it ran, and the data."""

    trainer: Any
    losses: list[float]
    loader: Any


def train(maker: ModuleType, callbacks: list[Any], epochs: int, ckpt_path: str | None = None) -> Trained:
    """Train with some callbacks."""
    losses: list[float] = []

    class Note(Callback):  # type: ignore[misc]
        def on_validation_end(self, trainer: Any, _module: Any) -> None:
            if not trainer.sanity_checking:
                losses.append(float(trainer.callback_metrics["val_loss"]))

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[*callbacks, Note()], logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x), batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(maker.Line(), loader, loader, ckpt_path=ckpt_path)
    return Trained(trainer, losses, loader)
