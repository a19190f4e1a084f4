"""A folder inside a checkpoint into which the user may not look: nobody knows whether that checkpoint is whole."""

from __future__ import annotations

import pytest

from tests.support import nobody

RULES = {
    "naming.yaml": "packs: [huggingface]\nlayout: ['*']\n",
    "retention.yaml": "retention:\n  default:\n    keep_last: 1\n",
}


@pytest.mark.parametrize(
    ("path", "mode", "where"),
    [
        ("checkpoint-1500/global_step", 0o000, ": global_step"),
        ("checkpoint-1500", 0o000, ""),
        ("checkpoint-1500", 0o400, ""),
        ("checkpoint-1500/global_step", 0o400, ""),
    ],
)
def test_it_is_told_and_makes_no_other_go(path: str, mode: int, where: str) -> None:
    with nobody.project() as project:
        for name, text in RULES.items():
            (project.folder / "rules" / name).write_text(text)
        for step in (1000, 1500):
            folder = project.outputs / f"sft/checkpoint-{step}"
            (folder / "global_step").mkdir(parents=True)
            (folder / "global_step/optimizer.pt").write_bytes(b"x")
            (folder / "trainer_state.json").write_text("{}")
            (folder / "model.safetensors").write_bytes(b"x")
        nobody.give(project.folder)
        (project.outputs / "sft" / path).chmod(mode)
        ended = nobody.run(project.folder, "migrate", "delete_old=1")
        assert ended.code == 1
        assert f"Problem: checkpoint-1500 holds what cannot be read{where} (Permission denied)\n" in ended.output
        assert sorted(one.name for one in (project.outputs / "sft").iterdir()) == ["checkpoint-1000", "checkpoint-1500"]
        (project.outputs / "sft" / path).chmod(0o700)
        assert nobody.run(project.folder, "migrate", "delete_old=1").code == 0
        assert [one.name for one in (project.outputs / "sft").iterdir()] == ["checkpoint-1500"]
