"""Folders that hold less than their names say: found while they are listed, or where `complete` asks for something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptrules.engine.values import Directory
from ckptrules.outputs.evidence import inside_of
from ckptrules.outputs.find import UNREADABLE
from ckptrules.outputs.listing import scan
from ckptrules.rules.load import load_rules
from ckptrules.storage.reading import holds_something

RULES = """
layout: ['*']
formats:
  - id: folder
    match: 'checkpoint-(?P<step>\\d+)'
    folder: true
    complete: {any: ['*.json', done, .metadata]}
    examples: {checkpoint-1: {step: 1}}
"""
WHOLE = {"model-00001-of-00002.safetensors": "x", "model-00002-of-00002.safetensors": "x", "log.txt": ""}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def make(tree: Path, files: dict[str, str]) -> Directory:
    for path, content in files.items():
        file = tree / "exp" / "checkpoint-1" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            file.symlink_to(content.removeprefix("-> "))
        else:
            file.write_text(content)
    return Directory("exp", "exp", UNREADABLE)


@pytest.mark.parametrize(
    ("files", "hollow"),
    [
        (WHOLE, ""),
        ({"__0_0.distcp": ""}, "an empty file: __0_0.distcp"),
        ({"deep/er/x.pdparams": "", ".metadata": "x"}, "an empty file: deep/er/x.pdparams"),
        ({"ep1-rank0.pt.zst": ""}, "an empty file: ep1-rank0.pt.zst"),
        ({"model.safetensors": "-> /nowhere/blob", "x": "x"}, "a link that leads nowhere: model.safetensors"),
        ({"model.safetensors": "-> x", "x": "x"}, ""),
        ({"notes.txt": "-> /nowhere", "x": "x"}, ""),
    ],
)
def test_what_is_hollow(tree: Path, files: dict[str, str], hollow: str) -> None:
    assert [entry.hollow for entry in scan(os.fspath(tree), make(tree, files)).entries] == [hollow]


@pytest.mark.parametrize(
    ("files", "fit"),
    [
        ({"a.json": "{}"}, {"*.json"}),
        ({"a.json": ""}, set()),
        ({"a.json": "", "b.json": "{}"}, {"*.json"}),
        ({"done": ""}, {"done"}),
        ({"done": "-> /nowhere"}, set()),
        ({".metadata": ""}, set()),
    ],
)
def test_what_is_empty_or_leads_nowhere_completes_nothing(tree: Path, files: dict[str, str], fit: set[str]) -> None:
    rules = load_rules({"rules/mine.yaml": RULES})
    assert inside_of(os.fspath(tree), scan(os.fspath(tree), make(tree, files)), rules) == {"checkpoint-1": fit}


def test_what_disappears_meanwhile_completes_nothing(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    assert not holds_something(directory, "gone.json")
    os.close(directory)
