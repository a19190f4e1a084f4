"""`doit trash`, `purge older_than=`, `usage` and `schedule`; what a run from cron prints."""

from __future__ import annotations

import calendar
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Project, default, run_program
from tests.support import nobody

TREE = {f"{name}/checkpoints/epoch={epoch}-step={epoch}.ckpt": 100 for name in ("one", "two") for epoch in (1, 2, 12)}


def aged(project: Project, days: int) -> str:
    """Let the one run in the trash be so many days old; return its name."""
    trash = project.outputs / ".ckptrules" / "trash"
    (run,) = (name for name in os.listdir(trash) if name.endswith(str(newest(trash)).rpartition("-")[2]))
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() - days * 86_400))
    older = f"{stamp}-{run.rpartition('-')[2]}"
    os.rename(trash / run, trash / older)
    for journal in (project.outputs / ".ckptrules/journal").glob(f"{run}.*"):
        journal.with_name(journal.name.replace(run, older)).write_text(journal.read_text().replace(run, older))
        journal.unlink()
    return older


def newest(trash: Path) -> str:
    return max(os.listdir(trash))


def test_the_trash_is_listed_with_the_day_on_which_each_goes(project: Project) -> None:
    assert project.doit("trash") == "The trash is empty.\n"
    project.make(TREE)
    project.make({"one/checkpoints/epoch=3-step=3.ckpt/a.pt": 30, "one/checkpoints/epoch=3-step=3.ckpt/b.pt": 40})
    project.doit("migrate", "delete_old=1")
    run = aged(project, 2)
    heading, *rows, end = project.doit("trash").splitlines()
    assert heading.split() == ["run", "directory", "name", "size", "freed", "on"]
    started = calendar.timegm(time.strptime(run[:16], "%Y%m%dT%H%M%SZ"))
    day = time.strftime("%Y-%m-%d", time.localtime(started + 7 * 86_400))
    assert rows[0].split() == [run, "one/checkpoints", "epoch=1-step=1.ckpt", "100", "B", day]
    assert ["epoch=3-step=3.ckpt", "70", "B"] in [row.split()[2:5] for row in rows]
    assert end == "5 items, 470 B. 'doit undo' brings back, 'doit purge' frees."
    project.make({"two/checkpoints/epoch=4-step=4.ckpt": 1})
    project.doit("migrate", "delete_old=1")
    heading, *rows, _, _, _ = project.doit("trash").splitlines()
    assert [row.split()[0] for row in rows] == [run] * 5 + [newest(project.outputs / ".ckptrules/trash")]


@pytest.mark.parametrize("by", ["restore", "unarchive"])
def test_trash_and_undo_name_the_undo_that_brings_back_what_waits(project: Project, by: str) -> None:
    """They sent each other in a circle: plain undo takes back no undo, and what waits is what an undo put away."""
    project.make({"one/checkpoints/epoch-12_step-000012.ckpt": 100})
    (project.folder / "kept").mkdir()
    if by == "restore":
        project.doit("backup", "to=kept")
        shutil.rmtree(project.outputs / "one")
        project.doit("restore", f"backup=kept/{os.listdir(project.folder / 'kept')[0]}")
    else:
        project.doit("archive", "experiments=one", "archive_dir=kept")
        project.doit("purge", "yes=1")
        project.doit("unarchive", "archive=kept/*")
    project.doit("undo")
    assert not (project.outputs / "one").exists()
    run = newest(project.outputs / ".ckptrules/trash")
    assert f". 'doit undo run={run}' brings back, 'doit purge' frees.\n" in project.doit("trash")
    what = "3 items" if by == "restore" else "1 item"
    line = f"There is nothing to take back.\n'doit undo run={run}' brings back {what} from the trash.\n"
    assert line in project.doit("undo", "dry_run=1")
    assert line in project.doit("undo")
    project.doit("undo", f"run={run}")
    assert project.names("one") == ["epoch-12_step-000012.ckpt"]
    assert project.doit("trash") == "The trash is empty.\n"


def test_trash_names_a_command_for_each_run_where_one_does_not_do(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    first = newest(project.outputs / ".ckptrules/trash")
    project.make({"two/checkpoints/epoch=4-step=4.ckpt": 1})
    project.doit("migrate", "delete_old=1")
    *_, end, plain, named = project.doit("trash").splitlines()
    assert end == "5 items, 401 B. 'doit purge' frees."
    assert plain == "'doit undo' brings back 1 item from the trash."
    assert named == f"'doit undo run={first}' brings back 4 items from the trash."
    project.doit("undo", f"run={first}")
    assert project.doit("trash").endswith("\n1 item, 1 B. 'doit undo' brings back, 'doit purge' frees.\n")


def test_purge_frees_what_is_old_enough(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    aged(project, 2)
    assert "Would free: 4 items from the trash, 400 B\n" in project.doit("purge", "older_than=1d", "dry_run=1")
    assert "Freed: nothing\n" in project.doit("purge", "older_than=3d")
    assert "Freed: 4 items from the trash, 400 B\n" in project.doit("purge", "older_than=36h")
    assert project.doit("trash") == "The trash is empty.\n"
    assert "older_than=x: must be a time such as 7d" in project.doit("purge", "older_than=x", check=3)


def test_usage_says_what_is_protected_kept_could_go_or_lies_in_the_trash(project: Project) -> None:
    project.make(TREE)
    project.make({"one/checkpoints/last.ckpt": 1000, "one/checkpoints/notes.txt": 7})
    folder = project.outputs / "two" / "checkpoints"
    os.link(folder / "epoch=12-step=12.ckpt", folder / "epoch=13-step=13.ckpt")
    (project.folder / "old").mkdir()
    (project.folder / "old" / "x.tar.zst").write_bytes(b"x" * 50)
    before = project.tree(state=True)
    lines = [line.split() for line in project.doit("usage", "archive_dir=old").splitlines()]
    assert lines[:4] == [
        ["experiment", "protected", "kept", "could", "go", "other", "total"],
        ["one", "1", "KB", "100", "B", "200", "B", "7", "B", "1.31", "KB"],
        ["two", "100", "B", "200", "B", "300", "B"],
        ["all", "1", "KB", "200", "B", "400", "B", "7", "B", "1.61", "KB"],
    ]
    assert lines[4] == ["trash:", "0", "B,", "0", "items"]
    assert lines[5] == ["archives:", "50", "B", "in", "old"]
    assert project.tree(state=True) == before
    project.doit("migrate", "delete_old=1")
    assert "trash: 400 B, 4 items\n" in project.doit("usage")
    assert [line.split() for line in project.doit("usage", "policy=keep_all").splitlines()][1][3:] == [
        "100",
        "B",
        "7",
        "B",
        "1.11",
        "KB",
    ]


def test_usage_counts_what_belongs_to_protected_checkpoints_as_json_does(project: Project) -> None:
    project.make({"exp/checkpoints/last.ckpt": 1000, "exp/checkpoints/last.metadata.json": 30})
    project.make({"exp/checkpoints/epoch-12_step-000012.ckpt": 200})
    project.doit("plan", "delete_old=1", "json=plan.json")
    space = json.loads((project.folder / "plan.json").read_text())["space"]
    assert (space["protected"], space["kept"]) == (1030, 200)
    assert project.doit("usage").splitlines()[1].split()[1:5] == ["1.03", "KB", "200", "B"]


def test_usage_counts_what_lies_in_a_directory_in_another_one_once(project: Project) -> None:
    """Layouts such as ``['*', '*/*/ckpts']`` cover the folder of a sweep as well as those of its runs."""
    (project.folder / "rules/mine.yaml").write_text(
        "formats: [{id: e, match: 'e(?P<epoch>\\d+).pt', examples: {e1.pt: {epoch: 1}}}]\n"
    )
    naming = project.folder / "rules/naming.yaml"
    naming.write_text(re.sub("(?m)^layout:.*", "layout: ['*', '*/*', '*/*/ckpts']", naming.read_text()))
    project.make(
        {"sweep/lr1/ckpts/e1.pt": 100, "sweep/lr1/ckpts/e2.pt": 100, "sweep/lr1/log.txt": 30, "sweep/a.txt": 5}
    )
    os.link(project.outputs / "sweep/lr1/ckpts/e2.pt", project.outputs / "sweep/lr1/best.pt")
    lines = [line.split() for line in project.doit("usage", "policy=keep_all").splitlines()]
    assert lines[1:5] == [
        ["sweep", "5", "B", "5", "B"],
        ["sweep/lr1", "30", "B", "30", "B"],
        ["sweep/lr1/ckpts", "200", "B", "200", "B"],
        ["all", "200", "B", "35", "B", "235", "B"],
    ]


def test_usage_of_archives_that_are_not_there_is_refused(project: Project) -> None:
    out = project.doit("usage", "archive_dir=nowhere", check=3)
    assert out == "ERROR: command line: archive_dir=nowhere: is no folder\n"


def test_usage_tells_of_archives_that_cannot_be_read_and_passes_over_links_that_lead_nowhere() -> None:
    with nobody.project() as project:
        archives = project.folder / "my archives"
        archives.mkdir()
        (archives / "one.tar.gz").write_bytes(b"12345")
        (archives / "two.tar.zst").symlink_to("nowhere")
        project.make(TREE)
        nobody.give(project.folder)
        assert f"archives: 5 B in {archives}\n" in nobody.run(project.folder, "usage", f"archive_dir={archives}").output
        archives.chmod(0)
        ended = nobody.run(project.folder, "usage", f"archive_dir={archives}")
        assert f"Problem: {archives} cannot be read: Permission denied\n" in ended.output
        assert (ended.code, "Traceback" in ended.output) == (1, False)


@pytest.mark.whole
def test_a_scheduled_line_runs_and_says_nothing_when_there_is_nothing_to_say(project: Project) -> None:
    project.make(TREE)
    out = project.doit("schedule", "delete_old=1", "keep_min_epoch=2", "outputs_dir=outputs")
    (line,) = (line for line in out.splitlines() if line.startswith("0 2 * * 0 "))
    command = line.removeprefix("0 2 * * 0 ").replace("\\%", "%")
    environment = {"PATH": os.defpath, "HOME": str(project.folder), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    for _ in range(2):  # as cron does it: by sh, from the home folder, with next to no environment
        result = subprocess.run(
            ["sh", "-c", command], cwd="/", env=environment, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    log = (project.folder / "ckptrules.log").read_text()
    assert log.count("Summary") == 1
    assert "\x1b" not in log
    assert project.names("one") == ["epoch-02_step-000002.ckpt", "epoch-12_step-000012.ckpt"]


@pytest.mark.whole
def test_a_folder_without_tasks_of_its_own_is_scheduled_too(tmp_path: Path) -> None:
    (tmp_path / "outputs/one/checkpoints").mkdir(parents=True)
    (tmp_path / "outputs/one/checkpoints/epoch=1-step=2.ckpt").write_text("x")
    out = subprocess.run(
        [sys.executable, "-m", "ckptrules", "schedule"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    line = next(line for line in out.splitlines() if line.startswith("0 2 "))
    subprocess.run(line.removeprefix("0 2 * * 0 "), shell=True, check=True)
    assert os.listdir(tmp_path / "outputs/one/checkpoints") == ["epoch-01_step-000002.ckpt"]


@pytest.mark.whole
@pytest.mark.parametrize("program", ["ckptrules", "doit -f ours.py", "doit -f ours.py -d ."])
def test_a_scheduled_line_starts_the_program_that_printed_it(project: Project, program: str) -> None:
    """It was doit wherever a dodo.py lies: also one with other tasks alone. A file like a module of Python was run."""
    project.make({"one/checkpoints/epoch=1-step=2.ckpt": 3})
    (project.folder / "dodo.py").rename(project.folder / "ours.py")
    (project.folder / "dodo.py").write_text("def task_other():\n    return {'actions': ['true']}\n")
    (project.folder / "inspect.py").write_text("raise SystemExit('not the one of Python')\n")
    words = [*program.split(), "schedule"]
    out = run_program(*words, folder=project.folder, environment=default())[1]
    (line,) = (line for line in out.splitlines() if line.startswith("0 2 * * 0 "))
    subprocess.run(["sh", "-c", line.removeprefix("0 2 * * 0 ")], cwd="/", check=True)
    assert project.names("one") == ["epoch-01_step-000002.ckpt"]


@pytest.mark.whole
def test_a_failure_of_a_scheduled_run_is_an_exit_code_and_a_line_in_the_log(project: Project) -> None:
    project.make({"one/checkpoints/epoch=1-step=1.ckpt": 0})
    out = project.doit("schedule")
    command = next(line for line in out.splitlines() if line.startswith("0 2")).removeprefix("0 2 * * 0 ")
    assert subprocess.run(["sh", "-c", command.replace("\\%", "%")], check=False).returncode == 1
    assert "is an empty file" in (project.folder / "ckptrules.log").read_text()


def test_units_of_systemd_keep_odd_folders(project: Project) -> None:
    odd = project.folder.parent / '50% of "it\'s" $HOME'
    shutil.move(project.folder, odd)
    moved = Project(odd)
    out = moved.doit("schedule", "delete_old=1")
    assert f"WorkingDirectory={str(odd).replace('%', '%%')}\n" in out
    cron = next(line for line in out.splitlines() if line.startswith("0 2")).removeprefix("0 2 * * 0 ")
    assert shlex.split(cron.replace("\\%", "%"))[:3] == ["cd", str(odd), "&&"]
    start = next(line for line in out.splitlines() if line.startswith("ExecStart="))
    assert " -m doit migrate " in start
    assert start.endswith(" delete_old=1 wait=600 quiet=1")


@pytest.mark.parametrize("quiet", [0, 1])
def test_quiet_prints_nothing_where_nothing_was_done(project: Project, quiet: int) -> None:
    project.make({"one/checkpoints/epoch-12_step-000012.ckpt": 3, "one/checkpoints/notes.txt": 3})
    assert bool(project.doit("migrate", f"quiet={quiet}")) == (not quiet)
    project.make({"one/checkpoints/epoch=13-step=13.ckpt": 3})
    assert "Renamed" in project.doit("migrate", f"quiet={quiet}")


def test_quiet_tells_what_is_freed_for_good(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    aged(project, 8)
    assert project.doit("migrate", "quiet=1") == "Freed: 4 items from the trash, 400 B\n"
    assert project.doit("migrate", "quiet=1") == ""


def test_the_old_text_of_a_pointer_is_no_item_and_nothing_that_undo_does_not_know(project: Project) -> None:
    """`trash` called it an item that no journal knows, with a command that would have made a file of no use."""
    project.make({"one/checkpoints/epoch=1-step=1.ckpt": 100, "one/checkpoints/epoch=12-step=12.ckpt": 100})
    pointer = project.outputs / "one/checkpoints/last_checkpoint"
    pointer.write_text("epoch=12-step=12.ckpt\n")
    out = project.doit("migrate", "delete_old=1")
    assert "In the trash: 1 item, 122 B." in out
    listed = project.doit("trash")
    assert "last_checkpoint (its old text)  " in listed
    assert listed.endswith("\n1 item, 122 B. 'doit undo' brings back, 'doit purge' frees.\n")
    project.doit("undo")
    assert pointer.read_text() == "epoch=12-step=12.ckpt\n"
    assert "No journal" not in project.doit("trash")
    shutil.rmtree(project.outputs / ".ckptrules/journal")
    assert "No journal in outputs/.ckptrules/journal tells of 2 items" in project.doit("trash")


def test_what_no_run_put_into_the_trash_is_told_and_left_alone(project: Project) -> None:
    """It was told by no command."""
    project.make({**TREE, ".ckptrules/trash/stray": 5, ".ckptrules/trash/folder/x.trashed": 5})
    (project.outputs / ".ckptrules").chmod(0o700)
    (project.outputs / ".ckptrules/trash").chmod(0o700)
    place = "outputs/.ckptrules/trash"
    note = f"Left alone, as no run has put it into the trash: {place}/folder, {place}/stray\n"
    for words in (["trash"], ["usage"], ["purge", "dry_run=1"], ["purge", "yes=1"]):
        assert note in project.doit(*words)
    assert (project.outputs / ".ckptrules/trash/stray").exists()


@pytest.mark.parametrize("name", ["00000000T000000Z-1", "20260231T000000Z-1", "20261301T250000Z-1"])
def test_what_tells_no_time_was_put_into_the_trash_by_no_run(project: Project, name: str) -> None:
    project.make({**TREE, f".ckptrules/trash/{name}/one/checkpoints/x.trashed": 5})
    for folder in (".ckptrules", ".ckptrules/trash"):
        (project.outputs / folder).chmod(0o700)
    note = f"Left alone, as no run has put it into the trash: outputs/.ckptrules/trash/{name}\n"
    for words in (["trash"], ["usage"], ["purge", "dry_run=1"], ["purge", "yes=1"]):
        assert note in project.doit(*words)
    project.doit("migrate")
    assert (project.outputs / ".ckptrules/trash" / name / "one/checkpoints/x.trashed").exists()


@pytest.mark.parametrize(("run", "days"), [("99991231T235959Z-1", 7), ("20260101T000000Z-1", 10**17)])
def test_what_waits_for_ever_is_listed(project: Project, run: str, days: int) -> None:
    project.make({**TREE, f".ckptrules/trash/{run}/one/checkpoints/x.trashed": 5})
    for folder in (".ckptrules", ".ckptrules/trash"):
        (project.outputs / folder).chmod(0o700)
    file = project.folder / "rules/retention.yaml"
    file.write_text(file.read_text().replace("trash_days: 7", f"trash_days: {days}"))
    assert "1 item, 5 B. " in project.doit("trash")
    project.doit("migrate")
    project.doit("history", f"json={project.folder / 'h.json'}")
