"""Orbax' CheckpointManager around pruned folders, with each of its ways to name steps."""

from pathlib import Path
from typing import Any

import pytest

from tests.real.resumes import prune

NEEDS = "needs JAX and Orbax: pip install -e '.[real]'"
jax = pytest.importorskip("jax", reason=NEEDS)
ocp = pytest.importorskip("orbax.checkpoint", reason=NEEDS)
pytestmark = pytest.mark.filterwarnings("ignore")

FIRST, ALL, EVERY = 60, 80, 10  # steps
OPTIONS: dict[str, dict[str, Any]] = {
    "bare": {"best_fn": lambda metrics: metrics["loss"], "best_mode": "min"},
    "prefixed": {"step_prefix": "checkpoint"},
    "padded": {"step_format_fixed_length": 8},
}
LEFT = {
    "bare": ["20", "40", "50"],  # the best, and the newest two
    "prefixed": ["checkpoint_40", "checkpoint_50"],
    "padded": ["00000040", "00000050"],
}


def manager(folder: Path, way: str) -> Any:
    """Return a new one, as a new process would have."""
    return ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(**OPTIONS[way]))


def train(keeper: Any, state: dict[str, Any], steps: range, way: str) -> dict[str, Any]:
    """Go down to zero, and save now and then; the loss that is told is the distance from what step 20 has."""
    loss = jax.jit(jax.grad(lambda w: (w**2).sum()))
    for step in steps:
        state = {"w": state["w"] - 0.01 * loss(state["w"]), "step": step}
        if step % EVERY == 0:
            told = {"loss": abs(step - 20) / 10} if way == "bare" else None
            keeper.save(step, args=ocp.args.StandardSave(state), metrics=told)
    keeper.wait_until_finished()
    return state


def begin() -> dict[str, Any]:
    """Return the state of a run that has not begun."""
    return {"w": jax.numpy.arange(1.0, 4.0), "step": -1}


def test_a_manager_restores_the_newest_that_is_left(tmp_path: Path) -> None:
    """And it finds the best where it is told how good they are."""
    for way in OPTIONS:
        with manager(tmp_path / "runs" / way, way) as first:
            train(first, begin(), range(FIRST), way)

    pruned = prune(tmp_path)
    assert pruned.packs == ["orbax"]
    assert pruned.stays == sorted(f"{way}/{name}" for way, names in LEFT.items() for name in names)

    with manager(tmp_path / "whole", "bare") as other:
        whole = train(other, begin(), range(ALL), "bare")
    for way in OPTIONS:
        with manager(tmp_path / "runs" / way, way) as again:
            assert again.latest_step() == FIRST - EVERY
            state = again.restore(again.latest_step(), args=ocp.args.StandardRestore(begin()))
            assert state["step"] == FIRST - EVERY
            after = train(again, state, range(state["step"] + 1, ALL), way)
            assert after["w"].tolist() == whole["w"].tolist()
            assert again.latest_step() == ALL - EVERY
            assert way != "bare" or again.best_step() == 20
