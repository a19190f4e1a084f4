"""Layouts that overlap: a directory inside a checkpoint is a part of it and none of its own, for every command."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from ckptrules import catalog
from ckptrules.engine.ruleset import RuleError
from ckptrules.outputs import find
from ckptrules.rules.load import load_rules
from tests.conftest import ROOT, Project
from tests.support import crash

HF = r"""
layout: %s
target: {template: 'checkpoint-{{ step }}', match: 'checkpoint-(?P<step>\d+)', examples: [checkpoint-100]}
protected: [best, 'last*']
sidecars: [.parts]
legacy:
  - {id: old, match: 'step(?P<step>\d+)', examples: {step5: checkpoint-5}}
"""


class Case(NamedTuple):
    """A layout, files below outputs, the directories that there are, and those that lie in checkpoints."""

    layout: list[str]
    files: list[str]
    found: list[str]
    inner: list[str] = []  # noqa: RUF012


CASES = {
    "a folder inside a checkpoint": Case(
        ["*", "**/checkpoints"], ["run/checkpoint-100/checkpoints/x", "run/checkpoint-200/w"], ["run"], ["run/checkpoint-100/checkpoints"]
    ),
    "the other way round": Case(
        ["**/checkpoints", "*"], ["run/checkpoint-100/checkpoints/x", "run/checkpoint-200/w"], ["run"], ["run/checkpoint-100/checkpoints"]
    ),
    "deep inside": Case(["*", "**/checkpoints"], ["run/checkpoint-100/a/b/checkpoints/x"], ["run"], ["run/checkpoint-100/a/b/checkpoints"]),
    "inside a protected name": Case(["*", "*/*"], ["run/best/x", "run/other/y"], ["run", "run/other"], ["run/best"]),
    "inside an old name": Case(["*", "*/*"], ["run/step5/x"], ["run"], ["run/step5"]),
    "inside a sidecar": Case(["*", "*/*"], ["run/checkpoint-1/w", "run/checkpoint-1.parts/x"], ["run"], ["run/checkpoint-1", "run/checkpoint-1.parts"]),
    "one pattern that reaches both": Case(["**/checkpoints"], ["run/checkpoints/step5/checkpoints/x"], ["run/checkpoints"]),
    "beside the checkpoints is a directory of its own": Case(["*", "**/checkpoints"], ["run/checkpoint-1/w", "run/checkpoints/checkpoint-2/w"], ["run", "run/checkpoints"]),
    "two patterns for one directory": Case(["*/checkpoints", "**/checkpoints"], ["run/checkpoints/checkpoint-2/w"], ["run/checkpoints"]),
    "hidden names and the state": Case(["**/checkpoints", "*"], ["run/checkpoints/x", ".ckptrules/trash/r/checkpoints/x", ".git/checkpoints/x"], ["run", "run/checkpoints"]),
}  # fmt: skip


@pytest.mark.whole
@pytest.mark.parametrize("name", CASES)
def test_every_command_finds_the_same_directories(project: Project, name: str) -> None:
    case = CASES[name]
    (project.folder / "rules" / "naming.yaml").write_text(HF % case.layout)
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep_last: 1}}\n")
    project.make(dict.fromkeys(case.files, 9))
    for command in (("plan", "verbose=1"), ("verify",), ("usage",), ("catalog",), ("migrate",), ("migrate",)):
        ended = crash.run_in_turn(project.folder, *command)
        assert "Traceback" not in ended.output, ended.output
        assert not any(f"experiment: {path}\n" in ended.output for path in case.inner), ended.output
        told = command[0] in ("plan", "migrate", "verify") and bool(case.inner)
        assert ("Left to the checkpoint that it is a part of: " in ended.output) == told, ended.output


@pytest.mark.parametrize("name", CASES)
def test_what_lies_in_a_checkpoint_is_no_directory_of_its_own(project: Project, name: str) -> None:
    case = CASES[name]
    project.make(dict.fromkeys(case.files, 9))
    claims = ("checkpoint-1", "checkpoint-100", "checkpoint-200", "checkpoint-2", "step5", "best", "checkpoint-1.parts")
    found, inner = find.survey(str(project.outputs), case.layout, lambda path: path.rpartition("/")[2] in claims)
    assert sorted(one.directory for one in found) == case.found
    assert [text.split("'")[1] for text in inner] == case.inner
    (project.folder / "own").mkdir()
    (project.folder / "own/naming.yaml").write_text(HF % case.layout)
    folders = {record.path.rpartition("/")[0] for record in catalog(project.outputs, project.folder / "own")}
    assert folders <= {f"{project.outputs}/{path}" for path in case.found}


def test_a_folder_of_parts_is_no_directory_of_its_own(project: Project) -> None:
    """Alone, rank 0 would lose step 2 for step 3, which no other rank has."""
    ranks = [f"checkpoints/mp_rank_0{rank}/x--step={step}.ckpt" for rank in (0, 1) for step in (1, 2)]
    project.make(dict.fromkeys([*ranks, "checkpoints/mp_rank_00/x--step=3.ckpt"], 9))
    shutil.rmtree(project.folder / "rules")
    (project.folder / "rules").mkdir()
    (project.folder / "rules" / "naming.yaml").write_text("packs: [nemo, huggingface]\n")
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep_last: 1}}\n")
    ended = crash.run_in_turn(project.folder, "migrate", "delete_old=1")
    assert ended.code == 0, ended.output
    assert sorted(path for path in project.tree() if "mp_rank_0" in path) == [
        "checkpoints/mp_rank_00/x--step=2.ckpt",
        "checkpoints/mp_rank_00/x--step=3.ckpt",
        "checkpoints/mp_rank_01/x--step=2.ckpt",
    ]
    found, _ = find.survey(str(project.outputs), ["checkpoints/*"], lambda _: False, ("mp_rank_*",))
    assert [one.directory for one in found] == ["checkpoints/mp_rank_00", "checkpoints/mp_rank_01"]


def test_both_patterns_are_named(project: Project) -> None:
    (project.folder / "rules" / "naming.yaml").write_text(HF % ["*", "**/checkpoints"])
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep_last: 1}}\n")
    project.make({"run/checkpoint-100/checkpoints/checkpoint-7/x": 9, "run/checkpoint-200/w": 9})
    said = (
        "Left to the checkpoint that it is a part of: 'run/checkpoint-100/checkpoints' (layout: **/checkpoints) lies in "
        "'checkpoint-100', a checkpoint of 'run' (layout: *)."
    )
    for command in ("plan", "migrate"):
        ended = crash.run_in_turn(project.folder, command, "delete_old=1")
        assert ended.code == 0, ended.output
        assert said in ended.output
    assert not (project.outputs / "run/checkpoint-100").exists()
    assert crash.run_in_turn(project.folder, "undo").code == 0
    assert (project.outputs / "run/checkpoint-100/checkpoints/checkpoint-7/x").exists()


@pytest.mark.parametrize("layout", ["./*/checkpoints", "*/./checkpoints", ".", ".ckptrules/trash/*", "*/.ckptrules/x"])
def test_a_layout_that_leads_to_one_place_by_two_ways_or_into_the_state_is_refused(layout: str) -> None:
    naming = (ROOT / "rules" / "naming.yaml").read_text().replace("'*/checkpoints'", f"'{layout}'")
    with pytest.raises(RuleError, match="must"):
        load_rules({"naming.yaml": naming})


@pytest.mark.parametrize("command", ["plan", "drop_links", "archive", "usage"])
def test_no_run_takes_outputs_that_it_could_not_look_into_for_empty(
    project: Project, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A moment later they can be read again (a server that was away)."""
    project.make({"one/checkpoints/epoch=1-step=2.ckpt": 5})
    crash.run_in_turn(project.folder, "migrate", "leave_links=1")
    scandir, at, count, codes = os.scandir, 0, 0, list[int]()

    def scan(path: str | int = ".") -> Iterator[os.DirEntry[str]]:
        nonlocal count
        if not isinstance(path, int) and os.path.normpath(path) == "outputs":
            count += 1
            if count == at:
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    words = {"archive": ["experiments=*", "archive_dir=."]}.get(command, [])
    for at in range(1, 6):
        count = 0
        ended = crash.run(project.folder, command, *words, "dry_run=1")
        codes.append(ended.code)
        assert "Traceback" not in ended.output, ended.output
        assert ended.code or "one" in ended.output or "kept        1" in ended.output, (at, ended.output)
        assert "Problem:  " not in ended.output, (at, ended.output)
        assert "experiment: \n" not in ended.output, (at, ended.output)
    assert 3 in codes
