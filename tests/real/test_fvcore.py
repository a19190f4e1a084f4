"""fvcore's Checkpointer and PeriodicCheckpointer, as detectron2 uses them; ``resume_or_load`` follows ``last_checkpoint``."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.real.resumes import prune, stand_ins

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
with stand_ins():
    pytest.importorskip("fvcore", reason="needs fvcore: pip install -e '.[real]'")
    from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer
pytestmark = pytest.mark.filterwarnings("ignore")

PERIOD = 5  # iterations


class Run(NamedTuple):
    """What a training loop of detectron2 has in its hands."""

    model: Any
    optimizer: Any
    checkpointer: Any


def start(folder: Path) -> tuple[Run, int]:
    """Begin a run as a new process would, and go on from what is there; return the first iteration to do."""
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    folder.mkdir(parents=True, exist_ok=True)
    checkpointer = Checkpointer(model, str(folder), optimizer=optimizer)
    found = checkpointer.resume_or_load("", resume=True)
    return Run(model, optimizer, checkpointer), found.get("iteration", -1) + 1


def train(folder: Path, iterations: int) -> Run:
    """Train up to a number of iterations of ever so many more, so that it never ends with model_final."""
    run, first = start(folder)
    saves = PeriodicCheckpointer(run.checkpointer, PERIOD, max_iter=1000)
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    for iteration in range(first, iterations):
        loss = torch.nn.functional.mse_loss(run.model(x), 2 * x)
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        saves.step(iteration)
    return run


def test_a_run_resumes_from_what_last_checkpoint_names(tmp_path: Path) -> None:
    """The names count from 0: model_0000024 holds 25 iterations."""
    whole = train(tmp_path / "whole", 35)
    train(tmp_path / "output/line", 27)

    pruned = prune(tmp_path, "output")
    assert pruned.packs == ["detectron2"]
    assert pruned.gone == [f"line/model_{iteration:07}.pth" for iteration in (4, 9, 14)]
    assert pruned.stays == ["line/last_checkpoint", "line/model_0000019.pth", "line/model_0000024.pth"]

    _, first = start(tmp_path / "output/line")
    assert first == 25
    again = train(tmp_path / "output/line", 35)
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict())
