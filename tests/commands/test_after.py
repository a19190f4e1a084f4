"""``doit after``: one directory is cleaned up, and never what training needs; the rest of the tree is not looked at."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ckptrules.engine.names import naming
from tests.conftest import Project
from tests.rules.test_load_hostile import MANY, SLOW, SOON
from tests.support import crash

HERE = "ocr/checkpoints"
NAMES = [f"epoch={epoch}-step={epoch}0.ckpt" for epoch in (1, 2, 3, 12, 13)]
ONE, TWO, THREE, TWELVE, LAST = NAMES
NEW = {name: name.replace("epoch=", "epoch-").replace("-step=", "_step-") for name in NAMES}
NEW |= {ONE: "epoch-01_step-000010.ckpt", TWO: "epoch-02_step-000020.ckpt", THREE: "epoch-03_step-000030.ckpt"}
NEW |= {TWELVE: "epoch-12_step-000120.ckpt"}
DELETE = "delete_old=1"


@pytest.fixture
def tree(project: Project) -> Project:
    """Return a project with two runs, of whose checkpoints the policy `default` keeps two."""
    project.make(
        {f"{run}/checkpoints/{name}": 9 + place for run in ("ocr", "other") for place, name in enumerate(NAMES)}
    )
    return project


def path(name: str, folder: str = HERE) -> str:
    return f"outputs/{folder}/{name}"


def test_only_the_directory_of_the_checkpoint_is_renamed_and_the_newest_stays(tree: Project) -> None:
    out = tree.doit("after", f"path={path(LAST)}")
    assert "processed   1  experiment\n  renamed     4\n  deleted     0\n" in out
    assert tree.names("ocr") == sorted([NEW[ONE], NEW[TWO], NEW[THREE], NEW[TWELVE], LAST])
    assert tree.names("other") == sorted(NAMES)


@pytest.mark.parametrize("dry_run", [True, False])
def test_it_deletes_by_the_policy_where_that_is_asked_for_and_can_be_taken_back(
    tree: Project, *, dry_run: bool
) -> None:
    start = tree.tree()
    tree.doit("after", f"path={path(LAST)}", DELETE, "json=done.json", f"dry_run={int(dry_run)}")
    told = json.loads((tree.folder / "done.json").read_text())
    assert [row["experiment"] for row in told["experiments"]] == ["ocr"]
    if dry_run:
        assert tree.tree() == start
        return
    assert tree.names("ocr") == [NEW[TWELVE], LAST]
    history = tree.doit("history")
    assert all(word in history for word in ("after", DELETE, "path="))
    tree.doit("undo")
    assert tree.tree() == start


@pytest.mark.parametrize(
    ("words", "stays"),
    [
        ([f"resumed={path(ONE)}"], {ONE}),
        ([f"best={path(TWO)}"], {TWO}),
        ([f"resumed={path(ONE)}", f"best={path(TWO)}"], {ONE, TWO}),
        ([f"resumed={path(ONE)}/"], {ONE}),
        ([f"resumed={path('picks/../' + ONE)}"], {ONE}),
        ([f"resumed={path(ONE, 'other/checkpoints')}"], set()),
        (["best=link to the first"], {ONE}),
    ],
)
def test_what_the_run_needs_keeps_its_name_and_stays(tree: Project, words: list[str], stays: set[str]) -> None:
    (tree.outputs / HERE / "picks").mkdir()
    (tree.folder / "link to the first").symlink_to(tree.outputs / HERE / ONE)
    tree.doit("after", f"path={path(LAST)}", DELETE, *words)
    assert set(tree.names("ocr")) - {"picks"} == {NEW[TWELVE], LAST, *stays}


def test_what_was_resumed_from_is_found_under_the_name_that_it_has_got(tree: Project) -> None:
    tree.doit("migrate")
    tree.doit("after", f"path={path('epoch-13_step-000130.ckpt')}", DELETE, f"resumed={path(ONE)}")
    assert NEW[ONE] in tree.names("ocr")


def test_a_run_that_was_resumed_early_loses_neither_what_it_saves_nor_the_newest(tree: Project) -> None:
    (tree.folder / "rules/retention.yaml").write_text("retention: {default: {min_epoch: 99}}\n")
    tree.doit("after", f"path={path(TWO)}", DELETE)
    assert tree.names("ocr") == [LAST, TWO]


def test_the_newest_of_a_link_that_was_saved_is_what_it_leads_to(tree: Project) -> None:
    tree.make({f"{HERE}/last.ckpt": f"-> {TWO}"})
    tree.doit("after", f"path={path('last.ckpt')}", DELETE)
    assert os.readlink(tree.outputs / HERE / "last.ckpt") == TWO
    assert tree.names("ocr") == [NEW[TWELVE], LAST, TWO, "last.ckpt"]


def test_a_link_of_another_directory_protects_as_always(tree: Project) -> None:
    tree.make({"picks/good.ckpt": f"-> ../{HERE}/{ONE}"})
    tree.doit("after", f"path={path(LAST)}", DELETE)
    assert os.readlink(tree.outputs / "picks/good.ckpt") == f"../{HERE}/{NEW[ONE]}"
    assert NEW[ONE] in tree.names("ocr")


def test_no_other_directory_is_listed_where_there_is_nothing_to_do(tree: Project) -> None:
    """Not even one that cannot be read; a plan of the whole tree tells of it."""
    tree.doit("after", f"path={path(LAST)}", DELETE)
    dodo = tree.folder / "dodo.py"
    dodo.write_text(
        "import os, ckptrules.outputs.listing\n"
        "def refusing(really):\n"
        "    def look(path):\n"
        "        if '/other' in (os.readlink(f'/proc/self/fd/{path}') if isinstance(path, int) else str(path)):\n"
        "            raise PermissionError(13, 'looked at', str(path))\n"
        "        return really(path)\n"
        "    return look\n"
        "os.scandir, os.listdir = map(refusing, (os.scandir, os.listdir))\n" + dodo.read_text()
    )
    assert "looked at" in tree.doit("plan", check=1)
    assert "problems    0" in tree.doit("after", f"path={path(LAST)}", DELETE)


def test_the_experiment_and_so_its_policy_are_those_that_migrate_knows(tree: Project) -> None:
    """Of two folders of one experiment, the one that comes second in the layout is called by its whole path."""
    naming = tree.folder / "rules/naming.yaml"
    naming.write_text(naming.read_text().replace("['*/checkpoints']", "['*/checkpoints', '*/more', 'deep/**/last']"))
    (tree.folder / "rules/retention.yaml").write_text(
        "retention: {default: {min_epoch: 99}, all: {keep: all}}\nexperiments: [{match: ocr/more, policy: all}]\n"
    )
    tree.make({f"ocr/more/{name}": 3 for name in NAMES} | {f"deep/a/b/last/{name}": 3 for name in NAMES})
    assert "experiment: ocr/more\n" in tree.doit("after", f"path={path(LAST, 'ocr/more')}", DELETE)
    assert len(os.listdir(tree.outputs / "ocr/more")) == len(NAMES)
    assert "experiment: deep/a/b\n" in tree.doit("after", f"path={path(LAST, 'deep/a/b/last')}", DELETE)
    assert os.listdir(tree.outputs / "deep/a/b/last") == [LAST]


def test_what_goes_by_the_whole_tree_is_left_to_migrate(tree: Project) -> None:
    with (tree.folder / "rules/retention.yaml").open("a") as file:
        file.write("budget: {total: 1B, order: [oldest]}\n")
    out = tree.doit("after", f"path={path(LAST)}", DELETE)
    assert "Left to 'doit migrate', as it goes by the whole tree, so nothing goes by it now: budget." in out
    assert len(tree.names("ocr")) == len(NAMES)


def test_leftovers_are_left_to_migrate_as_other_directories_may_lie_in_them(tree: Project) -> None:
    with (tree.folder / "rules/naming.yaml").open("a") as file:
        file.write("leftovers: [{match: 'tmp-*', after: 1d}]\n")
    tree.make({f"{HERE}/tmp-1": 3})
    os.utime(tree.outputs / HERE / "tmp-1", (1e9, 1e9))
    tree.doit("after", f"path={path(LAST)}", DELETE)
    assert "tmp-1" in tree.names("ocr")
    assert "tmp-1" in tree.doit("plan", DELETE)


def test_what_lies_in_a_checkpoint_means_that(project: Project) -> None:
    project.make({f"{HERE}/epoch_{epoch}_step_{epoch}.ckpt/{part}.pt": 4 for epoch in (1, 2, 3) for part in (0, 1)})
    project.doit("after", f"path={path('epoch_3_step_3.ckpt')}", f"resumed={path('epoch_1_step_1.ckpt/0.pt')}", DELETE)
    assert project.names("ocr") == ["epoch_1_step_1.ckpt", "epoch_3_step_3.ckpt"]


PARTS = """
formats:
  - id: shards
    match: 'shard_(?P<epoch>\\d+)_(?P<part>\\d)of(?P<parts>\\d)\\.pt'
    examples: {shard_1_1of2.pt: {epoch: 1, part: 1, parts: 2}}
"""


def test_a_checkpoint_of_parts_is_spared_as_one(project: Project) -> None:
    with (project.folder / "rules/naming.yaml").open("a") as file:
        file.write(PARTS)
    names = {epoch: [f"shard_{epoch}_{part}of2.pt" for part in (1, 2)] for epoch in (1, 2, 3)}
    project.make({f"{HERE}/{name}": 4 for parts in names.values() for name in parts})
    project.doit("after", f"path={path(names[3][1])}", f"resumed={path(names[1][1])}", DELETE)
    assert project.names("ocr") == [*names[1], *names[3]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "after needs the checkpoint that was just saved"),
        (["path=outputs/ocr/checkpoints/none.ckpt"], "there is no 'outputs/ocr/checkpoints/none.ckpt'"),
        (["path=dodo.py"], "'dodo.py' does not lie below outputs_dir 'outputs'"),
        (["path=outputs"], "'outputs' does not lie below"),
        (["path=outputs/../outputs/ocr"], "lies in no checkpoint directory (layout: */checkpoints)"),
        ([f"path=outputs/{HERE}"], "is a folder of checkpoints"),
        ([f"path={path('notes.txt')}"], "is no checkpoint: no rule knows the name 'notes.txt'"),
        ([f"path={path(LAST)}", f"resumed={path('epoch=7.ckpt')}"], "there is no such checkpoint"),
        ([f"path={path(LAST)}", f"best={path('epoch=7.ckpt')}"], "leave best= out where it is gone for good"),
        ([f"path={path(LAST)}", "fix_state=1"], "option 'fix_state' is not for 'after'"),
        ([f"path={path(LAST)}", DELETE, "policy=nonesuch"], "unknown policy 'nonesuch'"),
        ([f"path={path(LAST)}", DELETE, "max_delete=1"], "3 of 5 checkpoints would go"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_touched(tree: Project, words: list[str], told: str) -> None:
    (tree.outputs / HERE / "notes.txt").write_text("lr")
    start = tree.tree()
    assert told in tree.doit("after", *words, check=3)
    assert tree.tree() == start


def test_a_path_outside_by_a_link_is_refused(tree: Project, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tree.outputs / HERE, tmp_path / "elsewhere")
    (tree.outputs / HERE).symlink_to(tmp_path / "elsewhere/checkpoints")
    assert "does not lie below outputs_dir" in tree.doit("after", f"path={path(LAST)}", DELETE, check=3)
    assert len(os.listdir(tmp_path / "elsewhere/checkpoints")) == len(NAMES)


@pytest.mark.whole
def test_a_rule_that_is_slow_for_the_name_is_told_of(tree: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "SECONDS", SOON)
    (tree.folder / "rules/slow.yaml").write_text(SLOW % "1aa-2.ckpt")
    name = f"1{MANY}!-2.ckpt"
    tree.make({f"{HERE}/{name}": 1})
    code, out, *_ = crash.run(tree.folder, "after", f"path={path(name)}")
    assert code == 1
    assert f"{name} cannot be named: legacy rule 'slow' (rules/slow.yaml:2) needs too long for it" in out


def test_a_conflict_is_left_to_a_person(tree: Project) -> None:
    tree.make({f"{HERE}/{NEW[TWELVE]}": 3})
    assert "target already exists" in tree.doit("after", f"path={path(LAST)}", check=1)
