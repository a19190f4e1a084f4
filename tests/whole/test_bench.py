"""The benchmark works; what cannot drift with the machine is checked: how often a run looks, and how often it renders."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ckptrules.run.processes import SHARE
from ckptrules.workers.workers import cores
from tests.conftest import ROOT, Project

COUNT = """
import atexit, os
counts = {}
def counted(name, function):
    def call(*args, **kwargs):
        path = args[0] if args else ""
        if "outputs" in str(path) or kwargs.get("dir_fd") is not None or name == "render":
            counts[name] = counts.get(name, 0) + 1
        return function(*args, **kwargs)
    return call
for name in ("stat", "lstat", "scandir", "open", "rename", "readlink"):
    setattr(os, name, counted(name, getattr(os, name)))
import jinja2.environment
jinja2.environment.Template.render = counted("render", jinja2.environment.Template.render)
main = os.getpid()
def tell():
    if os.getpid() == main:
        with open("counts.txt", "w") as file:
            file.write(repr(counts))
atexit.register(tell)
"""
EXPERIMENTS, CHECKPOINTS = 30, 20


def counts(project: Project, *arguments: str) -> dict[str, int]:
    env = {"PYTHONPATH": f"{project.folder}/count{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    project.doit(*arguments, env=env)
    found: dict[str, int] = eval((project.folder / "counts.txt").read_text())
    return found


def test_a_first_run_looks_at_each_checkpoint_as_often_as_safety_asks(project: Project) -> None:
    (project.folder / "count").mkdir()
    (project.folder / "count" / "sitecustomize.py").write_text(COUNT)
    project.make(
        {f"e{x}/checkpoints/epoch={n}-step={n}.ckpt": 1 for x in range(EXPERIMENTS) for n in range(CHECKPOINTS)}
    )
    first = counts(project, "migrate")
    checkpoints = EXPERIMENTS * CHECKPOINTS
    assert checkpoints < first["open"] <= checkpoints + 20 * EXPERIMENTS + 50  # is it open for writing?
    listed = checkpoints
    assert checkpoints < first["lstat"] - listed <= checkpoints + 6 * EXPERIMENTS + 50  # is it what was planned for?
    assert first["scandir"] <= 4 * EXPERIMENTS + 10


def imports(project: Project, *arguments: str) -> set[str]:
    shown = project.doit(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"})
    return {line.rpartition("|")[2].strip() for line in shown.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("only", "rows"),
    [
        ("back", ["| backup", *["| backups verify=1"] * 4, "| undo"]),
        ("run", ["| first run", "| second run"]),
    ],
)
def test_what_is_ours_is_measured_beside_plain_tools(only: str, rows: list[str]) -> None:
    words = f"--files 2 --megabytes 1 --renames 3 --rounds 1 --only {only}".split()
    command = [sys.executable, str(ROOT / "bench/copies.py"), *words]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = [row.split(" /")[0] for row in out.splitlines()[5:]]
    assert names == rows, out


@pytest.mark.skipif(sys.platform != "linux", reason="there the kernel tells how much memory a process has held")
def test_the_memory_of_each_command_is_printed() -> None:
    words = "--experiments 2 --checkpoints 3 --gigabytes 1".split()
    command = [sys.executable, str(ROOT / "bench/memory.py"), *words]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if "MB" in line]
    assert [row[0] for row in rows[8:]] == ["plan", "verify", "migrate", "catalog", "backup to=backups"], out
    assert all(10 < int(row[2].removesuffix(" MB")) < 200 for row in rows), out


def test_list_imports_neither_the_rules_nor_what_they_need(project: Project) -> None:
    imported = imports(project, "list")
    assert {"ckptrules.run.startup", "ckptrules.run.options"} <= imported
    assert imported.isdisjoint(
        {
            "yaml",
            "jinja2",
            "regex",
            "ckptrules.run.experiments",
            "ckptrules.storage.moving",
            "ckptrules.rules.load",
            "difflib",
        }
    )


def test_a_second_run_imports_nothing_that_only_work_needs(project: Project) -> None:
    project.make({f"e{x}/checkpoints/epoch={x}-step={x}.ckpt": 1 for x in range(3 * SHARE)})
    assert "jinja2" in imports(project, "migrate")
    needless = {
        "jinja2",
        "regex",
        "concurrent.futures",
        "multiprocessing.queues",
        "ckptrules.run.working",
        "ckptrules.engine.plan",
        "ckptrules.changes.kinds",
        "ckptrules.changes.record",
        "ckptrules.commands.purge",
    }
    assert needless & imports(project, "migrate") == set()


def test_what_is_remembered_of_many_experiments_hides_no_new_link(project: Project) -> None:
    project.make({f"e{x}/checkpoints/epoch={x}-step={x}.ckpt": 1 for x in range(2 * SHARE)})
    project.doit("-n", "0", "migrate")
    assert f"Nothing to do: {2 * SHARE} experiments are up to date" in project.doit("migrate")
    project.make({"e0/checkpoints/epoch=90-step=90.ckpt": 1})
    beside, above = project.outputs / "e5" / "checkpoints" / "best.ckpt", project.outputs / "e6" / "best.ckpt"
    for link in (beside, above):
        link.symlink_to(os.path.relpath(project.outputs / "e0" / "checkpoints" / "epoch=90-step=90.ckpt", link.parent))
    project.doit("-n", "0", "migrate")
    assert beside.exists()
    assert above.exists()
    assert os.readlink(above) == "../e0/checkpoints/epoch-90_step-000090.ckpt"


def test_a_second_run_looks_once_at_each_directory_and_renders_no_name(project: Project) -> None:
    (project.folder / "count").mkdir()
    (project.folder / "count" / "sitecustomize.py").write_text(COUNT)
    project.make(
        {f"e{x}/checkpoints/epoch={n}-step={n}.ckpt": 1 for x in range(EXPERIMENTS) for n in range(CHECKPOINTS)}
    )
    examples = counts(project, "check").get("render", 0)
    first = counts(project, "migrate")
    assert first["render"] - examples == CHECKPOINTS  # the experiments have their names in common
    second = counts(project, "migrate")
    assert second.get("render", 0) == 0  # neither names nor examples: these rules are known to hold
    looks = sum(second.get(name, 0) for name in ("stat", "lstat", "scandir", "readlink"))
    assert looks <= EXPERIMENTS + 45, second  # the lock among hosts alone takes some ten
    project.make({"e0/checkpoints/epoch=99-step=99.ckpt": 1})
    third = counts(project, "migrate")
    assert third["render"] == 1


PATIENT = """
from pathlib import Path
from ckptrules.workers import pool
pool.PATIENCE = {}
start = pool.Pool._start_processes
def told(*args):
    Path("others").touch()
    return start(*args)
pool.Pool._start_processes = told
"""


@pytest.mark.skipif(cores() < 2, reason="needs two processors")
def test_a_large_tree_is_shared_by_processes_and_a_small_one_is_not(project: Project) -> None:
    dodo, told = project.folder / "dodo.py", project.folder / "others"
    plain = dodo.read_text()

    def others(patience: int, *arguments: str) -> bool:
        """Say whether a run has started others; how many of them come to work, and how soon, is up to the machine."""
        dodo.write_text(PATIENT.format(patience) + plain)
        told.unlink(missing_ok=True)
        project.doit(*arguments)
        return told.exists()

    project.make({f"e{x}/checkpoints/epoch={x}-step={x}.ckpt": 1 for x in range(SHARE)})
    assert not others(0, "migrate")
    project.make({f"f{x}/checkpoints/epoch={x}-step={x}.ckpt": 1 for x in range(2 * SHARE)})
    assert not others(1000, "migrate")  # what takes no longer than a process takes to start needs none
    project.make({f"g{x}/checkpoints/epoch={n}-step={n}.ckpt": 1 for x in range(2 * SHARE) for n in range(100)})
    assert others(0, "migrate")
    project.make({f"h{x}/checkpoints/epoch={x}-step={x}.ckpt": 1 for x in range(2)})
    project.doit("-n", "1", "migrate")
    assert not others(0, "undo")  # two directories
    assert others(0, "undo")


def prepared_once(bench: ModuleType, place: Path) -> Callable[[Path, int, int], None]:
    """Prepare a tree of each size once, and copy it from then on: all that Python compiles for it takes the longest."""
    really = bench.prepare

    def prepare(folder: Path, experiments: int, checkpoints: int) -> None:
        tree = place / f"{experiments} {checkpoints}"
        if not tree.exists():
            tree.mkdir()
            really(tree, experiments, checkpoints)
        shutil.copytree(tree, folder, dirs_exist_ok=True)

    return prepare


def test_the_benchmark_prints_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    bench = importlib.import_module("measure")
    monkeypatch.setattr(bench, "prepare", prepared_once(bench, tmp_path))
    monkeypatch.setattr(sys, "argv", ["measure.py", *"--experiments 2 --checkpoints 3 --rounds 1".split()])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    ratios = dict(line.strip("| ").split(" | ") for line in lines if " / " in line)
    rows = [
        line
        for line in lines
        if line.startswith(("| ckptrules", "| bare", "| the same", "| doit")) and " / " not in line
    ]
    perl = bool(shutil.which("prename") or shutil.which("file-rename"))
    calls = 2 * (sys.platform == "linux")
    assert (len(rows), len(ratios)) == (7 + calls, 7 + calls + perl)
    assert all(float(ratio) > 0 for ratio in ratios.values())
