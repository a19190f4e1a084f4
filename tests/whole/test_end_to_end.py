"""The real doit in a subprocess, on real files, in a folder with a space in its name."""

from __future__ import annotations

import errno
import json
import os
import pickle
import pty
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptrules.outputs import find
from ckptrules.run import finding, jobs, working
from ckptrules.run.command_line import command_line
from ckptrules.run.options import Migrating
from ckptrules.run.session import Session
from ckptrules.storage import lock, moving, reading
from tests.conftest import ROOT, Project, default, named_commands, run_copied, run_program

DOUBLED = "epoch_epoch_22_step_step_001932_20251009_015037.ckpt"
EARLY = "epoch_epoch_02_step_step_000176_20251009_011245.ckpt"
THREE_FORMATS = {
    f"ocr/checkpoints/{DOUBLED}": 300,
    f"ocr/checkpoints/{EARLY}": 200,
    "ocr/checkpoints/last.ckpt": 300,
    "ocr/checkpoints/best-hmean-0.8756.ckpt": 310,
    "under/checkpoints/epoch_09_step_002730.ckpt": 100,
    "under/checkpoints/epoch_120_step_1500000.ckpt": 100,
    "default/checkpoints/epoch=67-step=18564.ckpt": 100,
    "default/checkpoints/epoch=67-step=18564-v1.ckpt": 101,
}


def test_migrate_renames_the_three_formats_and_keeps_every_byte_and_time(project: Project) -> None:
    project.make(THREE_FORMATS)
    os.utime(project.outputs / f"ocr/checkpoints/{DOUBLED}", ns=(1, 1_600_000_000_123_456_789))
    before = Counter(project.tree().values())
    out = project.doit("migrate")
    assert f"  ✓ Renamed: {DOUBLED}\n           → epoch-22_step-001932.ckpt\n" in out
    assert project.names("ocr") == [
        "best-hmean-0.8756.ckpt", "epoch-02_step-000176.ckpt", "epoch-22_step-001932.ckpt", "last.ckpt",
    ]  # fmt: skip
    assert project.names("under") == ["epoch-09_step-002730.ckpt", "epoch-120_step-1500000.ckpt"]
    assert project.names("default") == ["epoch-67_step-018564.ckpt", "epoch=67-step=18564-v1.ckpt"]
    assert Counter(project.tree().values()) == before
    renamed = project.outputs / "ocr/checkpoints/epoch-22_step-001932.ckpt"
    assert renamed.stat().st_mtime_ns == 1_600_000_000_123_456_789


@pytest.mark.parametrize(
    "stages", [["migrate delete_old=1 keep_min_epoch=15"], ["migrate", "migrate --delete-old --keep-min-epoch 15"]]
)
def test_deletion_in_one_stage_or_two_moves_to_a_trash_that_explains_itself(
    project: Project, stages: list[str]
) -> None:
    project.make(THREE_FORMATS)
    before = Counter(project.tree().values())
    for arguments in stages:
        out = project.doit(*arguments.split())
    assert "(epoch < 15)" in out
    assert "In the trash: 2 items, 300 B. Free the space with 'doit purge'" in out
    assert project.names("under") == ["epoch-120_step-1500000.ckpt"]
    assert Counter(h for p, h in project.tree(state=True).items() if "/trash/" in p or "checkpoints/" in p) == before
    trashed = sorted(p for p in project.tree(state=True) if "/trash/" in p)
    assert [p.split("/", 3)[3].split("/")[:2] for p in trashed] == [["ocr", "checkpoints"], ["under", "checkpoints"]]
    assert all(p.endswith(".ckpt.trashed") for p in trashed)
    assert project.doit("purge", "dry_run=1").endswith("\nWould free: 2 items from the trash, 300 B\n")
    assert project.doit("purge").endswith("\nFreed: 2 items from the trash, 300 B\n")
    assert not [p for p in project.tree(state=True) if "/trash/" in p]


def test_trash_days_0_frees_the_space_at_once(project: Project) -> None:
    rules = project.folder / "rules" / "retention.yaml"
    rules.write_text(rules.read_text().replace("trash_days: 7", "trash_days: 0"))
    project.make(THREE_FORMATS)
    project.doit("migrate", "delete_old=1")
    assert not [p for p in project.tree(state=True) if p.endswith(".trashed")]


FLOOR: dict[str, tuple[dict[str, int | str], list[str]]] = {
    "only_early": ({"epoch=1-step=5.ckpt": 1, "epoch=2-step=1.ckpt": 1}, ["epoch-02_step-000001.ckpt"]),
    "empty_last": ({"epoch=1-step=5.ckpt": 1, "unknown.ckpt": 9}, ["epoch-01_step-000005.ckpt", "unknown.ckpt"]),
    "best_remains": ({"epoch=1-step=5.ckpt": 1, "best.ckpt": 1}, ["best.ckpt"]),
    "link_holds": (
        {"epoch=1-step=5.ckpt": 1, "epoch=30-step=9.ckpt": 1, "last.ckpt": "-> epoch=1-step=5.ckpt"},
        ["epoch-01_step-000005.ckpt", "epoch-30_step-000009.ckpt", "last.ckpt"],
    ),
}


@pytest.mark.parametrize("case", FLOOR)
def test_the_last_checkpoint_that_remains_is_never_deleted(project: Project, case: str) -> None:
    listing, left = FLOOR[case]
    project.make({f"exp/checkpoints/{name}": content for name, content in listing.items()})
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == left


@pytest.mark.parametrize("text", ["epoch_09_step_002730.ckpt", "./epoch_09_step_002730.ckpt", "ABSOLUTE"])
def test_a_link_follows_its_checkpoint_and_stays_relative_or_absolute(project: Project, text: str) -> None:
    project.make({"exp/checkpoints/epoch_09_step_002730.ckpt": 5})
    folder = project.outputs / "exp" / "checkpoints"
    text = text.replace("ABSOLUTE", str(folder / "epoch_09_step_002730.ckpt"))
    project.make({"exp/checkpoints/last.ckpt": f"-> {text}"})
    project.doit("migrate")
    assert os.readlink(folder / "last.ckpt") == text.replace("epoch_09_step_002730", "epoch-09_step-002730")
    assert (folder / "last.ckpt").stat().st_size == 5


@pytest.mark.parametrize(
    "text", ["{}/0.pt", "./{}/0.pt", "../checkpoints/{}/0.pt", "{}/{}", "ABSOLUTE/{}//0.pt", "nothing/../{}/0.pt"]
)
def test_a_link_into_a_checkpoint_that_is_a_directory_follows_and_holds_it(project: Project, text: str) -> None:
    old, new = "epoch=3-step=2.ckpt", "epoch-03_step-000002.ckpt"
    project.make({f"exp/checkpoints/{old}/0.pt": 5, f"exp/checkpoints/{old}/{old}": 5, "exp/checkpoints/nothing/x": 1})
    project.make({"exp/checkpoints/epoch=30-step=2.ckpt/0.pt": 5})
    text = text.replace("ABSOLUTE", str(project.outputs / "exp" / "checkpoints"))
    project.make({"exp/checkpoints/last.pt": f"-> {text.format(old, old)}"})
    project.doit("migrate", "delete_old=1")
    assert os.readlink(project.outputs / "exp/checkpoints/last.pt") == text.format(new, old)
    assert (project.outputs / "exp/checkpoints/last.pt").stat().st_size == 5


def test_a_reason_that_holds_a_file_name_is_shown_escaped(project: Project) -> None:
    name = b"x\xff\x1b[31m.ckpt".decode("utf-8", "surrogateescape")
    project.make({f"exp/checkpoints/{name}": 3, "exp/checkpoints/last.ckpt": f"-> {name}"})
    out = project.doit("plan", "verbose=1", check=1, env={"PYTHONIOENCODING": "utf-8:strict"})
    assert "link to x\\xff\\x1b[31m.ckpt\n" in out


def test_problems_are_told_left_alone_and_told_again_until_they_are_solved(project: Project) -> None:
    project.make(
        {
            "clash/checkpoints/epoch_1_step_2.ckpt": 3,
            "clash/checkpoints/epoch=1-step=2.ckpt": 4,
            "clash/checkpoints/epoch_5_step_2.ckpt": 4,
            "damaged/checkpoints/epoch_1_step_2.ckpt": 0,
            "damaged/checkpoints/last.ckpt": "-> gone.ckpt",
            "taken/checkpoints/epoch_1_step_2.ckpt": 5,
            "taken/checkpoints/epoch-01_step-000002.ckpt": 6,
            "well/checkpoints/epoch_1_step_2.ckpt": 7,
        }
    )
    os.utime(project.outputs / "clash/checkpoints/epoch_1_step_2.ckpt", (1_700_000_000, 1_700_000_000))
    out = project.doit("migrate", check=1)
    assert "! Problem: 2 checkpoints for one target: epoch-01_step-000002.ckpt\n" in out
    assert "    epoch_1_step_2.ckpt       3 B  2023-11-14 22:13:20 UTC\n" in out
    assert "! Problem: epoch_1_step_2.ckpt is an empty file\n" in out
    assert "! Problem: last.ckpt is a link to 'gone.ckpt', which does not exist\n" in out
    assert "! Problem: target already exists: epoch-01_step-000002.ckpt\n" in out
    assert project.names("clash") == ["epoch-05_step-000002.ckpt", "epoch=1-step=2.ckpt", "epoch_1_step_2.ckpt"]
    assert project.names("well") == ["epoch-01_step-000002.ckpt"]
    again = project.doit("migrate", check=1)
    assert again.count("Problem:") == 4
    assert "well" not in again
    for name in ("clash/checkpoints/epoch=1-step=2.ckpt", "damaged/checkpoints/epoch_1_step_2.ckpt"):
        os.remove(project.outputs / name)
    os.remove(project.outputs / "damaged/checkpoints/last.ckpt")
    os.remove(project.outputs / "taken/checkpoints/epoch_1_step_2.ckpt")
    project.doit("migrate")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """Give a folder that an unprivileged user reaches, and be that user: nothing is unreadable for root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in ("closed", "open"):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "checkpoints" / "epoch_1_step_2.ckpt").write_text("x")
    (folder / "closed" / "checkpoints").chmod(0)
    (folder / "sealed").mkdir(mode=0)
    options = Migrating(outputs_dir=str(folder), rules_dir=str(ROOT / "rules"))
    finding.load(Session(command_line([]), {}), options)  # imports what another user may not be able to read
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    for path in (folder / "closed" / "checkpoints", folder / "sealed"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_an_unreadable_directory_is_a_problem_of_its_own(reachable: Path) -> None:
    options = Migrating(outputs_dir=str(reachable), rules_dir=str(ROOT / "rules"), dry_run=True)
    job = jobs.job_of(Session(command_line([]), {}), options)
    told = {}
    for found in find.survey(str(reachable), job.rules.layout)[0]:
        done = working.work_on(job, found)
        told[found.experiment] = (bool(done.failed), done.text)
    refused = "! Problem: {}/checkpoints cannot be read: Permission denied\n"
    assert {name: failed for name, (failed, _) in told.items()} == {"closed": True, "open": False, "sealed": True}
    assert all(refused.format(name) in told[name][1] for name in ("closed", "sealed"))


def test_a_second_run_executes_nothing_and_every_change_runs_what_it_concerns(project: Project) -> None:
    project.make(THREE_FORMATS)
    nothing = "Nothing to do: 3 experiments are up to date.\n"
    project.doit("migrate")
    assert project.doit("migrate") == nothing
    assert project.doit("migrate", "verbose=1").endswith(nothing)
    project.doit("plan", "delete_old=1")
    project.doit("migrate", "dry_run=1")
    assert project.doit("migrate") == nothing
    project.make({"ocr/checkpoints/epoch_30_step_3.ckpt": 1})
    out = project.doit("migrate")
    assert "processed   1  experiment, 2 up to date" in out
    rules = project.folder / "rules" / "naming.yaml"
    rules.write_text(rules.read_text() + "# only a comment\n")
    assert project.doit("migrate") == nothing
    rules.write_text(rules.read_text().replace("best.ckpt,", "best.ckpt, kept.ckpt,"))
    assert "processed   3  experiments\n" in project.doit("migrate")
    retention = project.folder / "rules" / "retention.yaml"
    retention.write_text(retention.read_text().replace("min_epoch: 10", "min_epoch: 3"))
    assert project.doit("migrate") == nothing
    assert "processed   3  experiments\n" in project.doit("migrate", "delete_old=1")
    assert project.doit("migrate", "delete_old=1") == nothing
    retention.write_text("# a comment that moves all lines\n" + retention.read_text())
    assert project.doit("migrate", "delete_old=1") == nothing
    assert "processed   3  experiments\n" in project.doit("migrate", "delete_old=1", "keep_min_epoch=4")
    project.doit("forget", "migrate")
    assert "processed   3  experiments\n" in project.doit("migrate", "delete_old=1", "keep_min_epoch=4")


def test_a_change_that_hides_behind_the_old_time_of_the_directory_is_noticed(project: Project) -> None:
    project.make(THREE_FORMATS)
    project.doit("migrate")
    folder = project.outputs / "ocr" / "checkpoints"
    time_ns = folder.stat().st_mtime_ns
    project.make({"ocr/checkpoints/epoch_30_step_3.ckpt": 1})
    os.utime(folder, ns=(time_ns, time_ns))
    assert "epoch-30_step-000003.ckpt" in project.doit("migrate")


def test_a_preview_leaves_no_trace_anywhere(project: Project) -> None:
    project.make(THREE_FORMATS)
    before = (project.tree(state=True), sorted(p.name for p in project.folder.iterdir()))
    for arguments in (
        ["plan"],
        [],
        ["migrate", "dry_run=1"],
        ["migrate", "--dry-run"],
        ["check"],
        ["list", "--all"],
    ):
        project.doit(*arguments)
    assert (project.tree(state=True), sorted(p.name for p in project.folder.iterdir())) == before
    project.doit("migrate", "delete_old=1")
    database = (project.outputs / ".ckptrules" / "doit.db").read_bytes()
    project.doit("plan", "delete_old=1", "keep_min_epoch=50")
    project.doit("migrate", "dry_run=1")
    assert (project.outputs / ".ckptrules" / "doit.db").read_bytes() == database


def test_a_preview_says_would_and_is_what_the_run_then_does(project: Project) -> None:
    project.make(THREE_FORMATS)
    plan = project.doit("plan", "delete_old=1")
    assert plan == project.doit("migrate", "dry_run=1", "delete_old=1") == project.doit("plan", "--delete-old")
    assert f"  ✓ Would rename: {DOUBLED}\n                → epoch-22_step-001932.ckpt\n" in plan
    assert f"  ⊗ Would delete: {EARLY} (epoch < 10)\n" in plan
    done = project.doit("migrate", "delete_old=1")
    assert done.count("✓") == plan.count("✓")
    assert done.count("⊗") == plan.count("⊗")


WRONG = {
    "migrate delete_odl=1": "ERROR: command line: unknown option 'delete_odl'\n    hint: did you mean 'delete_old'?\n",
    "migrate --delete-odl": "ERROR: command line: unknown option '--delete-odl'\n    hint: did you mean '--delete-old'?\n",
    "migrate keep_min_epoch=abc": "ERROR: command line: keep_min_epoch=abc: must be a whole number, 0 or more\n",
    "migrate keep_last=0": "ERROR: command line: keep_last=0: must be a whole number, 1 or more\n",
    "migrate keep_min_epoch=-1": "ERROR: command line: keep_min_epoch=-1: must be a whole number, 0 or more\n",
    "migrate delete_old=maybe": "ERROR: command line: delete_old=maybe: must be 1/true/yes or 0/false/no\n",
    "migrate policy=defalt": "ERROR: command line: unknown policy 'defalt'\n    hint: did you mean 'default'?\n",
    "migrate delete_old=1 --delete-old": "ERROR: command line: option 'delete_old' is given twice\n    hint: give it once\n",
    "migrate --delete-old true": "ERROR: command line: --delete-old takes no value\n    hint: write delete_old=true\n",
    "migrate --keep-min-epoch": "ERROR: command line: --keep-min-epoch needs a value\n",
    "migrate outputs_dir=nowhere": "ERROR: outputs_dir 'nowhere': No such file or directory\n"
    "    hint: name the folder of the experiments with outputs_dir=PATH\n",
    "plan outputs_dir=output": "ERROR: outputs_dir 'output': No such file or directory\n"
    "    hint: did you mean outputs_dir=outputs?\n",
    "migrate rules_dir=nowhere": "ERROR: nowhere: cannot be read: No such file or directory\n"
    "    hint: name the folder of the rule files with rules_dir=PATH; 'ckptrules init' writes one to edit\n",
    "migrate:lr=0.1 plan": "ERROR: command line: doit reads 'migrate:lr=0.1' as an option beside other tasks, "
    "because of its '='\n    hint: write 'migrate:lr%3D0.1'\n",
}


@pytest.mark.parametrize(
    "words",
    [
        *("plan outputs_dir=~/outputs", "plan rules_dir=~", "plan json=~/p.json", "page html=~/p.html"),
        *("backup to=~/backups", "archive experiments=ocr archive_dir=~/archives"),
    ],
)
def test_a_home_that_the_shell_left_as_it_was_typed_is_told(project: Project, words: str) -> None:
    project.make(THREE_FORMATS)
    option = words.rsplit(maxsplit=1)[-1]
    assert project.doit(*words.split(), check=3) == (
        f"ERROR: command line: {option}: must be a path without ~, which this shell has left as it is\n"
        "    hint: write $HOME in its place\n"
    )


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_line_is_refused_before_anything_is_touched(project: Project, arguments: str) -> None:
    project.make(THREE_FORMATS)
    before = project.tree(state=True)
    assert project.doit(*arguments.split(), check=3) == WRONG[arguments]
    assert project.tree(state=True) == before


def test_a_broken_rule_file_stops_before_anything_is_touched(project: Project) -> None:
    project.make(THREE_FORMATS)
    (project.folder / "rules" / "mine.yaml").write_text("legacy:\n  - id: acme\n    mtach: 'x'\n    examples: {a: b}\n")
    before = project.tree(state=True)
    out = project.doit("migrate", check=3)
    assert "rules/mine.yaml:3:5: legacy[0] has no key 'mtach'\n    hint: did you mean 'match'?\n" in out
    assert project.tree(state=True) == before


@pytest.mark.parametrize("word", ["0", "false", "no"])
def test_delete_old_can_be_said_no_to(project: Project, word: str) -> None:
    project.make(THREE_FORMATS)
    assert "Would delete" not in project.doit("plan", f"delete_old={word}")


EXPERIMENTS = [
    "lr=0.1,bs=32",
    "with space",
    'it\'s "quoted"',
    "-dash",
    "_underscore",
    "größe",
    b"\xff\xfe".decode("utf-8", "surrogateescape"),
    "50%",
]


def test_experiments_of_any_name_are_selectable_and_shown_right(project: Project) -> None:
    project.make({f"{experiment}/checkpoints/epoch=11-step=2.ckpt": 2 for experiment in EXPERIMENTS})
    listed = project.doit("list", "--all", "-q").split("\n")
    selections = [line.strip() for line in listed if line.startswith("migrate:")]
    assert "migrate:lr%3D0.1,bs%3D32" in selections
    assert "migrate:%FF%FE" in selections
    out = "".join(project.doit(selection) for selection in selections)
    for experiment in EXPERIMENTS:
        shown = experiment.replace("\udcff", "\\xff").replace("\udcfe", "\\xfe")
        assert f"Processing experiment: {shown}\n" in out
        assert project.names(experiment) == ["epoch-11_step-000002.ckpt"]
    assert project.doit("migrate") == f"Nothing to do: {len(EXPERIMENTS)} experiments are up to date.\n"


def test_one_experiment_or_a_glob_of_them_can_be_selected_with_flags(project: Project) -> None:
    project.make(THREE_FORMATS)
    project.doit("migrate:ocr", "--delete-old")
    assert EARLY not in project.names("ocr")
    assert "epoch_09_step_002730.ckpt" in project.names("under")
    project.doit("migrate:u*")
    assert "epoch-09_step-002730.ckpt" in project.names("under")
    assert "epoch=67-step=18564.ckpt" in project.names("default")


LAYOUTS = {
    "['*/checkpoints', '*/weights']": ["a/checkpoints", "b/weights"],
    "['*/*/checkpoints']": ["sweep/lr=1/checkpoints"],
    "['**/checkpoints']": ["checkpoints", "a/checkpoints", "b/c/d/checkpoints"],
    "['lightning_logs/version_*/checkpoints']": ["lightning_logs/version_0/checkpoints"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(project: Project, layout: str) -> None:
    rules = project.folder / "rules" / "naming.yaml"
    rules.write_text(rules.read_text().replace("['*/checkpoints']", layout))
    project.make({f"{folder}/epoch=11-step=2.ckpt": 2 for folder in LAYOUTS[layout]})
    project.make({"elsewhere/files/epoch=11-step=2.ckpt": 2})
    project.doit("migrate")
    renamed = {path for path in project.tree() if path.endswith("epoch-11_step-000002.ckpt")}
    assert renamed == {f"{folder}/epoch-11_step-000002.ckpt" for folder in LAYOUTS[layout]}


def test_links_out_of_outputs_are_not_followed(project: Project, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "checkpoints"
    outside.mkdir(parents=True)
    (outside / "epoch=11-step=2.ckpt").write_text("x")
    project.make({"linked": f"-> {outside.parent}", "exp/checkpoints": f"-> {outside}"})
    assert "Not followed: linked is a link." in project.doit("migrate", check=1)
    assert os.listdir(outside) == ["epoch=11-step=2.ckpt"]


def test_a_checkpoint_may_be_a_directory(project: Project) -> None:
    project.make(
        {"exp/checkpoints/epoch=3-step=2.ckpt/shard/0.pt": 5, "exp/checkpoints/epoch=30-step=2.ckpt/shard/0.pt": 5}
    )
    project.doit("migrate", "delete_old=1")
    assert project.names("exp") == ["epoch-30_step-000002.ckpt"]


def test_parallel_runs_do_the_same_and_print_blocks_whole(project: Project) -> None:
    project.make({f"exp{n}/checkpoints/epoch={e}-step=2.ckpt": n + 1 for n in range(8) for e in (3, 30)})
    out = project.doit("-n", "4", "migrate", "delete_old=1", "json=result.json")
    blocks = out.split("Summary")[0].split("Processing experiment: ")[1:]
    assert sorted(block.count("\n") for block in blocks) == [4] * 8
    assert all(project.names(f"exp{n}") == ["epoch-30_step-000002.ckpt"] for n in range(8))
    result = json.loads((project.folder / "result.json").read_text())
    assert (result["schema_version"], result["summary"]["renamed"], result["summary"]["deleted"]) == (2, 8, 8)
    assert [e["experiment"] for e in result["experiments"]] == [f"exp{n}" for n in range(8)]
    assert {a["action"] for e in result["experiments"] for a in e["actions"]} == {"rename", "trash"}
    assert project.doit("-n", "4", "migrate", "delete_old=1") == "Nothing to do: 8 experiments are up to date.\n"


def test_verbose_tells_what_stays_with_reason_and_rule(project: Project) -> None:
    project.make(THREE_FORMATS)
    out = project.doit("plan:ocr", "verbose=1", "delete_old=1")
    assert "  · Would keep: last.ckpt\n                protected by 'last.ckpt'  rules/naming.yaml:15\n" in out
    assert "legacy rule 'doubled-prefix'  rules/naming.yaml:23\n" in out
    assert "(epoch < 10, rules/retention.yaml:7)" in out


def test_hostile_file_names_are_shown_escaped(project: Project) -> None:
    names = ["a\x1b[31mred.ckpt", "b\nnew.ckpt", b"c\xff.ckpt".decode("utf-8", "surrogateescape"), "d\u202egnp.ckpt"]
    project.make({f"exp/checkpoints/{name}": 1 for name in names})
    out = project.doit("plan", check=1)
    for shown in ("a\\x1b[31mred.ckpt", "b\\nnew.ckpt", "c\\xff.ckpt", "d\\u202egnp.ckpt"):
        assert f"  ? Skipped: {shown} (unable to parse: no rule fits the whole name)\n" in out


def test_plain_ascii_where_the_terminal_shows_no_more(project: Project) -> None:
    project.make(THREE_FORMATS)
    out = project.doit("plan", "delete_old=1", env={"PYTHONIOENCODING": "ascii"})
    assert out.isascii()
    assert f"  + Would rename: {DOUBLED}\n               -> epoch-22_step-001932.ckpt\n" in out


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_only_on_a_terminal_that_wants_it(project: Project, environment: dict[str, str], coloured: bool) -> None:  # noqa: FBT001
    project.make(THREE_FORMATS)
    assert "\x1b" not in project.doit("plan")
    kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "doit", "plan"]
    subprocess.run(
        command, cwd=project.folder, env={**kept, "TERM": "xterm", **environment}, stdout=terminal, check=True
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert (b"\x1b[32m" in shown) == coloured


def test_a_second_run_beside_a_first_is_refused_and_told_who_holds_the_lock(project: Project) -> None:
    project.make(THREE_FORMATS)
    held = lock.lock(str(project.outputs), "process 1 on somewhere")
    try:
        out = project.doit("migrate", check=3)
        project.doit("plan")
    finally:
        held.close()
    assert out == (
        "ERROR: another run is at work in 'outputs': process 1 on somewhere\n"
        "    hint: wait=60 waits a minute for it to finish; the lock goes with its holder\n"
    )
    project.doit("migrate")


def test_every_change_is_in_the_journal(project: Project) -> None:
    project.make(THREE_FORMATS)
    project.doit("migrate", "delete_old=1")
    (journal,) = (project.outputs / ".ckptrules" / "journal").iterdir()
    header, *lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert (header["journal"], header["options"]["delete_old"]) == (2, True)
    assert [next(iter(line)) for line in lines] == ["intent", "outcome"] * 3
    kinds = Counter(unit[0] for line in lines for unit in line.get("units", []))
    assert kinds == {"rename": 3, "trash": 2}


def test_a_target_that_appears_in_the_last_moment_is_not_overwritten(project: Project) -> None:
    project.make({"exp/checkpoints/old.ckpt": 3, "exp/checkpoints/new.ckpt": 4})
    with reading.open_below(str(project.outputs), "exp/checkpoints") as directory:
        with pytest.raises(FileExistsError):
            moving.rename(directory, "old.ckpt", "new.ckpt")
        with pytest.raises(FileExistsError):
            moving._rename_in_two_steps(directory, "old.ckpt", directory, "new.ckpt")  # noqa: SLF001
        moving._rename_in_two_steps(directory, "old.ckpt", directory, "free.ckpt")  # noqa: SLF001
    assert project.names("exp") == ["free.ckpt", "new.ckpt"]


def test_what_the_system_refuses_is_told_and_the_rest_is_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.make(
        {
            "exp/checkpoints/epoch_1_step_2.ckpt": 3,
            "exp/checkpoints/epoch_2_step_2.ckpt": 4,
            "exp/checkpoints/last.ckpt": "-> epoch_1_step_2.ckpt",
        }
    )
    really = moving.rename

    def refusing(directory: int, name: str, to: str, to_directory: int | None = None) -> None:
        if name == "epoch_1_step_2.ckpt":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
        really(directory, name, to, to_directory)

    monkeypatch.setattr(moving, "rename", refusing)
    options = Migrating(outputs_dir=str(project.outputs), rules_dir=str(ROOT / "rules"))
    job = jobs.job_of(Session(command_line(["migrate"]), {}), options)
    (found,) = find.survey(str(project.outputs), job.rules.layout)[0]
    assert "No locks available" in working.work_on(job, found).text  # nobody has begun that run
    job = job._replace(number=1)
    done = working.work_on(job, found)
    assert done.failed
    refused = "! Problem: epoch_1_step_2.ckpt cannot be renamed to epoch-01_step-000002.ckpt: Operation not permitted\n"
    assert refused in done.text
    assert project.names("exp") == ["epoch-02_step-000002.ckpt", "epoch_1_step_2.ckpt", "last.ckpt"]
    assert os.readlink(project.outputs / "exp/checkpoints/last.ckpt") == "epoch_1_step_2.ckpt"


def test_a_job_can_be_sent_to_another_process(project: Project) -> None:
    options = Migrating(outputs_dir=str(project.outputs), rules_dir=str(ROOT / "rules"), delete_old=True)
    job = jobs.job_of(Session(command_line(["migrate"]), {}), options)
    sent = pickle.loads(pickle.dumps(job))
    assert sent._replace(links=job.links, journals=job.journals) == job
    assert sent.journals is pickle.loads(pickle.dumps(job)).journals is not job.journals
    assert sent.links.leading() == job.links.leading()


def test_a_damaged_database_is_set_aside_without_a_traceback(project: Project) -> None:
    project.make(THREE_FORMATS)
    project.make({".ckptrules/doit.db": 100})
    out = project.doit("migrate")
    assert out.startswith("outputs/.ckptrules/doit.db: is damaged, or no database: ")
    assert "It is now doit.db.damaged-1; it only remembers what is up to date" in out


def test_a_json_file_in_no_folder_is_refused(project: Project) -> None:
    project.make(THREE_FORMATS)
    out = project.doit("migrate", "json=no/where.json", check=3)
    assert out == "ERROR: command line: json=no/where.json: there is no such folder to write in\n"


def test_without_a_clone_the_console_script_does_the_same(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    project.make(THREE_FORMATS)

    def run(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "ckptrules", *arguments]
        result = subprocess.run(command, cwd=folder, text=True, encoding="utf-8", capture_output=True, check=False)
        assert result.returncode == code
        return result.stdout

    assert "Would rename" in run("plan", f"outputs_dir={project.outputs}")
    written = run("init", code=1)
    assert written.startswith("Looked at 1 folder.\n\nNo checkpoints that a pack knows in '.'")
    assert "\nwrote dodo.py\n" in written
    assert (folder / "rules" / "naming.yaml").read_text() == (ROOT / "rules" / "naming.yaml").read_text()
    (folder / "dodo.py").write_text("mine")
    assert "dodo.py is there already: left as it is\n" in run("init", "preset=protocol")
    assert (folder / "dodo.py").read_text() == "mine"


def test_the_demo_can_be_run_twice_and_leaves_its_trees(project: Project) -> None:
    for _time in range(2):  # not by `doit`, which tries the hints: at the end some are of a checkpoint that has gone
        code, out, _ = run_program("doit", "demo", folder=project.folder, environment=default())
        assert code == 0
        assert "Traceback" not in out
        assert "Nothing to do: 3 experiments are up to date." in out
    assert sorted(path.name for path in project.folder.glob("demo*")) == ["demo", "demo-2"]


def test_the_demo_does_not_go_by_the_rules_of_the_folder(project: Project) -> None:
    """They do not know the names of the sample: the first thing that a newcomer saw after `init` was a failure."""
    (project.folder / "rules" / "naming.yaml").write_text("layout: ['*']\npacks: [huggingface]\n")
    code, out, _ = run_program("doit", "demo", folder=project.folder, environment=default())
    assert code == 0
    assert "Nothing to do: 3 experiments are up to date." in out


def test_the_hints_of_the_demo_are_for_its_own_tree(project: Project) -> None:
    """They were for the folder that it goes into: copied where the user stands, `purge` emptied the user's own trash."""
    project.make({"exp/checkpoints/epoch_1_step_2.ckpt": 4})
    _, out, _ = run_program("ckptrules", "demo", folder=project.folder, environment=default())
    purges = [command for command in named_commands(out) if command.startswith("ckptrules purge")]
    assert len(purges) == 1
    assert "7 items" in run_copied(purges[0], project.folder)[1]


@pytest.mark.parametrize(
    "task", ["doit plan", "doit migrate", "doit history", "doit trash", "ckptrules init preset=keras"]
)
def test_a_closed_output_is_no_fault(project: Project, task: str) -> None:
    """As from a service that was started without one: it ended with a traceback."""
    project.make({"exp/checkpoints/epoch_1_step_2.ckpt": 4})
    command = ["bash", "-c", f'exec "$0" -m {task} >&-', sys.executable]
    ended = subprocess.run(command, cwd=project.folder, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.stderr == ""
    assert ended.returncode == (task.startswith("ckptrules"))  # rules are there already
    assert (project.names("exp") == ["epoch-01_step-000002.ckpt"]) == (task == "doit migrate")
