"""docs/extending.md shows how to add things; here its diffs are applied to a copy of the project, and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
IGNORED = shutil.ignore_patterns("real", "from_53e9581", "*.pyc.*")  # the last is about to get another name
ADDED = ("A command", "A policy line", "A kind of change", "A file format", "A storage")


def blocks(section: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def test_the_page_shows_all_that_may_be_added() -> None:
    assert set(SECTIONS) == set(ADDED)


@pytest.mark.parametrize("section", ADDED)
def test_a_thing_is_one_new_file_and_at_most_one_row_elsewhere(section: str) -> None:
    files = re.split(r"^(?=--- )", "".join(blocks(section, "diff")), flags=re.MULTILINE)[1:]
    new = [text for text in files if text.startswith("--- /dev/null")]
    rows = [line for text in files if text not in new for line in text.splitlines()[2:] if line[:1] in ("+", "-")]
    assert len(new) == 1
    assert len(rows) <= 1


@pytest.mark.parametrize("section", ADDED)
def test_the_diff_of_a_section_applies_and_does_what_is_shown(section: str, tmp_path: Path) -> None:
    for name in ("ckptrules", "rules", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=IGNORED)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    diff = "".join(blocks(section, "diff"))
    applied = subprocess.run(
        ["git", "apply", "-"], cwd=tmp_path, input=diff, capture_output=True, text=True, check=False
    )
    assert applied.returncode == 0, applied.stderr
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for session in blocks(section, "console"):
        *commands, last = re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
        command, _, expected = last.partition("\n")
        script = "".join(commands) + command
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        missing = [line for line in expected.splitlines() if line not in done.stdout]
        assert not missing, done.stdout + done.stderr
