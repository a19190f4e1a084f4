"""Small print of what is promised: what undo, previews, the trash and the memory of earlier runs do in rarer cases."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptrules.changes.recovery import recover
from ckptrules.changes.undoing import read_runs
from ckptrules.storage import moving
from tests.commands.test_refs import prepare
from tests.conftest import Project
from tests.support import crash, disturbing
from tests.support.disturbing import Fault
from tests.support.killing import kills
from tests.support.undisturbed import trained

OLD, NEW = "epoch=3-step=40.ckpt", "epoch-03_step-000040.ckpt"
LATER = "epoch=12-step=90.ckpt"


def disturbed_at_each_change(project: Project, command: str, change: Callable[[], None]) -> Iterator[tuple[int, str]]:
    """Let somebody change something before each change of a run, in turn; yield at which, and what the run told."""
    kept = project.folder / "kept"
    shutil.copytree(project.outputs, kept, symlinks=True)
    for at in range(1, crash.run_in_turn(project.folder, command).changes + 1):
        shutil.rmtree(project.outputs)
        shutil.copytree(kept, project.outputs, symlinks=True)
        ended = crash.run(project.folder, command, at_change=lambda n, at=at: change() if n == at else None)  # type: ignore[misc]
        yield at, ended.output


@pytest.mark.parametrize("dry_run", ["0", "1"])
@pytest.mark.parametrize("there", ["a file", "another link"])
def test_what_took_the_place_of_a_link_stays(project: Project, there: str, dry_run: str) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    project.doit("migrate", "leave_links=1")
    link = project.outputs / "one" / "checkpoints" / OLD
    link.unlink()
    if there == "a file":
        link.write_text("trained anew")
    else:
        link.symlink_to("elsewhere")
    before = project.tree()
    out = project.doit("undo", f"dry_run={dry_run}", check=1)
    assert f"Problem: {NEW} cannot be renamed to {OLD}: " in out
    assert project.tree() == before


def test_a_dry_run_of_purge_changes_nothing(project: Project) -> None:
    project.make({f"one/checkpoints/{name}": 50 for name in (OLD, LATER)})
    start = project.tree()
    project.doit("migrate", "delete_old=1")
    before = project.tree(state=True)
    project.doit("purge", "dry_run=1")
    assert project.tree(state=True) == before
    project.doit("undo")
    assert project.tree() == start


@pytest.mark.parametrize("ending", ["", ".ckpt"])
def test_the_state_of_what_a_marker_calls_unfinished_is_not_fixed(project: Project, ending: str) -> None:
    folder = trained(project)
    project.doit("migrate")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    markers = [folder / f"{name.removesuffix('.ckpt')}{ending}-unfinished" for name in names]
    for marker in markers:
        marker.touch()
    before = project.tree()
    for command in (["fix_state"], ["migrate", "fix_state=1"]):
        out = project.doit(*command, "verbose=1")
        assert "State fixed" not in out
        assert project.tree() == before
    assert "is not finished" in out
    for marker in markers:
        marker.unlink()
    assert "State fixed" in project.doit("fix_state")


@pytest.mark.parametrize("dry_run", ["0", "1"])
def test_what_was_trained_on_since_its_state_was_fixed_stays(project: Project, dry_run: str) -> None:
    folder = trained(project)
    project.doit("migrate")
    assert "State fixed" in project.doit("fix_state")
    for path in folder.iterdir():
        path.write_text(f"trained on: {path.name}")
    before = project.tree()
    out = project.doit("undo", f"dry_run={dry_run}", check=1)
    assert "has changed since it was looked at" in out
    assert project.tree() == before


def test_an_undo_does_not_write_a_damaged_text(project: Project) -> None:
    prepare(project, "one")
    script = project.folder / "scripts" / "a.py"
    script.write_text(f"load('one/checkpoints/{OLD}')\n")
    project.doit("refs", "apply=1")
    after = script.read_text()
    for kept in (project.folder.parent / "state").rglob("refs/*"):
        kept.write_text(kept.read_text()[:10])
    assert "what was kept of it is damaged" in project.doit("undo", "experiments=references", check=1)
    assert script.read_text() == after


@pytest.mark.parametrize("what", ["trash", "trash/RUN"])
def test_purge_follows_no_link(project: Project, what: str) -> None:
    project.make({f"one/checkpoints/{name}": 50 for name in (OLD, LATER)})
    project.doit("migrate", "delete_old=1")
    trash = project.outputs / ".ckptrules" / "trash"
    (run,) = os.listdir(trash)
    place = trash / run if what == "trash/RUN" else trash
    moved = project.folder / "elsewhere"
    shutil.move(place, moved)
    place.symlink_to(moved)
    before = sorted(str(path) for path in moved.rglob("*"))
    out = project.doit("purge", check=3 if what == "trash" else 1)
    assert ("trash: Not a directory" if what == "trash" else "The trash cannot be emptied") in out
    assert sorted(str(path) for path in moved.rglob("*")) == before


def test_what_an_interrupted_archive_left_does_not_get_into_the_next(project: Project) -> None:
    project.make({f"old/checkpoints/{OLD}": 5000})
    start, archive = project.tree(), project.folder / "archive"
    archive.mkdir()
    (archive / "old.tar.zst.7-1700000000000000000.tmp").write_bytes(b"left over" * 10_000)
    project.doit("archive", "experiments=old", "archive_dir=archive")
    assert sorted(os.listdir(archive)) == ["old.tar.zst", "old.tar.zst.manifest.json"]
    assert (archive / "old.tar.zst").stat().st_size < 10_000
    project.doit("unarchive", "archive=archive/old.tar.zst")
    assert project.tree() == start


def test_a_file_that_takes_the_place_of_a_link_meanwhile_stays(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, "one/checkpoints/last.ckpt": f"-> {OLD}"})
    unlink = os.unlink  # as it is: the run's own is watched
    link = project.outputs / "one" / "checkpoints" / "last.ckpt"

    def replace() -> None:
        unlink(link)
        link.write_text("saved meanwhile")

    for at, output in disturbed_at_each_change(project, "migrate", replace):
        assert link.read_text() == "saved meanwhile", (at, output)


def test_a_file_that_takes_the_place_of_a_left_link_meanwhile_is_not_dropped(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    project.doit("migrate", "leave_links=1")
    unlink, link = os.unlink, project.outputs / "one" / "checkpoints" / OLD

    def replace() -> None:
        if link.is_symlink():
            unlink(link)
        link.write_text("saved meanwhile")

    for at, output in disturbed_at_each_change(project, "drop_links", replace):
        assert link.read_text() == "saved meanwhile", (at, output)


def test_a_pointer_file_that_is_written_meanwhile_stays(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    pointer = project.outputs / "one" / "checkpoints" / "latest"
    pointer.write_text(f"{OLD}\n")

    def replace() -> None:
        (pointer.parent / "new").write_text("epoch=4-step=50.ckpt\n")
        os.replace(pointer.parent / "new", pointer)

    for at, output in disturbed_at_each_change(project, "migrate", replace):
        assert pointer.read_text() == "epoch=4-step=50.ckpt\n", (at, output)


def test_a_checkpoint_that_is_saved_meanwhile_stays(project: Project) -> None:
    folder = trained(project)
    project.doit("migrate")

    def replace() -> None:
        for name in os.listdir(folder):
            (project.folder / "new").write_text("saved meanwhile")
            os.replace(project.folder / "new", folder / name)

    for at, output in disturbed_at_each_change(project, "fix_state", replace):
        assert {path.read_bytes() for path in folder.iterdir()} == {b"saved meanwhile"}, (at, output)


def test_a_preview_of_an_undo_knows_which_names_get_free(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, f"one/checkpoints/{NEW}": 40})
    start = project.tree()
    project.doit("migrate", "on_conflict=keep_largest")
    assert project.names("one") == [NEW]
    assert "Would restore" in project.doit("undo", "dry_run=1")
    project.doit("undo")
    assert project.tree() == start


def test_a_run_whose_undo_was_taken_back_can_be_taken_back_again(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    start = project.tree()
    project.doit("migrate")
    project.doit("undo")
    project.doit("undo", f"run={project.doit('history').splitlines()[1].split()[0]}")
    assert project.names("one") == [NEW]
    project.doit("undo")
    assert project.tree() == start


def test_an_undo_passes_over_what_was_freed_at_once(project: Project) -> None:
    rules = project.folder / "rules" / "retention.yaml"
    rules.write_text(rules.read_text().replace("trash_days: 7", "trash_days: 0"))
    project.make({f"one/checkpoints/{name}": 50 for name in (OLD, LATER)})
    project.doit("migrate", "delete_old=1")
    project.doit("undo")
    assert project.names("one") == [LATER]


@pytest.mark.whole
def test_what_a_killed_run_freed_at_once_is_on_record(project: Project) -> None:
    rules = project.folder / "rules" / "retention.yaml"
    rules.write_text(rules.read_text().replace("trash_days: 7", "trash_days: 0"))
    early = {f"one/checkpoints/epoch={n}-step={n}.ckpt": 50 for n in (1, 2)}
    tree: dict[str, int | str] = {**early, "one/checkpoints/epoch-12_step-000090.ckpt": 50}
    project.make(tree)
    freed = 0
    for at in kills(project, ("migrate", "delete_old=1")):
        shutil.rmtree(project.outputs)
        project.make(tree)
        crash.run_in_turn(project.folder, "migrate", "delete_old=1", fault=at)
        recover(str(project.outputs))
        left = {file.name.removesuffix(".trashed") for file in project.outputs.rglob("*") if file.is_file()}
        gone = {Path(path).name for path in early} - left
        freed += len(gone)
        told = {step.name for run in read_runs(str(project.outputs)) for unit in run.units for step in unit.steps}
        assert gone <= told, at
    assert freed


@pytest.mark.whole
def test_what_was_deleted_before_ctrl_c_is_freed_as_trash_days_0_says(project: Project) -> None:
    rules = project.folder / "rules" / "retention.yaml"
    rules.write_text(rules.read_text().replace("trash_days: 7", "trash_days: 0"))
    tree: dict[str, int | str] = {f"one/checkpoints/epoch={n}-step={n}.ckpt": 50 for n in (1, 2, 12)}
    project.make(tree)
    stopped = 0
    for at in range(1, crash.run_in_turn(project.folder, "migrate", "delete_old=1").changes + 1):
        shutil.rmtree(project.outputs)
        project.make(tree)
        ended = crash.run_in_turn(project.folder, "migrate", "delete_old=1", fault=Fault(at, "SIGINT"))
        stopped += "stopped with 1 change to go" in ended.output
        assert not list(project.outputs.rglob("*.trashed")), (at, ended.output)
    assert stopped


def test_where_nothing_is_freed_nothing_more_is_recorded(project: Project) -> None:
    project.make({f"{name}/checkpoints/{OLD}": 50 for name in ("one", "two", "three")})
    kept = project.folder / "kept"
    shutil.copytree(project.outputs, kept)
    changes = []
    for days in ("7", "0"):
        shutil.rmtree(project.outputs)
        shutil.copytree(kept, project.outputs)
        (project.folder / "rules" / "retention.yaml").write_text(f"trash_days: {days}\n")
        changes.append(crash.run_in_turn(project.folder, "migrate").changes)
    assert changes[0] == changes[1]


def test_where_a_state_was_freed_the_checkpoint_is_not_called_gone(project: Project) -> None:
    trained(project)
    project.doit("migrate")
    project.doit("fix_state")
    project.doit("purge")
    run = project.doit("history").splitlines()[2].split()[0]
    out = project.doit("undo", f"run={run}")
    assert f"Gone for good: the other state of 1 checkpoint of run {run}, fix_state; its space was freed.\n" in out


@pytest.mark.whole
def test_an_undo_of_states_killed_at_any_change(project: Project) -> None:
    trained(project)
    project.doit("migrate")
    kept, start = project.folder / "kept", project.tree()
    shutil.copytree(project.outputs, kept, symlinks=True)

    def begin() -> None:  # anew, as it is the inodes that tell the two apart
        shutil.rmtree(project.outputs)
        shutil.copytree(kept, project.outputs, symlinks=True)
        assert "State fixed" in crash.run_in_turn(project.folder, "fix_state", old_system=True).output

    begin()
    killed = kills(project, ("undo",), old_system=True)
    assert project.tree() == start
    for at in killed:
        begin()
        ended = crash.run_in_turn(project.folder, "undo", fault=at, old_system=True)
        assert ended.code == -signal.SIGKILL, (at, ended)
        crash.run_in_turn(project.folder, "purge", "older_than=9d", old_system=True)  # finishes what was begun
        if project.tree() != start:
            ended = crash.run_in_turn(project.folder, "undo", old_system=True)
            assert (ended.code, project.tree()) == (0, start), (at, ended.output)
        assert not list(project.outputs.rglob("*.spare")), at
        ended = crash.run_in_turn(project.folder, "fix_state", old_system=True)
        assert ended.code == 0, (at, ended.output)
        assert not list(project.outputs.rglob("*.spare")), at


def test_what_was_done_is_told_where_something_failed(project: Project) -> None:
    project.make({f"one/checkpoints/{name}": 9 for name in (OLD, LATER)})
    dodo = project.folder / "dodo.py"
    dodo.write_text(
        "from ckptrules.storage import moving\nreally = moving.rename\n"
        "def rename(directory, name, *more):\n"
        f"    if name == {OLD!r}: raise OSError(5, 'Input/output error')\n"
        "    really(directory, name, *more)\n"
        "moving.rename = rename\n" + dodo.read_text()
    )
    out = project.doit("migrate", "delete_old=1", check=1)
    assert f"{OLD} cannot be moved to the trash: Input/output error" in out
    assert f"Renamed: {LATER}" in out
    assert "  renamed     1\n" in out


def test_a_fixed_checkpoint_keeps_its_mode_and_time(project: Project) -> None:
    folder = trained(project)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.chmod(0o640)
        os.utime(path, ns=(10**18, 10**18 + number))
    project.doit("migrate")
    before = {p.name: (p.stat().st_mode, p.stat().st_mtime_ns) for p in folder.iterdir()}
    assert "State fixed" in project.doit("fix_state")
    assert {p.name: (p.stat().st_mode, p.stat().st_mtime_ns) for p in folder.iterdir()} == before


def test_a_lower_floor_is_no_reason_to_think_that_all_is_done(project: Project) -> None:
    rules = project.folder / "rules" / "retention.yaml"
    text = rules.read_text()
    more = text.replace("keep_at_least: 1 ", "keep_at_least: 2 ", 1)
    more = "".join(line for line in more.splitlines(keepends=True) if "epoch-00_step-000200.ckpt]}" not in line)
    rules.write_text(more)
    project.make({f"one/checkpoints/{name}": 50 for name in (OLD, "epoch=4-step=50.ckpt")})
    project.doit("migrate", "delete_old=1")
    assert len(project.names("one")) == 2
    rules.write_text(text)
    project.doit("migrate", "delete_old=1")
    assert len(project.names("one")) == 1


def test_another_way_with_conflicts_is_tried_at_once(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, f"one/checkpoints/{NEW}": 40})
    project.doit("migrate", "on_conflict=skip")
    project.doit("migrate", "on_conflict=skip")
    project.doit("migrate", "on_conflict=keep_largest")
    assert project.names("one") == [NEW]


def test_states_are_fixed_also_where_the_names_are_right(project: Project) -> None:
    folder = trained(project)
    project.doit("migrate")
    assert "up to date" in project.doit("migrate")
    assert "State fixed" in project.doit("migrate", "fix_state=1")
    assert folder.exists()


def test_an_old_system_does_not_replace_an_empty_directory(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.make({"one/checkpoints/old/0.pt": 9})
    (project.outputs / "one" / "checkpoints" / "new").mkdir()
    monkeypatch.setattr(moving, "_rename_with", disturbing.refuse_flags)
    directory = os.open(project.outputs / "one" / "checkpoints", os.O_RDONLY)
    try:
        with pytest.raises(FileExistsError):
            moving.rename(directory, "old", "new")
    finally:
        os.close(directory)
    assert project.names("one") == ["new", "old"]
    assert project.tree().keys() == {"one/checkpoints/old/0.pt"}


def test_a_preview_of_an_undo_of_states_says_what_the_undo_does(project: Project) -> None:
    trained(project)
    project.doit("migrate", "fix_state=1")
    preview = project.doit("undo", "dry_run=1")
    done = project.doit("undo")
    assert preview.count("Would restore the state") == done.count("State restored") == 1
    assert preview.count("Would rename") == done.count("Renamed") > 0


def test_a_problem_is_told_also_where_sidecars_tell_metrics(project: Project) -> None:
    (project.folder / "rules" / "retention.yaml").write_text(
        "retention:\n  default: {keep_best: {metric: hmean, mode: max, count: 1}}\n"
    )
    project.make({f"one/checkpoints/{NEW}": 50, "one/checkpoints/epoch-04_step-000050.ckpt": 0})
    (project.outputs / "one" / "checkpoints" / f"{NEW[:-5]}.metadata.json").write_text('{"hmean": 0.5}')
    assert "is an empty file" in project.doit("plan", "delete_old=1", check=1)


def test_a_journal_that_leads_outside_through_the_state_is_refused(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    project.doit("migrate")
    (file,) = (project.outputs / ".ckptrules" / "journal").iterdir()
    header, intent, *rest = map(json.loads, file.read_text().splitlines())
    for unit in intent["units"]:
        for step in unit[2]:
            step[1] = ".ckptrules/trash/../../../secret"
    (project.folder / "secret").mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in (header, intent, *rest)))
    before = project.tree()
    project.doit("undo", check=1)
    assert (os.listdir(project.folder / "secret"), project.tree()) == ([], before)


CLOSED = """
import os
really = os.scandir
def scandir(path="."):
    if str(path).endswith("/closed"):
        raise PermissionError(13, os.strerror(13), path)
    return really(path)
os.scandir = scandir
"""


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize("command", ["plan", "migrate"])
def test_where_links_were_not_looked_for_is_told(project: Project, command: str, processes: str) -> None:
    project.make({f"one/checkpoints/{OLD}": 50, "two/checkpoints/best.ckpt": 50, "closed/link": f"-> ../one/{OLD}"})
    dodo = project.folder / "dodo.py"
    dodo.write_text(CLOSED + dodo.read_text())
    told = "Not searched for links: closed: Permission denied. A link in there may come to lead nowhere.\n"
    assert told in project.doit("-n", processes, command)
    (project.folder / "archive").mkdir()
    out = project.doit("archive", "experiments=two", "archive_dir=archive", check=1)
    assert "Problem: two: closed could not be searched for links that lead into it: Permission denied; let" in out
    assert (project.outputs / "two").exists()
    project.doit("archive", "experiments=two", "archive_dir=archive", "keep_source=1")
