"""Stable-Baselines3: ``PPO.load`` and the normaliser beside it, on what CheckpointCallback and EvalCallback write."""

from pathlib import Path
from typing import Any

import pytest

from tests.real.resumes import prune, stand_ins

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[real]'")
gymnasium = pytest.importorskip("gymnasium", reason="needs gymnasium: pip install -e '.[real]'")
with stand_ins():
    pytest.importorskip("stable_baselines3", reason="needs Stable-Baselines3: pip install -e '.[real]'")
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
pytestmark = pytest.mark.filterwarnings("ignore")

ROLLOUT = 64  # timesteps between two checkpoints
PARTS = ["rl_model_{}_steps.zip", "rl_model_vecnormalize_{}_steps.pkl"]


def world() -> Any:
    """Return an environment that is the same each time."""
    made = DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])
    made.seed(0)
    return made


def learn(model: Any, folder: Path, timesteps: int, **more: Any) -> None:
    """Train with a checkpoint a rollout, and an evaluation now and then."""
    saves = CheckpointCallback(ROLLOUT, str(folder), save_vecnormalize=True)
    seen = VecNormalize(world(), training=False)
    looks = EvalCallback(
        seen,
        eval_freq=2 * ROLLOUT,
        n_eval_episodes=1,
        log_path=str(folder),
        best_model_save_path=str(folder),
        verbose=0,
    )
    model.learn(timesteps, callback=[saves, looks], **more)


def test_a_policy_and_its_normaliser_go_on_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files of one step stay or go as one, and best_model.zip stays; weights and counter are those that were saved."""
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path / "sb3"))  # else it leaves a folder among those of all programs
    folder = tmp_path / "logs/ppo"
    model = PPO("MlpPolicy", VecNormalize(world()), n_steps=ROLLOUT, batch_size=32, n_epochs=1, seed=0, device="cpu")
    learn(model, folder, 5 * ROLLOUT)
    saved = PPO.load(folder / PARTS[0].format(320)).policy.state_dict()

    pruned = prune(tmp_path, "logs")
    assert pruned.packs == ["sb3"]
    assert pruned.gone == sorted(f"ppo/{part.format(steps)}" for part in PARTS for steps in (64, 128, 192))
    newest = [f"ppo/{part.format(steps)}" for part in PARTS for steps in (256, 320)]
    assert pruned.stays == sorted([*newest, "ppo/best_model.zip", "ppo/evaluations.npz"])

    there = VecNormalize.load(str(folder / PARTS[1].format(320)), world())
    again = PPO.load(folder / PARTS[0].format(320), env=there)
    assert again.num_timesteps == 320
    assert there.obs_rms.count == model.env.obs_rms.count
    torch.testing.assert_close(again.policy.state_dict(), saved)
    learn(again, folder, ROLLOUT, reset_num_timesteps=False)
    assert again.num_timesteps == 384
    assert all((folder / part.format(384)).is_file() for part in PARTS)
