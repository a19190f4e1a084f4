"""Runs that go on with Lightning's own ModelCheckpoint after a migration: what goes stale, and what mends it."""

import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.real.test_protocol_validation import doit
from tests.real.test_real_checkpoints import NEEDS, maker  # noqa: F401 - a fixture

torch = pytest.importorskip("torch", reason=NEEDS)
pytest.importorskip("lightning", reason=NEEDS)
pytestmark = pytest.mark.filterwarnings("ignore")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from tests.real.runs import train  # noqa: E402

FIRST, ALL = 4, 6  # epochs; the loss falls in each, so the newest two are the best two
OLD = {"epoch-02_step-000012.ckpt", "epoch-03_step-000016.ckpt"}
NEWEST = {"epoch=4-step=20.ckpt", "epoch=5-step=24.ckpt"}


def top_two(base: Path) -> Any:
    """Return Lightning's own callback, which keeps the two best checkpoints and the last one."""
    folder = base / "outputs" / "one" / "checkpoints"
    return ModelCheckpoint(folder, monitor="val_loss", save_top_k=2, save_last=True)


@pytest.mark.parametrize(
    ("options", "left", "best_is_found"),
    [
        ([], OLD | NEWEST, False),
        (["fix_state=1"], NEWEST, True),
        (["leave_links=1"], OLD | NEWEST, True),
    ],
    ids=["only renamed", "fix_state", "leave_links"],
)
def test_a_resumed_run_is_the_undisturbed_one_and_rotates_the_right_files(
    maker: ModuleType,  # noqa: F811
    tmp_path: Path,
    options: list[str],
    left: set[str],
    best_is_found: bool,  # noqa: FBT001
) -> None:
    """Without a remedy the renamed ones are never rotated: this is why there is one."""
    whole = train(maker, [top_two(tmp_path / "whole")], ALL)
    (tmp_path / "broken").mkdir()
    first = train(maker, [top_two(tmp_path / "broken")], FIRST)
    doit(tmp_path / "broken", "migrate", *options)
    folder = tmp_path / "broken" / "outputs" / "one" / "checkpoints"

    best = Path(first.trainer.checkpoint_callback.best_model_path)
    state = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]
    (mine,) = [value for name, value in state.items() if name.startswith("ModelCheckpoint")]
    assert best.parent.samefile(folder)
    assert os.path.exists(mine["best_model_path"]) == best_is_found
    assert all(os.path.exists(path) == best_is_found for path in mine["best_k_models"])

    resumed = train(maker, [top_two(tmp_path / "broken")], ALL, "last")
    assert first.losses + resumed.losses == whole.losses
    module = resumed.trainer.lightning_module
    torch.testing.assert_close(module.state_dict(), whole.trainer.lightning_module.state_dict())
    assert {path.name for path in folder.iterdir() if not path.is_symlink()} == left | {"last.ckpt"}
    assert not [path for path in folder.iterdir() if path.is_symlink()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = resumed.trainer.test(maker.Line(), resumed.loader, ckpt_path="best", verbose=False)
    assert found
