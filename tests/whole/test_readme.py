"""Every console block of the README is run, every YAML block is loaded, and what it lists is what there is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ckptrules.commands.demo import sample_tree
from ckptrules.rules.load import load_rules
from ckptrules.run.command_line import TASKS
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
CONSOLE = [text for language, text in BLOCKS if language == "console"]
PINS = re.findall(
    r"^```console\n(.*?)^```$", (ROOT / "docs/pins.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
YAML = [text for language, text in BLOCKS if language == "yaml"]
RUN = re.compile(r"\d{8}T\d{6}Z-\d+")
LISTS = {"protected", "ignored", "legacy"}


def test_the_console_blocks_show_what_really_comes(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dodo.py", tmp_path)
    shutil.copytree(ROOT / "rules", tmp_path / "rules")
    sample_tree(str(tmp_path / "outputs"))
    for block in [*CONSOLE, *PINS]:
        shown = ""
        for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            shown += f"$ {command}\n" + run(command, tmp_path)
        assert RUN.sub("<run>", shown) == RUN.sub("<run>", block)


def run(command: str, folder: Path) -> str:
    program, *arguments = shlex.split(command)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    environment.pop("NO_COLOR", None)
    result = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return result.stdout


@pytest.mark.parametrize("block", YAML)
def test_the_yaml_blocks_are_rules_that_hold(block: str) -> None:
    claimed = set(yaml.safe_load(block)) - LISTS
    files = {f"rules/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")}
    texts = {name: text for name, text in files.items() if not claimed & set(yaml.safe_load(text))}
    assert load_rules({**texts, "rules/readme.yaml": block})


def test_every_task_is_documented() -> None:
    for task in TASKS:
        assert re.search(rf"doit {task}\b(?!_)", README), task


def test_ci_runs_the_commands_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for words in re.findall(r"readme_command \"(.*)\"\)", ci):
        assert words in README
