"""Every JSON file is as docs/json.schema.json describes it, and its sums are those of the disk."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ckptrules.rules.packs import sources
from tests.conftest import Project, default, run_program
from tests.packs import test_trees, test_trees2
from tests.support.json_files import faults, read
from tests.whole import test_hostile_names, test_parts
from tests.whole.test_golden import FILES
from tests.whole.test_hard_links import CASES, ckpt
from tests.whole.test_hard_links import make as make_linked

DELETE = "delete_old=1 settle=0"
COMMANDS = f"""
plan
plan {DELETE}
plan {DELETE} on_conflict=skip leave_links=1 fix_state=1 verified=1 max_delete=1%
plan {DELETE} experiments=*
page out=page.html
verify
explain name=*
migrate {DELETE} leave_links=1 fix_state=1 on_conflict=keep_newest
migrate {DELETE} leave_links=1 fix_state=1 on_conflict=keep_newest
history
drop_links dry_run=1
fix_state dry_run=1
undo dry_run=1
undo
migrate {DELETE}
undo
history
"""

FEW = f"""
plan
plan {DELETE} on_conflict=skip leave_links=1 fix_state=1 verified=1 max_delete=1%
page out=page.html
verify
explain name=*
migrate {DELETE} leave_links=1 fix_state=1 on_conflict=keep_newest
history
undo dry_run=1
undo
"""  # each takes a second where the tree is large


def golden(project: Project) -> None:
    for path, content in FILES.items():
        file = project.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(content) if isinstance(content, str) else file.write_bytes(content)
    project.doit("pin", "name=outputs/paper_1/checkpoints/epoch-02_step-000020.ckpt", "note=of the paper")


def hostile(project: Project) -> None:
    test_hostile_names.make(project.folder)
    (project.folder / "rules/mine.yaml").write_text(
        r"{formats: [{id: any, match: '(?P<run>(?s:.)+)-(?P<step>\d+)\.pt', examples: {a-1.pt: {step: 1}}}]}"
    )
    for name in test_hostile_names.NAMES:
        for step in (5, 50):
            (project.outputs / "größe ☃/checkpoints" / f"{name}-{step}.pt").write_bytes(b"x" * step)


def parts(project: Project) -> None:
    (project.folder / "rules/mine.yaml").write_text(f"{test_parts.RULES}sidecars: [.metrics.json]\n")
    names = ("mp_rank_00/a_5.pt", "mp_rank_01/a_5.pt", "mp_rank_00/a_6.pt", "model-5.ckpt", "checkpoint-7/x.bin")
    series = [f"ck_{step}-rank{rank}.pt" for step in (1, 2, 3) for rank in (0, 1)]
    project.make({f"exp/checkpoints/{name}": 100 + n for n, name in enumerate((*names, *series))})
    project.make(
        {f"exp/checkpoints/model.ckpt-{n}{end}": n for n in (1, 2) for end in (".index", ".data-00000-of-00001")}
    )
    for n, text in enumerate(('{"val_loss": 0.5}', '{"val_loss": NaN, "acc": 1e999}', '{"acc": -1e999}'), start=1):
        (project.outputs / f"exp/checkpoints/ck_{n}-rank0.metrics.json").write_text(text)


def packs(project: Project) -> None:
    for file in (project.folder / "rules").glob("*.yaml"):
        file.unlink()
    rules = f"packs: [{', '.join(sources())}]\nsettle: 0\nretention: {{default: {{keep_last: 1, keep_at_least: 1}}}}\n"
    (project.folder / "rules/mine.yaml").write_text(rules)
    trees = test_trees.TREES | test_trees2.TREES
    for pack, tree in {name.partition(":")[0]: tree for name, tree in trees.items()}.items():  # the last of each
        test_trees2.make(project.outputs / pack, tree.files)


TREES: Mapping[str, Callable[[Project], object]] = {
    "golden": golden,
    "hostile": hostile,
    "parts": parts,
    "packs": packs,
}


@pytest.mark.parametrize("tree", TREES)
def test_every_command_writes_what_the_schema_describes(project: Project, tree: str) -> None:
    project.outputs.mkdir(exist_ok=True)
    TREES[tree](project)
    for command in (FEW if tree == "packs" else COMMANDS).strip().splitlines():
        place = project.folder / "told.json"
        place.unlink(missing_ok=True)
        run(project, *shlex.split(command), f"json={place}")
        data = read(place)
        assert data["command"] == command.partition(" ")[0]
        if "space" in data:
            adds_up(data, project.outputs)


def test_the_hook_writes_what_the_schema_describes(project: Project) -> None:
    project.make({ckpt(3): 1000, ckpt(4): 70})
    run(project, "after", f"path={project.outputs / ckpt(4)}", "delete_old=1", "json=p.json")
    (one,) = read(project.folder / "p.json")["experiments"]
    assert [row["name"] for row in one["checkpoints"]] == [os.path.basename(ckpt(n)) for n in (3, 4)]


def run(project: Project, *arguments: str) -> None:
    code, out, _ = run_program("doit", *arguments, folder=project.folder, environment=default())
    assert code in (0, 1), out


def adds_up(data: Mapping[str, Any], outputs: Path) -> None:
    """See that the sums of a file agree with each other, with its rows, and, of what is to come, with the disk."""
    space, total, experiments = data["space"], data["summary"], data["experiments"]
    rows = [(one["directory"], row) for one in experiments for row in one["checkpoints"]]
    for one in experiments:
        names = [name for row in one["checkpoints"] for name in (row["name"], *row["parts"])]
        assert len(names) == len(set(names))
        trashed = {action["name"] for action in one["actions"] if action["action"] == "trash"}
        assert {row["name"] for row in one["checkpoints"] if row["state"] == "goes"} == trashed or not names
    if space["goes"] is None:
        assert rows == []
        return
    assert space["goes"] == total["bytes_deleted"]
    assert space["protected"] + space["kept"] == total["bytes_kept"]
    if data["command"] not in ("plan", "page"):
        return
    swept = [
        (one["directory"], act["name"]) for one in experiments for act in one["actions"] if act["action"] == "sweep"
    ]
    goes = inodes(outputs, [*named(rows, "goes"), *swept])
    stays = inodes(
        outputs,
        [*named(rows, "stays"), *((one["directory"], row["name"]) for one in experiments for row in one["stays"])],
    )
    undecided = inodes(outputs, named(rows, "undecided"))
    shields = inodes(outputs, named([row for row in rows if row[1]["protected"]], "stays"))
    freed = {inode: size for inode, (size, names, here) in goes.items() if names == here}
    assert space["goes"] == sum(freed.values())
    assert space["protected"] == sum(size for size, _, _ in shields.values())
    assert space["kept"] == sum(stays[inode][0] for inode in stays.keys() - shields.keys())
    assert space["undecided"] == sum(undecided[inode][0] for inode in undecided.keys() - stays.keys())


def named(rows: Iterable[tuple[str, Mapping[str, Any]]], state: str) -> Iterator[tuple[str, str]]:
    for directory, row in rows:
        yield from ((directory, name) for name in (row["name"], *row["parts"]) if row["state"] == state)


def inodes(outputs: Path, names: Iterable[tuple[str, str]]) -> dict[int, tuple[int, int, int]]:
    """Map the files behind names to their bytes, how many names they have, and how many of these are meant."""
    found: dict[int, tuple[int, int, int]] = {}
    for directory, name in names:
        top = outputs / os.fsencode(f"{directory}/{name}").decode("utf-8", "surrogateescape")
        inner = [Path(folder) / file for folder, _, files in os.walk(top) for file in files]
        for path in inner if top.is_dir() and not top.is_symlink() else [top]:
            status = path.lstat()
            size = 0 if path.is_symlink() else status.st_size
            found[status.st_ino] = (size, status.st_nlink, found.get(status.st_ino, (0, 0, 0))[2] + 1)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_file_with_several_names_counts_once(project: Project, name: str) -> None:
    case = CASES[name]
    make_linked(project, case.files, case.links)
    (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {{max_total_size: {case.limit}}}\n")
    project.make({"exp/checkpoints/epoch=2-step=2.ckpt": 0})
    run(project, "plan", "delete_old=1", "policy=mine", "json=p.json")
    adds_up(read(project.folder / "p.json"), project.outputs)


def test_contents_that_are_there_twice_are_told_where_they_were_compared(project: Project) -> None:
    project.make({ckpt(3): 1000, ckpt(4): 70})
    twin = project.outputs / "exp/checkpoints/epoch=3-step=3.ckpt"
    twin.write_bytes((project.outputs / ckpt(3)).read_bytes())
    run(project, "plan", "json=p.json")
    assert read(project.folder / "p.json")["space"]["same_twice"] == 1000
    twin.unlink()
    run(project, "plan", "json=p.json")
    assert read(project.folder / "p.json")["space"]["same_twice"] is None


def test_a_field_that_is_not_described_is_found(project: Project) -> None:
    project.make({ckpt(3): 1000})
    run(project, "plan", "json=p.json")
    data = read(project.folder / "p.json")
    data["experiments"][0]["checkpoints"][0]["colour"] = "red"
    data["more"] = 1
    del data["space"]["trash"]
    assert len(faults(data)) == 3, faults(data)
