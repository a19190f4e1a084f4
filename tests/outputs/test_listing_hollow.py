"""Folders that hold less than their names say: found while they are listed, or where `complete` asks for something."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.sorting import sort_entries
from ckptrules.outputs.evidence import inside_of
from ckptrules.outputs.find import UNREADABLE
from ckptrules.outputs.listing import scan
from ckptrules.rules.load import load_rules
from ckptrules.storage.looking import holds_something

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
    ("names", "torn"),
    [
        ("model-00001-of-00002.safetensors model-00002-of-00002.safetensors", ""),
        ("model-00000-of-00002.safetensors model-00001-of-00002.safetensors", ""),
        ("model-00002-of-00002.safetensors config.json", "1 of 2 parts 'model-*-of-00002.safetensors'"),
        ("model-00001-of-00002.bin model-00002-of-00002.safetensors", "1 of 2 parts 'model-*-of-00002.bin'"),
        ("unet/model-00001-of-00003.bin unet/x", "1 of 3 parts 'model-*-of-00003.bin'"),
        ("a/m-00001-of-00002.pt b/m-00002-of-00002.pt", "1 of 2 parts 'm-*-of-00002.pt'"),
        ("v.index v.data-00000-of-00002", "1 of 2 parts 'v.data-*-of-00002'"),
        ("train-00000-of-00010.parquet model.pt", ""),
        ("epoch-1-of-9.pt", ""),
    ],
)
def test_a_folder_that_lacks_shards_that_count_themselves_is_torn(tree: Path, names: str, torn: str) -> None:
    listing = scan(os.fspath(tree), make(tree, dict.fromkeys(names.split(), "x")))
    assert [(entry.hollow, entry.torn.replace('"', "'")) for entry in listing.entries] == [("", torn)]


@pytest.mark.parametrize(
    ("names", "tells_only"),
    [("a.png of/b.json", True), ("a.png of/b.pt", False), ("a.png b", False), ("a.png b.json.safetensors", False)],
)
def test_a_folder_that_only_tells_of_checkpoints_is_none(tree: Path, names: str, *, tells_only: bool) -> None:
    listing = scan(os.fspath(tree), make(tree, dict.fromkeys(names.split(), "x")))
    assert [entry.tells_only for entry in listing.entries] == [tells_only]


@pytest.mark.parametrize(
    ("denied", "number", "hollow"),
    [
        ("deep", errno.EACCES, "what cannot be read: deep (Permission denied)"),
        ("er", errno.EACCES, "what cannot be read: deep/er (Permission denied)"),
        ("er", errno.EMFILE, "what cannot be read: deep/er (Too many open files)"),
        ("er", errno.ENOENT, "an empty file: also.pt"),  # it has just gone
        ("checkpoint-1", errno.EACCES, "what cannot be read (Permission denied)"),
    ],
)
def test_what_nobody_can_look_into_is_told(
    tree: Path, monkeypatch: pytest.MonkeyPatch, denied: str, number: int, hollow: str
) -> None:
    place = make(tree, {"model.pt": "x", "also.pt": "", "deep/er/more.pt": "x", "deep/state.pt": "x"})
    opened = os.open

    def deny(path: str, *rest: Any, **more: Any) -> int:
        if os.path.basename(path) == denied:
            raise OSError(number, os.strerror(number), path)
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", deny)
    entry = next(iter(scan(os.fspath(tree), place).entries))
    assert entry.hollow == hollow
    rules = load_rules({"rules/mine.yaml": RULES})
    found = sort_entries(rules, Listing("exp", "exp", (entry,)))
    assert found.checkpoints == ()
    assert [(one.id, one.text) for one in found.problems] == [
        ("not_read" if hollow.startswith("what") else "empty", f"holds {hollow}")
    ]


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
