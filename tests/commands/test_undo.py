"""``doit history`` and ``doit undo``: what was done can be seen and taken back, one run after the other."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ckptrules.changes.journals import interrupted
from ckptrules.commands import undo
from ckptrules.storage import lock
from tests.conftest import ROOT, Project
from tests.support import crash, nobody
from tests.support.disturbing import Fault

EARLY, LATE = "epoch_epoch_02_step_step_000176_20251009_011245.ckpt", "epoch=20-step=500.ckpt"
LATE_NEW = "epoch-20_step-000500.ckpt"
TREE: dict[str, int | str] = {
    f"one/checkpoints/{EARLY}": 200,
    f"one/checkpoints/{LATE}": 300,
    "one/checkpoints/last.ckpt": f"-> {LATE}",
    "two/checkpoints/epoch_30_step_7.ckpt": 400,
}
RUN = re.compile(r"\d{8}T\d{6}Z-\d+")
INTERRUPTED = "A run was interrupted, or is at work now; the next 'doit migrate' first finishes what it began.\n"
EMPTY = "There is nothing to take back.\n"


def runs(project: Project) -> list[str]:
    """List the ids of the runs, oldest first."""
    return RUN.findall(project.doit("history"))[::-1]


def journal_of(project: Project, run: str) -> Path:
    (file,) = (project.outputs / ".ckptrules" / "journal").glob(f"{run}.*")
    return file


def last_line(text: str) -> str:
    return text.splitlines(keepends=True)[-1]


def test_undo_restores_names_links_and_what_was_deleted(project: Project) -> None:
    project.make(TREE)
    start = project.tree()
    project.doit("migrate", "delete_old=1")
    (run,) = runs(project)
    assert project.doit("undo") == (
        "Processing experiment: one\n"
        f"  ✓ Renamed: {LATE_NEW}\n"
        f"           → {LATE}\n"
        "  ↷ Relinked: last.ckpt\n"
        f"            → {LATE}\n"
        f"  ↶ Restored: {EARLY}\n"
        "Processing experiment: two\n"
        "  ✓ Renamed: epoch-30_step-000007.ckpt\n"
        "           → epoch_30_step_7.ckpt\n"
        "Summary\n"
        "  processed   2  experiments\n"
        "  renamed     2  1 link follows\n"
        "  deleted     0\n"
        "  restored    1  from the trash\n"
        "  kept        3  900 B\n"
        "  skipped     0\n"
        "  problems    0\n"
        f"Taken back: run {run}, migrate delete_old=1\n"
    )
    assert project.tree() == start
    assert project.doit("undo").endswith(EMPTY)


def test_a_preview_of_an_undo_changes_nothing(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    before = project.tree(state=True)
    out = project.doit("undo", "dry_run=1")
    assert f"  ↶ Would restore: {EARLY}\n" in out
    assert f"  ✓ Would rename: {LATE_NEW}\n                → {LATE}\n" in out
    assert "  to restore  1  from the trash\n" in out
    assert last_line(out).startswith("Would take back: run ")
    assert project.tree(state=True) == before


def test_an_undo_is_not_asked_for_in_one_call_with_another_change(project: Project) -> None:
    """The migrate behind it was up to date, as the undo had not begun when that was found out."""
    project.make({"one/checkpoints/epoch=20-step=20.ckpt": 3})
    project.doit("migrate")
    refused = project.doit("undo", "migrate", check=3)
    assert refused == (
        "ERROR: command line: 'undo' and 'migrate' in one call: each would look before the other has changed anything\n"
        "    hint: run one after the other\n"
    )
    assert "Would take back: run" in project.doit("undo", "history", "dry_run=1")


def test_several_runs_are_taken_back_one_after_the_other(project: Project) -> None:
    project.make(TREE)
    start = project.tree()
    project.doit("migrate")
    renamed = project.tree()
    project.doit("migrate", "delete_old=1")
    project.doit("undo")
    assert project.tree() == renamed
    project.doit("undo")
    assert project.tree() == start
    assert project.doit("undo").endswith(EMPTY)


def test_an_undo_can_be_taken_back_and_so_can_that(project: Project) -> None:
    project.make(TREE)
    start = project.tree()
    project.doit("migrate", "delete_old=1")
    final = project.tree()
    project.doit("undo")
    for words in (["undo"], ["undo:one"], ["undo:o*", "undo:two"]):  # doit knew none of these, and said so or nothing
        assert project.doit(*words) == EMPTY
    project.doit("undo", f"run={runs(project)[-1]}")
    assert project.tree() == final
    project.doit("undo", f"run={runs(project)[-1]}")
    assert project.tree() == start


def test_what_is_deleted_again_waits_in_the_trash_of_the_run_that_did_it(project: Project) -> None:
    project.make(TREE)
    start = project.tree()
    project.doit("migrate", "delete_old=1")
    final = project.tree()
    first = runs(project)[0]
    project.doit("undo")
    again = ("undo", f"run={runs(project)[-1]}")
    assert f"  ⊗ Would delete: {EARLY}\n" in project.doit(*again, "dry_run=1")
    project.doit(*again)
    third = runs(project)[-1]
    trash = project.outputs / ".ckptrules" / "trash"
    assert [path.relative_to(trash).parts[0] for path in trash.rglob("*.trashed")] == [third]
    shutil.rmtree(trash / first)  # as when its trash_days are over
    assert project.doit("undo", "dry_run=1").count("Would restore") == 1
    assert project.doit("undo").endswith(f"Taken back: run {first}, migrate delete_old=1\n")
    assert project.tree() == start
    project.doit("undo", f"run={runs(project)[-1]}")
    assert project.tree() == final
    project.doit("undo", f"run={third}")
    assert project.tree() == start
    assert project.doit("history").splitlines()[-1].endswith("  taken back")


def test_until_when_it_can_be_taken_back_goes_by_the_trash_in_which_it_waits(project: Project) -> None:
    """What was deleted again is freed later; until then it was said to be for the first run's time only."""
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    project.doit("undo")
    time.sleep(1 - time.time() % 1)  # the id of a run has its second
    project.doit("undo", f"run={runs(project)[-1]}")
    place = project.folder.parent / "history.json"
    project.doit("history", f"json={place}")
    again, undone, first = json.loads(place.read_text())["runs"]
    assert first["undo_until"] == again["undo_until"] > again["when"]
    assert undone["undo_until"] is None


def test_what_was_deleted_again_and_freed_is_gone_for_good(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    project.doit("undo")
    project.doit("undo", f"run={runs(project)[-1]}")
    project.doit("purge")
    freed = [line.endswith("trash freed") for line in project.doit("history").splitlines()[1:]]
    assert freed == [False, True, False, True]  # purge, undo of undo, undo, migrate
    out = project.doit("undo")
    assert "Gone for good: 1 checkpoint of this run; its space was freed.\n" in out
    assert LATE in project.names("one")
    assert EARLY not in project.names("one")


def test_only_some_experiments_are_taken_back(project: Project) -> None:
    project.make(TREE)
    start = project.tree()
    project.doit("migrate", "delete_old=1")
    project.doit("undo", "experiments=o*")
    assert EARLY in project.names("one")
    assert project.names("two") == ["epoch-30_step-000007.ckpt"]
    project.doit("undo")
    assert project.tree() == start


def test_what_is_taken_back_in_part_is_called_so(project: Project) -> None:
    """It read as if all of the run were taken back."""
    project.make(TREE)
    project.doit("migrate")
    assert last_line(project.doit("undo:one", "dry_run=1")).startswith("Would take back in part: run ")
    assert last_line(project.doit("undo:one")).startswith("Taken back in part: run ")
    assert last_line(project.doit("undo")).startswith("Taken back: run ")


def test_files_of_one_name_in_several_folders_are_told_apart(project: Project) -> None:
    """A restore counts all below the first folder as one, in which many checkpoints have the same name."""
    files = [f"logs/version_{n}/checkpoints/epoch=1-step=1.ckpt" for n in (0, 1)]
    project.make(dict.fromkeys(files, 5))
    made = f"backup={project.doit('backup').split()[2]}"
    (project.outputs / files[0]).write_bytes(b"")
    (project.outputs / files[1]).unlink()
    project.doit("restore", made, "force=1")
    out = project.doit("undo")
    assert "  \u21b6 Replaced: version_0/checkpoints/epoch=1-step=1.ckpt\n" in out
    assert "  \u2297 Deleted: version_1/checkpoints/epoch=1-step=1.ckpt\n" in out


def test_an_experiment_that_the_run_did_not_change_is_refused(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate:one")
    out = project.doit("undo", "experiments=two", check=3)
    assert re.fullmatch(r"ERROR: command line: no experiment 'two'\n    hint: run \S+ changed one\n", out)


def test_a_run_is_chosen_by_its_id(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate:one")
    project.doit("migrate:two")
    project.doit("undo", f"run={runs(project)[0]}")
    assert LATE in project.names("one")
    assert project.names("two") == ["epoch-30_step-000007.ckpt"]
    out = project.doit("undo", "run=yesterday", check=3)
    assert out == "ERROR: command line: no run 'yesterday'\n    hint: 'doit history' lists them\n"


@pytest.mark.parametrize("last", ["deleted", "archived", "brought back"])
def test_the_run_that_must_be_taken_back_before_an_older_one_is_named(project: Project, last: str) -> None:
    """It said that something else had moved it."""
    project.make(TREE)
    (project.folder / "saved").mkdir()
    start = project.tree()
    project.doit("migrate")
    backup = re.search(r"saved/outputs_backup_\d+_\d+", project.doit("backup", "to=saved"))
    assert backup
    if last == "archived":
        project.doit("archive", "experiments=*", "archive_dir=saved", "format=gz")
    else:
        project.doit("migrate", "delete_old=1")
    if last == "brought back":
        project.doit("restore", f"backup={backup[0]}")
    first, second = runs(project)[-2:]
    for more in (["dry_run=1"], []):
        out = project.doit("undo", f"run={first}", *more, check=1)
        assert f"Run {second}, " in out
        assert f" has changed the same names since: 'doit undo run={second}', then this again.\n" in out
    project.doit("undo", f"run={second}")
    assert "since" not in project.doit("undo", f"run={first}")
    assert (project.tree() == start) == (last != "brought back")  # then the first run is the one that deleted


def test_an_undo_is_not_named_as_what_must_be_taken_back_first(project: Project) -> None:
    """It brought back what is here: to take that back would delete it again, or is refused."""
    project.make({f"one/checkpoints/{LATE}": 300})
    project.doit("migrate")
    project.make({f"one/checkpoints/{LATE}": 301})
    project.doit("migrate", "on_conflict=keep_largest")
    first, second = runs(project)
    project.doit("undo")
    (back,) = {*runs(project)} - {first, second}
    for more in (["dry_run=1"], []):
        out = project.doit("undo", f"run={first}", *more, check=1)
        assert "File exists" in out
        assert "changed the same names since" not in out
    project.doit("undo", f"run={back}")
    out = project.doit("undo", f"run={first}", check=1)
    assert f"'doit undo run={second}', then this again." in out


def test_a_run_that_cannot_be_taken_back_says_how_to_come_to_the_one_before(project: Project) -> None:
    """Each undo stumbled over the same run, and nothing told how to go on."""
    project.make(TREE)
    project.doit("migrate")
    project.make({"one/checkpoints/epoch=21-step=600.ckpt": 4})
    project.doit("migrate")
    (project.outputs / "one/checkpoints/epoch-21_step-000600.ckpt").write_text("trained on")
    first, second = runs(project)
    for more, verb in (("dry_run=1", "Would not take back"), ("dry_run=0", "Not taken back")):
        out = project.doit("undo", more, check=1)
        assert f"{verb}: run {second}, migrate\n'doit undo run={first}' takes back the run before it, migrate.\n" in out
    assert "before it" not in project.doit("undo", f"run={second}", check=1)
    project.doit("undo", f"run={first}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as nobody")
def test_the_preview_of_an_undo_says_what_may_not_be_changed() -> None:
    """It said that all could be taken back, and the run could do nothing."""
    with nobody.project() as project:
        project.make(TREE)
        nobody.give(project.folder)
        assert nobody.run(project.folder, "migrate", "delete_old=1").code == 0
        (project.outputs / "one/checkpoints").chmod(0o555)
        preview, out = (nobody.run(project.folder, "undo", more) for more in ("dry_run=1", "dry_run=0"))
        told = [re.findall("Problem: .*", ended.output) for ended in (preview, out)]
        assert (preview.code, told[0]) == (out.code, told[1]) == (1, told[1])
        assert [one.rpartition(": ")[2] for one in told[0]] == ["Permission denied"] * 2


def test_an_experiment_that_no_run_has_changed_is_refused_also_where_nothing_stands(project: Project) -> None:
    """It was a success."""
    project.make(TREE)
    project.doit("migrate")
    project.doit("undo")
    for words in (["undo", "experiments=nix"], ["undo:nix"], ["undo:n*"]):
        assert "no experiment 'n" in project.doit(*words, check=3)
    assert project.doit("undo", "experiments=o*") == EMPTY


LOOK_AT_IT = "look at it: it is left as it is"
CHANGED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "the new name is gone": (
        lambda folder: (folder / LATE_NEW).unlink(),
        "No such file or directory",
        "something else moved it; look where it is now",
    ),
    "the old name is taken": (
        lambda folder: (folder / LATE).write_text("new"),
        "File exists",
        "compare the two, keep the better one, delete or rename the other",
    ),
    "its content changed": (
        lambda folder: (folder / LATE_NEW).write_text("trained on"),
        "has changed since it was looked at",
        LOOK_AT_IT,
    ),
}


@pytest.mark.parametrize("dry_run", ["0", "1"])
@pytest.mark.parametrize("case", CHANGED)
def test_what_has_changed_since_is_refused_by_name_and_the_rest_is_done(
    project: Project, case: str, dry_run: str
) -> None:
    change, why, hint = CHANGED[case]
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    change(project.outputs / "one" / "checkpoints")
    before = project.tree()
    out = project.doit("undo", f"dry_run={dry_run}", check=1)
    assert f"  ! Problem: {LATE_NEW} cannot be renamed to {LATE}: {why}\n      hint: {hint}\n" in out
    assert out.count("Problem:") == 1
    done = "Would take back" if dry_run == "1" else "Taken back"
    assert last_line(out).startswith(f"{done} in part: run ")
    after = project.tree()
    if dry_run == "1":
        assert after == before
        return
    left = {path: text for path, text in after.items() if path.startswith("one") and EARLY not in path}
    assert left == {path: text for path, text in before.items() if path.startswith("one")}
    assert EARLY in project.names("one")
    assert project.names("two") == ["epoch_30_step_7.ckpt"]


@pytest.mark.parametrize("fact", ["File exists", "has changed since it was looked at"])
def test_what_cannot_be_brought_back_is_named_where_it_lies(project: Project, fact: str) -> None:
    """`compare the two`, it said, and not where the other one was."""
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    trashed = project.outputs / f".ckptrules/trash/{runs(project)[0]}/one/checkpoints/{EARLY}.trashed"
    if fact == "File exists":
        (project.outputs / "one/checkpoints" / EARLY).write_text("trained again")
    else:
        os.utime(trashed, (0, 0))  # as in a copy of the tree
    for words in ("dry_run=1", "dry_run=0"):
        out = project.doit("undo", words, check=1)
        hint = re.search(rf"Problem: {EARLY} cannot be brought back: {fact}\n      hint: .*; it lies in (.*)\n", out)
        assert hint
        assert project.folder / hint[1] == trashed
        assert trashed.exists()


@pytest.mark.parametrize("case", ["absolute", "upwards", "through a link"])
@pytest.mark.parametrize("end", ["from", "to"])
def test_a_journal_that_leads_outside_is_refused(project: Project, case: str, end: str) -> None:
    project.make(TREE)
    secret = project.folder / "secret"
    secret.mkdir()
    (project.outputs / "way").symlink_to("..")
    project.doit("migrate")
    file = journal_of(project, runs(project)[0])
    place = {"absolute": str(secret), "upwards": "../secret", "through a link": "way/secret"}[case]
    header, intent, *rest = map(json.loads, file.read_text().splitlines())
    for unit in intent["units"]:
        for step in unit[2]:
            if step[0] == "move":
                step[3 if end == "from" else 1] = place
    (secret / LATE_NEW).write_bytes((project.outputs / "one/checkpoints" / LATE_NEW).read_bytes())
    os.utime(secret / LATE_NEW, ns=(0, (project.outputs / "one/checkpoints" / LATE_NEW).stat().st_mtime_ns))
    file.write_text("".join(json.dumps(row) + "\n" for row in (header, intent, *rest)))
    out = project.doit("undo", check=1)
    assert f"! Problem: {LATE_NEW} cannot be renamed to {LATE}: " in out
    assert os.listdir(secret) == [LATE_NEW]
    assert LATE_NEW in project.names("one")


DAMAGES = {
    "is damaged: Expecting value: line 1 column 1 (char 0)": lambda lines: [lines[0], "nonsense\n", *lines[1:]],
    "is damaged: this version reads journals of version 2": lambda lines: [
        lines[0].replace('"journal": 2', '"journal": 3'),
        *lines[1:],
    ],
}


@pytest.mark.parametrize("fact", DAMAGES)
def test_a_damaged_journal_is_refused_with_its_place(project: Project, fact: str) -> None:
    project.make(TREE)
    project.doit("migrate")
    file = journal_of(project, runs(project)[0])
    file.write_text("".join(DAMAGES[fact](file.read_text().splitlines(keepends=True))))
    line = 1 if "version" in fact else 2
    shown = f"outputs/.ckptrules/journal/{file.name}:{line}: {fact}"
    hint = "    hint: move the file away; what it tells of cannot be taken back then\n"
    before = project.tree()
    assert project.doit("undo", check=3) == f"ERROR: {shown}\n{hint}"
    assert project.doit("history", check=1) == f"{shown}\n"
    assert project.tree() == before


def test_history_shows_what_every_run_did_and_what_became_of_it(project: Project) -> None:
    assert project.doit("history") == "No run has changed anything yet.\n"
    assert not (project.outputs / ".ckptrules").exists()
    project.make(TREE)
    project.doit("migrate", "delete_old=1", "keep_min_epoch=9")
    project.doit("undo", "experiments=two")
    heading, undo, migrate = project.doit("history").splitlines()
    assert heading.split() == ["run", "when", "who", "command", "renamed", "deleted", "size", "state"]
    shown = next(line for line in (ROOT / "docs/guide.md").read_text().splitlines() if line.startswith("run  "))
    assert heading.split() == shown.split()
    assert "  migrate delete_old=1 keep_min_epoch=9  " in migrate
    assert migrate.endswith("     2        1  200 B  1 of 3 taken back")
    assert "  undo experiments=two  " in undo
    assert undo.endswith(f"1        0         took back {runs(project)[0]}")
    project.doit("undo")
    assert project.doit("history").splitlines()[-1].endswith("  taken back")


def test_history_tells_of_a_run_that_could_do_nothing(project: Project) -> None:
    project.make({"one/checkpoints/epoch=1-step=1.ckpt": 9})
    project.doit("migrate")
    (project.outputs / "one/checkpoints/epoch-01_step-000001.ckpt").write_text("other")
    out = project.doit("undo", check=1)
    _, undo, migrate = project.doit("history").splitlines()
    assert last_line(out).startswith("Not taken back: run ")
    assert undo.endswith("  nothing done")
    assert migrate.endswith("  done")


def test_history_still_says_what_an_undo_took_back_when_its_files_are_freed(project: Project) -> None:
    project.make(TREE)
    for command in (["migrate"], ["undo"], ["migrate", "delete_old=1"], ["purge"]):
        project.doit(*command)
    states = [re.split("  +", row)[-1] for row in project.doit("history").splitlines()[1:]]
    assert states == ["done", "trash freed", f"took back {runs(project)[0]}", "taken back"]


def test_what_was_freed_cannot_come_back_and_is_told(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    project.doit("purge")
    assert project.doit("history").splitlines()[-1].endswith("  trash freed")
    out = project.doit("undo")
    assert "Gone for good: 1 checkpoint of this run; its space was freed.\n" in out
    assert LATE in project.names("one")
    assert EARLY not in project.names("one")


def test_an_undo_that_is_stopped_says_what_it_came_to(project: Project, tmp_path: Path) -> None:
    """It had left whole directories as they were, and said "Taken back"."""
    project.make(TREE)
    project.doit("migrate")
    shutil.copytree(project.folder, whole := tmp_path / "whole", symlinks=True)
    said = set[bool]()
    for at in range(1, crash.run_in_turn(whole, "undo").changes):
        shutil.copytree(project.folder, folder := tmp_path / f"at {at}", symlinks=True)
        first = crash.run_in_turn(folder, "undo", fault=Fault(at, "SIGINT"))
        assert first.code == 130, (at, first)
        is_done = crash.run_in_turn(folder, "undo").output == EMPTY
        assert is_done == ("Taken back: " in first.output), (at, first)
        said.add(is_done)
    assert said == {True, False}


@pytest.mark.parametrize("how", ["by hand", "by a purge that was killed"])
def test_a_trash_that_is_gone_and_of_which_no_record_tells_is_not_looked_for(project: Project, how: str) -> None:
    """Else plain undo would stumble over it for ever, and never come to an older run."""
    project.make(TREE)
    start = project.tree()
    project.doit("migrate")
    project.doit("migrate", "delete_old=1")
    older, _ = runs(project)
    trash, at = project.outputs / ".ckptrules/trash", 1
    if how == "by hand":
        shutil.rmtree(trash)
    while trash.exists() and os.listdir(trash):
        crash.run_in_turn(project.folder, "purge", fault=Fault(at, "after"))
        at += 1
    assert project.doit("history").count("  trash freed\n") == 2  # what was renamed before went with it
    assert "Taken back: run " + older in project.doit("undo")
    assert project.tree() == {path: text for path, text in start.items() if EARLY not in path}


def test_what_waits_in_the_trash_comes_back_where_its_directory_was_removed(project: Project) -> None:
    """It may be all that is left of the experiment: it must not wait there until its days are over."""
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    shutil.rmtree(project.outputs / "one")
    assert f"Would restore: {EARLY}\n" in project.doit("undo", "dry_run=1", check=1)
    out = project.doit("undo", check=1)  # what was renamed is gone
    assert f"Restored: {EARLY}\n" in out
    assert project.names("one") == [EARLY]


def test_what_waits_in_the_trash_comes_after_the_experiment_that_does_so_as_a_whole(project: Project) -> None:
    """The folder that was made anew would keep the archived experiment away."""
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    (project.folder / "archive").mkdir()
    project.doit("archive", "experiments=one", "archive_dir=archive")
    archived, migrated = runs(project)[::-1]
    out = project.doit("undo", f"run={migrated}", check=1)
    assert f"'doit undo run={archived}', then this again.\n" in out
    assert not (project.outputs / "one").exists()
    project.doit("undo")
    project.doit("undo")
    assert EARLY in project.names("one")


@pytest.mark.parametrize("instead", ["a file", "a link"])
def test_what_waits_in_the_trash_goes_through_nothing_that_stands_for_its_directory(
    project: Project, instead: str
) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    elsewhere = project.folder / "elsewhere"
    (project.outputs / "one").rename(elsewhere)
    if instead == "a link":
        (project.outputs / "one").symlink_to(elsewhere)
    else:
        (project.outputs / "one").write_text("")
    assert f"{EARLY} cannot be brought back: Not a directory" in project.doit("undo", check=1)
    assert not (elsewhere / "checkpoints" / EARLY).exists()


def test_the_paths_of_the_trash_are_enough_to_restore_by_hand(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    (run,) = runs(project)
    trashed = project.outputs / ".ckptrules" / "trash" / run
    (file,) = (path for path in trashed.rglob("*") if path.is_file())
    assert str(file.relative_to(trashed)) == f"one/checkpoints/{EARLY}.trashed"


@pytest.mark.whole
def test_the_next_command_finishes_what_was_interrupted_and_says_so(project: Project) -> None:
    project.make(TREE)
    kept = project.folder / "kept"
    shutil.copytree(project.outputs, kept, symlinks=True)
    changes = crash.run_in_turn(project.folder, "migrate").changes
    told = set()
    for at in range(1, changes + 1):
        shutil.rmtree(project.outputs)
        shutil.copytree(kept, project.outputs, symlinks=True)
        crash.run_in_turn(project.folder, "migrate", fault=Fault(at, "before"))
        plan = crash.run_in_turn(project.folder, "plan").output
        said = re.findall(r"^Recovered: .*", crash.run_in_turn(project.folder, "purge").output, re.MULTILINE)
        assert not said or INTERRUPTED in plan
        told |= set(said)
    start = "Recovered: a run was interrupted in"
    assert told == {
        f"{start} one/checkpoints: 0 of its changes done, 2 not begun.",
        f"{start} one/checkpoints: 1 of its changes done, 1 not begun.",
        f"{start} one/checkpoints: 2 of its changes done, 0 not begun.",
        f"{start} two/checkpoints: 0 of its changes done, 1 not begun.",
        f"{start} two/checkpoints: 1 of its changes done, 0 not begun.",
    }


@pytest.mark.whole
def test_an_interrupted_run_whose_journal_is_damaged_is_a_problem_that_is_left(project: Project) -> None:
    project.make(TREE)
    at = crash.run_in_turn(project.folder, "migrate").changes
    while not interrupted(str(project.outputs)):
        shutil.rmtree(project.outputs)
        project.make(TREE)
        at -= 1
        crash.run_in_turn(project.folder, "migrate", fault=Fault(at, "after"))
    (journal,) = (project.outputs / ".ckptrules/journal").iterdir()
    text = journal.read_text()
    journal.write_text(text.replace('"intent": 1', '"intent": "x"', 1))
    out = project.doit("migrate", check=1)
    assert f"Not recovered: .ckptrules/journal/{journal.name}:2: is damaged: " in out
    assert out.count("Move the file away when you have looked at it.\n") == 1
    journal.unlink()
    project.doit("migrate")


def test_a_second_run_waits_for_the_first_as_long_as_it_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lock.lock(str(project.outputs), "the first")
    monkeypatch.setattr(time, "sleep", lambda _: held.close())
    lock.lock(str(project.outputs), "the second", wait=60).close()


def test_plan_and_history_work_where_nothing_can_be_written(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    before = project.tree(state=True)
    held = lock.lock(str(project.outputs), "somebody")
    try:
        project.doit("plan")
        project.doit("history")
        project.doit("undo", "dry_run=1")
    finally:
        held.close()
    after = project.tree(state=True)
    lock_files = dict.fromkeys((".ckptrules/lock", ".ckptrules/lock.next"), "")
    assert {**after, **lock_files} == {**before, **lock_files}


@pytest.mark.parametrize(
    ("rules", "end"),
    [
        ("trash_days: 3", "; else it is freed after 3 days (trash_days)."),
        ("trash_days: 0", " (trash_days: 0 frees nothing that waits already)."),
        ("trash_days: soon", "; else it is freed after trash_days."),  # undo needs no rules
    ],
)
def test_an_undo_that_deletes_again_says_when_that_is_freed(project: Project, rules: str, end: str) -> None:
    """It said "after trash_days", without their number."""
    project.make({"exp/checkpoints/epoch=1-step=1.ckpt": 100, "exp/checkpoints/epoch=12-step=12.ckpt": 100})
    project.doit("migrate", "delete_old=1")
    project.doit("undo")
    naming = project.folder / "rules/retention.yaml"
    naming.write_text(re.sub(r"(?m)^trash_days: .*$", rules, naming.read_text()))
    assert rules in naming.read_text()
    (last,) = (line.split()[0] for line in project.doit("history").splitlines() if " undo " in line)
    out = project.doit("undo", f"run={last}")
    assert "deleted     1  100 B to the trash\n" in out
    assert f"In the trash: 1 item, 100 B. Free the space with 'doit purge'{end}\n" in out


def test_what_a_purge_freed_is_gone_for_the_runs_before_as_well(project: Project) -> None:
    """Undo took the run that had renamed it, failed on it with "something else moved it", and stayed at that run."""
    names = {f"epoch=1-step={n}.ckpt": n for n in (1, 2)} | {"epoch=15-step=3.ckpt": 3}
    project.make({f"one/checkpoints/{name}": size for name, size in names.items()})
    project.doit("migrate")
    project.doit("migrate", "delete_old=1")
    project.doit("purge")
    assert runs(project)[1] in project.doit("log")
    out = project.doit("undo")
    assert "Gone for good: 2 checkpoints of this run; its space was freed." in out
    assert "Taken back: run " in out
    assert project.names("one") == ["epoch=15-step=3.ckpt"]
    gone = f"Gone for good: 2 checkpoints of run {runs(project)[1]}, migrate delete_old=1; its space was freed.\n"
    assert project.doit("undo") == f"There is nothing to take back.\n{gone}"


def test_what_came_back_after_a_purge_can_be_taken_back(project: Project) -> None:
    """A restore brings the same bytes with the same time to the same name: what was freed before says nothing of it."""
    project.make({"one/checkpoints/epoch=1-step=1.ckpt": 1, "one/checkpoints/epoch=15-step=3.ckpt": 3})
    start = project.tree()
    project.doit("migrate")
    backup = re.search(r"outputs_backup_\d+_\d+", project.doit("backup"))
    assert backup
    project.doit("migrate", "delete_old=1")
    project.doit("purge")
    project.doit("restore", f"backup={backup[0]}")
    assert len(project.names("one")) == 2
    out = project.doit("undo")
    assert "Taken back: run " in out
    assert "Gone for good" not in out
    assert project.names("one") == ["epoch-15_step-000003.ckpt"]
    project.doit("restore", f"backup={backup[0]}")
    first = runs(project)[0]
    assert "Taken back: run " in project.doit("undo", f"run={first}")
    assert project.tree() == start


def test_where_the_journals_cannot_be_read_at_the_end_the_undo_is_told_all_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.make({"one/checkpoints/epoch=1-step=2.ckpt": 5, "one/checkpoints/epoch=2-step=4.ckpt": 6})
    project.doit("migrate")
    project.make({"one/checkpoints/epoch=1-step=2.ckpt": 7})

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(undo, "runs_of", fails)
    ended = crash.run(project.folder, "undo")
    assert "\nTaken back in part: run " in ended.output
    assert (ended.code, "Traceback" in ended.output) == (1, False), ended.output
