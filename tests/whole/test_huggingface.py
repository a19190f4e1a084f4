"""The callback for the Trainer, which is not needed here: a state and arguments that look like its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ckptrules.engine.ruleset import RuleError
from tests.conftest import Project

RULES = """\
layout: ['*']
packs: [huggingface]
"""
POLICIES = "retention: {default: {keep_last: 2}, all: {keep: all}}\n"
STEPS = (100, 200, 300, 400, 500)


@pytest.fixture
def project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with a run of the Trainer, in which we stand."""
    for name in ("naming", "retention"):
        (project.folder / f"rules/{name}.yaml").write_text(RULES if name == "naming" else POLICIES)
    project.make({f"run/checkpoint-{step}/trainer_state.json": 0 for step in STEPS})
    for step in STEPS:
        (project.outputs / f"run/checkpoint-{step}/trainer_state.json").write_text("{}")
        (project.outputs / f"run/checkpoint-{step}/model.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(project.folder)
    monkeypatch.delitem(sys.modules, "ckptrules.huggingface", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", ModuleType("transformers"))
    monkeypatch.setattr(sys.modules["transformers"], "TrainerCallback", object, raising=False)
    return project


def steps_left(project: Project) -> list[int]:
    return sorted(int(name.removeprefix("checkpoint-")) for name in os.listdir(project.outputs / "run"))


def save(
    *, step: int = 500, began: int = 0, best: str | None = None, resumed: Any = None, main: bool = True, **options: Any
) -> None:
    """Let a callback see the beginning of a training, and a checkpoint saved in it."""
    from ckptrules.huggingface import RulesCallback

    callback = RulesCallback(**{"delete_old": True, **options})
    args = SimpleNamespace(output_dir="outputs/run", resume_from_checkpoint=resumed)
    state = SimpleNamespace(global_step=began, best_model_checkpoint=best, is_world_process_zero=main)
    callback.on_train_begin(args, state, SimpleNamespace(), model=None)
    state.global_step = step
    callback.on_save(args, state, SimpleNamespace(), model=None)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, [400, 500]),
        ({"delete_old": False}, list(STEPS)),
        ({"policy": "all"}, list(STEPS)),
        ({"main": False}, list(STEPS)),
        ({"began": 100}, [100, 400, 500]),
        ({"resumed": "outputs/run/checkpoint-200"}, [200, 400, 500]),
        ({"resumed": True}, [400, 500]),
        ({"best": "outputs/run/checkpoint-300"}, [300, 400, 500]),
        ({"best": "/elsewhere/before/run/checkpoint-300"}, [300, 400, 500]),
        ({"best": "/elsewhere/checkpoint-7", "began": 200}, [200, 400, 500]),
        ({"step": 200}, [200, 400, 500]),
    ],
)
def test_it_deletes_by_the_policy_but_what_training_needs(
    project: Project, caplog: pytest.LogCaptureFixture, options: dict[str, Any], left: list[int]
) -> None:
    save(**options)
    assert (steps_left(project), caplog.text) == (left, "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"step": 600}, "there is no"),
        ({"outputs_dir": "rules"}, "does not lie below outputs_dir"),
        ({"outputs_dir": "nowhere"}, "No such file or directory"),
    ],
)
def test_a_cleanup_that_fails_is_a_warning_and_the_training_goes_on(
    project: Project, caplog: pytest.LogCaptureFixture, options: dict[str, Any], told: str
) -> None:
    save(**options)
    assert told in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
    assert steps_left(project) == list(STEPS)


def test_a_python_that_cannot_be_run_is_a_warning(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    save()
    assert "No such file" in caplog.text
    assert steps_left(project) == list(STEPS)


def test_rules_that_do_not_hold_are_refused_before_the_training(project: Project) -> None:
    from ckptrules.huggingface import RulesCallback

    with pytest.raises(ValueError, match="unknown policy 'nonesuch'; there are: default, all"):
        RulesCallback(delete_old=True, policy="nonesuch")
    (project.folder / "rules/naming.yaml").write_text("layout: 7\n")
    with pytest.raises(RuleError):
        RulesCallback()


ABSENT = """
import sys
sys.modules["transformers"] = None
try:
    import ckptrules.huggingface
except ImportError as error:
    print(error)
"""


def test_missing_transformers_are_named() -> None:
    out = subprocess.run([sys.executable, "-c", ABSENT], text=True, capture_output=True, check=True).stdout
    assert out == "ckptrules.huggingface needs transformers: pip install 'ckptrules[huggingface]'\n"
