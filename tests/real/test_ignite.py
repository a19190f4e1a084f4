"""PyTorch-Ignite: ``Checkpoint.load_objects`` on what a Checkpoint, a ModelCheckpoint and a DiskSaver write."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.real.resumes import prune, run, stand_ins

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
with stand_ins():
    pytest.importorskip("ignite", reason="needs PyTorch-Ignite: pip install -e '.[real]'")
    from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
    from ignite.handlers import Checkpoint, DiskSaver, ModelCheckpoint, global_step_from_engine
    from ignite.metrics import Loss
pytestmark = pytest.mark.filterwarnings("ignore")

LENGTH = 4  # iterations of an epoch


class Run(NamedTuple):
    """What is saved and loaded, and the data."""

    objects: dict[str, Any]
    loader: Any

    def go(self, epochs: int) -> Any:
        return self.objects["trainer"].run(self.loader, max_epochs=epochs)


def start(folder: Path, count: Callable[[Any], Any] | None) -> Run:
    """Begin a run, as a new process would: it saves all after each epoch, and the best model twice.

    Args:
        folder: where it saves.
        count: gives the number for the names, of an engine; without it, Ignite takes iterations.
    """
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x = torch.linspace(-1, 1, 2 * LENGTH).unsqueeze(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x), batch_size=2)
    error = torch.nn.functional.mse_loss
    trainer = create_supervised_trainer(model, optimizer, error)
    seen = create_supervised_evaluator(model, {"loss": Loss(error)})
    objects = {"model": model, "optimizer": optimizer, "trainer": trainer}
    saver = DiskSaver(str(folder), create_dir=True, require_empty=False)
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, Checkpoint(objects, saver, n_saved=None, global_step_transform=count and count(trainer))
    )
    if count:
        best = ModelCheckpoint(
            folder, "best", n_saved=1, score_function=lambda engine: -engine.state.metrics["loss"], score_name="neg_loss",
            global_step_transform=count(trainer), require_empty=False,
        )  # fmt: skip
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.run(loader))
        seen.add_event_handler(Events.COMPLETED, best, {"model": model})
    return Run(objects, loader)


def over(folder: Path) -> None:
    """Date the files two hours back: the run that wrote them is over."""
    for path in folder.iterdir():
        os.utime(path, (path.stat().st_mtime - 7200,) * 2)


def test_a_run_that_removes_by_its_own_list_goes_on(tmp_path: Path) -> None:
    """Ignite stops with an error where a file that it wants to remove is gone, so nothing goes while it runs."""
    trainer = Engine(lambda *_: None)
    saver = DiskSaver(str(tmp_path / "runs/one"), create_dir=True)
    objects = {"model": torch.nn.Linear(1, 1), "trainer": trainer}
    trainer.add_event_handler(Events.EPOCH_COMPLETED, Checkpoint(objects, saver, n_saved=3))

    @trainer.on(Events.EPOCH_COMPLETED(once=4))  # type: ignore[untyped-decorator]
    def clean() -> None:
        run(tmp_path, "ckptrules", "init", "runs")
        command = [sys.executable, "-m", "doit", "migrate", "delete_old=1"]
        said = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
        assert said.returncode == 1
        assert "a run may go on, and with n_saved it removes old ones by name" in said.stdout

    assert trainer.run(range(LENGTH), max_epochs=7).epoch == 7


@pytest.mark.parametrize(
    ("count", "unit"), [(global_step_from_engine, 1), (None, LENGTH)], ids=["epochs", "iterations"]
)
def test_a_run_loads_the_newest_that_is_left_and_goes_on(
    tmp_path: Path, count: Callable[[Any], Any] | None, unit: int
) -> None:
    """Whatever the names count, the engine's own state inside tells whose they are. Where there is a best one it stays."""
    whole = start(tmp_path / "whole", count)
    whole.go(7)
    start(tmp_path / "runs/one", count).go(5)
    best = [path.name for path in (tmp_path / "runs/one").glob("best_*")]
    over(tmp_path / "runs/one")

    pruned = prune(tmp_path)
    assert pruned.packs == ["ignite"]
    assert pruned.gone == sorted(f"one/checkpoint_{unit * epoch}.pt" for epoch in (1, 2, 3))
    assert pruned.stays == sorted(f"one/{name}" for name in [*best, *(f"checkpoint_{unit * n}.pt" for n in (4, 5))])
    assert len(best) == (count is not None)

    again = start(tmp_path / "runs/one", count)
    Checkpoint.load_objects(again.objects, torch.load(tmp_path / f"runs/one/checkpoint_{unit * 5}.pt"))
    assert again.objects["trainer"].state.iteration == 5 * LENGTH
    assert again.go(7).epoch == 7
    for one in ("model", "optimizer", "trainer"):
        torch.testing.assert_close(again.objects[one].state_dict(), whole.objects[one].state_dict())
