"""Evidence picks the packs of a directory: marks in it, beside it, in its checkpoints; else the names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptrules.engine.values import Fault, Pack
from ckptrules.outputs.picking import Tree, holders_by, pick
from ckptrules.rules.load import compile_pack, load_rules

TEXTS = {
    "folders": r"""
pack: folders
marks: ['checkpoint-*/state.json', '../args.yaml']
protected: [best]
formats:
  - {id: f, match: 'checkpoint-(?P<step>\d+)', folder: true, examples: {checkpoint-5: {step: 5}}}
""",
    "files": r"""
pack: files
marks: [last_checkpoint]
formats:
  - {id: f, match: 'epoch_(?P<epoch>\d+)\.pth', examples: {epoch_5.pth: {epoch: 5}}}
""",
    "unmarked": r"""
pack: unmarked
formats:
  - {id: f, match: 'epoch_(?P<epoch>\d+)\.\w+', examples: {epoch_5.h5: {epoch: 5}}}
""",
    "digits": r"""
pack: digits
formats:
  - {id: f, match: '(?P<step>\d+)', folder: true, complete: {any: [_METADATA, '*/_METADATA']}, examples: {'5': {step: 5}}}
""",
}


def packs() -> list[Pack]:
    faults: list[Fault] = []
    found = [compile_pack(name, text, faults, proved=True) for name, text in TEXTS.items()]
    assert not faults
    return found


CASES: dict[str, tuple[list[str], dict[str, str]]] = {
    "a mark in a checkpoint": (["x/checkpoint-5/state.json"], {"folders": "checkpoint-*/state.json"}),
    "a mark above": (["args.yaml", "x/checkpoint-5/model.pt"], {"folders": "../args.yaml"}),
    "a mark, and nothing that the pack knows": (
        ["x/checkpoint-5/state.json", "x/last_checkpoint"],
        {"folders": "checkpoint-*/state.json"},
    ),
    "a mark without any name": (["x/last_checkpoint", "x/other.pth"], {}),
    "two marks": (
        ["x/checkpoint-5/state.json", "x/last_checkpoint", "x/epoch_3.pth"],
        {"folders": "checkpoint-*/state.json", "files": "last_checkpoint"},
    ),
    "no mark, so the names": (["x/epoch_3.pth"], {"files": "its names", "unmarked": "its names"}),
    "where a pack has a mark, names alone pick none": (
        ["x/epoch_3.pth", "x/last_checkpoint"],
        {"files": "last_checkpoint"},
    ),
    "what is protected alone picks none": (["x/best"], {}),
    "nothing": (["x/readme"], {}),
    "digits alone, and nothing inside that their format asks for": (["x/2024/run/a.pt", "x/100000/model.pt"], {}),
    "digits alone, and something inside": (["x/2024/a.pt", "x/100000/state/_METADATA"], {"digits": "its names"}),
    "a file of digits": (["x/100000"], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_evidence_picks(tmp_path: Path, case: str) -> None:
    paths, wanted = CASES[case]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert {pack.name: pack.evidence for pack in pick(str(tmp_path), packs(), "x")} == wanted


@pytest.mark.parametrize(
    ("files", "belongs"),
    [
        (["x/100/_METADATA", "x/100/best/a.pt"], True),
        (["x/100/_METADATA", "x/2024/best/a.pt"], False),
        (["x/2024/_METADATA/", "x/2024/best/a.pt"], True),
        (["x/checkpoint-5/state.json", "x/checkpoint-5/best/a.pt"], True),
        (["x/checkpoint-5/state.json", "x/best/best/a.pt"], True),
        (["x/epoch_3.pth", "x/best/best/a.pt"], False),  # another pack protects that name
    ],
)
def test_a_folder_belongs_to_a_checkpoint_by_the_packs_of_what_it_lies_in(
    tmp_path: Path, files: list[str], *, belongs: bool
) -> None:
    for path in files:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).mkdir() if path.endswith("/") else (tmp_path / path).touch()
    rules = load_rules({"rules/x.yaml": "packs: [orbax]\n"}, proved=True)._replace(packs=tuple(packs()))
    assert holders_by(str(tmp_path), rules)(files[-1].rpartition("/best/")[0]) == belongs


def test_no_link_is_followed_and_nothing_above_the_folder_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "x").mkdir(parents=True)
    (tmp_path / "args.yaml").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "state.json").touch()
    (tmp_path / "outputs" / "x" / "checkpoint-5").symlink_to(tmp_path / "elsewhere")
    tree = Tree(str(tmp_path / "outputs"))
    assert not tree.has("x", "../../args.yaml")
    assert not tree.has("x", "checkpoint-*/state.json")
    assert tree.has("x", "checkpoint-*")
