"""No name moves the cursor, begins a line or ends a command, whatever the encoding of the terminal."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ckptrules.engine.measures import visible
from ckptrules.report.style import Style, printed
from ckptrules.run.command_line import refusal
from tests.conftest import Project, default, run_program

FORGED = "Deleted: all of it"
NAMES = (
    "a\x1b[2J\x1b]0;x\x07",
    f"b\n{FORGED}",
    "c\r\x08d",
    "d\u202egnp\u2066",
    "größe ☃",
    "e\udcff",
    f"f\x85\u2028\x0b{FORGED}",
    "[x](y) <!-- `z` -->",
)
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
UTF_8 = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1", "PYTHONIOENCODING": ""}
NEWEST = "-step=40.ckpt"


def make(folder: Path) -> None:
    for name in NAMES:
        checkpoints = folder / "outputs" / name / "checkpoints"
        checkpoints.mkdir(parents=True)
        for file in ("epoch=3-step=30.ckpt", "epoch=40-step=40.ckpt", f"{name}.ckpt", f"{name}.txt"):
            (checkpoints / file).write_bytes(b"x" * 10)
        (checkpoints / "last.ckpt").symlink_to("epoch=40-step=40.ckpt")
        (folder / "outputs" / f"link of {name}").symlink_to(f"{name}/checkpoints/nothing")
    (folder / "scripts").mkdir()
    for name in NAMES:
        path = f"{name}/checkpoints/epoch=3-step=30.ckpt"
        (folder / "scripts" / f"{name}.py").write_bytes(os.fsencode(f"load('{path}')\nload('epoch=3-step=30.ckpt')\n"))
    (folder / "archive").mkdir()


def said(folder: Path, *arguments: str, env: dict[str, str]) -> bytes:
    code, out, _ = run_program("doit", *arguments, folder=folder, environment={**default(), **env}, forked=True)
    assert code in (0, 1, 3), out
    return out.encode("utf-8", "surrogateescape")


def is_safe(output: bytes, env: dict[str, str]) -> None:
    assert b"Traceback" not in output, output.decode(errors="replace")
    text = output.decode("ascii" if env is PLAIN else "utf-8")
    for line in text.split("\n"):
        assert line.isprintable(), line
        assert not line.startswith(FORGED), line


COMMANDS = (
    "plan delete_old=1 verbose=1", "migrate dry_run=1", "verify", "catalog", "catalog format=csv", "catalog format=json",
    "check", "history", "undo dry_run=1", "purge dry_run=1", "explain name=*", "explain name=nothing*", "trash",
    "usage", "usage archive_dir=archive", "archive archive_dir=archive experiments=* dry_run=1", "schedule",
    "fix_state dry_run=1", "drop_links dry_run=1", "refs", "refs paths=scripts", "log", "backups", "backups verify=1",
    "restore backup=%BACKUP% dry_run=1", "drop_backup backup=%BACKUP% dry_run=1", "unarchive archive=%ARCHIVE% dry_run=1",
    "list --all", "help", "help migrate", "plan:nothing", "undo experiments=nothing", "backup experiments=nothing dry_run=1",
    "restore backup=%BACKUP% experiments=nothing", "plan outputs_dir=no\x1bthing\nhere", "plan policy=\x1b[2J",
    "unarchive archive=\x1b[2J\n.tar.gz", "restore backup=\x1b[2J", "log run=\x1b[2J", "explain name=\x1b\n*",
    "refs paths=\x1b[2J", "undo run=\x1b", "usage archive_dir=\x1b", "log out=docs\x1b/x", "plan keep_min_epoch=\x1b",
)  # fmt: skip


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tree of hostile names in which everything was done once."""
    import shutil

    from tests.conftest import ROOT

    folder = tmp_path_factory.mktemp("hostile")
    shutil.copy(ROOT / "dodo.py", folder)
    shutil.copytree(ROOT / "rules", folder / "rules")
    make(folder)
    for words in (
        "backup",
        "archive archive_dir=archive experiments=* keep_source=1 format=gz",
        "migrate delete_old=1",
        "verify",
    ):
        is_safe(said(folder, *words.split(), env=PLAIN), PLAIN)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("env", [PLAIN, UTF_8], ids=["ascii", "utf-8"])
def test_no_command_prints_what_a_terminal_would_obey(lived: Path, command: str, env: dict[str, str]) -> None:
    (backup,) = [name for name in os.listdir(lived) if name.startswith("outputs_backup_")]
    archives = sorted(name for name in os.listdir(lived / "archive") if name.endswith(".gz"))
    command = command.replace("%BACKUP%", backup).replace("%ARCHIVE%", f"archive/{archives[1]}")
    is_safe(said(lived, *command.split(" "), env=env), env)


CHANGES = (
    "migrate delete_old=1", "undo", "migrate leave_links=1", "drop_links", "refs apply=1 paths=scripts", "undo",
    "log out=log.md", "log out=log.md", "archive archive_dir=archive experiments=*", "history", "trash", "undo",
    "backup", "migrate verbose=1 fix_state=1", "history", "catalog out=c.csv format=csv", "purge",
)  # fmt: skip


@pytest.mark.parametrize("env", [PLAIN, UTF_8], ids=["ascii", "utf-8"])
def test_nor_does_any_that_changes_something(project: Project, env: dict[str, str]) -> None:
    make(project.folder)
    for command in CHANGES:
        is_safe(said(project.folder, *command.split(), env=env), env)
    for name in ("log.md", "c.csv"):
        for line in (project.folder / name).read_text(encoding="utf-8").split("\n"):
            assert line.isprintable()
            assert not line.startswith(FORGED)


@pytest.mark.parametrize("env", [PLAIN, UTF_8], ids=["ascii", "utf-8"])
@pytest.mark.parametrize("journal", ["\x1b[2J.jsonl", f"x\n{FORGED}", "20260101T100000Z-1.1.jsonl"])
def test_nor_a_journal_or_a_lock_that_somebody_left(project: Project, journal: str, env: dict[str, str]) -> None:
    make(project.folder)
    folder = project.outputs / ".ckptrules" / "journal"
    folder.mkdir(parents=True)
    (folder / journal).write_text('{"journal": 2, "line": "run\x1b[2J"}\n{"line": "intent", "x\x1b": 1}\n')
    for command in ("migrate dry_run=1", "history", "undo", "log", "refs", "migrate"):
        is_safe(said(project.folder, *command.split(), env=env), env)


def test_a_lock_that_somebody_wrote_into_is_shown_in_one_line(project: Project) -> None:
    import fcntl

    (project.outputs / ".ckptrules").mkdir(parents=True)
    with open(project.outputs / ".ckptrules" / "lock", "w+") as lock:
        lock.write(f"\x1b[2Jme\n{FORGED}")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_safe(said(project.folder, "migrate", env=PLAIN), PLAIN)


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\udcffb"])
def test_what_cannot_stand_in_a_crontab_is_refused(project: Project, name: str) -> None:
    (project.folder / name).mkdir()
    out = project.doit("schedule", f"outputs_dir={name}", check=3)
    assert "cannot stand in a line for cron or systemd" in out


@pytest.mark.parametrize("env", [PLAIN, UTF_8], ids=["ascii", "utf-8"])
def test_a_report_that_goes_to_a_file_does_not_fail(project: Project, env: dict[str, str]) -> None:
    make(project.folder)
    is_safe(said(project.folder, "-o", "out.txt", "plan", env=env), env)
    is_safe((project.folder / "out.txt").read_bytes(), env)


def test_colours_stay_and_nothing_else() -> None:
    style = Style(colour=True)
    text = style.paint("red", "red") + "\x1b[31;5m \x1b[2J\x07\n" + style.paint("x", "bold")
    assert printed(text, colour=True) == text.replace("\x1b[31;5m", r"\x1b[31;5m").replace(
        "\x1b[2J\x07", r"\x1b[2J\x07"
    )
    assert re.search(r"[^\x20-\x7e\n]", printed(text, colour=False)) is None


def test_a_refusal_has_no_lines_but_its_own() -> None:
    text = f"command line: 'a\n{FORGED}\x1b' is not there\n    hint: look\n    and look again"
    assert refusal(text) == rf"command line: 'a\n{FORGED}\x1b' is not there" + "\n    hint: look\n    and look again"
    assert visible("größe ☃") == "größe ☃"
