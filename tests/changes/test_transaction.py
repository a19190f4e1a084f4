"""Whatever changes the tree is journalled and can be taken back: restore, unarchive, pointers, exchanges, long names."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptrules.changes import fixing
from ckptrules.engine.state_folder import trash_name
from ckptrules.formats.content import UnsoundError
from ckptrules.storage import exchanging, moving, texts, unfinished
from ckptrules.storage.posix import Disk
from tests.conftest import Project
from tests.support import crash
from tests.support.disturbing import Fault
from tests.support.killing import kills
from tests.support.putting_back import put_back
from tests.support.undisturbed import contents, trained

HERE = "one/checkpoints"
OLD, NEW = "epoch=13-step=130.ckpt", "epoch-13_step-000130.ckpt"


def backup_of(project: Project) -> str:
    project.doit("backup", "mode=copy")
    (name,) = (path.name for path in project.folder.glob("outputs_backup_*"))
    return name


def damage_a_file(folder: Path) -> None:
    (folder / OLD).write_text("damaged")


def put_a_link(folder: Path) -> None:
    (folder / OLD).unlink()
    (folder / OLD).symlink_to("elsewhere")


def put_a_folder(folder: Path) -> None:
    (folder / OLD).unlink()
    (folder / OLD).mkdir()
    (folder / OLD / "inner.pt").write_text("inner")


def put_a_file_for_a_folder(folder: Path) -> None:
    shutil.rmtree(folder / "deep")
    (folder / "deep").write_text("a file")


def change_a_link(folder: Path) -> None:
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").symlink_to("elsewhere")


def lose_all(folder: Path) -> None:
    shutil.rmtree(folder)


DAMAGES = [damage_a_file, put_a_link, put_a_folder, put_a_file_for_a_folder, change_a_link, lose_all]


@pytest.mark.whole
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda function: function.__name__)
def test_a_restore_is_in_the_history_and_can_be_taken_back(project: Project, damage: Callable[[Path], None]) -> None:
    project.make({f"{HERE}/{OLD}": 50, f"{HERE}/last.ckpt": f"-> {OLD}", f"{HERE}/deep/0.pt": 5})
    start, made = project.tree(), backup_of(project)
    damage(project.outputs / HERE)
    damaged = project.tree()
    project.doit("restore", f"backup={made}", "force=1")
    assert project.tree() == start
    assert f"  restore backup={made} force=1  " in project.doit("history")
    preview = project.doit("undo", "dry_run=1")
    assert preview.count("Problem") == 0
    project.doit("undo")
    assert project.tree() == damaged
    run = project.doit("history").splitlines()[1].split()[0]
    project.doit("undo", f"run={run}")
    assert project.tree() == start


@pytest.mark.whole
def test_a_restore_killed_or_refused_at_any_change_is_finished_or_taken_back(project: Project) -> None:
    project.make({f"{HERE}/{OLD}": 50, f"{HERE}/deep/0.pt": 5})
    start, made = project.tree(), backup_of(project)
    damage_a_file(project.outputs / HERE)
    shutil.rmtree(project.outputs / HERE / "deep")
    kept, everything = project.folder.parent / "kept", contents(project)
    shutil.copytree(project.outputs, kept, symlinks=True)
    command = ("restore", f"backup={made}", "force=1")
    killed = kills(project, command)
    put_back(kept, project.outputs)
    changes = crash.run_in_turn(project.folder, *command).changes
    for at in [*killed, *(Fault(number, errno.EIO) for number in range(1, changes + 1))]:
        put_back(kept, project.outputs)
        crash.run_in_turn(project.folder, *command, fault=at)
        assert set(everything) <= set(contents(project)), at
        ended = crash.run_in_turn(project.folder, *command)
        assert (ended.code, project.tree()) == (0, start), (at, ended.output)
        work = project.outputs / ".ckptrules/work"
        assert not work.exists() or os.listdir(work) == [], at


def test_an_experiment_that_was_unarchived_can_be_put_away_again(project: Project) -> None:
    project.make({"a/old/checkpoints/x.ckpt": 50, f"{HERE}/{OLD}": 5})
    naming = project.folder / "rules" / "naming.yaml"
    naming.write_text(naming.read_text().replace("['*/checkpoints']", "['**/checkpoints']"))
    (project.folder / "archive").mkdir()
    project.doit("archive", "experiments=a/old", "archive_dir=archive", "format=gz")
    away = project.tree()
    project.doit("unarchive", "archive=archive/a%2Fold.tar.gz")
    back = project.tree()
    assert "a/old/checkpoints/x.ckpt" in back
    run = project.doit("history").splitlines()[1].split()[0]
    project.doit("undo", f"run={run}")
    assert project.tree() == away
    assert "x.ckpt" in "".join(project.tree(state=True))


# --- pointers --------------------------------------------------------------------------------------------------------

NO_POINTERS = {
    "longer than a pointer": f"{OLD}\n".encode() + b"x" * (2 << 20),
    "a little longer than a pointer": f"{OLD}\n".encode() * 800,
    "a pickle": b"\x80\x02}q\x00X\x16\x00\x00\x00" + OLD.encode() + b"q\x01K\x01s.",
    "with a zero in it": f"{OLD}\n\0".encode(),
    "of another encoding": f"{OLD}\n".encode("utf-16"),
    "a header of safetensors": b"\x18\0\0\0\0\0\0\0" + f'{{"x": "{OLD}"}}'.encode(),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", ["latest", "checkpoint", "last_checkpoint"])
@pytest.mark.parametrize("case", NO_POINTERS)
def test_what_is_no_pointer_is_left_and_told(project: Project, case: str, name: str) -> None:
    project.make({f"{HERE}/{OLD}": 50})
    file = project.outputs / HERE / name
    file.write_bytes(NO_POINTERS[case])
    note = f"Note: {name} is no pointer, as it is no short text: left as it is\n"
    for word in ("plan", "migrate"):
        assert note in project.doit(word)
        assert file.read_bytes() == NO_POINTERS[case]
    assert project.names("one") == sorted([NEW, name])
    assert project.doit("undo").count(note) == 1
    assert file.read_bytes() == NO_POINTERS[case]


@pytest.mark.parametrize("code", [0, 1], ids=["by a third", "by more"])
def test_a_name_stays_if_a_pointer_would_be_too_long_with_the_new_one(project: Project, code: int) -> None:
    """It was no pointer any more: it named nothing in the next plan, and undo left it as it was."""
    old, count = ("e1.ckpt", 1500) if code else (OLD, 1)
    with (project.folder / "rules/naming.yaml").open("a") as rules:
        rules.write(
            "  - {id: e, match: 'e(?P<epoch>\\d)\\.ckpt', template: 'epoch-{{ epoch | pad(2) }}_step-000000.ckpt'"
        )
        rules.write(", examples: {e1.ckpt: epoch-01_step-000000.ckpt}}\n")
    project.make({f"{HERE}/{old}": 50})
    file = project.outputs / HERE / "latest"
    file.write_text(f"{old}\n" * count if code else f"{old}\n".ljust(16 * 1024, "#"))
    before = project.tree()
    told = "would be too long for a pointer file" if code else "could not follow"
    assert told in project.doit("migrate", "verbose=1", check=code)
    assert project.tree() == before


def test_what_a_pointer_held_is_in_the_trash(project: Project) -> None:
    names = [f"epoch={n}-step={n}.ckpt" for n in range(3)]
    project.make({f"{HERE}/{name}": 50 for name in names})
    pointer = project.outputs / HERE / "checkpoint"
    pointer.write_text("".join(f"{name}\n" for name in names))
    before = pointer.read_bytes()
    project.doit("migrate")
    assert pointer.read_text() == "".join(f"epoch-0{n}_step-00000{n}.ckpt\n" for n in range(3))
    kept = {path.name: path.read_bytes() for path in (project.outputs / ".ckptrules/trash").rglob("*.trashed")}
    assert sorted(kept) == [f"checkpoint.pointer{end}.trashed" for end in ("-2", "-3", "")]
    assert before in kept.values()
    assert not list((project.outputs / ".ckptrules").glob("work/*"))


TENSORFLOW = """\
layout: ['*/checkpoints']
target:
  template: 'run-{{ step | pad(6) }}.index'
  match: 'run-(?P<step>\\d{6,})\\.index'
  examples: [run-000100.index]
legacy:
  - id: saver
    match: 'model\\.ckpt-(?P<step>\\d+)\\.index'
    examples: {model.ckpt-100.index: run-000100.index}
sidecars: [.meta]
pointers: [checkpoint, {match: SHA256SUMS, protects: false}]
retention:
  default: {keep_last: 1, keep_at_least: 1}
"""


def test_a_stem_and_a_list_of_checksums_follow_and_come_back(project: Project) -> None:
    shutil.rmtree(project.folder / "rules")
    (project.folder / "rules").mkdir()
    (project.folder / "rules/tensorflow.yaml").write_text(TENSORFLOW)
    names = [f"model.ckpt-{step}{end}" for step in (100, 200, 300) for end in (".index", ".meta")]
    project.make({f"{HERE}/{name}": 50 for name in names})
    pointer, sums = project.outputs / HERE / "checkpoint", project.outputs / HERE / "SHA256SUMS"
    pointer.write_text('model_checkpoint_path: "model.ckpt-200"\n')
    sums.write_text("".join(f"{'0' * 64}  {name}\n" for name in names * 40))  # longer than any other pointer
    start = project.tree()
    project.doit("migrate", "delete_old=1")
    new = [f"run-000{step}{end}" for step in (200, 300) for end in (".index", ".meta")]
    assert project.names("one") == sorted([*new, "checkpoint", "SHA256SUMS"])
    assert pointer.read_text() == 'model_checkpoint_path: "run-000200"\n'
    assert sums.read_text() == "".join(f"{'0' * 64}  {name}\n" for name in [*names[:2], *new] * 40)
    project.doit("undo")
    assert project.tree() == start


def test_what_a_pointer_holds_back_is_renamed_when_the_pointer_says_otherwise(project: Project) -> None:
    shutil.rmtree(project.folder / "rules")
    (project.folder / "rules").mkdir()
    (project.folder / "rules/tensorflow.yaml").write_text(TENSORFLOW)
    project.make({f"{HERE}/model.ckpt-100.index": 50, f"{HERE}/model.ckpt-100.data": 50})
    pointer = project.outputs / HERE / "checkpoint"
    pointer.write_text("model.ckpt-100")
    os.utime(pointer, (1, 1))
    for _ in range(2):
        project.doit("migrate")
        assert "model.ckpt-100.index" in project.names("one")
    pointer.write_text("model.ckpt-900")
    os.utime(pointer, (1, 1))
    project.doit("migrate")
    assert "run-000100.index" in project.names("one")


def test_what_facts_call_the_best_stays_whatever_a_list_says(project: Project) -> None:
    (project.folder / "rules/more.yaml").write_text(
        "pointers: [{match: best.json, protects: false}]\nfacts: [{file: best.json, best: best}]\n"
    )
    project.make({f"{HERE}/epoch-0{n}_step-00000{n}.ckpt": 50 for n in range(3)})
    (project.outputs / HERE / "best.json").write_text('{"best": "epoch-00_step-000000.ckpt"}')
    project.doit("migrate", "delete_old=1")
    assert project.names("one") == ["best.json", "epoch-00_step-000000.ckpt", "epoch-02_step-000002.ckpt"]


def test_a_run_of_an_earlier_version_that_changed_a_pointer_is_taken_back(project: Project) -> None:
    project.make({f"{HERE}/{OLD}": 50})
    pointer = project.outputs / HERE / "latest"
    pointer.write_text(f"{OLD}\n")
    start = project.tree()
    project.doit("migrate")
    (journal,) = (project.outputs / ".ckptrules/journal").iterdir()
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    del rows[0]["number"]
    for step in (step for unit in rows[1]["units"] for step in unit[2]):
        step[3] = step[1]
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    project.doit("undo")
    assert project.tree() == start


# --- the look after an exchange or a move ----------------------------------------------------------------------------


LOOKS = {"a link": (os, "readlink"), "a pointer": (texts, "read_pointer"), "a state": (exchanging, "is_marked")}


def refuse_the_look_after(patch: pytest.MonkeyPatch, place: object, name: str, exchange: int) -> None:
    """Let the first look after one of the exchanges fail."""
    exchanges, due = 0, False
    rename, look = moving._rename_with, getattr(place, name)  # noqa: SLF001

    def watched(flag: int, *more: int | str) -> None:
        nonlocal exchanges, due
        rename(flag, *more)  # type: ignore[arg-type]
        exchanges += flag == moving.EXCHANGE
        due = flag == moving.EXCHANGE and exchanges == exchange

    def refused(*args: object, **more: object) -> object:
        nonlocal due
        if due:
            due = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(*args, **more)

    patch.setattr(moving, "_rename_with", watched)
    patch.setattr(place, name, refused)


@pytest.mark.whole
@pytest.mark.parametrize("command", ["migrate", "undo"])
@pytest.mark.parametrize("case", LOOKS)
def test_what_cannot_be_looked_at_after_an_exchange_goes_back(project: Project, case: str, command: str) -> None:
    folder = trained(project)
    (folder / "latest").write_text("".join(f"{name}\n" for name in sorted(os.listdir(folder)) if name != "latest"))
    project.make({f"{HERE}/{OLD}": 50, f"{HERE}/last.ckpt": f"-> {OLD}"})
    start, kept = project.tree(), project.folder / "kept"
    words: tuple[str, ...] = ("migrate", "fix_state=1")
    if command == "undo":
        project.doit(*words)
        words = ("undo",)
    shutil.copytree(project.outputs, kept, symlinks=True)
    links = {path for path, text in project.tree().items() if text[:2] == "->"}
    failures = 0
    for exchange in range(1, 7):
        shutil.rmtree(project.outputs)
        shutil.copytree(kept, project.outputs, symlinks=True)
        with pytest.MonkeyPatch.context() as patch:
            refuse_the_look_after(patch, *LOOKS[case], exchange)
            ended = crash.run(project.folder, *words)
        assert "Traceback" not in ended.output, (exchange, ended.output)
        failures += "Input/output error" in ended.output
        assert all((project.outputs / path).exists() for path in links), (exchange, ended.output)
        assert all((folder / name).exists() for name in (folder / "latest").read_text().split()), exchange
        assert not list((project.outputs / ".ckptrules/work").glob("*")), exchange
        while "There is nothing to take back" not in (ended := crash.run_in_turn(project.folder, "undo")).output:
            assert ended.code == 0, (exchange, ended.output)
        assert project.tree() == start, exchange
    assert failures


@pytest.mark.whole
def test_a_disk_that_tells_no_size_is_not_full(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """So do tmpfs with ``size=0`` and file systems behind FUSE: all was refused there, as if no room were left."""
    folder = trained(project)
    unknown = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    for call in ("statvfs", "fstatvfs"):
        monkeypatch.setattr(os, call, lambda _: unknown)
    ended = crash.run(project.folder, "migrate", "fix_state=1", "json=out.json")
    assert ended.code == 0, ended.output
    assert "State fixed: " in ended.output
    assert "epoch-11_step-000048.ckpt" in os.listdir(folder)
    space = json.loads((project.folder / "out.json").read_text())["space"]
    assert (space["disk_free"], space["disk_total"]) == (None, None)


# --- a state that is fixed while something is wrong -------------------------------------------------------------------


def torn(*_: object, **__: object) -> None:
    raise UnsoundError("torn", "is torn")


def save(path: str, *_: object) -> str:
    os.utime(path, ns=(7, 7))
    return ""


WRONG: dict[str, Callable[[pytest.MonkeyPatch, str], None]] = {
    "No space left on device for a copy of it": lambda patch, _: patch.setattr(Disk, "free", lambda _: 1),
    "has changed since it was looked at": lambda patch, path: patch.setattr(
        fixing, "_no_space", lambda *_: save(path)
    ),
    "its copy is torn": lambda patch, _: patch.setattr(fixing, "check_file", torn),
    "it is open": lambda patch, path: patch.setattr(
        fixing, "in_use", lambda *_: "is open" * bool(glob.glob(f"{path.partition('lightning')[0]}.ckptrules/work/*"))
    ),
    "has changed since it was looked at: ESTALE": lambda patch, path: patch.setattr(
        unfinished, "copy_metadata_or_refuse", lambda *_: save(path)
    ),
}  # fmt: skip


@pytest.mark.whole
@pytest.mark.parametrize("why", WRONG)
def test_a_state_stays_where_its_copy_cannot_take_its_place(
    project: Project, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained(project)
    project.doit("migrate")
    before, (path,) = contents(project), (p for p in folder.iterdir() if "000048" in p.name)
    WRONG[why](monkeypatch, str(path))
    ended = crash.run(project.folder, "fix_state", "experiments=lightning_default")
    assert f"{why.partition(':')[0]}\n" in ended.output
    assert (ended.code, contents(project)) == (1, before)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [247, 248, 254, 255])
@pytest.mark.parametrize("letter", ["0", "é"])
def test_a_name_of_any_length_is_deleted_and_comes_back(project: Project, length: int, letter: str) -> None:
    start, end = f"epoch=1-step={'0' * (length % 2)}", "8.ckpt"
    digits = length - len(start) - len(end)
    name = start + "0" * digits + end
    if letter == "é":
        naming = project.folder / "rules" / "naming.yaml"
        naming.write_text(naming.read_text().replace(r"step=(?P<step>\d+)\.ckpt", r"step=(?P<step>\d+)é*\.ckpt"))
        name = "epoch=1-step=8" + "é" * ((length - 19) // 2) + ".ckpt"
    project.make({f"{HERE}/{name}": 9, f"{HERE}/{NEW}": 9})
    start_tree = project.tree()
    assert f"Would delete: {name}" in project.doit("plan", "delete_old=1")
    project.doit("migrate", "delete_old=1")
    assert project.names("one") == [NEW]
    assert f"Restored: {name}" in project.doit("undo")
    assert project.tree() == start_tree


def test_names_that_begin_alike_stay_apart_in_the_trash() -> None:
    names = [f"{'x' * 250}{n}" for n in range(10)]
    assert len({trash_name(name) for name in names}) == len(names)
    assert all(len(trash_name(name).encode()) <= 255 for name in names)
    assert trash_name("x" * 247) == "x" * 247 + ".trashed"


# --- what cannot be freed at once --------------------------------------------------------------------------------------


def test_what_was_freed_in_part_is_not_said_to_come_back(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.make({f"{HERE}/{name}": 50 for name in ("epoch=1-step=1.ckpt", OLD)})
    rules = project.folder / "rules" / "retention.yaml"
    rules.write_text(rules.read_text().replace("trash_days: 7", "trash_days: 0"))

    def busy(_: Disk, path: str, was: str | None = None) -> None:  # noqa: ARG001 - as `Disk.remove`
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    monkeypatch.setattr(Disk, "remove", busy)
    ended = crash.run(project.folder, "migrate", "delete_old=1")
    assert "its space cannot be freed: Device or resource busy\n" in ended.output
    assert "'doit undo' brings it back if all of it is still there\n" in ended.output
