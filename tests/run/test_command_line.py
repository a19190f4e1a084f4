"""Selections, flags in odd places, tasks of the user's own: what the command line makes of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptrules import catalog
from ckptrules.commands.demo import sample_checkpoint
from ckptrules.run.declared import TASKS
from tests.conftest import ROOT, Project

EARLY, YOUNG = "epoch_2_step_3.ckpt", "epoch_20_step_3.ckpt"
EARLY_NEW = "epoch-02_step-000003.ckpt"


@pytest.mark.parametrize(
    ("kept", "text", "renamed"),
    [
        (EARLY, "sub/../{}", EARLY_NEW),
        (EARLY, ".//{}", EARLY_NEW),
        (f"{EARLY}/0.pt", "{}/0.pt", EARLY_NEW),
        (f"{EARLY}/0.pt", "./{}/0.pt", EARLY_NEW),
        (f"{EARLY}/0.pt", "../checkpoints/{}/0.pt", EARLY_NEW),
        (f"{EARLY}/0.pt", "ABSOLUTE/{}/0.pt", EARLY_NEW),
        (f"{EARLY}/{EARLY}", f"{{}}/{EARLY}", EARLY_NEW),
    ],
)
def test_a_link_follows_and_holds_whatever_way_it_leads(project: Project, kept: str, text: str, renamed: str) -> None:
    folder = project.outputs / "exp/checkpoints"
    project.make({f"exp/checkpoints/{kept}": 7, f"exp/checkpoints/{YOUNG}": 1})
    (folder / "sub").mkdir()
    text = text.replace("ABSOLUTE", str(folder))
    project.make({"exp/checkpoints/last.ckpt": f"-> {text.format(EARLY)}"})
    project.doit("migrate", "delete_old=1")
    assert os.readlink(folder / "last.ckpt") == text.format(renamed)
    assert (folder / "last.ckpt").stat().st_size == 7


@pytest.mark.parametrize(
    ("glob", "selected"),
    [("migrate:*ocr", True), ("migrate:o*", True), ("migrate:o*r", True), ("plan:*", False), ("migrate:*other", False)],
)
def test_a_glob_selects_what_doit_selects_by_it(project: Project, glob: str, *, selected: bool) -> None:
    project.make({f"ocr/checkpoints/{YOUNG}": 1, "other/checkpoints/best.ckpt": 1})
    for file in project.outputs.rglob("*.ckpt"):
        file.write_bytes(sample_checkpoint(20, 3, 2000))
    project.doit(glob)
    assert (project.names("ocr") == ["epoch-20_step-000003.ckpt"]) == selected
    assert (project.outputs / ".ckptrules").exists() == (glob != "plan:*")


def test_a_glob_swallows_no_mistyped_option(project: Project) -> None:
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    assert "did you mean 'delete_old'?" in project.doit("migrate:*ocr", "delete_odl=1", check=3)


@pytest.mark.whole
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_reasons_show_names_escaped_and_never_stop_a_run(project: Project, encoding: str) -> None:
    names = ["esc\x1b[31m.ckpt", "byte\udcff.ckpt", "日本.ckpt"]
    for number, name in enumerate(names):
        place = f"exp{number}/checkpoints"
        project.make({f"{place}/{name}": 1, f"{place}/best.ckpt": f"-> {name}", f"{place}/{YOUNG}": 1})
        project.make({f"{place}/link-{name}": f"-> {YOUNG}"})
    out = project.doit("migrate", "verbose=1", "delete_old=1", env={"PYTHONIOENCODING": encoding})
    assert out.isprintable() or all(c.isprintable() or c == "\n" for c in out)
    assert "link to esc\\x1b[31m.ckpt\n" in out
    assert "link-byte\\xff.ckpt points to it\n" in out
    assert all("epoch-20_step-000003.ckpt" in project.names(f"exp{n}") for n in range(3))


def test_a_name_with_brackets_is_selected_as_it_is_and_counts(project: Project) -> None:
    project.make({f"run[1]/checkpoints/epoch={n}-step=1.ckpt": 9 for n in (1, 2, 20)})
    assert "run[1]" in project.doit("plan:run[1]")
    project.doit("migrate:run[1]", "delete_old=1", "max_delete=1", check=3)
    assert len(project.names("run[1]")) == 3
    project.doit("migrate:run[1]", "delete_old=1")
    assert project.names("run[1]") == ["epoch-20_step-000001.ckpt"]


def test_tables_are_aligned_in_any_script(project: Project) -> None:
    names = ["日本語.ckpt", "e\u0301poque.ckpt", "plain.ckpt"]
    for name in names:
        project.make({f"{name}/checkpoints/{YOUNG}": 1})
    heading, *rows, _, _, _ = project.doit("usage").splitlines()
    places = {
        row.rindex(" B") + row.count("日") + row.count("本") + row.count("語") - row.count("\u0301") for row in rows
    }
    assert places == {heading.rindex("total") + len("total") - 2}


def test_patterns_that_overlap_name_every_directory_once(project: Project) -> None:
    rules = project.folder / "rules/naming.yaml"
    rules.write_text(rules.read_text().replace("['*/checkpoints']", "['*/checkpoints', '*']"))
    project.make({f"a/checkpoints/{YOUNG}": 1, f"a/{YOUNG}": 1})
    project.doit("migrate")
    assert set(project.tree()) == {"a/checkpoints/epoch-20_step-000003.ckpt", "a/epoch-20_step-000003.ckpt"}


@pytest.mark.parametrize(
    "words",
    ["migrate:nowhere", "migrate:no*", "fix_state experiments=no", "migrate verbose", "migrate -x", "migrate -n 4"],
)
def test_what_is_refused_leaves_a_tree_never_seen_as_it_was(project: Project, words: str) -> None:
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    project.doit(*words.split(), check=3)
    assert not (project.outputs / ".ckptrules").exists()


def test_a_flag_of_doit_behind_a_task_gets_a_short_answer(project: Project) -> None:
    assert project.doit("migrate", "-n", "4", check=3) == (
        "ERROR: command line: unknown option '-n' behind 'migrate'\n"
        "    hint: doit's own flags come before the task: 'doit -n … migrate'\n"
    )


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("keep_last = 0", "keep_last=0: must be a whole number, 1 or more"),
        ("settle = -5", "settle=-5: must be a whole number of seconds, 0 or more"),
        ("keep_last = true", "keep_last=True: must be"),
        ("policy = 3.5", "unknown policy '3.5'"),
        ("max_delete = 5\ndelete_old = true", ""),
        ("keep_min_epoch = 2\ndelete_old = 1", ""),
    ],
)
def test_what_stands_in_the_configuration_of_doit_is_read_as_if_typed(
    project: Project, setting: str, told: str
) -> None:
    """A number of TOML was taken unread: ``keep_last = 0`` kept none."""
    project.make({"ocr/checkpoints/epoch_30_step_3.ckpt": 1})
    (project.folder / "pyproject.toml").write_text(f"[tool.doit.tasks.plan]\n{setting}\n")
    assert told in project.doit("plan", check=3 if told else 0)


@pytest.mark.parametrize("words", ["-n -1 migrate", "-n-2 plan", "--process=-1 verify", "--proc -1 plan"])
def test_less_than_no_processes_are_refused(project: Project, words: str) -> None:
    """As `n_jobs=-1` means all elsewhere; doit would do nothing, and say nothing."""
    out = project.doit(*words.split(), check=3)
    assert "no task would be run\n    hint: without -n, there are as many processes as pay\n" in out


@pytest.mark.parametrize("words", ["-P process migrate", "-n 2 -Pprocess plan", "--parallel-type=process verify"])
def test_processes_of_doits_own_are_refused(project: Project, words: str) -> None:
    out = project.doit(*words.split(), check=3)
    assert out.endswith("processes of doit's own are not used\n    hint: leave out '-P process': -n is enough\n")


@pytest.mark.parametrize("note", ["trained with -n -1", "by -P process"])
def test_what_a_value_says_is_no_flag(project: Project, note: str) -> None:
    """The whole line was searched for flags of doit, so such a note was refused."""
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    assert f"Pinned: ocr/checkpoints/{YOUNG} ({note})\n" in project.doit("pin", f"name={YOUNG}", f"note={note}")


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        ("migrate verbose", "command line: 'verbose' is an option, no task\n    hint: write verbose=…"),
        (
            "explain last.ckpt",
            "there is no task 'last.ckpt'\n    hint: for a checkpoint that is called so: 'doit explain name=",
        ),
        ("plan -delete_old=1", "unknown option '-delete_old=1' behind 'plan'\n    hint: did you mean 'delete_old='?"),
        (
            "plan migrate delete_old=1",
            "'plan' and 'migrate' in one call: nobody could read the plan first\n    hint: 'doit",
        ),
        (
            "explain epoch=3-step=2*",
            "unknown option 'epoch'\n    hint: for a checkpoint that is called so: name='epoch=3-step=2*'\n",
        ),
        ("plan delete=1", "unknown option 'delete'\n    hint: did you mean 'delete_old'?"),
        ("plan DELETE_OLD=1", "unknown option 'DELETE_OLD'\n    hint: did you mean 'delete_old'?"),
        ("plan delete_old = 1", "unknown option ''\n    hint: write name=value, without spaces"),
        ("purge:ocr", "'purge' takes no experiment\n    hint: leave ':ocr' out: it is for the whole tree\n"),
        ("after:ocr", "'after' takes no experiment\n    hint: leave ':ocr' out: path= says where it works\n"),
        (
            "usa*:ocr",
            "'usa*:ocr' is a pattern in place of a command\n    hint: for the experiment: 'doit plan:ocr'\n",
        ),
        ("*cr", "'*cr' is a pattern in place of a command\n    hint: for the experiments: `doit 'plan:*cr'`\n"),
        ("purge p*", "'p*' is a pattern in place of a command\n    hint: write the command out\n"),
        ("plan:OCR", "no experiment 'OCR'\n    hint: did you mean 'plan:ocr'?"),
        ("plan:oc[rx]", "no experiment 'oc[rx]'\n    hint: did you mean experiments='oc[rx]'?"),
        (
            "plan keep_best=val_loss",
            "unknown option 'keep_best'\n    hint: it is a line of a policy: write it below 'retention' in a file of rules/",
        ),
        ("plan ocr", "there is no task 'ocr'\n    hint: for the experiment: 'doit plan:ocr'"),
        ("ocr", "there is no task 'ocr'\n    hint: for the experiment: 'doit plan:ocr'"),
        ("migrate delete_old=1 oc*", "there is no task 'oc*'\n    hint: for the experiments: `doit 'migrate:oc*'`"),
        (
            "usage outputs",
            "no task 'outputs'\n    hint: for the experiments in that folder: 'doit usage outputs_dir=outputs'",
        ),
        ("plan zz", "there is no task 'zz'\n    hint: 'ckptrules help' lists them\n"),
        ("plan keep-last 3", "'keep-last' is an option, no task\n    hint: write keep_last=…"),
        ("plan --", "unknown option '--'\n    hint: there are: outputs-dir,"),
        ("plan --delete-ol", "unknown option '--delete-ol'\n    hint: did you mean '--delete-old'?"),
        ("plan rules_dir=nope", "ERROR: nope: cannot be read: No such file or directory\n    hint: name the folder of"),
        ("plan rules_dir=outputs", "ERROR: outputs: holds no *.yaml file\n"),
        ("plan migrat", "there is no task 'migrat'\n    hint: did you mean 'doit migrate'?"),
        (
            "pins --zzz",
            "unknown option '--zzz'\n    hint: there are: outputs-dir, rules-dir, dry-run, verbose, no-dry-run",
        ),
        ("purge keep_min_epoch=5", "command line: option 'keep_min_epoch' is not for 'purge'\n"),
        ("migrate:ocrr*", "command line: no experiment 'ocrr*'\n    hint: did you mean 'migrate:ocr'?"),
        ("plan:x*", "command line: no experiment 'x*'\n    hint: there are: ocr\n"),
        ("verify:ocr verify:x*", "command line: no experiment 'x*'\n"),
        ("drop_links experiments=x*", "command line: no experiment 'x*'\n    hint: there are: ocr\n"),
        ("migrate:ocrr", "command line: no experiment 'ocrr'\n    hint: did you mean 'migrate:ocr'?"),
    ],
)
def test_what_is_refused_on_the_command_line_is_said_in_a_fact_and_a_hint(
    project: Project, words: str, fact: str
) -> None:
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    assert fact in project.doit(*words.split(), check=3)


def test_of_many_experiments_the_first_are_named_and_what_lists_all(project: Project) -> None:
    """Where nothing was to do, `doit plan`, which the hint named, told no names."""
    assert "hint: there are: none\n" in project.doit("plan:x*", check=3)
    project.make({f"run {n}/checkpoints/{YOUNG}": 1 for n in range(9)})
    hint = f"hint: there are: {', '.join(f'run {n}' for n in range(8))}, …; 'doit usage' lists all\n"
    assert hint in project.doit("plan:x*", check=3)
    fact = "none of 'run 1*' fits experiments=run 2\n    hint: leave one of the two out\n"
    assert fact in project.doit("backup:run 1*", "experiments=run 2", check=3)  # which made none, and said nothing
    assert "\nrun 8 " in project.doit("usage")


def test_a_name_with_a_comma_is_one_of_those_that_are_named(project: Project) -> None:
    project.make({f"{name}/checkpoints/{YOUNG}": 1 for name in ("lr=0.1,bs=32", "ocr")})
    assert "hint: there are: 'lr=0.1,bs=32', ocr\n" in project.doit("plan:x*", check=3)


def test_a_folder_that_the_lock_would_not_see_is_refused(project: Project) -> None:
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    shutil.copytree(project.outputs, project.folder / "runs")
    (project.folder / "pyproject.toml").write_text('[tool.doit.tasks.migrate]\noutputs_dir = "runs"\n')
    out = project.doit("migrate", check=3)
    assert "outputs_dir 'runs' stands in doit's configuration, which is read too late for it\n" in out
    assert (
        "    hint: give it on the command line: outputs_dir=runs; or once for all in the rules: 'outputs_dir: runs'\n"
        in out
    )
    assert (project.folder / f"runs/ocr/checkpoints/{YOUNG}").exists()
    shutil.rmtree(project.outputs)
    config = project.folder / "pyproject.toml"
    config.write_text(config.read_text().replace("migrate", "plan"))
    assert "stands in doit's configuration" in project.doit("plan", check=3)


OWN = """

def task_train():
    return {"actions": ["echo trained >>log"], "file_dep": ["data"], "targets": ["log"]}


def task_fail():
    return {"actions": ["echo what went wrong; exit 3"]}
"""


def test_own_tasks_stay_up_to_date(project: Project) -> None:
    dodo = project.folder / "dodo.py"
    dodo.write_text(dodo.read_text() + OWN)
    (project.folder / "data").write_text("data")
    project.make({f"pretrain/checkpoints/{YOUNG}": 1})
    for _ in range(2):
        project.doit("train")
    assert (project.folder / "log").read_text() == "trained\n"
    project.doit("trai*")
    assert "'*train' is a pattern in place of a command" in project.doit("*train", check=3)


def test_own_tasks_that_fail_show_what_they_printed(project: Project) -> None:
    dodo = project.folder / "dodo.py"
    dodo.write_text(dodo.read_text() + OWN)
    assert "\nwhat went wrong\n" in project.doit("fail", check=1)


@pytest.mark.whole
def test_init_says_so_where_a_file_stands_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("a file")
    command = [sys.executable, "-m", "ckptrules", "init"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "rules/naming.yaml is there already" not in result.stdout
    assert result.returncode == 3


def test_one_is_no_plural(project: Project) -> None:
    project.make(
        {f"exp/checkpoints/{EARLY}": 1, f"exp/checkpoints/{YOUNG}": 1, "exp/checkpoints/last.ckpt": f"-> {YOUNG}"}
    )
    out = project.doit("migrate", "delete_old=1") + project.doit("purge")
    assert "1 links follow" not in out
    assert "1 checkpoints" not in out


OLD_DODO = (ROOT / "tests/cases/dodo_of_53e9581.txt").read_text(encoding="utf-8")
USAGE = 'usage = command("usage", "Show how many bytes are protected, kept, could go, or lie in the trash")\n'
NEWER = {"page", "after", "packs", "pin", "pins", "unpin"}  # commands that came after it
IMPORT = "from ckptrules.run import command\n"


def test_a_dodo_of_functions_goes_on_working(project: Project) -> None:
    (project.folder / "dodo.py").write_text(OLD_DODO + OWN)
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    listed = project.doit("list")
    assert {line.split()[0] for line in listed.splitlines()} == {*TASKS, "train", "fail"} - NEWER
    assert "Say of single checkpoints why they stay or go" in listed  # the sentences are the user's own
    project.doit("migrate", "--delete-old", "keep_min_epoch=10")
    assert project.names("ocr") == ["epoch-20_step-000003.ckpt"]
    project.doit("undo")
    assert project.names("ocr") == [YOUNG]
    assert "All rules hold." in project.doit("check")
    assert {line.split()[0] for line in project.doit("check").partition("add:\n")[2].splitlines()} == {"from", *NEWER}


@pytest.mark.parametrize("words", [["usage"], ["usage:ocr"], ["plan", "usage", "verbose=1"]])
def test_a_dodo_that_lacks_a_command_is_told_the_line_to_add(project: Project, words: list[str]) -> None:
    dodo = project.folder / "dodo.py"
    dodo.write_text(dodo.read_text().replace(USAGE, ""))
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    fact = "ERROR: dodo.py has no 'usage', which ckptrules knows\n    hint: add to it:\n    "
    assert project.doit(*words, check=3) == fact + USAGE
    add = "dodo.py lacks commands that ckptrules knows; to have them, add:\n    "
    assert project.doit("check").endswith(add + USAGE)


def test_an_old_dodo_that_lacks_a_command_is_told_what_to_import(project: Project) -> None:
    start = OLD_DODO.index("@with_options\ndef task_usage")
    end = OLD_DODO.index("@with_options", start + 1)
    (project.folder / "dodo.py").write_text(OLD_DODO[:start] + OLD_DODO[end:])
    fact = "ERROR: dodo.py has no 'usage', which ckptrules knows\n    hint: add to it:\n    "
    assert project.doit("usage", check=3) == f"{fact}{IMPORT}    {USAGE}"
    with (project.folder / "dodo.py").open("a") as file:
        file.write(f"\n{IMPORT}{USAGE}")
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    assert "protected" in project.doit("usage")


def test_a_task_of_ones_own_with_the_name_of_a_command_is_left_alone(project: Project) -> None:
    dodo = project.folder / "dodo.py"
    own = '\n\ndef task_usage():\n    return {"actions": ["echo my own"], "verbosity": 2}\n'
    dodo.write_text(dodo.read_text().replace(USAGE, "") + own)
    assert "my own" in project.doit("usage")


def say_outputs_dir(project: Project, text: str = "outputs_dir: runs\n") -> Path:
    """Let the rules say that the experiments are in ``runs``, beside an ``outputs`` that nobody means."""
    (project.folder / "rules/place.yaml").write_text(text)
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    shutil.copytree(project.outputs, project.folder / "runs")
    return project.folder / "runs"


@pytest.mark.parametrize("text", ["outputs_dir: runs\n", '"outputs_dir" : runs\n', "{'outputs_dir': runs}\n"])
def test_rules_say_where_the_outputs_are(project: Project, text: str) -> None:
    runs = say_outputs_dir(project, text)
    project.doit("migrate")
    assert os.listdir(runs / "ocr/checkpoints") == ["epoch-20_step-000003.ckpt"]
    assert (runs / ".ckptrules/lock").exists()
    assert not (project.outputs / ".ckptrules").exists()
    assert project.names("ocr") == [YOUNG]
    assert "Nothing to do" in project.doit("migrate")
    assert "done" in project.doit("history")
    project.doit("undo")
    assert os.listdir(runs / "ocr/checkpoints") == [YOUNG]
    assert f"outputs_dir={runs}" in project.doit("schedule")


def test_the_option_overrides_what_the_rules_say_and_hints_carry_it(project: Project) -> None:
    runs = say_outputs_dir(project)
    out = project.doit("migrate", "outputs_dir=outputs", "delete_old=1")
    assert "outputs_dir=outputs" in out
    assert "outputs_dir=runs" not in project.doit("plan")
    assert os.listdir(runs / "ocr/checkpoints") == [YOUNG]
    assert project.names("ocr") == ["epoch-20_step-000003.ckpt"]


def test_a_tree_elsewhere_that_the_rules_name_is_said(project: Project) -> None:
    """Rules copied from another project deleted in that project, and not a word said where."""
    project.make({f"ocr/checkpoints/{YOUNG}": 1})
    here = Project(project.folder / "here")
    shutil.copytree(project.folder / "rules", here.folder / "rules")
    shutil.copy(project.folder / "dodo.py", here.folder)
    for text in (str(project.outputs), "../outputs"):
        (here.folder / "rules/place.yaml").write_text(f"outputs_dir: '{text}'\n")
        assert f"The tree is {project.outputs}, as 'outputs_dir' in the rules says.\n" in here.doit("plan")
    assert "The tree is" not in here.doit("plan", "outputs_dir=../outputs/.")
    shutil.move(project.outputs, here.folder / "runs")
    (here.folder / "rules/place.yaml").write_text("outputs_dir: runs\n")
    assert "The tree is" not in here.doit("plan")


@pytest.mark.parametrize("words", ["purge", "undo", "migrate", "plan", "backups", "trash", "check"])
def test_a_broken_rule_file_that_says_where_the_outputs_are_is_refused_with_its_place(
    project: Project, words: str
) -> None:
    runs = say_outputs_dir(project, "outputs_dir: [runs]\n")
    assert "rules/place.yaml:1:14: outputs_dir must be" in project.doit(words, check=3)
    assert not (project.outputs / ".ckptrules").exists()
    assert not (runs / ".ckptrules").exists()
    assert "migrate" in project.doit("list")


def test_a_catalog_without_a_folder_goes_by_the_rules(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    say_outputs_dir(project)
    monkeypatch.chdir(project.folder)
    assert [record.path for record in catalog()] == [f"runs/ocr/checkpoints/{YOUNG}"]


@pytest.mark.parametrize("task", ["migrate", "undo", "purge", "archive", "restore", "plan"])
def test_no_task_runs_without_the_lock(project: Project, task: str) -> None:
    """Doit's strace runs tasks as well, and would neither take the lock nor finish what a crash left."""
    project.make({"ocr/checkpoints/epoch=1-step=2.ckpt": 9})
    out = project.doit("strace", task, check=3)
    assert f"'doit strace' would run '{task}' without the lock\n    hint: leave 'strace' out" in out
    assert not (project.outputs / ".ckptrules").exists()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["plan", "delete_old=1", "mi*"], "plan:mi*"),
        (["plan", "mi*:mi*"], "plan:mi*"),
        (["catalog", "p*"], "catalog:p*"),
        (["mi*"], "plan:mi*"),
        (["migrate", "pi*"], "migrate:pi*"),
        (["forget", "*"], "plan:*"),
    ],
)
def test_a_pattern_starts_no_command(project: Project, words: list[str], meant: str) -> None:
    """'mi*' was meant for the experiments of the plan, and selected migrate."""
    project.make({f"{name}/checkpoints/epoch=12-step=2.ckpt": 1 for name in ("mine", "pine")})
    before = project.tree()
    assert project.doit(*words, check=3) == (
        f"ERROR: command line: '{words[-1]}' is a pattern in place of a command\n"
        f"    hint: for the experiments: `doit '{meant}'`\n"
    )
    assert project.tree() == before
