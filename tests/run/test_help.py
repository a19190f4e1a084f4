"""The first word that people get: a page of our commands, or the options of one; in any folder, and never an error.

Run this file as a script (``python -m tests.run.test_help``) to write docs/options.md anew.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from ckptrules.cli import init
from ckptrules.commands.demo import walk_through
from ckptrules.rules.shipped import groups, sentences
from ckptrules.run.declared import TASKS, declared
from ckptrules.run.help import INIT, OWN, WITHOUT_OPTIONS, asks_for_help, page, topic_page
from ckptrules.run.options import Common, Migrating
from ckptrules.storage import writing
from tests.conftest import ROOT, Project, default, run_program
from tests.support.tables import every

KNOWN = sentences()
OURS = {word: own.sentence for word, own in OWN.items()}
PAGE = page({**groups(), "Begin": {**OURS, **groups()["Begin"]}}, "ckptrules")
PAGES = {topic: topic_page(topic, KNOWN, "ckptrules") for topic in (*KNOWN, *OWN)}
OPTIONS_PAGE = ROOT / "docs" / "options.md"


def run(folder: Path, *words: str, program: str = "ckptrules", **env: str) -> subprocess.CompletedProcess[str]:
    code, out, err = run_program(program, *words, folder=folder, environment={**default(), **env}, apart=True)
    return subprocess.CompletedProcess(words, code, out, err)


def empty(_: Path) -> None:
    pass


def broken_rules(folder: Path) -> None:
    (folder / "rules").mkdir()
    (folder / "rules/naming.yaml").write_text("legacy: [")


def broken_dodo(folder: Path) -> None:
    (folder / "dodo.py").write_text("this is no Python")
    (folder / "pyproject.toml").write_text("[tool.doit\n")


def with_outputs(folder: Path) -> None:
    (folder / "outputs/.ckptrules").mkdir(parents=True)
    (folder / "outputs/.ckptrules/doit.db").write_text("garbage")


def forbidden(folder: Path) -> None:
    folder.chmod(0o555)


@pytest.mark.parametrize("make", [empty, broken_rules, broken_dodo, with_outputs, forbidden])
@pytest.mark.parametrize("words", ["", "-h", "--help", "help"])
def test_the_page_lists_our_commands_in_any_folder(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path)
    result = run(tmp_path, *words.split())
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == PAGE


@every([*TASKS])
def test_every_task_has_a_row_on_the_page_and_a_page_of_its_own_options(task: str) -> None:
    assert f"\n  {task} " in PAGE
    text = topic_page(task, KNOWN, "doit")
    for name, option in {**Migrating.known(), **declared(task).known()}.items():
        its_own = task != "demo" and name in declared(task).known()
        assert (f"  {name}=" in text) == its_own, name
        assert (f"--{option.dashed}" in text) == its_own or not its_own
    assert " ".join(text.split()).count(" ".join(KNOWN[task].split())) == 1


def test_the_page_has_every_task_once_and_fits_any_terminal() -> None:
    assert sorted(sentences()) == sorted(TASKS)  # each file in commands/ has its line in dodo.py
    for text in (PAGE, *PAGES.values()):
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    "words",
    [
        "purge --help",
        "purge -h",
        "-h purge",
        "--help purge",
        "help purge",
        "purge older_than=7d -h",
        "purge --wait 3 -h",
    ],
)
@pytest.mark.parametrize("make", [empty, broken_rules, broken_dodo])
def test_a_task_shows_its_options(tmp_path: Path, words: str, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    result = run(tmp_path, *words.split())
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        "  older_than=X, --older-than X\n        free only what has been in the trash for so long: 7d, 12h\n"
        in result.stdout
    )
    assert "  yes=1, --yes, --no-yes\n" in result.stdout
    assert "delete_old" not in result.stdout


@pytest.mark.parametrize("words", ["migrate --help", "migrate -h", "help migrate", "migrate:a -h", "-n 2 migrate -h"])
def test_doit_shows_them_too_and_makes_nothing(project: Project, words: str) -> None:
    shutil.rmtree(project.outputs)
    out = project.doit(*words.split())
    assert out.startswith("doit migrate [name=value ...]\n")
    assert "  delete_old=1, --delete-old, --no-delete-old\n" in out
    assert not project.outputs.exists()


@pytest.mark.parametrize("word", OWN)
@pytest.mark.parametrize("words", ["help {}", "{} --help", "{} -h", "-h {}"])
def test_what_is_no_task_has_such_a_page_too(tmp_path: Path, word: str, words: str) -> None:
    assert f"\n  {word} " in PAGE
    result = run(tmp_path, *words.format(word).split())
    assert (result.returncode, result.stderr, result.stdout) == (0, "", PAGES[word])
    assert os.listdir(tmp_path) == []
    for heading in ("\nOptions\n", "\nExamples\n", "\nExit codes\n", OWN[word].sentence[:40], "In brackets"):
        assert heading in result.stdout


@pytest.mark.parametrize(("words", "code"), [("help init", 0), ("help migrat", 3), ("migrat --help", 3), ("init", 3)])
def test_doit_leads_to_it(project: Project, words: str, code: int) -> None:
    out = project.doit(*words.split(), check=code)
    near = "init" if "init" in words else "migrate"
    hint = f"hint: did you mean '{'ckptrules' if near == INIT else 'doit'} {near}'?\n"
    assert out.endswith(hint) if code else out == PAGES[INIT]


def test_help_of_a_task_of_ones_own_is_left_to_doit(project: Project) -> None:
    dodo = project.folder / "dodo.py"
    dodo.write_text(dodo.read_text() + '\n\ndef task_train():\n    """Train it."""\n    return {"actions": []}\n')
    assert "Train it." in project.doit("help", "train")
    assert project.doit("tarin", check=3).count("did you mean 'doit") == 0


@pytest.mark.parametrize("words", ["migrat", "migrat:x delete_old=1", "help migrat", "migrat --help", "-n 4 migrat"])
def test_a_mistyped_task_gets_the_nearest(tmp_path: Path, words: str) -> None:
    result = run(tmp_path, *words.split())
    assert result.returncode == 3
    assert result.stderr == (
        "ERROR: command line: there is no task 'migrat'\n    hint: did you mean 'ckptrules migrate'?\n"
    )


@pytest.mark.parametrize(
    ("word", "ours"),
    [("prune", "plan delete_old=1"), ("clean", "plan delete_old=1"), ("ls", "catalog"), ("du", "usage")],
)
def test_a_word_of_another_program_gets_what_does_that_here(tmp_path: Path, word: str, ours: str) -> None:
    """`prune` got `purge`, which frees for good what is in the trash; `clean` did nothing, without a word."""
    result = run(tmp_path, word)
    hint = f"ERROR: command line: there is no task '{word}'\n    hint: did you mean 'ckptrules {ours}'?\n"
    assert (result.returncode, result.stdout, result.stderr) == (3, "", hint)


def test_doit_tells_it_as_well_where_all_tasks_are_ours(project: Project) -> None:
    assert "hint: did you mean 'doit verify'?" in project.doit("verfy", check=3)
    assert "hint: 'ckptrules help' lists them" in project.doit("xyzzy", check=3)


@pytest.mark.whole
@pytest.mark.parametrize("words", ["", "-h", "help migrate", "list", "list --all", "init", "plan", "demo"])
def test_a_pipe_that_closes_gives_no_traceback(tmp_path: Path, words: str) -> None:
    command = f'"{sys.executable}" -m ckptrules {words} | true'
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr
    if words == "init":
        assert sorted(os.listdir(tmp_path)) == ["dodo.py", "rules"]
        assert sorted(os.listdir(tmp_path / "rules")) == sorted(os.listdir(ROOT / "rules"))


@pytest.mark.whole
@pytest.mark.parametrize("words", ["-h", "migrate -h", "help refs"])
def test_any_encoding_will_do(tmp_path: Path, words: str) -> None:
    result = run(tmp_path, *words.split(), LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.whole
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("words", ["", "--version", "help plan", "init", "completion bash", "doit help plan"])
def test_an_output_that_cannot_be_written_is_told_in_one_sentence(project: Project, words: str) -> None:
    program = ["doit", *words.split()[1:]] if words.startswith("doit") else ["ckptrules", *words.split()]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", *program]
        done = subprocess.run(command, cwd=project.folder, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr == "ERROR: the output cannot be written: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.whole
@pytest.mark.parametrize("words", ["init", "demo", "plan"])
def test_a_folder_that_was_removed_is_told_in_one_sentence(tmp_path: Path, words: str) -> None:
    command = f'mkdir gone && cd gone && rmdir ../gone && "{sys.executable}" -m ckptrules {words}'
    env = {**default(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    told = "ERROR: the folder that you stand in: No such file or directory\n    hint: cd to another one\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", told)


@pytest.mark.parametrize("words", ["demo", "init"])
def test_a_folder_that_cannot_be_written_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    def refuse(path: str, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(writing, "write_new", refuse)
    monkeypatch.chdir(tmp_path)
    assert walk_through() if words == "demo" else init([]) == 3
    told = capsys.readouterr()
    failed = told.err if words == "init" else told.out + told.err  # init says first what it saw
    assert failed.count("\n") == 1
    assert "Permission denied" in failed


def test_what_cannot_be_written_whole_is_not_left_in_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next `init` would say that it is there already."""

    def fill_up(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(OSError, match="No space"):
        writing.write_new(str(tmp_path / "dodo.py"), b"text")
    assert os.listdir(tmp_path) == []


def test_init_names_the_program_that_works_there(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    assert run(tmp_path, "init").stdout.endswith("Next: 'doit check', then 'doit plan'\n")
    shutil.rmtree(tmp_path / "rules")
    (tmp_path / "dodo.py").write_text("def task_mine():\n    return {'actions': []}\n")
    assert run(tmp_path, "init").stdout.endswith("Next: 'ckptrules check', then 'ckptrules plan'\n")
    assert run(tmp_path, "init", "x").returncode == 3


def test_the_version_stays() -> None:
    assert run(ROOT, "--version").stdout.startswith("ckptrules ")


@pytest.mark.parametrize(
    ("words", "topic"),
    [
        ("plan", None),
        ("help list", None),
        ("list -h", ""),
        ("train -h", "train"),
        ("help", ""),
        ("help migrate:x", "migrate"),
    ],
)
def test_what_help_is_about(words: str, topic: str | None) -> None:
    assert asks_for_help(words.split(), TASKS) == topic


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ("catalog format=xml", "format=xml: must be one of table, json, csv"),
        ("catalog --format gz", "format=gz: must be one of table, json, csv"),
        ("archive format=csv", "format=csv: must be one of zst, gz"),
        ("archive catalog format=csv", "format=csv: must be one of zst, gz"),
        ("plan json=-", "json=-: must be the path of a file, such as report.json"),
        ("catalog out=-", "out=-: must be the path of a file, such as report.json"),
    ],
)
def test_what_a_task_does_not_know_is_refused_by_what_it_knows(project: Project, words: str, fact: str) -> None:
    assert project.doit(*words.split(), check=3) == f"ERROR: command line: {fact}\n"
    assert not (project.folder / "-").exists()


OPTIONS_HEAD = """\
# Options

<!-- Generated from the declarations in ckptrules/commands/; a test says how to write it anew. -->

Write them as `name=value` anywhere, or as flags behind the task: `--name value`, with dashes. What is `0` here stands
alone as a flag (`--delete-old`), and `--no-delete-old` turns it off. Yes is `1`, `true`, `yes` or `on`; no is `0`,
`false`, `no` or `off`.

A name that is unknown, a value that does not fit, an option given twice and one that the task has no use for are
refused before anything is touched.

## Every command
"""


def current_options() -> str:
    lines = [OPTIONS_HEAD, *table(Common, ())]
    for task, sentence in KNOWN.items():
        rows = [] if task in WITHOUT_OPTIONS else table(declared(task), Common.known())
        lines += [f"\n## `doit {task}`\n", f"{sentence}.", *([""] * bool(rows)), *rows]
    return "\n".join([*lines, ""])


def table(options: type[Common], but: Collection[str]) -> list[str]:
    own = [one for name, one in options.known().items() if name not in but]
    rows = [f"| `{one.name}` | {f'`{one.shown}`' * bool(one.shown)} | {one.help} |" for one in own]
    return ["| option | default | meaning |", "| --- | --- | --- |", *rows] if rows else []


def test_the_page_of_options_is_current() -> None:
    assert OPTIONS_PAGE.read_text(encoding="utf-8") == current_options(), f"run: python -m {__name__}"


if __name__ == "__main__":
    OPTIONS_PAGE.write_text(current_options(), encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "flag"),
    [("--zzz", "--zzz"), ("-x plan", "-x"), ("list --zzz", "--zzz"), ("run --zzz plan", "--zzz"), ("forget -q", "-q")],
)
def test_a_flag_that_doit_does_not_know_is_one_fact_and_no_dump_of_its_objects(
    tmp_path: Path, words: str, flag: str
) -> None:
    done = run(tmp_path, *words.split())
    assert done.returncode == 3
    hint = "'ckptrules help' lists the commands; options of a command stand behind it"
    assert done.stderr == f"ERROR: command line: option {flag} not recognized\n    hint: {hint}\n"
