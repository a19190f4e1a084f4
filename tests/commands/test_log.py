"""`doit log`: the protocol's entry for the experiment log."""

from __future__ import annotations

import json
import os
import re
import shlex
import threading

import pytest

from ckptrules.changes.history import Run
from ckptrules.commands.log import Options, write_entry
from ckptrules.storage import writing
from tests.conftest import Project, default, run_program

TREE = {f"{name}/checkpoints/epoch={epoch}-step={epoch}0.ckpt": 100 for name in "ab" for epoch in (3, 4, 12)}


def test_the_entry_says_what_was_migrated_deleted_and_kept(project: Project) -> None:
    project.make(TREE)
    out = project.doit("migrate", "delete_old=1")
    assert out.endswith("For your experiment log: 'doit log'\n")
    entry = project.doit("log")
    date, marker, *lines = entry.splitlines()
    assert date.startswith("## 20")
    assert date.endswith(": Checkpoint Migration")
    assert marker.startswith("<!-- run ")
    assert lines[:3] == [
        "- Migrated 2 checkpoints to the new naming scheme",
        "- Deleted 4 checkpoints, 400 B (< epoch 10)",
        "- Kept 2 checkpoints for continued use",
    ]
    assert "`doit migrate delete_old=1`, in a, b" in lines[3]


def test_the_entry_names_the_policies_that_the_rules_assign(project: Project) -> None:
    """It named `default` alone, though others decided in most experiments."""
    project.make(TREE)
    rules = "retention: {paper: {keep_last: 2}}\nexperiments: [{match: b, policy: paper}]\n"
    (project.folder / "rules/mine.yaml").write_text(rules)
    project.doit("migrate", "delete_old=1", "json=done.json")
    assert "- Deleted 3 checkpoints, 300 B (< epoch 10; where the rules assign it, policy paper)\n" in project.doit(
        "log"
    )
    assert json.loads((project.folder / "done.json").read_text())["policy"]["others"] == ["paper"]


def test_the_entry_names_the_program_with_its_dodo(project: Project) -> None:
    """It said `doit migrate`, which there does not work."""
    project.make(TREE)
    (project.folder / "dodo.py").rename(project.folder / "my tasks.py")
    project.doit("-f", "my tasks.py", "migrate")
    assert "`doit -f 'my tasks.py' migrate`, in a, b" in project.doit("-f", "my tasks.py", "log")
    assert (
        "`ckptrules migrate`, in a, b"
        in run_program("ckptrules", "log", folder=project.folder, environment=default())[1]
    )


def test_log_and_history_count_as_the_summary_does(project: Project) -> None:
    """Two in conflict were kept by the log and not by the summary; leftovers were deleted by the summary alone."""
    project.make(TREE)
    project.make({f"a/checkpoints/{name}.ckpt": 100 for name in ("epoch=13-step=130", "epoch_13_step_130")})
    (project.folder / "rules/mine.yaml").write_text("leftovers: [{match: 'tmp-*', after: 1d}]\n")
    project.make({"a/checkpoints/tmp-1": 50})
    os.utime(project.outputs / "a/checkpoints/tmp-1", (10**9, 10**9))
    out = project.doit("migrate", "delete_old=1", check=1)
    assert "\n  kept        2  200 B\n" in out
    assert "450 B" in out
    assert "- Kept 2 checkpoints for continued use" in project.doit("log")
    assert " 450 B " in project.doit("history")


def test_the_same_run_is_added_once(project: Project) -> None:
    project.make(TREE)
    (project.folder / "docs").mkdir()
    out = project.doit("migrate")
    assert out.endswith("For your experiment log: 'doit log out=docs/experiment_log.md'\n")
    log = project.folder / "docs" / "experiment_log.md"
    log.write_text("# Log\n")
    assert project.doit("log", "out=docs/experiment_log.md").endswith(" added\n")
    text = log.read_text()
    assert text.startswith("# Log\n\n## ")
    assert "Deleted" not in text
    assert project.doit("log", "out=docs/experiment_log.md").endswith(" stands in it already\n")
    assert log.read_text() == text
    project.doit("migrate", "delete_old=1", "keep_min_epoch=4")
    project.doit("log", "out=docs/experiment_log.md")
    assert "-->\n- Deleted 2 checkpoints, 200 B (< epoch 4)\n- Kept 4 checkpoints" in log.read_text()
    assert log.read_text().startswith(text)


def test_of_two_who_add_to_a_log_at_once_none_writes_over_the_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of cron, each of another tree: both said 'added', and the log had one entry."""
    log, write = project.folder / "log.md", writing.write_report
    others: list[threading.Thread] = []

    def add(run: str) -> None:
        done = Run(run, {}, (), {}, {}, frozenset(), interrupted=False)
        write_entry(Options(out=str(log)), done, f"{run}\n")

    def write_slowly(path: str, text: str) -> None:
        if not others:
            others.append(threading.Thread(target=add, args=("second",)))
            others[0].start()
            others[0].join(0.2)  # as long as it would need, if it did not wait for this one
        write(path, text)

    monkeypatch.setattr(writing, "write_report", write_slowly)
    add("first")
    others[0].join()
    assert log.read_text() == "first\n\nsecond\n"


def test_an_older_run_and_a_template_of_ones_own(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate")
    run = project.doit("history").splitlines()[1].split()[0]
    project.doit("migrate", "delete_old=1")
    (project.folder / "rules" / "experiment_log.md.j2").write_text("{{ run }}: {{ renamed }}, {{ threshold }}")
    assert project.doit("log", f"run={run}") == f"{run}: 6, by hand\n"
    assert project.doit("log").endswith(": 0, < epoch 10\n")


def test_a_run_that_is_no_migration_is_passed_over(project: Project) -> None:
    """After `doit refs` the entry said "Migrated 0 checkpoints"; so it did after other commands."""
    project.make(TREE)
    (project.folder / "docs").mkdir()
    (project.folder / "docs/a.md").write_text("outputs/a/checkpoints/epoch=12-step=120.ckpt")
    project.doit("migrate", "leave_links=1")
    entry = project.doit("log")
    assert "Migrated 6 checkpoints" in entry
    project.doit("refs", "apply=1", "force=1")
    project.doit("drop_links")
    project.doit("archive", "experiments=b", "archive_dir=docs", "format=gz")
    commands = [re.split("  +", row)[3].split()[0] for row in project.doit("history").splitlines()[1:]]
    assert commands == ["archive", "drop_links", "refs", "migrate"]
    assert project.doit("log") == entry


@pytest.mark.parametrize("template", ["{{ nothing }}", "{% if %}", "{{ ''.__class__ }}{{ x }}"])
def test_a_broken_template_is_told(project: Project, template: str) -> None:
    project.make(TREE)
    project.doit("migrate")
    (project.folder / "rules" / "experiment_log.md.j2").write_text(template)
    out = project.doit("log", check=3)
    assert out.startswith("ERROR: rules/experiment_log.md.j2:1: the template of the log cannot be used: ")


def test_nothing_to_tell_of_and_nowhere_to_write(project: Project) -> None:
    assert project.doit("log", check=1) == "There is no run to tell of; 'doit history' lists them.\n"
    project.make(TREE)
    project.doit("migrate")
    assert "out=no/where.md: there is no such folder to write in" in project.doit("log", "out=no/where.md", check=3)
    assert "no run '7'" in project.doit("log", "run=7", check=3)


def test_what_was_taken_back_of_a_run_is_left_out(project: Project) -> None:
    project.make(TREE)
    project.doit("migrate", "delete_old=1")
    project.doit("undo", "experiments=b")
    entry = project.doit("log")
    assert "- Migrated 1 checkpoint to" in entry
    assert "- Deleted 2 checkpoints, 200 B (< epoch 10)\n- Kept 1 checkpoint for" in entry
    assert "`, in a\n" in entry


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["migrate:run0[0-4]*"], "'migrate:run0[0-4]*' delete_old=1"),
        (["migrate:run0*", "experiments=*7"], "'migrate:run0*' experiments='*7' delete_old=1"),
        (["migrate:a b", "migrate:run00"], "'migrate:a b' migrate:run00 delete_old=1"),
        (["migrate:lr=0.1"], "migrate:lr=0.1 delete_old=1"),
        (["migrate", "migrate:run00"], "migrate delete_old=1"),
    ],
)
def test_history_and_log_show_a_command_that_selects_the_same(project: Project, typed: list[str], shown: str) -> None:
    """They left out what words had selected: who repeated what the log said deleted in all experiments."""
    names = ("run00", "run07", "a b", "lr=0.1")
    project.make({f"{name}/checkpoints/epoch={epoch}-step={epoch}0.ckpt": 100 for name in names for epoch in (3, 12)})
    project.doit(*typed, "delete_old=1")
    after = {name: project.names(name) for name in names}
    command = shlex.split(shown)
    assert f"  {shown}  " in project.doit("history")
    assert f"`doit {shown}`" in project.doit("log")
    project.doit("undo")
    project.doit(*command)
    assert {name: project.names(name) for name in names} == after


@pytest.mark.parametrize("selected", [None, 7, {"a": 1}])
def test_journals_of_earlier_versions_and_made_up_ones_are_read(project: Project, selected: object) -> None:
    project.make(TREE)
    project.doit("migrate:a")
    (journal,) = (project.outputs / ".ckptrules/journal").iterdir()
    head, *rest = journal.read_text().splitlines(keepends=True)
    row = json.loads(head)
    assert row.pop("selected") == ["a"]
    row = row if selected is None else {"selected": selected, **row}
    journal.write_text("".join([json.dumps(row), "\n", *rest]))
    assert "  migrate  " in project.doit("history")
    assert "`doit migrate`, in a" in project.doit("log")
