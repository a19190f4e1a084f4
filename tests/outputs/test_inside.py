"""What the newest checkpoints call the best inside stays: read within bounds, and nothing of it is run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from ckptrules.engine.entries import Directory
from ckptrules.engine.names.packs import with_packs
from ckptrules.outputs import facts, inside
from ckptrules.outputs.listing import scan
from ckptrules.rules.load import load_rules
from tests.support.tables import every_row
from tests.support.torch_files import lightning_file, torch_zip

HERE = "run/checkpoints"
RULES = load_rules({"naming.yaml": "packs: [lightning]\nretention: {default: {keep_last: 1}}\n"}, proved=True)
FORMER = r"""
layout: ['*/checkpoints']
target: {template: 'e{{ epoch }}.ckpt', match: 'e(?P<epoch>\d+)\.ckpt', examples: [e1.ckpt]}
legacy: [{id: old, match: 'epoch=(?P<epoch>\d+)-step=\d+\.ckpt', template: 'e{{ epoch }}.ckpt', examples: {epoch=1-step=8.ckpt: e1.ckpt}}]
facts: [{file: 'e*.ckpt', inside: true, best: callbacks/*/best_model_path}]
retention: {default: {keep_last: 1}}
"""


def name(epoch: int) -> str:
    return f"epoch={epoch}-step={8 * (epoch + 1)}.ckpt"


def says(*best: str) -> bytes:
    return lightning_file(*(f"/home/me/run/checkpoints/{one}" for one in best))


class Case(NamedTuple):
    """Files in the order of their times, those that are not whole, what is the best by which, and the one note."""

    files: Mapping[str, bytes]
    best: Mapping[str, str]
    out: tuple[str, ...] = ()
    note: str = ""


OLD = {name(n): says(name(0)) for n in range(3)}
UNKNOWN = "which one is the best is not known from the newest: "
CASES = {
    "the newest says which": Case({**OLD, name(3): says(name(1))}, {name(1): name(3)}),
    "several callbacks": Case({**OLD, name(3): says(name(1), name(2))}, {name(1): name(3), name(2): name(3)}),
    "a path of Windows": Case({**OLD, name(3): lightning_file(rf"C:\run\{name(1)}")}, {name(1): name(3)}),
    "what it names is gone": Case({**OLD, name(3): says(name(9))}, {}),
    "no path": Case({**OLD, name(3): lightning_file("")}, {name(0): name(2)}),
    "no text": Case({**OLD, name(3): torch_zip({"callbacks": {"M": {"best_model_path": 3}}})}, {name(0): name(2)}),
    "no callbacks": Case({**OLD, name(3): torch_zip({"epoch": 1})}, {name(0): name(2)}),
    "no state": Case({**OLD, name(3): torch_zip([1])}, {name(0): name(2)}),
    "the newest is torn": Case({**OLD, name(3): says(name(1))[:-30]}, {name(0): name(2)}),
    "the newest is of something else": Case({**OLD, name(3): b"weights"}, {name(0): name(2)}),
    "the newest is not whole": Case({**OLD, name(3): says(name(1))}, {name(0): name(2), name(1): name(3)}, (name(3),)),
    "none can be read": Case(dict.fromkeys(OLD, b"weights"), {}, (), f"{UNKNOWN}{name(2)}: it is no zip file of torch, or damaged"),
    "only the newest are asked": Case(
        {**OLD, **{name(n): torch_zip({}) for n in range(3, 3 + inside.MOST_TRIED)}}, {}
    ),
    "times and numbers disagree": Case(
        {name(3): says(name(1)), name(1): says(name(1)), name(0): says(name(0)), name(2): says(name(2))},
        {name(1): name(3), name(2): name(2)},
    ),
    "last.ckpt speaks as well": Case({**OLD, "last.ckpt": says(name(1))}, {name(0): name(2), name(1): "last.ckpt"}),
    "each without a number speaks": Case(
        {**OLD, "last.ckpt": says(name(1)), "last-v1.ckpt": says(name(2))},
        {name(0): name(2), name(1): "last.ckpt", name(2): "last-v1.ckpt"},
    ),
    "a torn last.ckpt": Case(
        {**OLD, "last.ckpt": b"PK"}, {name(0): name(2)}, (), f"{UNKNOWN}last.ckpt: it is no zip file of torch, or damaged"
    ),
    "each run of a directory": Case(
        {"a-epoch=1.ckpt": says("a-epoch=1.ckpt"), "b-epoch=2.ckpt": says("b-epoch=2.ckpt")},
        {"a-epoch=1.ckpt": "a-epoch=1.ckpt", "b-epoch=2.ckpt": "b-epoch=2.ckpt"},
    ),
}  # fmt: skip


@every_row("case", CASES.values(), ids=list(CASES))
def test_what_the_newest_call_the_best_is_known(tmp_path: Path, case: Case) -> None:
    assert found(tmp_path, case) == (case.best, [case.note] if case.note else [])


def test_what_two_facts_do_not_know_is_told_once(tmp_path: Path) -> None:
    """The user's own line beside that of the pack: the plan had the same note twice."""
    rules = FORMER.replace("facts: [", "facts: [{file: '*.ckpt', inside: true, best: best}, ")
    case = Case(dict.fromkeys(["e1.ckpt", "e2.ckpt"], b"weights"), {})
    assert found(tmp_path, case, rules) == ({}, [f"{UNKNOWN}e2.ckpt: it is no zip file of torch, or damaged"])


def test_a_name_of_before_a_rename_means_what_the_rules_make_of_it(tmp_path: Path) -> None:
    case = Case({"e1.ckpt": says(name(1)), "e2.ckpt": says(name(1))}, {})
    assert found(tmp_path, case, FORMER) == ({"e1.ckpt": "e2.ckpt"}, [])


def test_a_read_that_fails_is_not_taken_for_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ckptrules.storage.reading.open_file", fail)
    with pytest.raises(OSError, match="Input/output"):
        found(tmp_path, Case(OLD, {}))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(says(name(0)))
    folder = tmp_path / HERE
    folder.mkdir(parents=True)
    (folder / name(1)).symlink_to(tmp_path / "x.ckpt")
    assert found(tmp_path, Case({name(0): torch_zip({})}, {})) == ({}, [])


def found(outputs: Path, case: Case, text: str = "") -> tuple[Mapping[str, str], list[str]]:
    folder = outputs / HERE
    folder.mkdir(parents=True, exist_ok=True)
    for age, (one, content) in enumerate(case.files.items()):
        (folder / one).write_bytes(content)
        os.utime(folder / one, (1_000_000 + age, 1_000_000 + age))
    rules = load_rules({"naming.yaml": text}) if text else with_packs(RULES, RULES.packs)
    listing = scan(str(outputs), Directory("run", HERE))
    names = facts.names_of(listing, rules)
    asked = [fact for fact in rules.facts if fact.inside]
    rows = inside.rows_of(listing, asked, names)
    assert rows == inside.rows_of(listing._replace(entries=listing.entries[::-1]), asked, names)
    best, notes = inside.best_inside(str(outputs), listing, rows, rules, names, case.out)
    return best, [note.text for note in notes]
