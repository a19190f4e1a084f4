"""The protocol's list under "Validation": its five success criteria in one go, and each of its failure indicators."""

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import ckptrules
from tests.real.test_real_checkpoints import (  # noqa: F401 - a fixture
    COMMITTED,
    EARLY,
    EXPERIMENTS,
    LATE,
    NEEDS,
    ROOT,
    SPECIAL,
    check_loaded,
    load_all,
    maker,
)

torch = pytest.importorskip("torch", reason=NEEDS)
pytestmark = pytest.mark.filterwarnings("ignore")


def doit(base: Path, *arguments: str, check: int = 0) -> str:
    """Run the real doit on a tree, and return what it printed."""
    for name in ("dodo.py", "rules"):
        if not (base / name).exists():
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, base / name)
    command = [sys.executable, "-m", "doit", *arguments]
    result = subprocess.run(command, cwd=base, text=True, capture_output=True, check=False)
    assert result.returncode == check, result.stdout + result.stderr
    return result.stdout


def test_all_five_success_criteria(maker: ModuleType, tmp_path: Path) -> None:  # noqa: F811
    """Trained, migrated with deletion, and then one criterion after the other."""
    outputs = tmp_path / "outputs"
    for experiment in EXPERIMENTS:
        maker.train(outputs, experiment, maker.EPOCHS)
    doit(tmp_path, "migrate", "delete_old=1", "fix_state=1")

    # All checkpoints renamed to new format; early epoch checkpoints deleted
    for experiment in EXPERIMENTS:
        assert set(os.listdir(outputs / experiment / "checkpoints")) == SPECIAL | LATE
    assert "problems     0" in doit(tmp_path, "verify")

    # Migrated checkpoints load successfully
    doit(tmp_path, "verify", "load=1")
    for experiment in EXPERIMENTS:
        check_loaded(load_all(outputs, experiment))

    # No errors in checkpoint discovery UI
    found = list(ckptrules.catalog(outputs))
    assert {Path(record.path).name for record in found} == SPECIAL | LATE
    ui = [sys.executable, str(ROOT / "examples" / "choose_checkpoint.py"), "outputs", EXPERIMENTS[0]]
    chosen = subprocess.run(ui, cwd=tmp_path, text=True, capture_output=True, check=True).stdout.splitlines()[-1]
    assert torch.load(tmp_path / chosen.removeprefix("load: "), weights_only=True)["epoch"] >= 0

    # Training can resume from migrated checkpoints
    for experiment in EXPERIMENTS:
        resumed = maker.train(outputs, experiment, maker.EPOCHS + 2, "last")
        assert resumed.lightning_module.epochs_run == [maker.EPOCHS, maker.EPOCHS + 1]


def truncate(path: Path) -> None:
    """Cut a file off in the middle."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Flip a bit among the weights."""
    content = bytearray(path.read_bytes())
    content[3392] ^= 1
    path.write_bytes(content)


def misname(path: Path) -> None:
    """Let a name say another epoch than the content."""
    path.rename(path.with_name("epoch-12_step-000048.ckpt"))


def unknown(path: Path) -> None:
    """Give it a name in no format."""
    path.rename(path.with_name("model-final-v2.ckpt"))


def needs_code(path: Path) -> None:
    """Replace it by one that does not load without running code."""
    torch.save({"epoch": 11, "global_step": 48, "path": Path("/x")}, path)


@pytest.mark.parametrize(
    ("harm", "command", "told"),
    [
        (unknown, ["migrate"], "unable to parse: no rule fits the whole name"),
        (unknown, ["verify"], "model-final-v2.ckpt is in no format that the rules know"),
        (truncate, ["verify"], "epoch-11_step-000048.ckpt is cut off"),
        (flip, ["verify"], "epoch-11_step-000048.ckpt is damaged in 'archive/data/0'"),
        (needs_code, ["verify", "load=1"], "epoch-11_step-000048.ckpt does not load"),
        (misname, ["verify"], "epoch-12_step-000048.ckpt holds epoch 11, not 12"),
    ],
)
def test_each_failure_indicator_is_told(
    tmp_path: Path, harm: Callable[[Path], None], command: list[str], told: str
) -> None:
    """Parse errors, what does not load, what a user interface would not find, what training would trip over."""
    shutil.copytree(COMMITTED, tmp_path / "outputs", symlinks=True)
    doit(tmp_path, "migrate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        harm(tmp_path / "outputs" / EXPERIMENTS[0] / "checkpoints" / "epoch-11_step-000048.ckpt")
    assert told in doit(tmp_path, *command, check=int(command[0] == "verify"))
