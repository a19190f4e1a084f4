"""One way to select for every command: ``TASK:NAME`` and ``experiments=PATTERN``, whatever the names are."""

from __future__ import annotations

import json
import os
import pickle
import re

import pytest

from ckptrules.run.options import Migrating, Planning
from ckptrules.run.words import as_pattern, encode_task, encode_word
from tests.conftest import Project, default, run_program

OLD, NEW = "epoch=20-step=200.ckpt", "epoch-20_step-000200.ckpt"
NAMES = ("lr=0.1", "lr=0.1,bs=32", "run[1]", "a b", "50%", "a*b", "50%25", "x%3Dy", "it's")
OTHER = "zebra"
COMMANDS = {
    "plan": "",
    "migrate": "",
    "verify": "",
    "fix_state": "dry_run=1",
    "drop_links": "",
    "explain": "name=epoch*",
    "usage": "",
    "catalog": "",
    "backup": "dry_run=1 verbose=1",
    "archive": "archive_dir=archive dry_run=1 format=gz",
}


def tree(project: Project, *names: str) -> None:
    (project.folder / "archive").mkdir()
    for name in (*names, OTHER):
        project.make({f"{name}/checkpoints/{OLD}": 9})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["word", "pattern", "option"])
def test_any_name_is_selected_as_it_is_typed(project: Project, name: str, how: str) -> None:
    tree(project, name)
    word = {"word": f"migrate:{name}", "pattern": f"migrate:*{name[1:]}", "option": f"experiments={name}"}[how]
    if how == "pattern" and "[" in name:
        word = word.replace("[", "[[]")  # a shell pattern, for doit as well
    if how != "option" and "%" in name and "=" not in name:
        word = f"migrate:*{encode_task(name)[1:]}"  # as doit has it
    project.doit("migrate", word) if how == "option" else project.doit(word)
    assert project.names(name) == [NEW]
    assert project.names(OTHER) == [OLD]


@pytest.mark.parametrize(
    ("typed", "does_it"),
    [
        ("plan:ocr", "migrate:ocr"),
        ("plan:oc* plan:x", "'migrate:oc*' migrate:x"),
        ("plan plan:ocr", "migrate"),
    ],
)
def test_what_a_plan_names_to_do_it_selects_no_more_than_the_plan(project: Project, typed: str, does_it: str) -> None:
    tree(project, "ocr", "x")
    project.doit(*typed.split(), "json=plan.json")
    data = json.loads((project.folder / "plan.json").read_text())
    assert data["does_it"] == f"doit {does_it}"
    assert data["selected"] == re.findall(r"migrate:([^ ']+)", does_it)


@pytest.mark.whole
@pytest.mark.parametrize("task", COMMANDS)
@pytest.mark.parametrize("how", ["{}:ocr", "{}:oc*", "{} experiments=ocr", "{} experiments=o*r", "{}:ocr {}:ocr2"])
def test_every_command_selects_in_the_same_ways(project: Project, task: str, how: str) -> None:
    tree(project, "ocr", "ocr2")
    code = 1 if task == "verify" else 0
    out = project.doit(*how.format(task, task).split(), *COMMANDS[task].split(), check=code)
    assert OTHER not in out
    assert task in ("fix_state", "drop_links", "backup") or "ocr" in out


@pytest.mark.whole
@pytest.mark.parametrize("task", [*COMMANDS, "undo"])
@pytest.mark.parametrize("how", ["{}:orc", "{}:nowher*", "{} experiments=orc"])
def test_an_unknown_experiment_is_refused_with_the_nearest_real_one(project: Project, task: str, how: str) -> None:
    tree(project, "ocr")
    project.doit("migrate")
    out = project.doit(*how.format(task).split(), *COMMANDS.get(task, "").split(), check=3)
    assert "no experiment" in out
    assert "trash" not in out
    if how == "{}:orc":
        assert f"hint: did you mean '{task}:ocr'?" in out


@pytest.mark.parametrize(
    "typed", ["migrate:*lr=0.2*", "migrate:lr=0.2", "migrate:lr%3D0.2", "migrate:rn[1]", "migrate:a_b"]
)
def test_the_hint_selects(project: Project, typed: str) -> None:
    tree(project, "lr=0.1", "run[1]", "a b")
    out = project.doit(typed, check=3)
    word = out.rpartition("did you mean '")[2].partition("'")[0]
    assert "Renamed" in project.doit(word)


@pytest.mark.parametrize("program", ["doit", "ckptrules"])
def test_an_experiment_that_there_is_not_is_called_as_it_was_typed(project: Project, program: str) -> None:
    tree(project, "lr=0.1")
    code, out, errors = run_program(program, "plan:*lr=0.2*", folder=project.folder, environment=default())
    assert (code, "ERROR: command line: no experiment '*lr=0.2*'\n" in out + errors) == (3, True)


def test_inner_names_are_shown_nowhere(project: Project) -> None:
    tree(project, "ocr")
    project.make({"ocr/checkpoints/epoch=1-step=1.ckpt": 5})
    project.doit("migrate", "delete_old=1")
    trash = project.outputs / ".ckptrules/trash"
    (run,) = os.listdir(trash)
    (trash / run).rename(trash / f"20200101T000000Z-{run.partition('-')[2]}")
    assert "trash" not in project.doit("list", "--all", "migrate")
    assert "did you mean 'migrate:ocr'?" in project.doit("migrate:oc", check=3)
    assert "Freed: 1 item" in project.doit("migrate")


def test_selections_with_an_equals_sign_stand_alone_or_are_written_as_the_hint_says(project: Project) -> None:
    tree(project, "lr=0.1", "lr=0.2")
    for words in (["plan", "migrate:lr=0.1"], ["migrate:lr=0.1", "--delete-old"]):
        out = project.doit(*words, check=3)
        assert "'migrate:lr%3D0.1'" in out or "--delete-old" in out
    project.doit("migrate:lr=0.1", "migrate:lr=0.2")
    assert project.names("lr=0.1") == project.names("lr=0.2") == [NEW]
    assert project.names(OTHER) == [OLD]


def test_an_undo_and_a_restore_of_one_experiment(project: Project) -> None:
    tree(project, "lr=0.1", "ocr")
    project.doit("backup:lr=0.1")
    (made,) = (name for name in os.listdir(project.folder) if name.startswith("outputs_backup"))
    assert sorted(os.listdir(project.folder / made)) == [".ckptrules", "lr=0.1"]
    project.doit("migrate")
    project.doit("undo:lr=0.1")
    assert (project.names("lr=0.1"), project.names("ocr")) == ([OLD], [NEW])
    project.doit("undo:lr=0.1")
    (project.outputs / f"lr=0.1/checkpoints/{OLD}").unlink()
    project.doit("restore:lr=0.1", f"backup={made}")
    assert project.names("lr=0.1") == [OLD]
    assert "did you mean 'restore:lr%3D0.1'?" in project.doit("restore:lr=0.2", f"backup={made}", check=3)


@pytest.mark.parametrize(
    ("typed", "for_doit"),
    [("m:lr=0.1", "m:lr%3D0.1"), ("m:*a=b*", "m:*a%3Db*"), ("m:50%", "m:50%"), ("m:a%3Db", "m:a%3Db"), ("m", "m")],
)
def test_what_is_typed_is_encoded_as_names_are(typed: str, for_doit: str) -> None:
    assert encode_word(typed) == for_doit


def test_names_stay_different_when_they_are_encoded() -> None:
    names = ["a=b", "a%3Db", "a%253Db", "50%", "50%25", "%", "%%", "*", "%2A", "\udcff", "%FF"]
    assert len({encode_task(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("text", "pattern"), [("run[1]", "run[[]1]"), ("run*", "run*"), (None, None), ("r[12]", "r[12]")]
)
def test_an_own_name_is_no_pattern(text: str | None, pattern: str | None) -> None:
    assert as_pattern(text, ["run[1]", "run1"]) == pattern


def test_options_are_values() -> None:
    """They are keys of what a session remembers, and are sent to other processes."""
    one = Migrating(delete_old=True, policy="strict")
    assert one == Migrating(policy="strict", delete_old=True, dry_run=False) == pickle.loads(pickle.dumps(one))
    assert len({one, one.but(dry_run=False), one.but(dry_run=True)}) == 2
    assert one != Planning(policy="strict", delete_old=True)
    assert list(Migrating.known()) == [name for name in Migrating.attributes if name in one.given()]
    with pytest.raises(AttributeError, match="'dry_run' cannot be changed"):
        one.dry_run = True  # type: ignore[misc]
    with pytest.raises(TypeError, match="Migrating has no dryrun"):
        one.but(dryrun=True)
