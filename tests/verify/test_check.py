"""``doit verify`` of checkpoints that are several files: read in all of them, one row, sound or not as one."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ckptrules.engine.entries import Entry
from ckptrules.formats.content import FileContent
from ckptrules.formats.folders import InnerFile
from ckptrules.verify import portion
from ckptrules.verify.memory import CheckResult, identity
from ckptrules.verify.portion import Context, Depth, Portion, of_portions, read_one
from ckptrules.workers.pieces import Lost
from tests.commands.test_verify import made_old, problem_ids, put, result
from tests.conftest import Project
from tests.support.torch_files import torch_zip

RULES = r"""
layout: ['*/checkpoints']
unfinished: [.tmp-marker]
target:
  template: 'rank{{ part }}-step_{{ step | pad(4) }}.pt'
  match: 'rank(?P<part>\d+)-step_(?P<step>\d{4})\.pt'
  examples: [rank0-step_0100.pt]
legacy:
  - id: old
    match: 'r(?P<part>\d+)_s(?P<step>\d+)\.pt'
    examples: {r0_s100.pt: rank0-step_0100.pt}
formats:
  - id: trainer
    match: 'checkpoint-(?P<step>\d+)'
    folder: true
    complete: {any: [trainer_state.json]}
    keep_name: 'the Trainer resumes from names that are exactly checkpoint-N'
    examples: {checkpoint-500: {step: 500}}
  - id: pair
    match: '(?P<part>[GD])_(?P<step>\d+)\.pth'
    complete: {all: [G, D]}
    examples: {G_10.pth: {step: 10, part: G}}
"""
POLICY = "retention:\n  default: {keep_last: 1}\n"


@pytest.fixture
def tree(project: Project) -> Project:
    (project.folder / "rules" / "naming.yaml").write_text(RULES)
    (project.folder / "rules" / "retention.yaml").write_text(POLICY)
    return project


def state(step: int) -> bytes:
    return torch_zip({"global_step": step}, {"0": b"w" * 400})


def ranks(project: Project, step: int, *contents: bytes, name: str = "rank{}-step_{:04}.pt") -> list[Path]:
    """Write a checkpoint of so many ranks."""
    return [put(project, name.format(rank, step), content) for rank, content in enumerate(contents)]


def context_of(project: Project, path: Path, depth: Depth) -> tuple[Context, Entry]:
    """Return where a file is verified, and what a listing has of it."""
    entry = Entry(path.name, "directory" if path.is_dir() else "file", path.stat().st_size, path.stat().st_mtime_ns)
    return Context(str(project.outputs), str(path.parent.relative_to(project.outputs)), depth, {}, 0), entry


def rows(found: dict[str, Any]) -> list[tuple[str, int, bool, int | None]]:
    checkpoints = found["experiments"][0]["checkpoints"]
    return [(row["name"], 1 + len(row["with_it"]), row["verified"], row["step"]) for row in checkpoints]


def test_a_checkpoint_of_parts_is_one_row_with_its_files_and_their_size(tree: Project) -> None:
    size = sum(path.stat().st_size for path in ranks(tree, 100, state(100), state(100)))
    found = result(tree)
    assert rows(found) == [("rank0-step_0100.pt", 2, True, 100)]
    assert found["experiments"][0]["checkpoints"][0]["bytes"] == size
    assert (found["summary"]["checkpoints"], found["summary"]["bytes_verified"]) == (1, size)
    assert "✓ rank0-step_0100.pt (2 files)  " in tree.doit("verify")
    assert result(tree)["summary"]["read"] == 0


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (state(100)[:-9], ("truncated", ["rank1-step_0100.pt"])),
        (state(90), ("other_content", ["rank1-step_0100.pt"])),
        (b"", ("empty", ["rank1-step_0100.pt"])),
    ],
    ids=["cut off", "of another step", "empty"],
)
def test_it_is_sound_only_where_all_its_parts_are(tree: Project, second: bytes, problem: tuple[str, list[str]]) -> None:
    ranks(tree, 100, state(100), second)
    found = result(tree, check=1)
    assert [row[2] for row in rows(found)] == [False]
    assert problem in [(one["id"], one["names"]) for one in found["experiments"][0]["problems"]]


def test_an_old_name_is_one_problem_of_all_parts(tree: Project) -> None:
    ranks(tree, 100, state(100), state(100), name="r{}_s{}.pt")
    out = tree.doit("verify", check=1)
    assert "! Problem: r0_s100.pt (2 files) has an old name\n      hint: 'doit migrate' renames it to rank0-step" in out
    assert problem_ids(result(tree, check=1)) == ["not_migrated"]


def test_what_is_recognised_and_keeps_its_name_is_well_named(tree: Project) -> None:
    put(tree, "checkpoint-500/model.bin", torch_zip({}))
    put(tree, "checkpoint-500/trainer_state.json", b'{"global_step": 500}')
    put(tree, "G_10.pth", state(10))
    put(tree, "D_10.pth", state(10))
    assert rows(result(tree)) == [("D_10.pth", 2, True, 10), ("checkpoint-500", 1, True, 500)]


def test_what_is_not_whole_is_told_and_its_content_is_not_read(tree: Project) -> None:
    put(tree, "checkpoint-500/model.bin", torch_zip({}))
    put(tree, "G_10.pth", b"cut off")
    ranks(tree, 100, state(100), state(100))
    ranks(tree, 200, b"being written", b"")
    put(tree, "rank0-step_0200.pt.tmp-marker", b"")
    found = result(tree, check=1)
    told = {(one["names"][0], one["text"]) for one in found["experiments"][0]["problems"] if one["id"] == "not_whole"}
    assert told == {
        ("checkpoint-500", "is not whole: it has none of 'trainer_state.json'"),
        ("G_10.pth", "is not whole: it lacks 'D'"),
        ("rank0-step_0200.pt", "is not finished, as rank0-step_0200.pt.tmp-marker says"),
    }
    assert sorted(problem_ids(found)) == ["empty", "not_whole", "not_whole", "not_whole"]
    assert (found["summary"]["checkpoints"], found["summary"]["verified"], found["summary"]["read"]) == (4, 1, 1)
    assert "! G_10.pth                          7 B  not whole\n" in tree.doit("verify", check=1)


def test_of_a_checkpoint_of_parts_all_must_be_proved_before_another_goes(tree: Project) -> None:
    ranks(tree, 100, state(100), state(100))
    tree.doit("verify")
    ranks(tree, 200, state(200), state(200))
    tree.doit("verify")
    second = tree.outputs / "exp/checkpoints/rank1-step_0200.pt"
    made_old(second)
    tree.doit("migrate", "delete_old=1", "verified=1", check=1)
    assert len(tree.names("exp")) == 4
    tree.doit("verify")
    tree.doit("migrate", "delete_old=1", "verified=1")
    assert tree.names("exp") == ["rank0-step_0200.pt", "rank1-step_0200.pt"]


# --- what verify found broken does not count until the file changes --------------------------------------------------


def plan_of(project: Project, check: int = 0) -> dict[str, Any]:
    project.doit("plan", "delete_old=1", f"json={project.folder / 'p.json'}", check=check)
    found: dict[str, Any] = json.loads((project.folder / "p.json").read_text())["experiments"][0]
    return found


def test_the_newest_that_verify_found_broken_makes_no_other_go(tree: Project) -> None:
    for step in (100, 200):
        ranks(tree, step, state(step), state(step))
    broken = ranks(tree, 300, state(300), state(300).replace(b"ww", b"wx", 1))[1]
    assert [action["name"] for action in plan_of(tree)["actions"]] == ["rank0-step_0100.pt", "rank0-step_0200.pt"]
    tree.doit("verify", check=1)
    assert [action["name"] for action in plan_of(tree, check=1)["actions"]] == ["rank0-step_0100.pt"]
    told = plan_of(tree, check=1)
    assert told["problems"][0]["names"] == ["rank0-step_0300.pt", "rank1-step_0300.pt"]
    assert [row["name"] for row in told["checkpoints"] if row["state"] == "stays"] == ["rank0-step_0200.pt"]
    out = tree.doit("migrate", "delete_old=1", check=1)
    assert "Deleted: rank0-step_0100.pt (2 files) (not of the newest 1)\n" in out
    assert "Problem: is broken, as verify found: it is damaged in 'x/data/0' (rank1-step_0300.pt)\n" in out
    names = [f"rank{rank}-step_0{step}.pt" for rank in (0, 1) for step in (200, 300)]
    assert tree.names("exp") == names
    tree.doit("migrate", "delete_old=1", check=1)
    assert tree.names("exp") == names
    broken.write_bytes(state(300))
    made_old(broken)
    tree.doit("migrate", "delete_old=1")
    assert tree.names("exp") == ["rank0-step_0300.pt", "rank1-step_0300.pt"]


def test_what_a_later_look_finds_sound_counts_again(tree: Project) -> None:
    path = put(tree, "G_10.pth", state(10)[:-9])
    put(tree, "D_10.pth", state(10))
    time = path.stat().st_mtime_ns
    tree.doit("verify", check=1)
    assert [problem["id"] for problem in plan_of(tree, check=1)["problems"]] == ["broken"]
    memory = tree.outputs / ".ckptrules/verified/exp/checkpoints/files.jsonl"
    assert sum('"broken"' in line for line in memory.read_text().splitlines()) == 1
    tree.doit("verify", check=1)
    assert sum('"broken"' in line for line in memory.read_text().splitlines()) == 1  # it is noted once
    lines = memory.read_text().splitlines()
    row: dict[str, Any] = {
        "kind": "torch",
        "epoch": None,
        "step": 10,
        "lightning": "",
        "checksums": True,
        "names": [],
        "ranks": None,
    }
    broken = json.loads(next(line for line in lines if '"broken"' in line))
    sound = {"version": 3, "identity": broken["identity"], "done": ["checksums", "structure"], **row}
    memory.write_text("\n".join([*lines, json.dumps(sound), ""]))
    assert path.stat().st_mtime_ns == time
    assert plan_of(tree)["problems"] == []


def test_what_an_earlier_version_found_broken_is_nothing_to_rely_on(tree: Project) -> None:
    """With its number all that it had noted was forgotten: a sound one went for one with a flipped bit."""
    ranks(tree, 100, state(100))
    (newest,) = ranks(tree, 200, state(200).replace(b"ww", b"wx", 1))
    tree.doit("verify", check=1)
    memory = tree.outputs / ".ckptrules/verified/exp/checkpoints/files.jsonl"
    rows = [{**json.loads(line), "version": 2} for line in memory.read_text().splitlines()]
    memory.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    plan = plan_of(tree, check=1)
    assert ([problem["id"] for problem in plan["problems"]], plan["actions"]) == (["broken"], [])
    newest.write_bytes(state(200))
    assert [action["name"] for action in plan_of(tree)["actions"]] == ["rank0-step_0100.pt"]


def test_a_look_that_is_less_close_takes_nothing_back(tree: Project) -> None:
    put(tree, "G_10.pth", state(10).replace(b"ww", b"wx", 1))
    put(tree, "D_10.pth", state(10))
    memory = tree.outputs / ".ckptrules/verified/exp/checkpoints/files.jsonl"
    tree.doit("verify", check=1)
    noted = memory.read_text()
    (problem,) = result(tree, "quick=1", check=1)["experiments"][0]["problems"]
    assert (problem["id"], problem["text"]) == ("damaged", "is damaged in 'x/data/0'")
    assert problem["hint"] == "an earlier run has found that; 'doit verify' without quick=1 looks again"
    assert memory.read_text() == noted
    assert [problem["id"] for problem in plan_of(tree, check=1)["problems"]] == ["broken"]
    rows = [json.loads(line) for line in noted.splitlines()]
    broken = next(row for row in rows if "broken" in row)
    memory.write_text(json.dumps({**broken, "broken": "does not load", "done": ["load"]}) + "\n")
    put(tree, "G_20.pth", state(20))
    put(tree, "D_20.pth", state(20))
    quick = result(tree, "quick=1", check=1)["experiments"][0]["problems"]
    assert [(one["id"], one["text"]) for one in quick] == [("does_not_load", "does not load")]
    memory.write_text(json.dumps({key: value for key, value in broken.items() if key != "done"}) + "\n")
    assert problem_ids(result(tree, "quick=1")) == []  # an earlier version noted it: nobody knows what found it


@pytest.mark.parametrize("content", [b"what is this format?", torch_zip({"f": print})], ids=["unknown", "runs code"])
def test_what_verify_cannot_judge_is_not_broken(tree: Project, content: bytes) -> None:
    put(tree, "G_10.pth", content)
    put(tree, "D_10.pth", state(10))
    result(tree, check=int(content.startswith(b"what")))
    assert plan_of(tree)["problems"] == []


def test_what_is_in_no_known_format_is_broken_where_others_of_its_series_are(tree: Project) -> None:
    for step in (100, 200):
        ranks(tree, step, state(step), b"random bytes" if step == 200 else state(step))
    tree.doit("migrate")
    assert problem_ids(result(tree, check=1)) == ["unknown_format"]
    (problem,) = plan_of(tree, check=1)["problems"]
    assert (problem["id"], problem["names"]) == ("broken", ["rank0-step_0200.pt", "rank1-step_0200.pt"])
    assert plan_of(tree, check=1)["actions"] == []
    for options in ([], ["delete_old=1"]):
        assert "up to date" not in tree.doit("migrate", *options, check=1)


def test_folders_of_nothing_but_links_are_not_one_file(tree: Project) -> None:
    """Each was called broken as soon as one lacked a shard."""
    weights = put(tree, "weights.bin", state(10))
    for step in (10, 20, 30):
        folder = weights.with_name(f"checkpoint-{step}")
        put(tree, f"{folder.name}/trainer_state.json", b"{}").unlink()
        for shard in (1, 2)[: step // 10]:
            (folder / f"model-0000{shard}-of-00002.bin").symlink_to(weights)
        (folder / "trainer_state.json").symlink_to(weights)
    texts = [problem["text"] for problem in result(tree, check=1)["experiments"][0]["problems"]]
    assert [text for text in texts if "lacks" in text] == ["lacks 'model-00002-of-00002.bin'"]
    assert sum("is a link, and what it leads to is not read" in text for text in texts) == 2


def test_a_link_that_cannot_be_followed_now_leads_somewhere(tree: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted as a part that is missing, and was remembered so."""
    (path,) = ranks(tree, 100, state(100))
    folder = path.parent / "checkpoint-100"
    folder.mkdir()
    (folder / "model.bin").symlink_to(path)
    stat = os.stat

    def fails(name: str, **more: Any) -> os.stat_result:
        if name == "model.bin" and more.get("follow_symlinks", True):
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(name, **more)

    monkeypatch.setattr(os, "stat", fails)
    read = read_one(*context_of(tree, folder, Depth()), lambda _: None)
    assert read.problem
    assert (read.problem.text, read.result) == ("cannot be read: Stale file handle", None)


@pytest.mark.parametrize(
    ("error", "sought"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), None),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (OSError(errno.EIO, "Input/output error"), {"structure", "checksums"}),
        (OSError(errno.EMFILE, "Too many open files"), None),
        (OSError(errno.ENFILE, "Too many open files in system"), None),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), None),
        (OSError(errno.ESTALE, "Stale file handle"), None),
        (MemoryError(), None),
        (RuntimeError("bad magic"), {"load"}),
        (ModuleNotFoundError("No module named 'mine'"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_fault_is_remembered_where_it_is_one_of_the_content_or_the_disk(
    tree: Project, monkeypatch: pytest.MonkeyPatch, error: Exception, sought: set[str] | None
) -> None:
    """A checkpoint counted as broken where only the module of a class in it was not there."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    (path,) = ranks(tree, 100, state(100))
    if isinstance(error, OSError):
        monkeypatch.setattr(portion, "open_file", refuse)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(load=refuse))
    context, entry = context_of(tree, path, Depth(load=True))
    read = read_one(context, entry, lambda _: None)
    assert read.problem
    assert (read.result and read.result.done) == (sought and frozenset(sought))


def test_what_is_written_to_while_it_is_read_is_not_proved(tree: Project) -> None:
    (path,) = ranks(tree, 100, state(100))
    read = read_one(*context_of(tree, path, Depth()), lambda _: os.utime(path))
    assert read.problem
    assert (read.problem.id, read.result) == ("changing", None)


@pytest.mark.parametrize(
    ("asked", "done", "is_enough"),
    [
        (Depth(load=True), ["load"], True),
        (Depth(load=True), ["unsafe load"], False),
        (Depth(load=True), [], False),
        (Depth(load=True, unsafe=True), ["unsafe load"], True),
        (Depth(load=True, unsafe=True), ["load"], True),
        (Depth(load=True, unsafe=True), [], False),
    ],
)
def test_what_was_loaded_before_is_not_loaded_again(asked: Depth, done: list[str], *, is_enough: bool) -> None:
    assert asked.satisfied_by(CheckResult(FileContent("torch"), frozenset(["checksums", *done]))) == is_enough


def test_a_folder_with_one_file_of_just_now_is_not_recognised_later() -> None:
    """What is written again in the same moment may have the same time."""
    old, young = InnerFile("a", 1, 1, 0), InnerFile("b", 2, 1, 10**18)
    assert identity([old], 10**18) == "50fc7320e9d2f3df0b5e8c4c2aacf3911612168e"  # as earlier versions noted it
    assert not identity([old, young], 10**18)


def test_what_is_ignored_is_not_read(tree: Project) -> None:
    (tree.folder / "rules" / "naming.yaml").write_text(f"{RULES}ignored: [draft.pt]\n")
    ranks(tree, 100, state(100))
    put(tree, "draft.pt", state(3)[:-9])
    assert rows(result(tree)) == [("rank0-step_0100.pt", 1, True, 100)]


def test_a_preview_of_verify_notes_nothing(tree: Project) -> None:
    put(tree, "G_10.pth", state(10)[:-9])
    put(tree, "D_10.pth", state(10))
    tree.doit("verify", "dry_run=1")
    assert plan_of(tree)["problems"] == []


def test_what_no_worker_could_read_is_read_again_by_the_command_in_its_hint(tree: Project) -> None:
    (path,) = ranks(tree, 100, state(100))
    context, entry = context_of(tree, path, Depth())
    problem = of_portions(context, [(Portion(entry), Lost("3 workers died of it"))], lambda _: None).problem
    assert problem
    assert (problem.id, problem.text) == ("unreadable", "was not read: 3 workers died of it")
    command = problem.hint.split("'")[1].removeprefix("doit ").split()
    assert f"✓ {path.name}" in tree.doit(*command)


@pytest.mark.parametrize(("model", "ids"), [(torch_zip({}), ["not_whole"]), (b"cut off", ["unknown_format"])])
def test_a_folder_without_what_those_before_it_have_is_told_unless_it_is_broken(
    tree: Project, model: bytes, ids: list[str]
) -> None:
    """`migrate` said what a folder lacked, and `verify` that it was whole; a fault of content says more."""
    for step in (100, 200, 300):
        put(tree, f"checkpoint-{step}/trainer_state.json", b'{"global_step": %d}' % step)
        put(tree, f"checkpoint-{step}/model.bin", torch_zip({}) if step < 300 else model)
        if step < 300:
            put(tree, f"checkpoint-{step}/optimizer.pt", torch_zip({}))
    found = result(tree, check=1)
    assert problem_ids(found) == ids
    assert [row[2] for row in rows(found)] == [True, True, False]
    assert found["summary"]["read"] == 3
    said = "nothing like checkpoint-200/optimizer.pt was saved with it, as in the 2 saves before it"
    assert (said in tree.doit("plan", check=int(model == b"cut off"))) == (model != b"cut off")
