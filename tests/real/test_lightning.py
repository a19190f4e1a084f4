"""A newcomer's Lightning run, pruned by what ``init`` writes: ``fit`` goes on, and rotates what is left."""

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.real.resumes import prune
from tests.real.test_real_checkpoints import NEEDS, maker  # noqa: F401 - a fixture

torch = pytest.importorskip("torch", reason=NEEDS)
L = pytest.importorskip("lightning", reason=NEEDS)
pytestmark = pytest.mark.filterwarnings("ignore")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

FIRST, ALL, BEST = 10, 12, 5  # epochs; after the best, Line leaves the line that it is validated with
STEPS = 4  # of an epoch


def fit(maker: ModuleType, base: Path, epochs: int, ckpt_path: str | None = None, *, logs: bool = True) -> Any:  # noqa: F811
    """Train in the folders of Lightning's logger, with its own names, and return the trainer."""
    logger = CSVLogger(base, version=0) if logs else False
    folder = base / "lightning_logs/version_0/checkpoints"
    keeper = ModelCheckpoint(folder, monitor="val_loss", save_top_k=8, save_last=True)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[keeper], logger=logger, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    x = torch.linspace(-1, 1, 2 * STEPS).unsqueeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x), batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(maker.Line(), loader, loader, ckpt_path=ckpt_path)
    return trainer


def epochs_of(base: Path) -> list[int]:
    """Return of which epochs there are checkpoints, but for last.ckpt."""
    found = (base / "lightning_logs/version_0/checkpoints").glob("epoch=*.ckpt")
    return sorted(int(path.name.split("=")[1].split("-")[0]) for path in found)


def test_a_run_resumes_from_last_and_knows_its_best(maker: ModuleType, tmp_path: Path) -> None:  # noqa: F811
    """No name changes, so the paths inside stay true; of what is gone its list is not bothered."""
    whole = fit(maker, tmp_path / "whole", ALL)
    base = tmp_path / "runs"
    fit(maker, base, FIRST)
    before = epochs_of(base)

    pruned = prune(tmp_path)
    assert pruned.packs == ["lightning"]
    assert epochs_of(base) == [BEST, before[-2], before[-1]]

    again = fit(maker, base, ALL, "last")
    assert again.lightning_module.epochs_run == list(range(FIRST, ALL))
    torch.testing.assert_close(again.lightning_module.state_dict(), whole.lightning_module.state_dict())
    assert Path(again.checkpoint_callback.best_model_path).is_file()
    best = [Path(one.checkpoint_callback.best_model_path).name for one in (whole, again)]
    assert best[0] == best[1] == f"epoch={BEST}-step={STEPS * (BEST + 1)}.ckpt"


def test_without_a_logger_the_best_is_known_from_inside(maker: ModuleType, tmp_path: Path) -> None:  # noqa: F811
    base = tmp_path / "runs"
    trainer = fit(maker, base, FIRST, logs=False)
    before = epochs_of(base)

    prune(tmp_path)
    assert epochs_of(base) == [BEST, before[-2], before[-1]]
    assert Path(trainer.checkpoint_callback.best_model_path).is_file()
