"""Evidence picks the packs of a directory: marks in it, beside it, in its checkpoints; else the names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptrules.engine.names.naming import claim
from ckptrules.engine.ruleset import Fault, Pack
from ckptrules.outputs import picking
from ckptrules.outputs.picking import Tree, holders_by, pick_in, rules_here, survey_by
from ckptrules.rules.load import compile_pack, load_rules
from tests.support.tables import every_row

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
    found = [compile_pack(name, text, faults) for name, text in TEXTS.items()]
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
    "digits alone, and something inside one of two": (
        ["x/9/model.pt", "x/9/_METADATA", "x/2024/a.pt", "x/epoch_3.h5/a.pt"],
        {"digits": "its names"},
    ),
}


@every_row("case", CASES)
def test_evidence_picks(tmp_path: Path, case: str) -> None:
    paths, wanted = CASES[case]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert {pack.name: pack.evidence for pack in pick_in(Tree(str(tmp_path)), packs(), "x")} == wanted


@pytest.mark.parametrize(("last", "picked"), [("model.bin", ["needs", "plain"]), ("a.pt", ["plain"])])
def test_a_pack_judges_if_the_last_of_many_folders_has_what_its_format_needs(
    tmp_path: Path, last: str, picked: list[str]
) -> None:
    """If the other pack judged alone, the folders without it would count."""
    step = "id: f, match: 'step_(?P<step>[0-9]+)', folder: true, examples: {step_5: {step: 5}}"
    more = {"needs": ", complete: {any: [model.bin]}", "plain": ""}
    both = [compile_pack(name, f"pack: {name}\nformats: [{{{step}{text}}}]", []) for name, text in more.items()]
    names = [f"step_{number}" for number in range(2 * picking.LOOKED_AT)]
    for name in names:
        (tmp_path / "x" / name).mkdir(parents=True)
        (tmp_path / "x" / name / (last if name == names[-1] else "a.pt")).touch()
    tree = Tree(str(tmp_path))
    tree.listed["x"] = dict.fromkeys(names, True)  # a disk lists them in any order
    assert [pack.name for pack in pick_in(tree, both, "x")] == picked


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


def test_directories_have_in_common_what_lies_above_them_and_what_a_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would list the folder that all lie in, for a mark beside it: with the square of their number."""
    paths = [f"{run}/{name}" for run in "xyz" for name in ("checkpoint-5/state.json", "epoch_3.pth")]
    for path in ("args.yaml", *paths):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    rules = load_rules({"rules/x.yaml": "packs: [orbax]\n"}, proved=True)._replace(packs=tuple(packs()))
    tree, listed, read = Tree(str(tmp_path)), list[str](), list[str]()
    for own, module, name in ((listed, os, "scandir"), (read, picking, "own_claim")):
        function = getattr(module, name)
        monkeypatch.setattr(
            module,
            name,
            lambda one, *rest, _own=own, _do=function, **more: (_own.append(one), _do(one, *rest, **more))[1],
        )
    alone = [rules_here(Tree(str(tmp_path)), rules, run) for run in "xyz"]
    once, lists = (len(read) // 3, len(listed) // 3)
    del listed[:], read[:]
    assert [rules_here(tree, rules, run) for run in "xyz"] == alone
    assert [pack.evidence for pack in alone[0].packs] == ["checkpoint-*/state.json, ../args.yaml"]
    assert (len(read), len(listed)) == (once, 3 * lists - 2)
    assert list(tree.listed) == [""]


def test_names_that_are_kept_are_not_kept_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picking, "KINDS", 2)
    tree = Tree(str(tmp_path))
    for run in range(9):
        (tmp_path / f"{run}").mkdir()
        (tmp_path / f"{run}" / f"epoch_{run}.pth").touch()
        assert [pack.name for pack in pick_in(tree.inside(), packs(), f"{run}")] == ["files", "unmarked"]
    assert len(tree.kinds) <= 2 + len(packs())


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("o/rules/x.yaml", ["rules2", "run"]),
        ("o/run/rules/x.yaml", ["rules", "rules2", "run"]),
        ("rules/x.yaml", ["rules", "rules2", "run"]),
        ("x.yaml", ["rules", "rules2", "run"]),  # above all of them
        ("o/x.yaml", ["rules", "rules2", "run"]),  # beside them
    ],
)
def test_the_folder_of_the_rules_is_no_checkpoint_directory(tmp_path: Path, file: str, found: list[str]) -> None:
    for name in ("rules", "rules2", "run"):
        (tmp_path / "o" / name).mkdir(parents=True)
    rules = load_rules({f"{tmp_path}/{file}": "{layout: ['*'], packs: [orbax]}\n"}, proved=True)
    assert [one.directory for one in survey_by(str(tmp_path / "o"), rules)[0]] == found


TO_TARGET = r"""
packs: [words, lightning]
target: {template: 'E{{ epoch }}.ckpt', match: 'E(?P<epoch>\d+)\.ckpt', examples: [E3.ckpt]}
"""
RENAMING = (
    "rename: [lightning/ckpt]",
    r"legacy: [{id: own, match: 'epoch=(?P<epoch>\d+)\.ckpt', examples: {epoch=3.ckpt: E3.ckpt}}]",
)


@pytest.mark.parametrize("more", RENAMING)
@pytest.mark.parametrize("name", ["epoch=3.ckpt", "E3.ckpt"])
def test_a_pack_judges_a_directory_also_when_its_names_have_become_those_of_the_target(
    tmp_path: Path, name: str, more: str
) -> None:
    """What else it says, it says of them still: which one is the best, and what is protected."""
    for path in (f"x/{name}", "x/my_last.ckpt", "y/step_4.pth"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    rules = load_rules({"rules/x.yaml": TO_TARGET + more}, proved=True)
    here = rules_here(Tree(str(tmp_path)), rules, "x")
    assert [pack.name for pack in here.packs] == ["lightning"]
    assert claim("my_last.ckpt", here).kind == "protected"
    assert [fact.inside for fact in here.facts] == [False, True]
    assert [pack.name for pack in rules_here(Tree(str(tmp_path)), rules, "y").packs] == ["words"]
