"""``doit verify`` on what torch and Lightning really write; ``load=1`` with the real torch."""

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
pytestmark = pytest.mark.filterwarnings("ignore")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = "epoch-03_step-000352.ckpt"
CONTENT = {"epoch": 3, "global_step": 352, "w": torch.arange(1000.0), "h": torch.ones(7, dtype=torch.bfloat16)}


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        """Name the call."""
        return os.mkdir, (str(self.path),)


def verify(base: Path, *options: str, code: int = 0) -> tuple[str, dict[str, Any]]:
    """Run the command on ``base/outputs``; return what it printed and its JSON file."""
    command = [sys.executable, "-m", "doit", "-f", str(ROOT / "dodo.py"), "-d", str(base)]
    command += ["verify", f"rules_dir={ROOT / 'rules'}", "json=found.json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout, json.loads((base / "found.json").read_text())


def place(base: Path, name: str = NAME) -> Path:
    """Return where a checkpoint is to be written."""
    path = base / "outputs/exp/checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_every_checkpoint_of_lightning_is_read_and_loads(tmp_path: Path) -> None:
    """Epoch and step are what torch itself reads."""
    shutil.copytree(HERE / "outputs", tmp_path / "outputs", symlinks=True)
    _, found = verify(tmp_path, "load=1", code=1)
    assert {problem["id"] for row in found["experiments"] for problem in row["problems"]} == {"not_migrated"}
    for experiment in found["experiments"]:
        for row in experiment["checkpoints"]:
            loaded = torch.load(tmp_path / "outputs" / experiment["directory"] / row["name"], weights_only=True)
            assert (row["epoch"], row["step"]) == (loaded["epoch"], loaded["global_step"])
            assert row["loaded"]
            assert row["checksums"]


@pytest.mark.parametrize("way", ["zip", "legacy", "no checksums"])
def test_each_way_to_save_is_whole_and_found_when_cut_off(tmp_path: Path, way: str) -> None:
    """The three ways of torch.save."""
    path = place(tmp_path)
    torch.serialization.set_crc32_options(way != "no checksums")
    try:
        torch.save(CONTENT, path, _use_new_zipfile_serialization=way != "legacy")
    finally:
        torch.serialization.set_crc32_options(True)
    row = verify(tmp_path, "load=1")[1]["experiments"][0]["checkpoints"][0]
    assert (row["epoch"], row["step"], row["checksums"]) == (3, 352, way == "zip")
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(tmp_path, code=1)[1]["experiments"][0]["problems"][0]["id"] == "truncated"


def test_what_needs_code_is_loaded_only_when_that_is_said(tmp_path: Path) -> None:
    """And it is told for what it is."""
    torch.save({**CONTENT, "hparams": argparse.Namespace(lr=0.1)}, place(tmp_path))
    verify(tmp_path)
    out, _ = verify(tmp_path, "load=1", code=1)
    assert "does not load without running code (weights_only=True)\n      hint: unsafe=1 loads it by running" in out
    out, _ = verify(tmp_path, "load=1", "unsafe=1")
    assert "loaded by RUNNING the code it names (argparse.Namespace)" in out
    verify(tmp_path, "load=1", code=1)


@pytest.mark.parametrize("kind", ["TorchScript", "pickle"])
def test_what_torch_load_always_refuses_is_not_loaded(tmp_path: Path, kind: str) -> None:
    if kind == "pickle":
        place(tmp_path).write_bytes(pickle.dumps({"epoch": 3, "global_step": 352}))
    else:
        torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 3), torch.zeros(1, 3)), place(tmp_path))
    assert verify(tmp_path, "load=1")[1]["experiments"][0]["checkpoints"][0]["format"] == kind


def test_a_hostile_checkpoint_runs_nothing_however_it_is_verified(tmp_path: Path) -> None:
    """The last line shows that it is hostile indeed."""
    path, marker = place(tmp_path), tmp_path / "ran"
    torch.save({**CONTENT, "x": Touches(marker)}, path)
    for options in [[], ["quick=1"], ["load=1"], ["load=1", "unsafe=1"]]:
        _, found = verify(tmp_path, *options, code=1)
        assert found["experiments"][0]["problems"][0]["id"] == "runs_code"
        assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_a_checkpoint_of_torch_distributed_is_complete_or_told(tmp_path: Path) -> None:
    """Written in one process; FSDP writes the same files, one for each rank."""
    import torch.distributed.checkpoint as dcp

    path = place(tmp_path)
    dcp.save({"model": {"w": torch.arange(1000.0)}}, checkpoint_id=path, no_dist=True)
    torch.save({"epoch": 3, "global_step": 352}, path / "meta.pt")
    row = verify(tmp_path)[1]["experiments"][0]["checkpoints"][0]
    assert (row["format"], row["epoch"], row["step"]) == ("torch.distributed", 3, 352)
    shard = next(path.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert verify(tmp_path, code=1)[1]["experiments"][0]["problems"][0]["id"] == "truncated"
    shard.unlink()
    assert verify(tmp_path, code=1)[1]["experiments"][0]["problems"][0]["id"] == "incomplete"
