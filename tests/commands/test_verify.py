"""``doit verify`` on real files, damaged in every way that is listed; torch-format files are written by hand."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import shutil
import signal
import struct
import zipfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import ckptrules
from ckptrules import stopping
from ckptrules.commands import verify
from ckptrules.commands.demo import sample_checkpoint
from ckptrules.engine.measures import human_size
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file
from ckptrules.formats.folders import check_folder
from ckptrules.stopping import KilledError
from ckptrules.verify import portion
from ckptrules.workers.workers import Workers
from tests.conftest import Project
from tests.support import crash, weights
from tests.support.tables import every_row
from tests.support.torch_files import in_torch, torch_zip

GOOD = "epoch-03_step-000352.ckpt"
CUT = {
    "torch": "is cut off, or was never finished",
    "safetensors": "is cut off",
    "HDF5": "is cut off",
    "numpy": "is cut off",
    "msgpack": "is cut off inside its values",
    "TensorFlow": "is cut off: the end of its index is missing",
    "tar": "is cut off: its end is missing",
}

STOPPED = """Verifying experiment: exp
  ✓ epoch-00_step-000352.ckpt  793 B  torch, epoch 0, step 352
  ✓ epoch-01_step-000352.ckpt  793 B  torch, epoch 1, step 352
  ✓ epoch-02_step-000352.ckpt  793 B  torch, epoch 2, step 352
    epoch-03_step-000352.ckpt  793 B  to be read
    epoch-04_step-000352.ckpt  793 B  to be read
  ! Problem: exp/checkpoints was not read to its end
      hint: run again to go on
  5 checkpoints, 3 of them verified
Summary
  processed   1  experiment
  checkpoints 5
  verified    3  2.38 KB
  read now    1  793 B
  to read     2  1.59 KB
  problems    1  see above
Stopped: no change is half done. Run again to go on.
"""


def lightning(epoch: int, step: int, version: str = "2.6.6") -> bytes:
    return torch_zip({"epoch": epoch, "global_step": step, "pytorch-lightning_version": version}, {"0": b"w" * 400})


def put(project: Project, name: str, content: bytes, experiment: str = "exp") -> Path:
    """Write a checkpoint that is a minute old."""
    path = project.outputs / experiment / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    made_old(path)
    return path


def made_old(path: Path) -> None:
    os.utime(path, (path.stat().st_mtime - 60, path.stat().st_mtime - 60))


def result(project: Project, *arguments: str, check: int = 0) -> dict[str, Any]:
    project.doit("verify", f"json={project.folder / 'r.json'}", *arguments, check=check)
    found: dict[str, Any] = json.loads((project.folder / "r.json").read_text())
    return found


def problem_ids(found: dict[str, Any]) -> list[str]:
    return [problem["id"] for experiment in found["experiments"] for problem in experiment["problems"]]


# --- the list, the count, what is remembered -------------------------------------------------------------------------


def test_sound_checkpoints_are_listed_and_counted_for_each_experiment(project: Project) -> None:
    put(project, GOOD, lightning(3, 352))
    put(project, "best.ckpt", lightning(2, 100))
    put(project, GOOD, lightning(3, 352), "other")
    out = project.doit("verify")
    assert out.startswith("Verifying experiment: exp\n  ✓ best.ckpt ")
    assert "  2 checkpoints\nVerifying experiment: other\n" in out
    assert "  processed   2  experiments\n  checkpoints 3\n  verified    3  " in out


def test_what_was_verified_is_not_read_again_even_under_its_new_name(project: Project) -> None:
    put(project, "epoch_03_step_000352.ckpt", lightning(3, 352))
    first = result(project, check=1)
    assert (problem_ids(first), first["summary"]["read"]) == (["not_migrated"], 1)
    project.doit("migrate")
    second = result(project)
    assert (second["summary"]["verified"], second["summary"]["read"]) == (1, 0)
    assert second["experiments"][0]["checkpoints"][0]["name"] == GOOD


def test_what_is_in_no_known_format_is_not_called_broken(project: Project) -> None:
    """It was `not sound`, which nobody knows."""
    put(project, "epoch-01_step-000001.ckpt", b"in a format of its own")
    put(project, "epoch-02_step-000002.ckpt", lightning(2, 2)[:-100])
    states = re.findall(r"^  ! epoch-0(.).*  (\S+ \S+)$", project.doit("verify", check=1), re.MULTILINE)
    assert states == [("1", "not understood"), ("2", "not sound")]


def test_numbers_in_names_are_sorted_as_numbers(project: Project) -> None:
    """epoch_1, epoch_10, epoch_11, epoch_2."""
    names = [f"checkpoint-{step}.ckpt" for step in (9, 10, 100, 1000)]
    project.make({f"exp/checkpoints/{name}": 9 for name in names})
    (project.folder / "rules/mine.yaml").write_text(
        "formats:\n  - {id: mine, match: 'checkpoint-(?P<step>[0-9]+)[.]ckpt', examples: {checkpoint-9.ckpt: {step: 9}}}\n"
    )
    out = project.doit("verify", check=1)
    assert re.findall(r"^  ! (\S+) ", out, re.MULTILINE)[:4] == names
    project.doit("migrate", "delete_old=1", "keep_last=1")
    assert re.findall(r"checkpoint-\d+.ckpt", project.doit("trash").partition("items")[0]) == names[:3]


def test_an_old_name_takes_nothing_from_what_is_whole(project: Project) -> None:
    """All had the sign of a problem, none counted as verified, and each stood there twice; verified=1 took them all."""
    for epoch in (3, 4, 5):
        put(project, f"epoch_{epoch:02d}_step_000352.ckpt", lightning(epoch, 352))
    put(project, "epoch_06_step_000352.ckpt", lightning(7, 352))
    out = project.doit("verify", check=1)
    assert re.findall(r"^  (. epoch_\d+)", out, re.MULTILINE) == [
        "✓ epoch_03",
        "✓ epoch_04",
        "✓ epoch_05",
        "! epoch_06",
    ]
    assert (
        "! Problem: epoch_03_step_000352.ckpt and 3 more have old names\n      hint: 'doit migrate' renames them" in out
    )
    assert "  4 checkpoints, 3 of them verified\n" in out
    assert problem_ids(result(project, check=1)).count("not_migrated") == 4


def test_what_was_verified_is_not_read_again_after_a_migration_nor_after_an_undo(project: Project) -> None:
    names = ["epoch_02_step_000352.ckpt", "epoch_20_step_003520.ckpt", "epoch-30_step-005280.ckpt"]
    for name, epoch in zip(names, (2, 20, 30), strict=True):
        put(project, name, lightning(epoch, epoch * 176))
    for path, content in FSDP.items():
        put(project, f"epoch_3_step_352.ckpt/{path}", content)
    start = project.tree()
    first = result(project, check=1)["summary"]
    assert (first["read"], first["checkpoints"]) == (4, 4)
    project.doit("migrate", "delete_old=1")
    after = result(project)["summary"]
    assert (after["read"], after["verified"]) == (0, 2)
    project.doit("undo")
    assert project.tree() == start
    assert result(project, check=1)["summary"] == {**first, "read": 0, "bytes_read": 0}


def test_what_waits_in_the_trash_is_not_forgotten(project: Project) -> None:
    for number in range(30):
        put(project, f"epoch-0{number // 10}_step-00{number:04}.ckpt", lightning(number // 10, number))
    put(project, "epoch-10_step-000100.ckpt", lightning(10, 100))
    assert [result(project)["summary"]["read"], project.doit("migrate", "delete_old=1").count("Deleted")] == [31, 30]
    assert result(project)["summary"]["read"] == 0
    project.doit("undo")
    assert (result(project)["summary"]["read"], result(project)["summary"]["verified"]) == (0, 31)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reading", ["read_one", "of_portions"])  # here, and shared
def test_a_stop_tells_and_keeps_what_was_found_and_reads_no_further(
    project: Project, monkeypatch: pytest.MonkeyPatch, number: int, reading: str
) -> None:
    """Of 12 checkpoints 4 had been read and were remembered, and all that was told was "read now 0"."""

    def stopping_after(function: Callable[..., portion.Read]) -> Callable[..., portion.Read]:
        def done(*given: Any) -> portion.Read:
            came_of_it = function(*given)
            os.kill(os.getpid(), number)
            return came_of_it

        return done

    if reading == "of_portions":
        monkeypatch.setattr(verify, "SMALL", 0)
    monkeypatch.setattr(verify, reading, stopping_after(getattr(portion, reading)))
    put(project, "epoch-00_step-000352.ckpt", lightning(0, 352))
    put(project, "epoch-01_step-000352.ckpt", lightning(1, 352))
    assert result(project)["summary"]["read"] == 2
    for epoch in (2, 3, 4):
        put(project, f"epoch-0{epoch}_step-000352.ckpt", lightning(epoch, 352))
    put(project, "epoch-05_step-000352.ckpt", lightning(5, 352), "later")
    ended = crash.run(project.folder, "verify", "json=stopped.json")
    assert ended.code == stopping.EXIT_CODE, ended.output
    assert ended.output == STOPPED
    data = json.loads((project.folder / "stopped.json").read_text())
    assert problem_ids(data) == ["stopped"]
    assert {name: count for name, count in data["summary"].items() if "bytes" not in name} == {
        "experiments": 1, "checkpoints": 5, "verified": 3, "read": 1, "to_read": 2, "failed": 1,
    }  # fmt: skip
    assert result(project)["summary"]["read"] == 3


def test_where_no_worker_is_left_what_was_read_before_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def each(*_: object, **more: object) -> Iterator[portion.Answer]:
        yield from islice(really_each(*_, **more), 1)
        raise KilledError("they are gone")

    really_each: Callable[..., Iterator[portion.Answer]] = Workers.each
    monkeypatch.setattr(Workers, "each", each)
    monkeypatch.setattr(verify, "SMALL", 0)
    for epoch in range(3):
        put(project, f"epoch-0{epoch}_step-000352.ckpt", lightning(epoch, 352))
    ended = crash.run(project.folder, "verify")
    assert ended.code == stopping.FAILED
    assert "  ! Problem: exp/checkpoints was not read to its end\n" in ended.output
    assert "  read now    1  793 B\n  to read     2  1.59 KB\n" in ended.output
    assert ended.output.endswith("ERROR: they are gone\n")


@pytest.mark.parametrize("change", ["content", "time", "size"])
def test_a_file_that_changed_is_read_again(project: Project, change: str) -> None:
    path = put(project, GOOD, lightning(3, 352))
    before = path.stat()
    assert result(project)["summary"]["read"] == 1
    if change == "content":
        path.write_bytes(b"x" * before.st_size)
    if change == "size":
        path.write_bytes(path.read_bytes()[:-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        made_old(path)
    assert result(project, check=int(change != "time"))["summary"]["read"] == 1


def test_a_file_that_is_too_young_to_be_told_from_its_successor_is_read_again(project: Project) -> None:
    path = put(project, GOOD, lightning(3, 352))
    os.utime(path, (path.stat().st_mtime + 10**6, path.stat().st_mtime + 10**6))
    assert [result(project)["summary"]["read"] for _ in range(2)] == [1, 1]


def test_quick_is_not_enough_for_a_later_whole_verification(project: Project) -> None:
    put(project, GOOD, lightning(3, 352))
    assert [result(project, *words)["summary"]["read"] for words in (["quick=1"], ["quick=1"], [], ["quick=1"])] == [
        1,
        0,
        1,
        0,
    ]


def test_a_quick_look_says_that_verified_does_not_count_it(project: Project) -> None:
    put(project, GOOD, lightning(3, 352))
    told = "quick=1 compares no checksums: 'verified=1' counts only what 'doit verify' read without it.\n"
    for _ in range(2):
        assert told in project.doit("verify", "quick=1")
    assert "quick=1" not in project.doit("verify") + project.doit("verify", "dry_run=1", "quick=1")


def test_a_preview_and_a_damaged_memory_change_nothing(project: Project) -> None:
    put(project, GOOD, lightning(3, 352))
    project.doit("verify", "dry_run=1")
    assert not (project.outputs / ".ckptrules").exists()
    project.doit("verify")
    memory = project.outputs / ".ckptrules/verified/exp/checkpoints/files.jsonl"
    memory.write_bytes(b'\xff\n{"version": 1}\n[]\n{"version": 1, "identity": "x", "done": 3}\n')
    assert result(project)["summary"]["read"] == 1


def test_a_preview_tells_what_would_be_read_and_reads_nothing(project: Project) -> None:
    size = put(project, GOOD, lightning(3, 352)).stat().st_size
    project.doit("verify")
    damaged = put(project, "epoch-04_step-000400.ckpt", lightning(4, 400)[:-9])
    os.link(damaged, damaged.with_name("best.ckpt"))
    found, out = result(project, "dry_run=1"), project.doit("verify", "dry_run=1")
    bytes_to_read = damaged.stat().st_size
    assert found["summary"] == {
        "experiments": 1, "checkpoints": 3, "verified": 1, "read": 0, "failed": 0, "bytes_verified": size,
        "bytes_read": 0, "to_read": 3 - 1, "bytes_to_read": bytes_to_read, "bytes_expected": bytes_to_read,
    }  # fmt: skip
    (one,) = found["experiments"]
    assert (one["state"], [row["verified"] for row in one["checkpoints"]]) == ("planned", [False, True, False])
    assert f"to read     2  {human_size(bytes_to_read)}" in out
    assert "Expected time: about" in project.doit("verify", "dry_run=1", "max_rate=1KB/s")
    assert "Expected time" not in project.doit("verify", "dry_run=1", "max_rate=1KB/s", "quick=1")
    assert problem_ids(result(project, check=1)) == ["truncated"] * 2
    damaged.unlink()
    (project.outputs / "exp/checkpoints/best.ckpt").unlink()
    out = project.doit("verify", "dry_run=1")
    assert "to read     0" in out
    assert "Expected time" not in out
    shutil.rmtree(project.outputs / "exp")
    assert "No checkpoint" in project.doit("verify", "dry_run=1", check=1)


def test_nothing_but_the_memory_is_written(project: Project) -> None:
    put(project, "best.ckpt", lightning(3, 352))
    project.doit("verify")
    project.doit("verify")
    state = [path for path in project.tree(state=True) if ".ckptrules" in path]
    assert state == [".ckptrules/verified/exp/checkpoints/files.jsonl"]
    assert len((project.outputs / state[0]).read_text().splitlines()) == 1


@pytest.mark.whole
def test_four_processes_come_to_the_same(project: Project) -> None:
    for number in range(6):
        put(project, GOOD, lightning(3, 352), f"exp{number}")
    put(project, "epoch-04_step-000001.ckpt", lightning(5, 1), "exp3")
    one = result(project, check=1)
    shutil.rmtree(project.outputs / ".ckptrules")
    project.doit("-n", "4", "verify", f"json={project.folder / 'n.json'}", check=1)
    parallel = json.loads((project.folder / "n.json").read_text())
    assert one["experiments"] == parallel["experiments"]


# --- names and content -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "ids"),
    [
        (GOOD, lightning(3, 352), []),
        (GOOD, torch_zip({"model": 1}), []),
        (GOOD, torch_zip([1, 2]), []),
        (GOOD, lightning(4, 352), ["other_content"]),
        (GOOD, lightning(3, 353), ["other_content"]),
        (GOOD, lightning(4, 353, "1.5.10"), []),
        (GOOD, lightning(3, 353, "1.5.10"), []),
        (GOOD, lightning(5, 353, "1.5.10"), ["other_content"]),
        (GOOD, lightning(4, 353, "1.6.0"), ["other_content", "other_content"]),
        (GOOD, torch_zip({"epoch": True, "global_step": "352"}), []),
        (GOOD, torch_zip({"epoch": 1 << 100_000, "global_step": -1}), []),
        ("best.ckpt", lightning(4, 352), []),
        ("epoch=3-step=352.ckpt", lightning(3, 352), ["not_migrated"]),
        ("whatever.ckpt", lightning(3, 352), ["unrecognised"]),
        ("whatever.txt", b"notes", ["unrecognised"]),
        (GOOD, b"", ["empty"]),
        (GOOD, b"not a checkpoint", ["unknown_format"]),
        (GOOD, bytes(3000), ["damaged"]),
        ("epoch-03_step-000352.metadata.json", b"{}", ["lost_sidecar"]),
    ],
)  # fmt: skip
def test_a_name_and_what_stands_under_it(project: Project, name: str, content: bytes, ids: list[str]) -> None:
    put(project, name, content)
    assert problem_ids(result(project, check=1 if ids else 0)) == ids


@pytest.mark.parametrize("option", ["quick=0", "dry_run=1"])
@pytest.mark.parametrize("names", [[], ["hparams.yaml"], ["x.tmp"]])
def test_where_nothing_is_understood_nothing_is_verified(project: Project, option: str, names: list[str]) -> None:
    """It ended with exit code 0: 0 of 0 were verified."""
    (project.outputs / "exp/checkpoints").mkdir(parents=True)
    project.make({f"exp/checkpoints/{name}": 9 for name in names})
    assert "Nothing was understood" in project.doit("verify", option, check=1)
    project.make({f"other/checkpoints/{GOOD}": 9})
    assert "Nothing was understood" not in project.doit("verify", option, check=option == "quick=0")


@pytest.mark.parametrize(
    ("beside", "content", "ids"),
    [
        ("train.log", b"epoch 1", []),
        ("empty.log", b"", []),
        ("20260107/x.txt", b"a folder of logs", []),
        ("final.zip", torch_zip({"model": 1}), ["unrecognised"]),
        ("final.zip", torch_zip({"model": 1})[:-40], ["truncated", "unrecognised"]),
        ("final.pt", b"a checkpoint by its name", ["unrecognised"]),
        ("epoch_3_old/x", b"a checkpoint by its name", ["unrecognised"]),
    ],
)
def test_what_a_framework_leaves_beside_its_checkpoints(
    project: Project, beside: str, content: bytes, ids: list[str]
) -> None:
    """Where a pack judges, only what is a checkpoint by its looks or its content must have a known name."""
    (project.folder / "rules" / "naming.yaml").write_text("layout: ['*/checkpoints']\npacks: [lightning]\n")
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep_last: 1}}\n")
    put(project, "epoch=3-step=352.ckpt", lightning(3, 352))
    (project.outputs / "exp/checkpoints" / beside).parent.mkdir(exist_ok=True)
    put(project, beside, content)
    found = result(project, check=1 if ids else 0)
    assert problem_ids(found) == ids
    assert found["summary"]["checkpoints"] == 1 + bool(ids)


def test_a_directory_in_which_there_is_no_checkpoint_is_verified(project: Project) -> None:
    """Such as one that holds the folders of others, which the layout covers as well."""
    (project.folder / "rules" / "naming.yaml").write_text("layout: ['*', '*/checkpoints']\npacks: [lightning]\n")
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep_last: 1}}\n")
    put(project, "epoch=3-step=352.ckpt", lightning(3, 352))
    found = result(project)
    assert [len(one["checkpoints"]) for one in found["experiments"]] == [0, 1]


@pytest.mark.parametrize("pack", ["lightning", "words", "lightning, words"])
def test_a_directory_in_which_only_the_last_is_left_is_known(project: Project, pack: str) -> None:
    """No name told the pack any more, so that the last was in no known format, and in no catalog."""
    (project.folder / "rules" / "naming.yaml").write_text(f"layout: ['*/checkpoints']\npacks: [{pack}]\n")
    (project.folder / "rules" / "retention.yaml").write_text("retention: {default: {keep: protected}}\n")
    for name in ("epoch=3-step=352.ckpt", "last.ckpt"):
        put(project, name, lightning(3, 352))
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == ["last.ckpt"]
    assert problem_ids(result(project)) == []
    assert "last.ckpt" in project.doit("catalog")
    assert project.doit("plan", "delete_old=1").count("kept        1") == 1


def test_links_and_sidecars_that_lead_to_something_are_no_problem(project: Project) -> None:
    put(project, GOOD, lightning(3, 352))
    put(project, GOOD.replace(".ckpt", ".metadata.json"), b"{}")
    project.make({"exp/checkpoints/last.ckpt": f"-> {GOOD}"})
    assert result(project)["summary"]["checkpoints"] == 1
    project.make({"exp/checkpoints/model-final.ckpt": 0, "exp/checkpoints/model-final.metadata.json": 2})
    assert "lost_sidecar" not in problem_ids(result(project, check=1))
    for name in ("model-final.ckpt", "model-final.metadata.json"):
        (project.outputs / "exp/checkpoints" / name).unlink()
    (project.outputs / "exp/checkpoints" / GOOD).unlink()
    assert problem_ids(result(project, check=1)) == ["dangling_link", "lost_sidecar"]


def test_sidecars_are_those_that_the_rules_name(project: Project) -> None:
    (project.folder / "rules" / "own.yaml").write_text("sidecars: [.sha256, .a.sha256]\n")
    put(project, GOOD, lightning(3, 352))
    put(project, GOOD.replace(".ckpt", ".sha256"), b"not a checkpoint")
    put(project, GOOD.replace(".ckpt", ".a.sha256"), b"not a checkpoint")
    assert result(project)["summary"]["checkpoints"] == 1
    put(project, GOOD, b"")
    assert problem_ids(result(project, check=1)) == ["empty"]
    (project.outputs / "exp/checkpoints" / GOOD).unlink()
    assert problem_ids(result(project, check=1)) == ["lost_sidecar", "lost_sidecar"]


def test_a_name_that_the_rules_know_is_read_even_if_it_ends_like_a_sidecar(project: Project) -> None:
    (project.folder / "rules" / "own.yaml").write_text("sidecars: [.ema.ckpt, .yaml]\n")
    put(project, GOOD, lightning(3, 352))
    put(project, GOOD.replace(".ckpt", ".ema.ckpt"), b"garbage")
    put(project, "best-x.ema.ckpt", b"garbage")
    put(project, "hparams.yaml", b"{}")
    put(project, "best_k_models.yaml", f"{GOOD}: 1.0\n".encode())
    found = result(project, check=1)
    assert problem_ids(found) == ["unknown_format", "unknown_format"]
    names = {name for experiment in found["experiments"] for p in experiment["problems"] for name in p["names"]}
    assert names == {GOOD.replace(".ckpt", ".ema.ckpt"), "best-x.ema.ckpt"}


def test_hard_links_are_read_once(project: Project) -> None:
    path = put(project, GOOD, lightning(3, 352))
    os.link(path, path.parent / "last.ckpt")
    found = result(project)["summary"]
    assert (found["verified"], found["read"]) == (2, 1)


def test_a_failure_is_shown_with_its_hint_and_names_are_escaped(project: Project) -> None:
    put(project, "epoch-04_step-000001.ckpt", lightning(5, 1))
    put(project, "x\x1b[31m.ckpt", lightning(5, 1))
    out = project.doit("verify", check=1)
    assert "  ! Problem: epoch-04_step-000001.ckpt holds epoch 5, not 4\n      hint: somebody renamed" in out
    assert "  2 checkpoints, 0 of them verified\n" in out
    assert "\x1b" not in out


# --- structure -------------------------------------------------------------------------------------------------------


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [25], "data_offsets": [0, 100]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"w" * 100


def hdf5(version: int) -> bytes:
    first = {0: 24, 2: 12}[version]
    block = b"\x89HDF\r\n\x1a\n" + bytes([version, 8, 8] if version else [0, 0, 0, 0, 0, 8, 8])
    return (block.ljust(first, b"\0") + struct.pack("<QQQ", 0, 0, 200)).ljust(200, b"\0")


def numpy() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, 5), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"w" * 100


FILLED = -6144  # bytes of zeros that fill a tar file up, behind its end
WHOLE = {
    "torch": lightning(3, 352),
    "safetensors": safetensors(),
    "HDF5": hdf5(0),
    "HDF5 ": hdf5(2),
    "numpy": numpy(),
    "pickle": pickle.dumps({"epoch": 3, "w": b"w" * 300}),
    "msgpack": weights.flax(),
    "TensorFlow": weights.INDEX,
    "tar": weights.tarred({"model_config.yaml": b"a: 1\n", "model_weights.ckpt": lightning(3, 352)})[:FILLED],
    "GGUF": weights.gguf(),
    "gzip": gzip.compress(lightning(3, 352)),
}


def checked(content: bytes, *, quick: bool = False) -> str:
    """Return the format, or what is wrong."""
    try:
        return check_file(io.BytesIO(content), len(content), lambda _: None, quick=quick).kind
    except UnsoundError as fault:
        return f"{fault.id}: {fault}"


@every_row("kind", WHOLE)
def test_a_whole_file_is_known_by_its_first_bytes(kind: str) -> None:
    assert checked(WHOLE[kind]) == kind.strip()


@every_row("kind", WHOLE)
def test_a_file_cut_off_anywhere_is_found(kind: str) -> None:
    whole = WHOLE[kind]
    for length in [*range(1, 80), *range(80, len(whole), 7), len(whole) - 1]:
        assert checked(whole[:length]).partition(":")[0] in ("truncated", "damaged", "unknown_format"), length
    if kind in CUT:
        assert checked(whole[:-1]).startswith(f"truncated: {CUT[kind]}")


def test_a_bit_flipped_in_any_content_of_a_torch_file_is_found_and_named() -> None:
    whole = lightning(3, 352)
    for entry in zipfile.ZipFile(io.BytesIO(whole)).infolist():
        start = entry.header_offset + 30 + len(entry.filename)
        for place in {start, start + entry.file_size // 2, start + entry.file_size - 1}:
            flipped = whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :]
            assert checked(flipped) == f"damaged: is damaged in '{entry.filename}'"


def test_quick_reads_the_pickle_but_not_the_tensors() -> None:
    whole = lightning(3, 352)
    tensor, pickled = whole.index(b"wwww"), whole.index(b"global_step")
    assert checked(whole[:tensor] + b"X" + whole[tensor + 1 :], quick=True) == "torch"
    assert checked(whole[:pickled] + b"X" + whole[pickled + 1 :], quick=True) == "damaged: is damaged in 'x/data.pkl'"


@every_row("kind", WHOLE)
def test_only_bytes_that_are_read_are_told(kind: str) -> None:
    """They count for ``max_rate`` and for the time that the next preview tells."""
    file, told = _Counting(WHOLE[kind]), list[int]()
    check_file(file, len(WHOLE[kind]), told.append, quick=False)
    assert sum(told) <= file.count


class _Counting(io.BytesIO):
    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.count += len(content)
        return content


def test_bytes_behind_the_last_tensor_of_safetensors_are_told() -> None:
    assert checked(safetensors() + b"xy") == "damaged: has 2 bytes too many"


ONE_TENSOR = (
    b"\x80\x02}U\x01w(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuKdtQs."  # as torch pickles it: 100 floats
)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"0": b"w" * 400}, "torch"),
        ({}, "incomplete: lacks the tensor data '0'"),
        ({"0": b"w" * 399}, "incomplete: has too few bytes for the tensor data '0'"),
    ],
)
def test_the_data_of_every_tensor_must_be_there(tensors: dict[str, bytes], said: str) -> None:
    assert checked(in_torch(ONE_TENSOR, tensors)) == said


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_that_torch_takes_for_one_are_refused() -> None:
    file = io.BytesIO(lightning(3, 352))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("x/DATA.PKL", b"another")
    assert checked(file.getvalue()).startswith("damaged: has two entries of one name")


# --- directories -----------------------------------------------------------------------------------------------------

RANKS = "checkpoint/zero_pp_rank_{}_mp_rank_00_optim_states.pt"
DEEPSPEED = {
    "latest": b"checkpoint",
    "checkpoint/mp_rank_00_model_states.pt": torch_zip({"epoch": 3, "global_step": 352, "dp_world_size": 3}),
    **{RANKS.format(rank): torch_zip({}) for rank in range(3)},
}


class _StorageInfo:
    def __init__(self, relative_path: str, offset: int, length: int) -> None:
        self.relative_path, self.offset, self.length = relative_path, offset, length


SHARDS = [_StorageInfo(f"__{rank}_0.distcp", 10, 90) for rank in range(2)]
FSDP = {
    ".metadata": pickle.dumps(SHARDS),
    "__0_0.distcp": b"w" * 100,
    "__1_0.distcp": b"w" * 100,
    "meta.pt": torch_zip({"epoch": 3, "global_step": 352}),
}
TABLES = {
    "model.ckpt.index": weights.tensorflow(
        weights.tensor(1), weights.tensor(1, 0, 1), head=weights.message({1: 2, 3: weights.message({1: 1})})
    ),
    **{f"model.ckpt.data-0000{n}-of-00002": b"w" for n in range(2)},
}


@every_row(
    ("files", "change", "said"),
    [
        (DEEPSPEED, {}, "DeepSpeed"),
        (DEEPSPEED, {RANKS.format(1): None}, "incomplete: lacks the optimizer state of rank 1, model part 0"),
        (DEEPSPEED, {RANKS.format(2): None}, "incomplete: lacks the optimizer state of rank 2, model part 0"),
        (DEEPSPEED, {"checkpoint/mp_rank_00_model_states.pt": None}, "incomplete: lacks 'checkpoint/mp_rank_00_model_states.pt'"),
        (DEEPSPEED, {"latest": b"other"}, "incomplete: lacks the folder 'other' that 'latest' names"),
        (DEEPSPEED, {RANKS.format(0): b""}, f"incomplete: has an empty part: '{RANKS.format(0)}'"),
        (FSDP, {}, "torch.distributed"),
        (FSDP, {".metadata": None}, "incomplete: lacks '.metadata', which is written last: it was never finished"),
        (FSDP, {"__1_0.distcp": None}, "incomplete: lacks the shard '__1_0.distcp'"),
        (FSDP, {"__1_0.distcp": b"w" * 99}, "truncated: its shard '__1_0.distcp' is cut off"),
        (FSDP, {"meta.pt": FSDP["meta.pt"][:-9]}, "truncated: its part 'meta.pt' is cut off, or was never finished: the directory at its end is missing"),
        (TABLES, {}, "TensorFlow"),
        (TABLES, {"model.ckpt.data-00001-of-00002": None}, "incomplete: lacks 'model.ckpt.data-00001-of-00002'"),
        (TABLES, {"model.ckpt.data-00000-of-00002": None}, "incomplete: lacks 'model.ckpt.data-00000-of-00002'"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_a_directory_must_be_complete(
    tmp_path: Path, files: dict[str, bytes], change: dict[str, bytes | None], said: str
) -> None:
    for path, content in {**files, **change}.items():
        if content is not None:
            (tmp_path / "c.ckpt" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "c.ckpt" / path).write_bytes(content)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        found = check_folder(directory, "c.ckpt", lambda _: None, quick=False).kind
    except UnsoundError as fault:
        found = f"{fault.id}: {fault}"
    finally:
        os.close(directory)
    assert found == said


def test_where_all_hold_one_more_than_their_names_say_nobody_has_renamed_them(project: Project) -> None:
    """DINO and MoCo note the epoch that comes next. Each was told, and 'verified=1' let nothing go for ever."""
    (project.folder / "rules/naming.yaml").write_text("packs: [detr]\n")
    (project.folder / "rules/retention.yaml").write_text("retention:\n  default: {keep_last: 1}\n")
    for epoch in (0, 20, 40):
        path = project.outputs / f"dino/checkpoint{epoch:04}.pth"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(torch_zip({"epoch": epoch + 1}))
        made_old(path)
        assert problem_ids(result(project, check=int(epoch == 0))) == ["other_content"] * (epoch == 0)
    project.doit("migrate", "delete_old=1", "verified=1")
    assert os.listdir(project.outputs / "dino") == ["checkpoint0040.pth"]
    for epoch in (50, 60):
        (project.outputs / f"dino/checkpoint{epoch:04}.pth").write_bytes(torch_zip({"epoch": epoch}))
    assert problem_ids(result(project, check=1)) == ["other_content"]


def test_a_directory_is_compared_with_its_name_and_remembered_as_a_whole(project: Project) -> None:
    for path, content in FSDP.items():
        put(project, f"epoch-04_step-000352.ckpt/{path}", content)
    assert problem_ids(result(project, check=1)) == ["other_content"]
    assert result(project, check=1)["summary"]["read"] == 0
    (project.outputs / "exp/checkpoints/epoch-04_step-000352.ckpt/__0_0.distcp").unlink()
    assert problem_ids(result(project, check=1)) == ["incomplete"]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_options_that_do_not_fit_are_refused(project: Project) -> None:
    assert "unsafe=1 says how to load\n    hint: give load=1 as well" in project.doit("verify", "unsafe=1", check=3)
    assert "option 'quick' is not for 'plan'" in project.doit("plan", "quick=1", check=3)


@pytest.mark.whole
def test_without_torch_load_is_refused_with_the_command_that_helps(project: Project) -> None:
    put(project, GOOD, lightning(3, 352))
    (project.folder / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    path = os.pathsep.join(filter(None, [str(project.folder), os.environ.get("PYTHONPATH", "")]))
    out = project.doit("verify", "load=1", check=3, env={"PYTHONPATH": path})
    assert "load=1 needs torch\n    hint: pip install 'ckptrules[torch]'" in out


def test_the_sample_of_the_demo_is_as_long_as_wanted_and_sound() -> None:
    content = sample_checkpoint(3, 352, 3000)
    assert (len(content), checked(content)) == (3000, "torch")


@pytest.mark.parametrize(
    ("files", "kind"), [(DEEPSPEED, "DeepSpeed"), (FSDP, "torch.distributed")], ids=["DeepSpeed", "FSDP"]
)
def test_a_sharded_checkpoint_is_discovered_migrated_and_verified(
    project: Project, files: dict[str, bytes], kind: str
) -> None:
    for path, content in files.items():
        put(project, f"epoch=3-step=352.ckpt/{path}", content)
    for _ in range(2):
        (record,) = ckptrules.catalog(project.outputs)
        assert (record.epoch, record.step, record.size) == (3, 352, sum(map(len, files.values())))
        project.doit("migrate")
    assert os.path.basename(record.path) == "epoch-03_step-000352.ckpt"
    assert f"✓ epoch-03_step-000352.ckpt  {human_size(record.size)}  {kind}, epoch 3, step 352\n" in project.doit(
        "verify"
    )
