"""Every command in a message works when it is copied: it has the options in force and the program's own name."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ckptrules.commands.demo import sample_checkpoint
from ckptrules.run.declared import declared
from ckptrules.run.hints import InForce, command, command_with, complete, in_force, quoted
from tests.conftest import ROOT, Project, default, named_commands, run_copied, run_program
from tests.support.tables import every_row

OLD = "epoch=3-step=30.ckpt"
YOUNG = "epoch=20-step=200.ckpt"


@every_row(
    ("typed", "text", "shown"),
    [
        ("doit migrate", "Free it with 'doit purge'.", "Free it with 'doit purge'."),
        ("doit migrate outputs_dir=other", "'doit purge'", "'doit purge outputs_dir=other'"),
        ("doit migrate outputs_dir=outputs", "'doit purge'", "'doit purge outputs_dir=outputs'"),
        ("doit migrate --outputs-dir other", "'doit undo run=ID'", "'doit undo run=ID outputs_dir=other'"),
        ("doit migrate --outputs-dir=other", "'doit undo'", "'doit undo outputs_dir=other'"),
        ("doit migrate rules_dir=r policy=p", "'doit plan'", "'doit plan rules_dir=r policy=p'"),
        ("doit migrate rules_dir=r policy=p", "'doit undo'", "'doit undo rules_dir=r'"),
        ("doit migrate policy=p", "'doit plan policy=q'", "'doit plan policy=q'"),
        ("doit plan keep_min_epoch=10", "'doit plan delete_old=1'", "'doit plan delete_old=1 keep_min_epoch=10'"),
        ("doit x outputs_dir=o", "`doit refs paths='a b'` it", "`doit refs paths='a b' outputs_dir=o` it"),
        ("doit x", command("migrate", settle=0, delete_old=True, verified=False, policy=None, experiments=""),
         "'doit migrate settle=0 delete_old=1'"),
        ("doit x outputs_dir=o", command("drop_backup", backup="b"), "'doit drop_backup backup=b outputs_dir=o'"),
        ("doit usage outputs_dir=o", "'doit'", "'doit outputs_dir=o'"),
        ("doit plan outputs_dir=o", "'doit -n 0 migrate'", "'doit -n 0 migrate outputs_dir=o'"),
        ("doit plan outputs_dir=o", "'doit migrate:a'", "'doit migrate:a outputs_dir=o'"),
        ("doit plan outputs_dir=o", "'doit list --all'", "'doit list --all outputs_dir=o'"),
        ("doit plan outputs_dir=o", "'doit help plan'", "'doit help plan'"),
        ("doit plan outputs_dir=o", "'ckptrules init'", "'ckptrules init'"),
        ("doit -f x/dodo.py -d y plan", "'doit undo'", "'doit -f x/dodo.py -d y undo'"),
        ("doit --file=x.py plan", "'doit undo'", "'doit --file=x.py undo'"),
        ("doit -n 4 plan", "'doit undo'", "'doit undo'"),
        ("/venv/bin/ckptrules plan outputs_dir=o", "'doit undo'", "'ckptrules undo outputs_dir=o'"),
        ("/lib/ckptrules/__main__.py plan", "'doit undo'", "'ckptrules undo'"),
        ("doit plan 'outputs_dir=my runs'", "'doit purge'", "`doit purge outputs_dir='my runs'`"),
        ("doit plan 'outputs_dir=$HOME'", "'doit purge'", "`doit purge outputs_dir='$HOME'`"),
        ("doit nonsense=1 outputs_dir=other", "'doit purge'", "'doit purge outputs_dir=other'"),
        ("doit plan outputs_dir=o", "doit's 'doing' isn't 'doit", "doit's 'doing' isn't 'doit"),
        ("doit plan outputs_dir=o", "'doit undo' and 'doit purge'", "'doit undo outputs_dir=o' and 'doit purge outputs_dir=o'"),
    ],
)  # fmt: skip
def test_a_command_is_completed_with_what_is_in_force(typed: str, text: str, shown: str) -> None:
    assert complete(text, in_force(shlex.split(typed), "utf-8")) == shown


ODD = (
    "a b",
    "it's",
    "$HOME",
    "a`b",
    'say "x"',
    "a;b",
    "b*",
    "~x",
    "日本",
    "\udcff",
    "a\nb",
    "a\\b",
    "!",
    "a\x1bb",
    "-x",
)


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_shell_reads_a_quoted_value_as_it_was(value: str, encoding: str) -> None:
    text = quoted(value, encoding)
    assert text.isprintable()
    assert text.encode(encoding)
    read = subprocess.run(["bash", "-c", f"printf %s {text}"], capture_output=True, check=True).stdout
    assert read == os.fsencode(value)


@pytest.mark.whole
@pytest.mark.parametrize("name", ["other", "my runs", "it's", "$x", 'a "b"', "lr=0.1"])
def test_purge_as_the_summary_names_it_empties_this_trash_and_no_other(project: Project, name: str) -> None:
    """A10: copied as it stood, it emptied the trash of `outputs`."""
    project.make({f"exp/checkpoints/{OLD}": 9, f"exp/checkpoints/{YOUNG}": 9})
    project.doit("migrate", "delete_old=1")
    other = Project(project.folder)
    other.outputs = project.folder / name
    other.make({f"exp/checkpoints/{OLD}": 9, f"exp/checkpoints/{YOUNG}": 9})
    out = project.doit("migrate", "delete_old=1", f"outputs_dir={name}")
    (purge,) = [one for one in named_commands(out) if "purge" in one]
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    shell = f'doit() {{ "{sys.executable}" -m doit "$@"; }}; {purge}'
    result = subprocess.run(
        ["bash", "-c", shell], cwd=project.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert "Freed: 1 item " in result.stdout
    assert project.doit("trash") != "The trash is empty.\n"
    assert project.doit("trash", f"outputs_dir={name}") == "The trash is empty.\n"


COMMANDS = {
    "migrate delete_old=1": ["purge", "log"],
    "trash": ["undo", "purge"],
    "usage": ["migrate"],
    "explain name=epoch*": ["migrate"],
    "explain name=nothing": ["plan"],
    "verify": ["migrate"],
    "undo run=nonsense": ["history"],
    "restore": ["backups"],
    "refs paths=dodo.py": [],
    "plan policy=best_and_last delete_old=1 max_delete=10%": ["plan"],
}


@pytest.mark.whole
@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.parametrize("program", ["doit", "ckptrules"])
def test_messages_name_commands_of_this_program_with_the_folder_in_force(
    tmp_path: Path, line: str, program: str
) -> None:
    folder = Project(tmp_path / "empty")
    folder.outputs = folder.folder / "my runs"
    folder.make({f"a/checkpoints/{OLD}": 9, f"a/checkpoints/{YOUNG}": 9, f"b/checkpoints/{YOUNG}": 9})
    (folder.outputs / f"a/checkpoints/{YOUNG}").write_bytes(sample_checkpoint(20, 200, 3000))
    if program == "doit":
        (folder.folder / "dodo.py").write_bytes((ROOT / "dodo.py").read_bytes())
    if line != "migrate delete_old=1":
        run(folder, program, "migrate:a delete_old=1" if line == "trash" else "plan")
    out = run(folder, program, line)
    commands = named_commands(out)
    for task in COMMANDS[line]:
        assert any(named.split()[1] == task for named in commands), (task, out)
    for named in commands:
        if named == "ckptrules init":
            continue
        assert named.split()[0] == program
        assert "outputs_dir='my runs'" in named
        code, told = run_copied(named, folder.folder)
        assert code != 3, (named, told)


def run(folder: Project, program: str, line: str) -> str:
    words = [*line.split(), "outputs_dir=my runs"]
    _, out, _ = run_program(program, *words, folder=folder.folder, environment=default())
    assert "Traceback" not in out
    return out


def test_hints_in_a_json_file_are_completed_too(project: Project) -> None:
    project.outputs = project.folder / "runs"
    project.make({f"exp/checkpoints/{OLD}": 9})
    project.doit("verify", "json=out.json", "outputs_dir=runs", check=1)
    assert "'doit migrate outputs_dir=runs' renames it" in (project.folder / "out.json").read_text()


def test_nothing_in_force_changes_nothing() -> None:
    assert complete("'doit purge'", InForce()) == "'doit purge'"


def test_what_others_wrote_is_shown_as_it_is(project: Project) -> None:
    """A diff, an entry of the log and a catalog quote; a file may well hold ``'doit purge'``."""
    project.outputs = project.folder / "runs"
    project.make({f"exp/checkpoints/{OLD}": 9, "exp/checkpoints/best-'doit purge'.ckpt": 9})
    project.doit("migrate", "outputs_dir=runs")
    scripts = project.folder / "scripts"
    scripts.mkdir()
    (scripts / "a.sh").write_text(f"# 'doit purge'\nload runs/exp/checkpoints/{OLD}\n")
    out = project.doit("refs", "outputs_dir=runs", "paths=scripts")
    assert " # 'doit purge'\n" in out
    assert "'doit refs apply=1 paths=scripts outputs_dir=runs' writes them; 'doit undo outputs_dir=runs'" in out
    assert "`doit migrate outputs_dir=runs`" in project.doit("log", "outputs_dir=runs")
    assert "best-'doit purge'.ckpt" in project.doit("catalog", "format=json", "outputs_dir=runs")


@pytest.mark.parametrize(
    ("typed", "tasks", "options", "shown"),
    [
        ("doit plan", "plan", {}, "doit plan"),
        ("doit plan json=x keep_min_epoch=5", "plan", {"keep_last": 2, "delete_old": True},
         "doit plan delete_old=1 keep_last=2"),
        ("doit plan rules_dir=r policy=p", "plan:a plan:b", {"keep_min_epoch": 0},
         "doit plan:a plan:b keep_min_epoch=0 rules_dir=r"),
        ("doit -f x/dodo.py page", "plan", {"policy": "it's", "settle": 0}, "doit -f x/dodo.py plan policy='it'\"'\"'s' settle=0"),
        ("ckptrules plan", "plan", {"experiments": "a*", "json": "x", "verbose": True}, "ckptrules plan experiments='a*'"),
    ],
)  # fmt: skip
def test_a_command_has_the_options_that_decide_and_no_others(
    typed: str, tasks: str, options: dict[str, Any], shown: str
) -> None:
    given = declared("plan")(**options)
    assert command_with(tasks, given, in_force(shlex.split(typed), "utf-8")) == shown


@pytest.mark.parametrize("flags", ["-k", "-f x/dodo.py", "-d 'my runs'", "--dir=x", "-f dodo.py -d x"])
def test_a_command_that_was_completed_before_gets_no_flag_of_doit_twice(flags: str) -> None:
    force = in_force(shlex.split(f"doit {flags} plan outputs_dir=o"), "utf-8")
    once = complete("See 'doit purge'.", force)
    assert f"doit {flags} purge outputs_dir=o" in once
    assert complete(once, force) == once
