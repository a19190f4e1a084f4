"""What history, log, trash, plan and a refusal tell is what was, and what helps."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess

import pytest

from ckptrules.engine.names.companions import by_name_only
from ckptrules.engine.plan import left_behind
from ckptrules.run import locking
from ckptrules.run.command_line import command_line
from ckptrules.run.options import OptionError
from ckptrules.run.session import Session
from ckptrules.storage import posix
from tests.commands.test_fix_state import real
from tests.conftest import Project
from tests.support import crash
from tests.support.disturbing import Fault

EARLY = [f"epoch={n}-step={n}.ckpt" for n in range(20, 25)]


# --- B5: a run that was stopped --------------------------------------------------------------------------------------


def columns(project: Project, row: int = 0) -> list[str]:
    heading, *rows = project.doit("history").splitlines()
    start = heading.index("renamed")
    return rows[row][start:].split()


COMMANDS = {
    "migrate": ("migrate",),
    "delete": ("migrate", "delete_old=1", "keep_min_epoch=30"),
    "links": ("migrate", "leave_links=1"),
    "drop": ("drop_links",),
    "undo": ("undo",),
}


def prepared(project: Project, kind: str) -> None:
    project.make({f"exp/checkpoints/{name}": 9 for name in EARLY})
    if kind in ("drop", "undo"):
        project.doit("migrate", f"leave_links={int(kind == 'drop')}")


def done_now(project: Project, kind: str) -> int:
    """Count what was done, as the disk has it."""
    names = project.names("exp")
    links = [name for name in names if os.path.islink(project.outputs / "exp/checkpoints" / name)]
    match kind:
        case "migrate" | "links":
            return sum(name.startswith("epoch-") for name in names)
        case "delete":
            return 5 - len(names) + sum(name.startswith("epoch-") for name in names)
        case "drop":
            return 5 - len(links)
    return sum(name.startswith("epoch=") for name in names)


@pytest.mark.parametrize("kind", COMMANDS)
@pytest.mark.parametrize("how", ["SIGINT", "before"])
def test_history_says_what_was_done_and_that_it_was_stopped(project: Project, kind: str, how: str) -> None:
    """B5: it said "done", and "renamed 5" where 2 were."""
    prepared(project, kind)
    kept = project.folder / "kept"
    shutil.copytree(project.outputs, kept, symlinks=True)
    changes = crash.run_in_turn(project.folder, *COMMANDS[kind]).changes
    seen = set()
    for at in range(1, changes + 1, 2):
        shutil.rmtree(project.outputs)
        shutil.copytree(kept, project.outputs, symlinks=True)
        crash.run_in_turn(project.folder, *COMMANDS[kind], fault=Fault(at, how))
        rows = crash.run_in_turn(project.folder, "history").output.splitlines()[1:]
        if len(rows) == (1 if kind in ("drop", "undo") else 0):
            continue  # it was stopped before it had begun
        done = done_now(project, kind)
        state = re.split(r"  +", rows[0])[-1]
        seen.add(state)
        word = "stopped" if how == "SIGINT" else "interrupted"
        many = f"{done} of 5" if done < 5 else "5"
        closed = (f"took back {state.partition('took back ')[2]}", "done")  # it was killed after its last line
        assert state == f"{word}: {many} done" or (done == 5 and state in closed), (at, state, done)
        if how == "before":
            crash.run_in_turn(project.folder, "purge")  # the next run finishes what was begun
            again = crash.run_in_turn(project.folder, "history").output
            many = f"{done_now(project, kind)} of 5" if done_now(project, kind) < 5 else "5"
            assert f"stopped: {many} done" in again or (done == 5 and state in closed), again
    assert len(seen) > 2


@pytest.mark.whole
def test_the_numbers_are_of_what_was_done(project: Project) -> None:
    project.make({f"exp/checkpoints/{name}": 9 for name in EARLY})
    before = crash.run_in_turn(project.folder, "plan").changes
    assert before == 0
    for at in range(1, 40):
        ended = crash.run_in_turn(project.folder, "migrate", fault=Fault(at, "before"))
        renamed = sum(name.startswith("epoch-") for name in project.names("exp"))
        if renamed == 2:
            break
        assert ended.code != 0
        shutil.rmtree(project.outputs)
        project.make({f"exp/checkpoints/{name}": 9 for name in EARLY})
    assert columns(project)[0] == "2"
    assert "Migrated 2 checkpoints" in project.doit("log")
    project.doit("purge")
    assert columns(project)[0] == "2"


def test_a_run_stopped_between_two_experiments_says_so(project: Project) -> None:
    for number in range(3):
        project.make({f"exp{number}/checkpoints/{name}": 9 for name in EARLY})
    whole = crash.run_in_turn(project.folder, "migrate").changes
    shutil.rmtree(project.outputs)
    found = set()
    for at in range(1, whole, 2):
        for number in range(3):
            project.make({f"exp{number}/checkpoints/{name}": 9 for name in EARLY})
        crash.run_in_turn(project.folder, "migrate", fault=Fault(at, "SIGTERM"))
        rows = crash.run_in_turn(project.folder, "history").output.splitlines()[1:]
        states = {re.split(r"  +", row)[-1] for row in rows}
        assert "done" not in states or len(list(project.outputs.rglob("epoch-*"))) == 15
        found |= states
        shutil.rmtree(project.outputs)
    assert "stopped: 5 done" in found
    assert any(state.endswith(" of 10 done") for state in found)


# --- B6: the log -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
def test_the_log_keeps_what_the_summary_kept(project: Project, again: bool) -> None:  # noqa: FBT001
    """B6: after fix_state=1 the entry said "Kept 0 checkpoints"."""
    real(project)
    for link in [path for path in project.outputs.rglob("*") if path.is_symlink()]:
        link.unlink()  # the summary counts it among what is kept, and the log counts checkpoints
    if again:
        project.doit("migrate")
    out = project.doit("migrate", "fix_state=1")
    kept = re.findall(r"kept +(\d+)", out)[0]
    assert "State fixed" in out
    assert f"Kept {kept} checkpoints" in project.doit("log")


# --- C4: sidecars by name --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endings", "line"),
    [
        ([".yaml"], "[.config.json, .metadata.json, .yaml]"),
        ([".json", ".yaml"], "[.config.json, .json, .metadata.json, .yaml]"),
        ([".ckpt.md5"], "[.ckpt.md5, .config.json, .metadata.json]"),
        ([".hparams.txt"], "[.config.json, .hparams.txt, .metadata.json]"),
        ([".a b"], "['.a b', .config.json, .metadata.json]"),
    ],
)
@pytest.mark.parametrize("words", ["migrate", "migrate delete_old=1 keep_min_epoch=30"])
def test_what_belongs_by_name_is_told_with_the_line_that_takes_it_along(
    project: Project, endings: list[str], line: str, words: str
) -> None:
    """C4: it was left behind as "unable to parse"."""
    for name in EARLY[:3]:
        project.make({f"exp/checkpoints/{name}": 9, **{f"exp/checkpoints/{name[:-5]}{end}": 3 for end in endings}})
    project.make({"exp/checkpoints/notes.txt": 3})
    out = project.doit("plan", *words.split()[1:])
    first, others = f"epoch=20-step=20{min(endings)}", f" and {3 * len(endings) - 1} more stay behind"
    assert f"Note: {first}{others}" in out
    assert f"sidecars: {line} takes them along\n" in out
    assert re.findall(r"Skipped: (\S+) \(unable", out) == ["notes.txt"]
    assert "belongs to epoch=20-step=20.ckpt by its name only" in project.doit("plan", "verbose=1", *words.split()[1:])
    rules = project.folder / "rules/naming.yaml"
    rules.write_text(
        re.sub(r"^sidecars: \[.*?\]", lambda _: f"sidecars: {line}", rules.read_text(), flags=re.MULTILINE)
    )
    project.doit(*words.split())
    assert not [name for name in project.names("exp") if name.startswith("epoch=")]


@pytest.mark.parametrize(
    ("owners", "names", "found"),
    [
        (
            ["a.ckpt"],
            ["a.yaml", "ab.yaml", "b.yaml", "a", "a.ckpt.json"],
            {"a.yaml": ".yaml", "a.ckpt.json": ".ckpt.json"},
        ),
        (["l=0.5.ckpt", "l=0.ckpt"], ["l=0.5.yaml"], {"l=0.5.yaml": ".yaml"}),
        (["a.ckpt"], [".a.yaml", "a.", "A.yaml"], {"a.": "."}),
    ],
)
def test_the_longest_name_owns(owners: list[str], names: list[str], found: dict[str, str]) -> None:
    assert {name: ending for name, (_, ending) in by_name_only(owners, names).items()} == found


def test_a_note_on_what_stays_behind_spells_its_name_right() -> None:
    """It said ``a stays b.yaml``."""
    notes = left_behind({"a stay b.yaml": ("a stay b.ckpt", ".yaml")}, ())
    assert [note.text.partition(",")[0] for note in notes] == ["a stay b.yaml stays behind"]


# --- C6, C7: what is not there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["all", "one", "damaged"])
def test_the_trash_says_what_undo_brings_back_and_what_only_a_person(project: Project, lost: str) -> None:
    """C6: a scratch cleaner had removed the journal, and the trash promised an undo that there was not."""
    project.make(
        {"exp/checkpoints/epoch=1-step=1.ckpt": 5, "exp/checkpoints/it's.ckpt": 5, f"exp/checkpoints/{EARLY[0]}": 9}
    )
    project.doit("migrate", "delete_old=1")
    project.make({"exp/checkpoints/epoch=2-step=2.ckpt": 5})
    project.doit("migrate", "delete_old=1")
    journals = sorted((project.outputs / ".ckptrules/journal").iterdir())
    for journal in journals if lost == "all" else journals[:1]:
        journal.write_text("{\n") if lost == "damaged" else journal.unlink()
    out = project.doit("trash")
    several = "2 items, so undo does not bring them back; by hand, each like the first:"
    said = {"all": several, "one": "1 item, so undo does not bring it back; by hand:", "damaged": several}[lost]
    assert f"No journal in outputs/.ckptrules/journal tells of {said}\n" in out
    assert ("'doit undo' brings back" in out) == (lost == "one")
    command = out.splitlines()[-1].strip()
    subprocess.run(["sh", "-c", command], cwd=project.folder, check=True)
    assert "epoch=1-step=1.ckpt" in project.names("exp")
    if lost == "all":
        assert (
            "There is nothing to take back.\nWhat waits in the trash, and how it comes back: 'doit trash'."
            in project.doit("undo")
        )


@pytest.mark.parametrize(
    "command", ["migrate delete_old=1", "plan delete_old=1", "usage", "explain name=x", "plan policy=other"]
)
def test_without_retention_the_file_to_write_is_told(project: Project, command: str) -> None:
    """C7: "unknown policy 'default'"."""
    project.make({f"exp/checkpoints/epoch={epoch}-step=1.ckpt": 5 for epoch in (1, 2, 3)})
    (project.folder / "rules/retention.yaml").unlink()
    out = project.doit(*command.split(), check=3)
    name = "other" if "other" in command else "default"
    assert out.startswith(
        f"ERROR: rules: no rule file has 'retention', so there is no policy '{name}'\n    hint: write "
    )
    file, text = re.findall(r"write (\S+) with the line: (.*) \('ckptrules init' writes one with examples\)", out)[0]
    (project.folder / file).write_text(text + "\n")
    assert "Would delete: epoch=1-step=1.ckpt (not of the newest 2)" in project.doit("plan", "delete_old=1")


def test_a_check_of_rules_without_a_policy_says_so(project: Project) -> None:
    """`All rules hold.` was all, and the plan that was tried then was refused."""
    note = "No rule file has 'retention', so delete_old=1 is refused.\n    hint: write rules/retention.yaml with the line: "
    assert note not in project.doit("check")
    (project.folder / "rules/retention.yaml").unlink()
    assert note in project.doit("check")
    (project.folder / "rules").rename(project.folder / "other")
    assert note.replace("write rules/", "write other/") in project.doit("check", "rules_dir=other")


def test_a_check_of_rules_without_the_policy_that_is_used_says_so(project: Project) -> None:
    note = "No policy is called 'default', so delete_old=1 is refused where policy= names none.\n    hint: "
    policies = project.folder / "rules/retention.yaml"
    for name, hint in {"defualt": "did you mean 'defualt'?", "late": "policy=late goes by that"}.items():
        policies.write_text(f"retention: {{{name}: {{keep_last: 2}}}}\n")
        assert note + hint in project.doit("check")


def test_another_folder_of_rules_is_named(project: Project) -> None:
    (project.folder / "rules/retention.yaml").unlink()
    (project.folder / "rules").rename(project.folder / "other")
    out = project.doit("plan", "delete_old=1", "rules_dir=other", check=3)
    assert "write other/retention.yaml with the line: " in out
    assert "init" not in out


def test_a_json_report_of_sidecars_has_their_reason(project: Project) -> None:
    project.make({f"exp/checkpoints/{EARLY[0]}": 9, "exp/checkpoints/epoch=20-step=20.yaml": 3})
    project.doit("plan", "json=plan.json")
    (skipped,) = json.loads((project.folder / "plan.json").read_text())["experiments"][0]["skipped"]
    assert skipped["kind"] == "ignored"


# --- C8: a full disk -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_tree_never_seen_on_a_full_disk_is_told_what_helps(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """C8: it said "No space left", and that was all."""

    def lock(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(posix, "lock", lock)
    with pytest.raises(OptionError, match=r"are enough to begin: .*'doit plan delete_old=1' needs no space"):
        locking.take_lock(Session(command_line([]), {}), "outputs")


def test_on_a_full_disk_purge_is_named_where_it_helps(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _: full)
    project.make({f"exp/checkpoints/{name}": 9 for name in EARLY})
    out = crash.run(project.folder, "migrate", "delete_old=1", "outputs_dir=outputs/../outputs").output
    assert "takes 10 KB before any space is freed. 'doit purge outputs_dir=outputs/../outputs' empties the trash" in out
    assert project.names("exp") == EARLY
