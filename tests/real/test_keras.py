"""Keras on torch: ``fit`` goes on by its BackupAndRestore, or from the newest model, in a pruned folder."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.real.resumes import prune

NEEDS = "needs Keras on PyTorch: pip install -e '.[real]'"
pytest.importorskip("torch", reason=NEEDS)
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason=NEEDS)
pytestmark = pytest.mark.filterwarnings("ignore")

import numpy as np  # noqa: E402

FIRST, ALL = 6, 8
NAME = "ep{epoch:03d}-loss{loss:.3f}-val_loss{val_loss:.3f}.keras"


def new_model() -> Any:
    """Return a line through 0.4 that learns; on its way it passes the line that it is validated with."""
    keras.utils.set_random_seed(0)
    start = keras.initializers.Constant(0.4)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer=start)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def fit(model: Any, folder: Path, epochs: int, initial_epoch: int = 0, *, backup: bool = True) -> Any:
    """Train to so many epochs, and return the model with the epochs that were run."""
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = [
        keras.callbacks.ModelCheckpoint(str(folder / NAME)),
        keras.callbacks.CSVLogger(str(folder / "training.log"), append=True),
    ]
    if backup:
        callbacks += [keras.callbacks.BackupAndRestore(str(folder / "backup"), delete_checkpoint=False)]
    x = np.linspace(-1, 1, 8).reshape(-1, 1)
    options = {"epochs": epochs, "initial_epoch": initial_epoch, "batch_size": 2, "shuffle": False, "verbose": 0}
    return model.fit(x, 2 * x, validation_data=(x, 0.8 * x), callbacks=callbacks, **options)


@pytest.mark.parametrize("way", ["BackupAndRestore", "load_model"])
def test_fit_goes_on_from_what_is_left(tmp_path: Path, way: str) -> None:
    """Both find their file; the backup is protected, and the best by val_loss is an early one."""
    whole = fit(new_model(), tmp_path / "whole", ALL)
    run = tmp_path / "runs/line"
    fit(new_model(), run, FIRST)
    losses = whole.history["val_loss"]
    best = losses.index(min(losses)) + 1
    assert best in range(2, FIRST - 1), losses

    pruned = prune(tmp_path)
    assert pruned.packs == ["keras"]
    left = [name for name in pruned.stays if name.endswith(".keras")]
    assert [int(Path(name).name[2:5]) for name in left] == [best, FIRST - 1, FIRST]
    assert len(pruned.gone) == FIRST - 3
    assert "line/backup" in pruned.stays

    if way == "load_model":
        again = fit(keras.models.load_model(tmp_path / "runs" / left[-1]), run, ALL, FIRST, backup=False)
    else:
        again = fit(new_model(), run, ALL)
    assert again.epoch == list(range(FIRST, ALL))
    assert again.history["val_loss"] == pytest.approx(losses[FIRST:])
