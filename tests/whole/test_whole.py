"""Nothing that is not whole counts: what is in use, not settled, marked as unfinished, or holds an empty weight file."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ckptrules import catalog
from ckptrules.engine.entries import Entry
from ckptrules.outputs import evidence, in_use
from tests.conftest import Project
from tests.support import crash

pytestmark = pytest.mark.skipif(not in_use.KNOWS_LEASES, reason="only Linux says who has a file open")
OLD, NEW = "epoch-10_step-000100.ckpt", "epoch-11_step-000200.ckpt"
KEEP_1 = "keep_last: 1"
POLICIES = {
    KEEP_1: f"{{{KEEP_1}}}",
    "only the floor": "{keep: protected}",
    "a floor of 2": "{keep: protected, keep_at_least: 2}",
    "the best": "{keep_best: {metric: hmean, mode: max, count: 1}}",
    "within a day of the newest": "{keep_within: 1d from newest}",
    "what fits": "{max_total_size: 1KB}",
}


def add_policy(project: Project, policy: str) -> None:
    (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {policy}\n")


def put(project: Project, name: str, size: int = 900, *, age: int = 0) -> Path:
    project.make({f"exp/checkpoints/{name}": size})
    path = project.outputs / "exp/checkpoints" / name
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def run(project: Project, *arguments: str) -> crash.Ended:
    ended = crash.run(project.folder, "migrate", "delete_old=1", "policy=mine", *arguments)
    assert "Traceback" not in ended.output, ended.output
    return ended


class Busy(NamedTuple):
    """A newest checkpoint that is not whole: its names and sizes, which of them is held open, options, rules."""

    names: dict[str, int]
    held: str = ""
    options: tuple[str, ...] = ()
    rules: str = ""
    said: str = "is open for writing"


NOT_WHOLE = {
    "a file that is held open": Busy({NEW: 400}, NEW),
    "a directory with an open file inside": Busy({f"{NEW}/model.pt": 9, f"{NEW}/deep/optim.pt": 9}, f"{NEW}/deep/optim.pt"),
    "a file that has just changed": Busy({NEW: 400}, options=("settle=600",), said="changed "),
    "a directory that has just changed": Busy({f"{NEW}/model.pt": 9}, options=("settle=600",), said="changed "),
    "a file with a marker": Busy({NEW: 400, f"{NEW}-unfinished": 0}, said="is not finished"),
    "a file with a marker of its stem": Busy({NEW: 400, f"{NEW[:-5]}-unfinished": 0}, said="is not finished"),
    "a directory with a marker that is a directory": Busy({f"{NEW}/model.pt": 9, f"{NEW}-unfinished/x": 1}, said="is not finished"),
    "a file with a marker of another kind": Busy({NEW: 400, f"{NEW}.part": 0}, rules="unfinished: [.part]\n", said="is not finished"),
    "a protected file that is held open": Busy({"last.ckpt": 400}, "last.ckpt"),
    "a protected file with a marker": Busy({"last.ckpt": 400, "last-unfinished": 0}, said="is not finished"),
}  # fmt: skip


@contextlib.contextmanager
def held_open(project: Project, name: str) -> Iterator[None]:
    if not name:
        yield
        return
    with open(project.outputs / "exp/checkpoints" / name, "ab"):
        yield


@pytest.mark.parametrize("policy", [KEEP_1, "only the floor"])
@pytest.mark.parametrize("case", NOT_WHOLE)
def test_what_is_not_whole_makes_no_other_go(project: Project, case: str, policy: str) -> None:
    busy = NOT_WHOLE[case]
    add_policy(project, POLICIES[policy])
    (project.folder / "rules" / "more.yaml").write_text(busy.rules)
    whole = put(project, OLD, age=4000)
    oldest = put(project, "epoch-09_step-000090.ckpt", age=5000)
    for name, size in busy.names.items():
        put(project, name, size)
    with held_open(project, busy.held):
        ended = run(project, *busy.options)
        assert ended.code == 0, ended.output
        assert busy.said in ended.output
        assert "does not count" in ended.output
        assert run(project, *busy.options).code == 0  # it must not believe the first run, unless nothing can go
        assert whole.exists()
        assert not oldest.exists()
    assert all((project.outputs / "exp/checkpoints" / name).exists() for name in busy.names)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_line_counts_what_is_in_use(project: Project, policy: str) -> None:
    add_policy(project, POLICIES[policy])
    names = [f"epoch-{n:02}_step-{n:06}_hmean-0.{n}.ckpt" for n in (11, 12, 13)]
    whole = [put(project, name, age=age) for name, age in zip(names, (300_000, 250_000, 0), strict=True)]
    with open(whole[-1], "ab"):
        ended = run(project)
        assert ended.code == 0, ended.output
        assert whole[1].exists()
        assert whole[2].exists()
        assert whole[0].exists() == (policy in ("a floor of 2", "within a day of the newest"))
    run(project)
    assert whole[1].exists() == (policy == "a floor of 2")


def test_many_that_are_in_use_are_passed_over_until_one_is_whole(project: Project) -> None:
    add_policy(project, POLICIES[KEEP_1])
    paths = [put(project, f"epoch-{n:02}_step-000001.ckpt") for n in range(20, 28)]
    with contextlib.ExitStack() as stack:
        for path in paths[2:]:
            stack.enter_context(open(path, "ab"))
        run(project)
    assert [path.exists() for path in paths] == [False] + [True] * 7


def test_only_what_the_deletions_rest_on_is_asked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    add_policy(project, "{min_epoch: 50}")
    for n in range(40, 90):
        put(project, f"epoch-{n:02}_step-000001.ckpt")
    asked = project.folder / "asked.txt"
    really = in_use.in_use

    def noting(directory: int, entry: Entry, settle: int, now_ns: int) -> str:
        with open(asked, "a") as file:
            file.write(f"{entry.name}\n")
        return really(directory, entry, settle, now_ns)

    monkeypatch.setattr(evidence, "in_use", noting)
    assert run(project).code == 0
    assert len(asked.read_text().splitlines()) == 10 + 1  # those that go, and the newest


def test_what_is_in_use_and_would_go_or_change_is_still_a_problem(project: Project) -> None:
    add_policy(project, POLICIES[KEEP_1])
    paths = [put(project, name) for name in ("epoch-01_step-000001.ckpt", "epoch=2-step=2.ckpt", NEW)]
    with open(paths[0], "ab"), open(paths[1], "ab"):
        ended = run(project)
    assert ended.code == 1
    assert ended.output.count("is in use: is open for writing") == 2
    assert all(path.exists() for path in paths)


def test_a_sidecar_that_is_being_written_keeps_its_checkpoint_where_it_is(project: Project) -> None:
    add_policy(project, POLICIES[KEEP_1])
    old, new = put(project, "epoch=1-step=1.ckpt"), put(project, NEW)
    sidecar = put(project, "epoch=1-step=1.metadata.json")
    with open(sidecar, "ab"):
        ended = run(project)
    assert ended.code == 1
    assert "is in use: epoch=1-step=1.metadata.json is open for writing" in ended.output
    assert all(path.exists() for path in (old, new, sidecar))


@pytest.mark.parametrize("on_conflict", ["keep_newest", "keep_largest", "merge_identical"])
def test_the_winner_of_a_conflict_must_be_whole(project: Project, on_conflict: str) -> None:
    add_policy(project, POLICIES[KEEP_1])
    same = on_conflict == "merge_identical"
    loser = put(project, "epoch=11-step=200.ckpt", 100, age=5000)
    winner = put(project, NEW, 100 if same else 200)
    if same:
        loser.write_bytes(winner.read_bytes())
    with open(winner, "ab"):
        ended = run(project, f"on_conflict={on_conflict}")
    assert ended.code == 1, ended.output
    assert loser.exists()


@pytest.mark.parametrize("name", ["model.pt", "deep/model.safetensors", "pytorch_model-00001-of-00002.bin"])
def test_a_directory_with_an_empty_weight_file_is_empty(project: Project, name: str) -> None:
    add_policy(project, POLICIES[KEEP_1])
    whole = put(project, OLD)
    for file, size in {name: 0, "config.json": 20, "__init__.py": 0}.items():
        put(project, f"{NEW}/{file}", size)
    ended = run(project)
    assert ended.code == 1
    assert f"{NEW} holds an empty file: {name}" in ended.output
    assert whole.exists()


def test_an_empty_file_that_holds_no_weights_makes_no_directory_empty(project: Project) -> None:
    add_policy(project, POLICIES[KEEP_1])
    old = put(project, OLD)
    for file, size in {"model.pt": 9, "__init__.py": 0, "lock": 0}.items():
        put(project, f"{NEW}/{file}", size)
    assert run(project).code == 0
    assert not old.exists()


def test_a_marker_keeps_a_name_from_changing_and_goes_when_the_run_goes_on(project: Project) -> None:
    """NeMo: ``epoch=1-step=39-unfinished`` beside ``epoch=1-step=39.ckpt``."""
    add_policy(project, POLICIES[KEEP_1])
    whole, late = put(project, "epoch=0-step=19.ckpt"), put(project, "epoch=1-step=39.ckpt")
    marker = put(project, "epoch=1-step=39-unfinished", 0)
    for _ in range(2):
        ended = run(project)
        assert ended.code == 0
        assert "epoch=1-step=39.ckpt is not finished, as epoch=1-step=39-unfinished says" in ended.output
        assert project.names("exp") == ["epoch-00_step-000019.ckpt", marker.name, late.name]
    assert not whole.exists()
    marker.unlink()
    run(project)
    assert project.names("exp") == ["epoch-01_step-000039.ckpt"]


@pytest.mark.parametrize("name", ["epoch=1-step=3-unfinished", "epoch=1-step=399-unfinished", "-unfinished"])
def test_the_marker_of_another_says_nothing(project: Project, name: str) -> None:
    add_policy(project, POLICIES[KEEP_1])
    put(project, "epoch=0-step=19.ckpt")
    put(project, "epoch=1-step=39.ckpt")
    put(project, name, 0)
    assert run(project).code == 0
    assert project.names("exp") == sorted([name, "epoch-01_step-000039.ckpt"])


def test_a_name_whose_new_name_has_a_marker_waits(project: Project) -> None:
    add_policy(project, POLICIES[KEEP_1])
    put(project, "epoch=1-step=39.ckpt")
    put(project, "epoch-01_step-000039-unfinished", 0)
    assert run(project).code == 0
    assert "epoch=1-step=39.ckpt" in project.names("exp")


def test_no_catalog_offers_what_is_not_finished(project: Project) -> None:
    whole, late = put(project, "epoch=0-step=19.ckpt"), put(project, "epoch=1-step=39.ckpt")
    put(project, "epoch=1-step=39-unfinished", 0)
    (project.outputs / "exp/checkpoints/last.ckpt").symlink_to(late.name)
    rules = project.folder / "rules"
    assert [record.path for record in catalog(project.outputs, rules)] == [str(whole)]
