"""Packs of others: a package that ships one is found by its entry point, and takes the name of none of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ckptrules.rules import packs
from ckptrules.rules.load import load_rules
from tests.conftest import ROOT

THEIRS = ROOT / "tests/cases/third_party"
ASK = """
import json
from ckptrules.rules import load, packs
rules = load.load_rules({"rules/mine.yaml": "packs: [acme]\\n"})
print(json.dumps([packs.sources(), [pack.name for pack in rules.packs], rules.layout]))
"""


def ask(path: str) -> subprocess.CompletedProcess[str]:
    """Load rules in a process of its own: which packages there are, Python looks up once."""
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.pathsep.join([path, str(ROOT)])}
    return subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.whole
def test_a_pack_of_another_package_is_known_by_its_entry_point_and_takes_no_name_of_ours() -> None:
    found, listed, layout = json.loads(ask(str(THEIRS)).stdout)
    assert found["acme"] == os.fspath(THEIRS / "acme.yaml")
    assert found["huggingface"] == os.path.join(packs.FOLDER, "huggingface.yaml")
    assert (listed, layout) == (["acme"], ["*/weights"])


@pytest.mark.whole
def test_an_entry_point_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "acme-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: acme\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[ckptrules.packs]\nacme = there_is_none:PATH\n")
    fact = "cannot be found by the entry point 'there_is_none:PATH' of another package: No module named 'there_is_none'"
    assert f"RuleError: packs/acme.yaml:1:1: {fact}\n" in ask(str(tmp_path)).stderr


@pytest.mark.whole
def test_without_that_package_there_is_no_such_pack() -> None:
    assert "rules/mine.yaml:1:9: no pack 'acme'" in ask(str(ROOT)).stderr


def test_who_lists_packs_of_ours_waits_for_no_look_through_all_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: pytest.fail("looks"))
    assert [pack.name for pack in load_rules({"rules/mine.yaml": "packs: [keras, timm]\n"}).packs] == ["keras", "timm"]
