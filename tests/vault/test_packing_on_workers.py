"""Several experiments are archived at once, by threads or processes: the same archives, and each fails by itself."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptrules.commands import archive
from ckptrules.engine.entries import Item
from ckptrules.vault.packing import Packing, Ready, listing, pack_in_worker
from ckptrules.vault.space import SPARE
from tests.commands.test_archive import everything
from tests.conftest import Project
from tests.support import crash
from tests.support.dying import ENDS, let_workers

pytestmark = pytest.mark.whole
BIG = 12 << 20  # bytes, of each experiment, to be packed and read back; for less in all no process is started
NAMES = ("one", "two", "three")


def make(project: Project) -> Path:
    """Make experiments with holes, links, modes, attributes and times; one lies in another one."""
    rules = project.folder / "rules" / "naming.yaml"
    rules.write_text(rules.read_text().replace("['*/checkpoints']", "['*/checkpoints', '*/*/checkpoints']"))
    for name in (*NAMES, "three/inner"):
        folder = project.outputs / name / "checkpoints"
        project.make({f"{name}/checkpoints/epoch={n}-step={n}.ckpt": 5000 * n for n in (1, 2)})
        project.make({f"{name}/last.ckpt": "-> checkpoints/epoch=2-step=2.ckpt", f"{name}/none": 0})
        with (folder / "epoch=3-step=3.ckpt").open("wb") as file:
            file.truncate(BIG)
            file.seek(BIG // 2)
            file.write(b"weights" * 1000)
        (folder / "second name").hardlink_to(folder / "epoch=1-step=1.ckpt")
        (folder / "epoch=2-step=2.ckpt").chmod(0o440)
        with contextlib.suppress(OSError):
            os.setxattr(folder / "epoch=1-step=1.ckpt", "user.note", b"kept")
    for number, path in enumerate(sorted(project.outputs.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18, 10**18 + number), follow_symlinks=False)
    (project.folder / "archive").mkdir()
    return project.folder / "archive"


def manifest(path: Path) -> dict[str, Any]:
    """Read a manifest but for times that differ between any two runs."""
    data: dict[str, Any] = json.loads(path.read_text())
    del data["created"], data["items"][0]["mtime_ns"]
    return data


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_workers_pack_the_same_as_one_process(project: Project, executors: list[str]) -> None:
    packed = make(project)
    before = everything(project.outputs)
    told, held = [], []
    for executor in executors:
        command = ("archive", "experiments=*", "archive_dir=archive", f"executor={executor}")
        out = [project.doit(*command, "dry_run=1"), project.doit(*command, "keep_source=1")]
        out += [project.doit(*command, "keep_source=1")]
        for path in packed.glob("three.*"):  # which holds the inner one as well
            path.unlink()
        out += [project.doit(*command)]
        told.append([re.sub(r"packed [\d.]+ KB", "packed", text) for text in out])
        assert [name for name in os.listdir(project.outputs) if name != ".ckptrules"] == []
        held.append({path.name: manifest(path) for path in packed.glob("*.json")})
        assert [name for name in os.listdir(packed) if name.startswith(".")] == []
        for name in ("one", "two", "three", "three%2Finner"):
            project.doit("unarchive", f"archive=archive/{name}.tar.zst")
        after = everything(project.outputs)
        assert {path for path in after if path not in before} <= {".ckptrules"} | {
            path for path in after if path.startswith(".ckptrules/")
        }
        assert [path for path in before if path not in (".", "three") and before[path] != after[path]] == []
        for path in packed.iterdir():
            path.unlink()
    assert [one == told[0] for one in told] == [True] * len(executors)
    order = ["three/inner", "one", "three", "two"]
    assert [len(text.splitlines()) for text in told[0]] == [len(order)] * 4
    assert [line.split()[2] for line in told[0][1].splitlines()] == order
    assert told[0][2].count("Up to date: ") == len(order)
    assert told[0][3].count("; the source is in the trash\n") == len(order)
    assert [one == held[0] for one in held] == [True] * len(executors)


def test_experiments_are_packed_one_by_one_where_there_is_no_room_for_several() -> None:
    item = Item("one", "file", 0, 0, 0o644)
    ready = [Ready(Packing("", str(size), "", "gz"), (item._replace(size=size - SPARE),), "") for size in SIZES]
    room = iter([100, 100, 100, 20])
    batches = [
        [int(one.place.experiment) // SPARE for one in batch]
        for batch in archive.in_batches(ready, lambda: next(room) * SPARE)
    ]
    assert batches == [[50, 50], [60], [70, 30], [40]]


SIZES = [size * SPARE for size in (50, 50, 60, 70, 30, 40)]


@pytest.mark.parametrize(("act", "why"), ENDS.values(), ids=list(ENDS))
def test_an_experiment_that_workers_die_of_stays_and_the_others_are_archived(
    project: Project, act: Callable[..., Any], why: str
) -> None:
    packed = make(project)
    let_workers(act, "two", project.folder / "dodo.py")
    command = ("archive", "experiments=*", "archive_dir=archive")
    out = project.doit(*command, "executor=processes", check=1)
    assert f"Problem: two: was not packed: {why}\n" in out
    assert out.count("; the source is in the trash\n") == 3
    assert [name for name in os.listdir(project.outputs) if name != ".ckptrules"] == ["two"]
    assert [name for name in os.listdir(packed) if name.startswith((".", "two"))] == []


def test_what_a_worker_had_packed_that_died_before_it_could_say_so_is_not_packed_again(project: Project) -> None:
    packed = make(project)
    place = Packing(str(project.outputs), "one", str(packed), "zst")
    ready = Ready(place, listing(place), "2026-11-27T10:00:00+00:00")
    done = [pack_in_worker(1, ready, lambda _: None) for _ in range(2)]
    assert (done, sorted(os.listdir(packed))) == (["", ""], ["one.tar.zst", "one.tar.zst.manifest.json"])
    (packed / "one.tar.zst").write_bytes(b"another one")
    assert "is no .tar.zst file" in pack_in_worker(1, ready, lambda _: None)
    assert (packed / "one.tar.zst").read_bytes() == b"another one"


def test_ctrl_c_leaves_each_experiment_archived_or_where_it_was(project: Project) -> None:
    packed = make(project)
    before = everything(project.outputs)
    names = ["one", "three", "three/inner", "two"]
    stops = 0
    for at in (3, 8, 11, 14):

        def stop(change: int, at: int = at) -> None:
            if change == at:
                os.kill(os.getpid(), signal.SIGINT)

        command = ("archive", "experiments=*", "archive_dir=archive")
        ended = crash.run(project.folder, *command, "executor=processes", at_change=stop)
        assert (ended.code, "Traceback" in ended.output) == (130, False), ended
        stops += bool(re.search(r"^Stopped: \S+ is not archived\.$", ended.output, re.MULTILINE))
        assert [name for name in os.listdir(packed) if name.startswith(".")] == []
        again = crash.run_in_turn(project.folder, *command)
        gone = [name for name in names if not (project.outputs / name).exists()]
        assert again.code == 0 or "no experiment" in again.output, again
        assert gone == names
        for name in names:
            project.doit("unarchive", f"archive=archive/{name.replace('/', '%2F')}.tar.zst")
        after = everything(project.outputs)
        assert [path for path in before if path not in (".", "three") and before[path] != after[path]] == []
        for path in packed.iterdir():
            path.unlink()
    assert stops
