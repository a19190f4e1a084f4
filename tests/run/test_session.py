"""Two calls in one process have nothing in common; one call holds one lock for each folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptrules.run import finding, locking, records, startup
from ckptrules.run.command_line import command_line
from ckptrules.run.declared import TASKS
from ckptrules.run.options import Common, OptionError
from ckptrules.run.session import Session, once
from tests.conftest import ROOT, Project, default, run_program
from tests.support.tables import every_row

TWO_CALLS = """
import json, os, sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from doit.cmd_base import ModuleTaskLoader
from doit.doit_cmd import DoitMain

def begin(folder, words):
    os.chdir(folder)
    sys.argv = ["doit", *words]
    dodo = ModuleType("dodo")
    SourceFileLoader("dodo", os.path.join(folder, "dodo.py")).exec_module(dodo)
    return dodo

def go_on(dodo, words):
    try:
        return DoitMain(ModuleTaskLoader(vars(dodo))).run(words)
    except SystemExit as end:
        return end.code

calls = json.loads(sys.argv[1])
dodos = [begin(folder, words) for folder, words in calls]
print([go_on(dodo, words) for dodo, (_, words) in zip(dodos, calls)])
"""


def call_of(folder: Path, *words: str) -> tuple[str, list[str]]:
    """Return a call that goes by the folder, its rules and its outputs, wherever the process stands."""
    places = [f"outputs_dir={folder}/outputs", f"rules_dir={folder}/rules", f"json={folder}/run.json"]
    return str(folder), ["-o", f"{folder}/out", *words, *places]


@pytest.mark.whole
def test_two_calls_in_one_process_have_nothing_in_common(project: Project, tmp_path: Path) -> None:
    here, there = project, Project(tmp_path / "other")
    shutil.copytree(ROOT / "rules", there.folder / "rules")
    shutil.copy(ROOT / "dodo.py", there.folder)
    rules = there.folder / "rules/retention.yaml"
    rules.write_text("retention: {default: {min_epoch: 5}}\ntrash_days: 30\n")
    for one in (here, there):
        one.make({f"exp/checkpoints/epoch_{n}_step_{n}.ckpt": n for n in (1, 7, 12)})
    before = here.tree()
    calls = [call_of(here.folder, "plan", "delete_old=1"), call_of(there.folder, "migrate", "delete_old=1")]
    script = [sys.executable, "-c", TWO_CALLS, json.dumps(calls)]
    ended = subprocess.run(script, env=default(), capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("[0, 0]\n", "")
    assert here.tree() == before
    assert not (here.outputs / ".ckptrules").exists()
    assert there.names("exp") == ["epoch-07_step-000007.ckpt", "epoch-12_step-000012.ckpt"]
    plan, migrated = (json.loads((one.folder / "run.json").read_text()) for one in (here, there))
    assert [run["command"] for run in (plan, migrated)] == ["plan", "migrate"]
    assert [run["policy"]["lines"]["min_epoch"] for run in (plan, migrated)] == ["10", "5"]
    gone = [
        [row["name"] for row in run["experiments"][0]["actions"] if row["action"] == "trash"]
        for run in (plan, migrated)
    ]
    assert gone == [["epoch_1_step_1.ckpt", "epoch_7_step_7.ckpt"], ["epoch_1_step_1.ckpt"]]
    told, done = ((one.folder / "out").read_text() for one in (here, there))
    assert f"outputs_dir={there.folder}" not in told
    assert str(here.folder) not in done
    assert "up to date" in there.doit("migrate", "delete_old=1")


@once
def many(_: Session, name: str) -> list[str]:
    return [name]


def test_a_session_asks_once() -> None:
    one, other = (Session(command_line([]), {}) for _ in range(2))
    assert many(one, "a") is many(one, "a") is not many(other, "a")
    assert many(one, "a") != many(one, "b")


def test_a_session_holds_one_lock_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    one, other = (Session(command_line([]), {}) for _ in range(2))
    locking.take_lock(one, "outputs", 3)
    locking.take_lock(one, "outputs")
    locking.take_lock(one, str(tmp_path / "outputs"))
    with pytest.raises(OptionError, match="another run is at work"):
        locking.take_lock(other, "outputs")
    one.cleanup.close()
    locking.take_lock(other, "outputs")
    other.cleanup.close()


def test_a_command_that_waits_beside_one_that_does_not_takes_one_lock(project: Project) -> None:
    project.make({"exp/checkpoints/epoch_1_step_1.ckpt": 1})
    out = project.doit("migrate", "--wait", "3", "purge")
    assert "Summary" in out
    assert "Freed: nothing\n" in out


def test_a_dodo_that_begins_no_session_is_refused(project: Project) -> None:
    """Its commands would run without the lock."""
    dodo = project.folder / "dodo.py"
    dodo.write_text(dodo.read_text().replace("DOIT_CONFIG = doit_config()\n", ""))
    out = project.doit("plan", check=3)
    assert out == f"ERROR: dodo.py: {startup.NO_SESSION}\n"


TRAIN = """

def task_train():
    return {"actions": ["echo trained"]}
"""


def test_a_project_keeps_the_settings_that_it_gives_to_doit_config(project: Project) -> None:
    dodo = project.folder / "dodo.py"
    own = "DOIT_CONFIG = {'default_tasks': ['train'], 'verbosity': 2}\n"
    with_own = dodo.read_text().replace("DOIT_CONFIG = doit_config()", f"{own}DOIT_CONFIG = doit_config(**DOIT_CONFIG)")
    dodo.write_text(with_own + TRAIN)
    project.make({"exp/checkpoints/epoch_1_step_1.ckpt": 1})
    assert project.doit() == "trained\n"
    assert project.doit("migrate:exp").startswith("Processing experiment: exp\n")
    text = dodo.read_text()
    for other in ("migrate", "migrate:exp"):
        dodo.write_text(text.replace("'train'", repr(other)))
        assert project.doit(check=3) == f"ERROR: dodo.py: default_tasks: '{other}' runs only where it is typed\n"


@pytest.mark.parametrize("beside", [False, True])
def test_a_task_that_is_usual_needs_neither_outputs_nor_rules(project: Project, *, beside: bool) -> None:
    """A plan that nobody had asked for was refused, and so was the training that was to make the outputs."""
    dodo = project.folder / "dodo.py"
    own = project.folder / "train.py" if beside else dodo
    begin = dodo.read_text().replace("doit_config()", "doit_config(default_tasks=['train'])")
    own.write_text(begin + TRAIN)
    shutil.rmtree(project.folder / "rules")
    (project.folder / "rules").write_text("none")
    for words in ((), ("lr=0.1",), ("train",)):
        out = project.doit(*(("-f", "train.py") if beside else ()), "-v", "2", *words)
        assert out == "trained\n"


def test_a_pattern_that_fits_no_experiment_is_said(project: Project) -> None:
    """`paper*` did not fit `cvpr/paper_1`, and what its policy was to keep went by another one, without a word."""
    project.make({f"cvpr/paper_1/checkpoints/epoch_{epoch}_step_1.ckpt": 1 for epoch in (1, 11, 12)})
    rules = project.folder / "rules"
    (rules / "naming.yaml").write_text(
        (rules / "naming.yaml").read_text().replace("['*/checkpoints']", "['*/*/checkpoints']")
    )
    (rules / "mine.yaml").write_text("experiments:\n  - {match: 'paper*', policy: keep_all}\n")
    note = (
        "Policy 'keep_all' is for none: no experiment fits 'paper*' (rules/mine.yaml:2:13).\n    hint: a pattern must"
    )
    assert note in project.doit("plan", "delete_old=1")
    assert note not in project.doit("plan")
    assert note not in project.doit("plan:cvpr/paper_1", "delete_old=1")
    (rules / "mine.yaml").write_text("experiments:\n  - {match: '*paper*', policy: keep_all}\n")
    assert "Policy 'keep_all'" not in project.doit("plan", "delete_old=1")


def test_rules_that_nobody_here_wrote_are_named(project: Project) -> None:
    """In a folder without rules, all below epoch 10 went, and not a word said by whose rules."""
    project.make({f"exp/checkpoints/epoch_{epoch}_step_1.ckpt": 1 for epoch in (1, 11, 12)})
    note = "No rules/ is here, so the default rules decided.\n    hint: 'ckptrules init' writes rules to edit\n"
    assert note not in project.doit("plan", "delete_old=1")
    shutil.rmtree(project.folder / "rules")
    assert note in project.doit("plan", "delete_old=1")
    assert note in project.doit("migrate", "delete_old=1")
    assert project.doit("migrate", "delete_old=1") == "Nothing to do: 1 experiment is up to date.\n"
    assert note not in project.doit("verify", check=1)


@pytest.mark.parametrize("more", ["{'verbosity': 2}", "{**DOIT_CONFIG, 'default_tasks': ['train']}"])
def test_settings_that_commands_need_are_not_changed_behind_them(project: Project, more: str) -> None:
    """A command would say nothing, whatever it finds, or another task would run in its place."""
    dodo = project.folder / "dodo.py"
    dodo.write_text(f"{dodo.read_text()}{TRAIN}\n\nDOIT_CONFIG = {more}\n")
    project.make({"exp/checkpoints/epoch_1_step_1.ckpt": 1})
    before = project.tree()
    fact, hint = startup.CHANGED
    assert project.doit("migrate:exp", check=3) == f"ERROR: dodo.py: DOIT_CONFIG: {fact}\n    hint: {hint}\n"
    assert project.tree() == before


def test_the_journals_of_a_session_are_made_once() -> None:
    session = Session(command_line([]), {})
    assert records.journals_of(session) is records.journals_of(session)


def test_marks_that_came_until_the_lock_was_free_count(tmp_path: Path) -> None:
    """Packs were picked before it was asked for, to know the experiments; a deletion goes by what is there now."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "x.yaml").write_text("packs: [huggingface, lightning]\n")
    session, options = Session(command_line([]), {}), Common(outputs_dir=str(tmp_path), rules_dir=f"{tmp_path}/rules")
    (tmp_path / "x" / "checkpoint-5").mkdir(parents=True)

    def evidence() -> list[str]:
        return [pack.evidence for pack in finding.rules_of(session, options, "x").packs]

    assert evidence() == ["its names"]
    (tmp_path / "x" / "checkpoint-5" / "trainer_state.json").touch()
    (tmp_path / "hparams.yaml").touch()
    (tmp_path / "x" / "epoch=1-step=1.ckpt").touch()
    assert evidence() == ["its names"]
    finding.find_anew(session)
    assert evidence() == ["checkpoint-*/trainer_state.json", "../hparams.yaml, epoch=[0-9]*-step=[0-9]*.ckpt"]


DOITS_OWN = [
    ("clean", 3, "ERROR: command line: there is no task 'clean'\n"),
    ("forget plan", 0, "forgetting plan\n"),
    ("ignore plan", 0, "ignoring plan\n"),
    ("info plan", 1, "\nplan\n"),
    ("info foo", 3, "ERROR: command line: there is no task 'foo'\n"),
    ("dumpdb", 3, "ERROR: command line: dumpdb reads another kind of database\n    hint: 'ckptrules info TASK'"),
    ("reset-dep plan", 0, "processed plan\n"),
    ("strace plan", 3, "ERROR: command line: 'ckptrules strace' would run 'plan' without the lock\n"),
    ("auto", 3, "ERROR: command line: 'ckptrules auto' would run 'plan' without the lock\n"),
    ("tabcompletion", 0, ""),
    ("list --all outputs_dir=.", 0, "migrate "),
]


@pytest.mark.parametrize(("words", "code", "text"), DOITS_OWN, ids=[words for words, *_ in DOITS_OWN])
def test_commands_of_doit_itself_give_no_traceback(project: Project, words: str, code: int, text: str) -> None:
    project.make({"one/checkpoints/epoch-00_step-000001.ckpt": 4})
    done, out, _ = run_program("ckptrules", *words.split(), folder=project.folder, environment=default())
    assert (done, text in out, "Traceback" in out) == (code, True, False), out


@every_row("task", [task for task in TASKS if task != "demo"])
def test_broken_rules_are_refused_with_their_place(tmp_path: Path, task: str) -> None:
    """Not by the default outputs_dir, which is not there: these rules said another until they broke."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/naming.yaml").write_text("garbage: : :\n{{")
    code, out, _ = run_program("ckptrules", task, folder=tmp_path, environment=default())
    assert (code, "rules/naming.yaml:1:10: " in out) == (3, True), out


def test_the_rules_folder_is_no_experiment(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/checkpoint-500.pt").write_text("x")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/naming.yaml").write_text(
        "outputs_dir: .\nlayout: ['*']\ntarget: {template: 'checkpoint-{{ step }}.pt', "
        "match: 'checkpoint-(?P<step>\\d+)\\.pt', examples: [checkpoint-500.pt]}\nretention: {default: {keep_last: 1}}\n"
    )
    for task, text in (("plan", "  processed   1  experiment\n"), ("usage", "\nresults "), ("packs", "\nicefall  *  ")):
        code, out, _ = run_program("ckptrules", task, folder=tmp_path, environment=default())
        assert (code, text in out, "\nrules " in out) == (0, True, False), out


def test_what_workers_have_to_say_is_written_above_the_bar() -> None:
    session = Session(command_line(["verify"]), {})
    assert session.workers.say == session.bar.say
