"""Bytes are counted by file and not by name, in every sum: plan, run, limit, trash, purge, usage."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ckptrules.storage.posix import Disk
from ckptrules.storage.trash import trash_items, trash_runs, trash_use
from tests.conftest import Project
from tests.support import crash

SIZE = 2000


class Case(NamedTuple):
    """Files of 2 KB, other names of them, a limit; what goes, and the bytes that go and stay."""

    files: list[str]
    links: dict[str, str]
    goes: set[str]
    freed: int
    kept: int
    limit: str = "6KB"


def ckpt(n: int) -> str:
    return f"exp/checkpoints/epoch-{n:02}_step-{n:06}.ckpt"


LAST, BEST, OTHER = "exp/checkpoints/last.ckpt", "exp/checkpoints/best.ckpt", "exp/other.ckpt"
CASES = {
    "timm: last and best are names of two of three": Case([ckpt(1), ckpt(2), ckpt(3)], {LAST: ckpt(3), BEST: ckpt(2)}, set(), 0, 6000),
    "the oldest has no other name": Case([ckpt(1), ckpt(2), ckpt(3)], {LAST: ckpt(3)}, {ckpt(1)}, 2000, 4000, "4KB"),
    "what shares its bytes with what stays takes no room": Case([ckpt(1), ckpt(2), ckpt(3)], {LAST: ckpt(1)}, {ckpt(2)}, 2000, 4000, "4KB"),
    "two names of one file go together": Case([ckpt(1), ckpt(3), ckpt(4)], {ckpt(2): ckpt(1)}, {ckpt(1), ckpt(2)}, 2000, 4000, "4KB"),
    "another name outside the directory": Case([ckpt(1), ckpt(2), ckpt(3)], {OTHER: ckpt(1)}, {ckpt(1)}, 0, 4000, "4KB"),
    "what must stay is too much already": Case([ckpt(1), ckpt(2), LAST], {ckpt(3): LAST}, {ckpt(1), ckpt(2)}, 4000, 2000, "1KB"),
    "directories with a file in common": Case([f"{ckpt(1)}/model.pt", f"{ckpt(2)}/model.pt"], {f"{ckpt(3)}/model.pt": f"{ckpt(2)}/model.pt"}, set(), 0, 4000, "4KB"),
    "a directory with two names of one file": Case([f"{ckpt(1)}/model.pt", ckpt(2)], {f"{ckpt(1)}/again.pt": f"{ckpt(1)}/model.pt"}, set(), 0, 4000, "4KB"),
}  # fmt: skip


def make(project: Project, files: list[str], links: dict[str, str]) -> None:
    project.make(dict.fromkeys(files, SIZE))
    for n, path in enumerate(files):
        os.utime(project.outputs / path, (1_600_000_000 + n, 1_600_000_000 + n))
    for name, other in links.items():
        (project.outputs / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(project.outputs / other, project.outputs / name)


def run(project: Project, *arguments: str, data: Path | None = None) -> dict[str, Any]:
    place = data or project.folder.parent / "run.json"
    ended = crash.run_in_turn(project.folder, *arguments, f"json={place}")
    assert ended.code == 0, ended.output
    found: dict[str, Any] = json.loads(place.read_text())
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_file_counts_once_in_plan_run_limit_trash_and_purge(project: Project, name: str) -> None:
    case = CASES[name]
    make(project, case.files, case.links)
    (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {{max_total_size: {case.limit}}}\n")
    for command in ("plan", "migrate"):
        told = run(project, command, "delete_old=1", "policy=mine")
        goes = {
            f"exp/checkpoints/{action['name']}"
            for action in told["experiments"][0]["actions"]
            if action["action"] == "trash"
        }
        assert goes == case.goes
        assert (told["summary"]["bytes_deleted"], told["summary"]["bytes_kept"]) == (case.freed, case.kept)
    assert sum(row["bytes_deleted"] for row in run(project, "history")["runs"]) == case.freed
    assert trash_use(Disk(str(project.outputs))).size == case.freed
    assert sum(item.size for item in trash_items(Disk(str(project.outputs)))) == case.freed
    assert len(trash_items(Disk(str(project.outputs)))) == len(case.goes)


def test_the_floor_counts_a_file_once(project: Project) -> None:
    """Both last and best of timm are names of the newest: with it they counted as three, and it was the only one left."""
    make(project, [ckpt(1), ckpt(2), ckpt(3)], {LAST: ckpt(3), BEST: ckpt(3)})
    (project.folder / "rules" / "mine.yaml").write_text("retention:\n  mine: {keep: protected, keep_at_least: 2}\n")
    told = run(project, "plan", "delete_old=1", "policy=mine")
    gone = [one["name"] for one in told["experiments"][0]["checkpoints"] if one["state"] == "goes"]
    assert gone == [os.path.basename(ckpt(1))]


def test_the_sum_of_a_run_counts_a_file_once_over_all_directories(project: Project) -> None:
    names = [f"e{n}/checkpoints/epoch-01_step-000001.ckpt" for n in range(3)]
    newer = [f"e{n}/checkpoints/epoch-02_step-000002.ckpt" for n in range(3)]
    make(project, [names[0], newer[0]], {**dict.fromkeys(names[1:], names[0]), **dict.fromkeys(newer[1:], newer[0])})
    for command in ("plan", "migrate"):
        told = run(project, command, "delete_old=1")
        assert (told["summary"]["deleted"], told["summary"]["bytes_deleted"]) == (3, 2000)
        assert told["summary"]["bytes_kept"] == 2000
    assert trash_use(Disk(str(project.outputs))) == (3, 2000)
    assert run(project, "undo")["summary"]["bytes_kept"] == 2000
    again = run(project, "history")["runs"][0]["run"]
    project.doit("undo", f"run={again}")
    assert [row["bytes_deleted"] for row in run(project, "history")["runs"]] == [2000, 0, 2000]
    assert "Deleted 3 checkpoints, 2 KB" in project.doit("log"), project.doit("log")


def test_a_version_that_knew_no_hard_links_still_reads_the_journal(project: Project) -> None:
    """It reads units of three or four parts, and called the journal damaged: there was no undo any more."""
    make(project, [ckpt(1), ckpt(2)], {OTHER: ckpt(1)})
    project.doit("migrate", "delete_old=1")
    (journal,) = (project.outputs / ".ckptrules/journal").iterdir()
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {len(unit) for row in rows for unit in row.get("units", ())} == {3}
    assert [shared for row in rows for unit in row.get("shared", ()) for shared in unit]


def test_what_several_runs_left_is_free_when_the_last_name_is(project: Project) -> None:
    for n, run_id in enumerate(("20260101T000000Z-1", "20260102T000000Z-1")):
        folder = project.outputs / ".ckptrules/trash" / run_id / "exp"
        folder.mkdir(parents=True)
        if n:
            os.link(
                project.outputs / ".ckptrules/trash/20260101T000000Z-1/exp/a.ckpt.trashed", folder / "b.ckpt.trashed"
            )
        else:
            (folder / "a.ckpt.trashed").write_bytes(b"x" * SIZE)
    runs = trash_runs(Disk(str(project.outputs)))
    assert [trash_use(Disk(str(project.outputs)), [one]).size for one in runs] == [0, 0]
    assert trash_use(Disk(str(project.outputs)), runs).size == SIZE
    assert [item.size for item in trash_items(Disk(str(project.outputs)))] == [0, SIZE]


def test_usage_counts_what_would_go_only_where_it_would_be_freed(project: Project) -> None:
    make(project, [ckpt(1), ckpt(2)], {LAST: ckpt(1)})
    ended = crash.run_in_turn(project.folder, "usage")
    row = next(line for line in ended.output.splitlines() if line.startswith("exp "))
    assert row.split() == ["exp", "2", "KB", "2", "KB", "4", "KB"]  # protected, could go, total


def test_usage_counts_a_file_as_what_stays_in_whatever_directory_that_is(project: Project) -> None:
    names = [f"{name}/checkpoints/epoch-01_step-000001.ckpt" for name in "ab"]
    newer, last = [one.replace("01", "02") for one in names], "b/checkpoints/last.ckpt"
    make(project, [names[0], *newer, "b/checkpoints/epoch-03_step-000003.ckpt"], {names[1]: newer[0], last: names[0]})
    lines = crash.run_in_turn(project.folder, "usage").output.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["a", "2", "KB", "2", "KB"],  # kept, total
        ["b", "2", "KB", "4", "KB", "6", "KB"],  # protected, could go, total
        ["all", "2", "KB", "2", "KB", "4", "KB", "8", "KB"],
    ]
    assert run(project, "plan", "delete_old=1")["summary"]["bytes_deleted"] == 2 * SIZE


@pytest.mark.parametrize("name", CASES)
def test_the_largest_that_go_are_what_the_table_above_them_sums_up(project: Project, name: str) -> None:
    """What has another name elsewhere stood there with all its bytes, beside 0 B in the table."""
    case = CASES[name]
    make(project, case.files, case.links)
    (project.folder / "rules" / "mine.yaml").write_text(f"retention:\n  mine: {{max_total_size: {case.limit}}}\n")
    told = crash.run_in_turn(project.folder, "page", "policy=mine").output
    rows = told.partition("The largest that go\n")[2].partition("Summary")[0].splitlines()
    sizes = [row.rpartition("exp/")[0].strip().replace(" KB", "000").replace(" B", "") for row in rows]
    assert (len(sizes), sum(map(int, sizes))) == (len(case.goes), case.freed)


def test_twice_as_many_names_in_the_trash_are_twice_the_work(tmp_path: Path) -> None:
    """Beside a backup of hard links, each of 4,000 in the trash was asked for again at each: 8 seconds."""
    folder = tmp_path / ".ckptrules/trash/20260101T000000Z-1/exp"
    folder.mkdir(parents=True)

    def work(number: int) -> int:
        for n in range(number):
            (folder / f"{n}.trashed").write_bytes(b"x")
            os.link(folder / f"{n}.trashed", tmp_path / f"{number}-{n}")
        lines = [0]

        def count(*_: object) -> Any:
            lines[0] += 1
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            trash_items(Disk(str(tmp_path)))
        finally:
            sys.settrace(before)
        for path in folder.iterdir():
            path.unlink()
        return lines[0]

    work(1)
    assert work(100) <= 2.1 * work(50)
