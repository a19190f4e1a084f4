"""What goes with a checkpoint, what wants its name, who is writing it: on real files, through the real doit."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptrules.engine.actions import Action, Plan
from ckptrules.engine.entries import Entry
from ckptrules.outputs import evidence, pointers
from ckptrules.outputs.in_use import in_use
from ckptrules.storage import moving, reading, streams
from tests.conftest import Project
from tests.support import crash
from tests.support.undisturbed import wait_a_tick

OLD, NEW = "epoch=12-step=1056", "epoch-12_step-001056"
HERE = "exp/checkpoints"


def put(project: Project, name: str, content: str, mtime: int) -> Path:
    path = project.outputs / HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (mtime, mtime))
    return path


def test_sidecars_go_with_their_checkpoint_and_come_back_with_it(project: Project) -> None:
    early = "epoch=1-step=88"
    project.make(
        {
            f"{HERE}/{name}": 9
            for name in (f"{OLD}.ckpt", f"{OLD}.metadata.json", f"{early}.ckpt", f"{early}.config.json")
        }
    )
    start = project.tree()
    out = project.doit("migrate", "delete_old=1", "json=done.json")
    assert (
        f"  ✓ Renamed: {OLD}.ckpt\n           → {NEW}.ckpt\n           + {OLD}.metadata.json → {NEW}.metadata.json\n"
        in out
    )
    assert f"  ⊗ Deleted: {early}.ckpt (epoch < 10)\n           + {early}.config.json\n" in out
    assert project.names("exp") == [f"{NEW}.ckpt", f"{NEW}.metadata.json"]
    actions = json.loads((project.folder / "done.json").read_text())["experiments"][0]["actions"]
    assert actions[1]["with_it"] == [{"name": f"{OLD}.metadata.json", "to": f"{NEW}.metadata.json"}]
    out = project.doit("undo")
    assert f"+ {NEW}.metadata.json → {OLD}.metadata.json\n" in out
    assert f"  ↶ Restored: {early}.ckpt\n            + {early}.config.json\n" in out
    assert project.tree() == start


def test_a_sidecar_that_cannot_be_moved_takes_the_whole_back(project: Project) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 9, f"{HERE}/{OLD}.metadata.json": 9})
    start = project.tree()
    project.begin_dodo(
        "import os\nfrom ckptrules.storage import moving\nreally = moving.rename\n"
        "def refuse(directory, name, to, to_directory=None):\n"
        "    if name.endswith('epoch=12-step=1056.metadata.json'): raise PermissionError(1, os.strerror(1), name)\n"
        "    really(directory, name, to, to_directory)\n"
        "moving.rename = refuse\n"
    )
    out = project.doit("migrate", check=1)
    why = f"{OLD}.metadata.json: Operation not permitted"
    assert f"! Problem: {OLD}.ckpt cannot be renamed to {NEW}.ckpt: {why}\n" in out
    assert project.tree() == start


@pytest.mark.parametrize("start_of_text", ["..", "{outputs}"])
def test_links_in_other_directories_follow_and_come_back(project: Project, start_of_text: str) -> None:
    text = start_of_text.format(outputs=project.outputs) + f"/{HERE}"
    project.make({f"{HERE}/{OLD}.ckpt": 9, f"{HERE}/epoch=1-step=88.ckpt": 9, f"{HERE}/epoch=2-step=99.ckpt": 9})
    project.make({"picks/one.ckpt": f"-> {text}/{OLD}.ckpt", "picks/two.ckpt": f"-> {text}/epoch=1-step=88.ckpt"})
    (project.outputs / "top.ckpt").symlink_to(f"{HERE}/{OLD}.ckpt")
    start = project.tree()
    out = project.doit("migrate", "delete_old=1", "verbose=1")
    assert f"↷ Relinked: picks/one.ckpt\n            → {text}/{NEW}.ckpt\n" in out
    assert "picks/two.ckpt points to it" in out
    assert project.names("exp") == ["epoch-01_step-000088.ckpt", f"{NEW}.ckpt"]
    assert os.readlink(project.outputs / "top.ckpt") == f"{HERE}/{NEW}.ckpt"
    assert all((project.outputs / link).exists() for link in ("picks/one.ckpt", "picks/two.ckpt", "top.ckpt"))
    project.doit("undo")
    assert project.tree() == start


CONFLICT = "  ! Problem: target already exists: epoch-12_step-001056.ckpt\n"


@pytest.mark.parametrize(
    ("contents", "remark", "hint"),
    [
        (("abcd", "ab"), ("", "larger, newer"), f"on_conflict=keep_newest keeps the larger and newer one, {OLD}.ckpt, the rest goes to the trash"),
        (("ab", "abcd"), ("larger", "newer"), "compare them, keep the better one, delete or rename the other"),
        (("ab", "ab"), ("", f"newer, same content as {NEW}.ckpt"), "on_conflict=merge_identical keeps one of them, the rest goes to the trash"),
        (("ab", "xy"), ("", "newer"), "compare them, keep the better one, delete or rename the other"),
    ],
)  # fmt: skip
def test_a_conflict_is_shown_with_what_speaks_for_each(
    project: Project, contents: tuple[str, str], remark: tuple[str, str], hint: str
) -> None:
    put(project, f"{OLD}.ckpt", contents[0], 2000)
    put(project, f"{NEW}.ckpt", contents[1], 1000)
    before = project.tree()
    out = project.doit("migrate", check=1)
    sizes = [f"{len(text)} B".rjust(8) for text in contents[::-1]]
    shown = [f"    {NEW}.ckpt  {sizes[0]}  1970-01-01 00:16:40 UTC  {remark[0]}".rstrip()]
    shown += [f"    {OLD}.ckpt    {sizes[1]}  1970-01-01 00:33:20 UTC  {remark[1]}".rstrip()]
    assert f"{CONFLICT}  {shown[0]}\n  {shown[1]}\n      hint: {hint}\n" in out
    assert project.tree() == before


@pytest.mark.parametrize(("text", "linked"), [("abcd", NEW), ("ab", OLD)])
def test_nothing_is_hinted_that_would_not_end_a_conflict(project: Project, text: str, linked: str) -> None:
    """The hint named `on_conflict=keep_newest`, which does nothing where a link holds the one that would lose."""
    put(project, f"{OLD}.ckpt", text, 2000)
    put(project, f"{NEW}.ckpt", "ab", 1000)
    (project.outputs / HERE / "last.ckpt").symlink_to(f"{linked}.ckpt")
    out = project.doit("migrate", check=1)
    assert "last.ckpt points to it\n" in out
    assert "      hint: compare them, keep the better one, delete or rename the other\n" in out


@pytest.mark.parametrize("way", ["report", "keep_newest"])
def test_a_conflict_tells_that_the_newest_is_not_finished(project: Project, way: str) -> None:
    """It said `newer`, and not why `on_conflict=keep_newest` did nothing."""
    put(project, f"{OLD}.ckpt", "a", 2000)
    put(project, f"{NEW}.ckpt", "b", 1000)
    put(project, f"{OLD}-unfinished", "", 2000)
    out = project.doit("migrate", f"on_conflict={way}", check=1)
    assert f"newer, is not finished, as {OLD}-unfinished says\n" in out


@pytest.mark.parametrize(
    ("way", "left"), [("keep_newest", "old, short"), ("keep_largest", "new, but longer"), ("skip", "")]
)
def test_a_conflict_is_settled_as_asked_and_the_loser_waits_in_the_trash(project: Project, way: str, left: str) -> None:
    put(project, f"{OLD}.ckpt", "old, short", 2000)
    put(project, f"{NEW}.ckpt", "new, but longer", 1000)
    start = project.tree()
    (project.folder / "rules" / "retention.yaml").write_text("trash_days: 0\n")
    project.doit("migrate", f"on_conflict={way}")
    if not left:
        assert project.tree() == start
        return
    assert project.names("exp") == [f"{NEW}.ckpt"]
    assert (project.outputs / HERE / f"{NEW}.ckpt").read_text() == left
    project.doit("undo")
    assert project.tree() == start


def test_identical_ones_are_merged_byte_by_byte(project: Project) -> None:
    big = "x" * (streams.CHUNK + 1)
    put(project, f"{OLD}.ckpt", big + "a", 2000)
    put(project, f"{NEW}.ckpt", big + "b", 1000)
    put(project, "epoch=13-step=1144.ckpt", big, 1000)
    put(project, "epoch_13_step_1144.ckpt", big, 1000)
    project.doit("migrate", "on_conflict=merge_identical", check=1)
    assert project.names("exp") == [f"{NEW}.ckpt", "epoch-13_step-001144.ckpt", f"{OLD}.ckpt"]


def test_a_loser_that_a_link_elsewhere_leads_to_is_left_to_a_person(project: Project) -> None:
    put(project, f"{OLD}.ckpt", "old", 2000)
    put(project, f"{NEW}.ckpt", "new", 1000)
    project.make({"picks/one.ckpt": f"-> ../{HERE}/{NEW}.ckpt"})
    start = project.tree()
    project.doit("migrate", "on_conflict=keep_newest", check=1)
    assert project.tree() == start


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open")
def test_what_is_open_for_writing_is_left_alone_until_it_is_closed(project: Project) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 9, f"{HERE}/epoch=13-step=1.ckpt/0.pt": 9, f"{HERE}/epoch=14-step=1.ckpt": 9})
    busy = [project.outputs / HERE / f"{OLD}.ckpt", project.outputs / HERE / "epoch=13-step=1.ckpt" / "0.pt"]
    files = [path.open("ab") for path in busy]
    start = project.tree()
    told = [f"  ! Problem: {name} is in use: is open for writing\n      hint: run again when it is finished\n" for name in (f"{OLD}.ckpt", "epoch=13-step=1.ckpt")]  # fmt: skip
    assert all(line in project.doit("plan", check=1) for line in told)
    assert all(line in project.doit("migrate", check=1) for line in told)
    moved = {path for path in project.tree() if path not in start}
    assert moved == {f"{HERE}/epoch-14_step-000001.ckpt"}
    for file in files:
        file.close()
    project.doit("migrate")
    assert f"{NEW}.ckpt" in project.names("exp")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open")
def test_where_no_more_files_can_be_opened_nobody_says_that_a_checkpoint_is_free(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 9})

    def fails(path: str, *_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    with reading.open_below(str(project.outputs), HERE) as directory, monkeypatch.context() as patch:
        patch.setattr(os, "open", fails)
        used = in_use(directory, Entry(f"{OLD}.ckpt", "file", 9, 0), 0, 0)
    assert used == "cannot be opened: Too many open files"


EVERY = ["iter_100", "iter_200", "iter_300"]
TRACKED = """
formats: [{id: it, match: 'iter_(?P<step>\\d+)', examples: {iter_1: {step: 1}}}]
pointers: [tracker]
retention: {mine: {keep_last: 1}}
"""


def test_a_pointer_file_may_lie_elsewhere(project: Project) -> None:
    (project.folder / "rules" / "mine.yaml").write_text(TRACKED)
    for step in (100, 200, 300):
        put(project, f"iter_{step}", "weights", 1000)
    tracker = put(project, "../tracker", "iter_100\n", 1000)
    (project.outputs / HERE / "tracker").symlink_to("../tracker")
    for kept, number in ((["iter_100", "iter_300"], 300), (["iter_300"], 300)):
        project.doit("migrate", "delete_old=1", "policy=mine")
        assert project.names("exp") == [*kept, "tracker"]
        tracker.write_text(f"iter_{number}\n")
        os.utime(tracker, (1000, 1000))


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ('{"best": "iter_100"}', ["iter_100", "iter_300"]),
        ('{"best": "iter_1', EVERY),
        ("{}", ["iter_300"]),
        ("", ["iter_300"]),
    ],
)
def test_nothing_goes_while_a_file_that_names_the_best_is_not_understood(
    project: Project, content: str, left: list[str]
) -> None:
    rules = TRACKED.replace("pointers: [tracker]", "facts: [{file: best.json, best: best}]\nignored: [best.json]")
    (project.folder / "rules" / "mine.yaml").write_text(rules)
    for step in (100, 200, 300):
        put(project, f"iter_{step}", "weights", 1000)
    put(project, "best.json", content, 1000)
    out = project.doit("migrate", "delete_old=1", "policy=mine", check=int(left == EVERY))
    assert project.names("exp") == ["best.json", *left]
    assert ("best.json, which names the best, is not understood" in out) == (left == EVERY)


@pytest.mark.parametrize("name", ["tracker", "best_f1.json"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_names_the_best_and_cannot_be_read_lets_nothing_go(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    from ckptrules.engine.entries import Entry, Listing
    from ckptrules.rules.load import load_rules

    def refuse(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pointers, "read_pointer", refuse)
    rules = load_rules({"rules/mine.yaml": f"layout: ['*']\n{TRACKED}"})
    listing = Listing("exp", HERE, (Entry(name, "file", 1, 0),))
    with pytest.raises(OSError, match=rf"{os.strerror(number)} \({name}\)"):
        pointers.read_pointers(0, listing, rules)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who has a file open")
@pytest.mark.parametrize(("flaw", "code"), [("empty", 1), ("in use", 0), ("incomplete", 0)])
def test_what_is_not_whole_does_not_say_that_another_best_may_go(project: Project, flaw: str, code: int) -> None:
    rules = """
        formats:
          - {id: trainer, match: 'checkpoint-(?P<step>\\d+)', folder: true, complete: {any: [done]}, examples: {checkpoint-1: {step: 1}}}
        facts: [{file: state.json, within: true, best: best}]
        retention: {mine: {min_step: 900, keep_at_least: 1}}
    """
    (project.folder / "rules" / "mine.yaml").write_text(rules)
    best = {100: 100, 200: 200, 300: 200, 900: 900}
    for step, number in best.items():
        for name, text in {
            "state.json": f'{{"best": "/x/checkpoint-{number}"}}',
            "w.pt": "weights",
            "done": "",
        }.items():
            put(project, f"checkpoint-{step}/{name}", text, 1000)
    last = project.outputs / HERE / "checkpoint-900"
    if flaw == "empty":
        (last / "w.pt").write_bytes(b"")
    elif flaw == "incomplete":
        (last / "done").unlink()
    with (last / "done" if flaw == "in use" else last / "w.pt").open("ab"):
        project.doit("migrate", "delete_old=1", "policy=mine", check=code)
    assert "checkpoint-200" in project.names("exp")
    assert "checkpoint-100" not in project.names("exp")


def test_what_changed_within_settle_is_left_alone(project: Project) -> None:
    put(project, f"{OLD}.ckpt", "still warm", 4_000_000_000)
    put(project, "epoch=13-step=1.ckpt", "cold", 1000)
    out = project.doit("migrate", "settle=60", check=1)
    assert f"  ! Problem: {OLD}.ckpt is in use: changed 0 s ago (settle: 60)\n" in out
    (project.folder / "rules" / "retention.yaml").write_text("settle: 60\n")
    project.doit("migrate", check=1)
    assert project.names("exp") == ["epoch-13_step-000001.ckpt", f"{OLD}.ckpt"]
    project.doit("migrate", "settle=0")
    assert f"{NEW}.ckpt" in project.names("exp")


class Disk:
    """What ``fstatvfs`` would say."""

    f_flag, f_blocks, f_bavail, f_frsize = 0, 1 << 30, 1 << 30, 4096


def read_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "fstatvfs", lambda _: type("", (Disk,), {"f_flag": os.ST_RDONLY}))


def full(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "fstatvfs", lambda _: type("", (Disk,), {"f_bavail": 0}))


def not_ours(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "access", lambda *_, **__: False)


FULL = (
    "make space (df -h), and run again: the record of the changes takes 4 KB before any space is freed. "
    "'doit purge' empties the trash; where that holds nothing, remove some file by hand"
)


def sticky(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "geteuid", lambda: 12345)


@pytest.mark.parametrize(
    ("way", "text", "hint"),
    [
        (read_only, "lies on a file system that is read-only", "see dmesg: a failing disk is mounted so"),
        (full, "lies on a file system that is full", FULL),
        (not_ours, "cannot be written", "look at the owner and the mode: ls -la"),
        (sticky, f"is sticky (mode +t), and {OLD}.ckpt belongs to somebody else", "let its owner run this: ls -la"),
    ],
)
def test_what_will_stop_every_change_is_told_before_the_first(
    project: Project, monkeypatch: pytest.MonkeyPatch, way: object, text: str, hint: str
) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 9})
    (project.outputs / HERE).chmod(0o1777)
    link = Action("relink", "best.ckpt", f"checkpoints/{NEW}.ckpt", 0, (), follows=f"{OLD}.ckpt", directory="exp")
    plan = Plan("exp", HERE, (link, Action("rename", f"{OLD}.ckpt", f"{NEW}.ckpt", 9, ())))
    assert callable(way)
    with reading.open_below(str(project.outputs), HERE) as directory:
        assert evidence.obstacle(directory, plan) is None
        way(monkeypatch)
        problem = evidence.obstacle(directory, plan)
    assert problem
    assert (problem.id, problem.names, problem.text, problem.hint) == ("preflight", (HERE,), text, hint)


def test_names_that_differ_only_in_case(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that ignores case says of a new name that it exists: it is the old one."""
    project.make({f"{HERE}/Epoch.ckpt": 9, f"{HERE}/other.ckpt": 8})

    def taken(*_: object) -> None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(moving, "_rename_with", taken)
    really: Callable[[int, str], os.stat_result | None] = moving.status_of
    same = {"epoch.ckpt": "Epoch.ckpt", "OTHER.ckpt": "Epoch.ckpt"}

    def status(directory: int, name: str) -> os.stat_result | None:
        return really(directory, same.get(name, name))

    monkeypatch.setattr(moving, "status_of", status)
    directory = os.open(project.outputs / HERE, os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            moving.rename(directory, "other.ckpt", "OTHER.ckpt")
        moving.rename(directory, "Epoch.ckpt", "epoch.ckpt")
    finally:
        os.close(directory)
    assert project.names("exp") == ["epoch.ckpt", "other.ckpt"]


@pytest.mark.parametrize("folder", ["trash", "journal", "work"])
def test_a_folder_of_the_state_that_is_a_link_is_not_followed(project: Project, folder: str) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 9, f"{HERE}/epoch=1-step=88.ckpt": 9, f"{HERE}/last.ckpt": f"-> {OLD}.ckpt"})
    elsewhere = project.folder / "elsewhere"
    elsewhere.mkdir()
    (project.outputs / ".ckptrules").mkdir()
    (project.outputs / ".ckptrules" / folder).symlink_to(elsewhere)
    contents = {text for text in project.tree().values() if text[:2] != "->"}
    out = project.doit("migrate", "delete_old=1", check=1 if folder == "work" else 3)
    assert "Not a directory" in out
    project.doit("plan")
    assert not os.listdir(elsewhere)
    assert contents <= set(project.tree(state=True).values())


def test_a_file_in_the_place_of_a_link_stays_and_its_checkpoint_is_taken_back(project: Project) -> None:
    project.make({f"{HERE}/{OLD}.ckpt": 9, f"{HERE}/last.ckpt": f"-> {OLD}.ckpt"})
    crash.run_in_turn(project.folder, "migrate", old_system=True)
    link = project.outputs / HERE / "last.ckpt"
    link.unlink()
    link.write_text("a real one")
    assert crash.run_in_turn(project.folder, "undo", old_system=True).code == 0
    assert link.read_text() == "a real one"
    assert f"{OLD}.ckpt" in project.names("exp")


@pytest.mark.parametrize(
    "files",
    [{}, {"last_checkpoint": "epoch=1-step=88.ckpt\n"}, {"current.ckpt": "-> ../../x.ckpt"}],
    ids=["empty", "a pointer", "a link"],
)
def test_nothing_understood_is_no_success_the_second_time_either(project: Project, files: dict[str, str]) -> None:
    """It was "up to date"; beside a directory that is understood it is."""
    project.make({f"{HERE}/{OLD}.ckpt": 9})
    (project.outputs / "hollow/checkpoints").mkdir(parents=True)
    for name, text in files.items():
        if text.startswith("-> "):
            project.make({f"hollow/checkpoints/{name}": text, "x.ckpt": 9})
        else:
            (project.outputs / "hollow/checkpoints" / name).write_text(text)
    wait_a_tick()
    project.doit("migrate")
    assert project.doit("migrate").startswith("Nothing to do: 2 experiments are up to date.\n")
    out = project.doit("migrate:hollow", check=1)
    assert out.startswith("Nothing was understood: there is no checkpoint here, or no rule fits its name.\n")
    assert "up to date" not in out
