"""Measures ours and its peers on the same tree, in turn, several rounds; prints medians and ratios, never verdicts.

``python bench/measure.py --experiments 100 --checkpoints 100 --rounds 5``. Peers that are not installed are left out.
Figures of one run can be compared with each other, and with nothing else: machines drift.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
FORMATS = (
    "epoch_epoch_{epoch:02d}_step_step_{step:06d}_20251009_015037.ckpt",
    "epoch_{epoch:02d}_step_{step:06d}.ckpt",
    "epoch={epoch}-step={step}.ckpt",
)
BARE = """
import os, re
rules = [re.compile(r"epoch_epoch_(\\d+)_step_step_(\\d+)_\\d{8}_\\d{6}\\.ckpt"),
         re.compile(r"epoch_(\\d+)_step_(\\d+)\\.ckpt"), re.compile(r"epoch=(\\d+)-step=(\\d+)\\.ckpt")]
for experiment in os.scandir("outputs"):
    folder = f"{experiment.path}/checkpoints"
    if os.path.isdir(folder):
        for entry in list(os.scandir(folder)):
            for rule in rules:
                if match := rule.fullmatch(entry.name):
                    os.rename(entry.path, f"{folder}/epoch-{int(match[1]):02d}_step-{int(match[2]):06d}.ckpt")
                    break
"""
PERL = (
    "s/epoch_epoch_(\\d+)_step_step_(\\d+)_\\d{8}_\\d{6}\\.ckpt$/epoch-$1_step-$2.ckpt/;"
    "s/epoch_(\\d+)_step_(\\d+)\\.ckpt$/epoch-$1_step-$2.ckpt/;"
    's/epoch=(\\d+)-step=(\\d+)\\.ckpt$/sprintf("epoch-%02d_step-%06d.ckpt",$1,$2)/e'
)
EMPTY = """
DOIT_CONFIG = {"backend": "sqlite3", "dep_file": "outputs/empty.db", "verbosity": 0}
def task_all():
    for n in range(%d):
        yield {"name": str(n), "actions": [lambda: None], "uptodate": [True]}
"""
EMPTY_LIST = "def task_nothing():\n    '''Nothing'''\n    return {'actions': None}\n"


def make(folder: Path, experiments: int, checkpoints: int) -> None:
    """Make a tree: three legacy formats mixed, ``last.ckpt`` and one best in each experiment, one byte a file."""
    for number in range(experiments):
        directory = folder / "outputs" / f"exp_{number:05d}" / "checkpoints"
        directory.mkdir(parents=True)
        names = [FORMATS[(number + n) % 3].format(epoch=n, step=(n + 1) * 88) for n in range(checkpoints)]
        for name in (*names, "last.ckpt", f"best-hmean-0.{1000 + number % 9000}.ckpt"):
            (directory / name).write_bytes(b"x")


def timed(command: list[str], folder: Path) -> float:
    """Run a command and return the seconds that it took."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - no shell
    return time.perf_counter() - start


def peers(experiments: int) -> dict[str, list[list[str]]]:
    """Return by name what is run on a fresh tree: one command after the other, each timed."""
    doit = [sys.executable, "-m", "doit"]
    listed = {
        "bare loop (scandir, re, os.rename)": [[sys.executable, "-c", BARE]] * 2,
        "ckptrules, default settings": [[*doit, "migrate"]] * 2,
        "ckptrules, -n 1": [[*doit, "-n", "1", "migrate"]] * 2,
        f"doit, {experiments} empty tasks": [[*doit, "-f", "empty.py"]] * 2,
        "ckptrules plan, small tree": [[*doit, "-d", "small", "plan"]],
        "ckptrules list": [[*doit, "list"]],
        "doit list, empty dodo.py": [[*doit, "-f", "nothing.py", "list"]],
    }
    if rename := shutil.which("prename") or shutil.which("file-rename"):
        listed["perl rename behind find"] = [
            ["find", "outputs", "-name", "*.ckpt", "-exec", rename, PERL, "{}", "+"]
        ] * 2
    return listed


def prepare(folder: Path, experiments: int, checkpoints: int) -> None:
    """Make the folder that everything is run in."""
    make(folder, experiments, checkpoints)
    make(folder / "small", 3, 5)
    for place in (folder, folder / "small"):
        shutil.copy(ROOT / "dodo.py", place)
        shutil.copytree(ROOT / "rules", place / "rules")
    (folder / "empty.py").write_text(EMPTY % experiments)
    (folder / "nothing.py").write_text(EMPTY_LIST)


def measure(experiments: int, checkpoints: int, rounds: int) -> dict[str, list[list[float]]]:
    """Run everything in turn, some rounds; return the seconds of each command by peer."""
    times: dict[str, list[list[float]]] = {}
    for _ in range(rounds):
        for name, commands in peers(experiments).items():
            with tempfile.TemporaryDirectory() as folder:
                prepare(Path(folder), experiments, checkpoints)
                for place, command in enumerate(commands):
                    rows = times.setdefault(name, [[] for _ in commands])
                    rows[place].append(timed(command, Path(folder)))
    return times


def system_calls(experiments: int, checkpoints: int) -> str:
    """Count system calls for each checkpoint with strace, where that is installed: they do not drift."""
    strace = shutil.which("strace")
    if strace is None:
        return ""
    lines = ["", "| system calls | first run, per checkpoint | second run, per experiment |", "| --- | --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), experiments, checkpoints)
        counts = []
        for _ in range(2):
            log = Path(folder) / "calls"
            doit = [sys.executable, "-m", "doit", "migrate"]
            timed([strace, "-f", "-c", "-o", str(log), *doit], Path(folder))
            counts.append({row.split()[-1]: int(row.split()[3]) for row in log.read_text().splitlines()[2:-2]})
    for call in sorted(counts[0], key=lambda call: -counts[0][call])[:8]:
        first = counts[0][call] / experiments / checkpoints
        lines.append(f"| {call} | {first:.2f} | {counts[1].get(call, 0) / experiments:.2f} |")
    return "\n".join(lines)


def table(times: Mapping[str, list[list[float]]], base: str) -> str:
    """Write medians with their range, and the ratio to the base's first run, as Markdown."""
    reference = statistics.median(times[base][0])
    lines = ["| | first run: s (min–max) | ratio | second run: s (min–max) |", "| --- | --- | --- | --- |"]
    shown: Callable[[list[float]], str] = lambda row: f"{statistics.median(row):.2f} ({min(row):.2f}–{max(row):.2f})"  # noqa: E731
    for name, rows in times.items():
        second = shown(rows[1]) if len(rows) > 1 else ""
        lines.append(f"| {name} | {shown(rows[0])} | {statistics.median(rows[0]) / reference:.2f} | {second} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("experiments", 100), ("checkpoints", 100), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    times = measure(given.experiments, given.checkpoints, given.rounds)
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{given.experiments} experiments × {given.checkpoints} checkpoints, {given.rounds} rounds; {machine}\n")
    print(table(times, next(iter(times))))
    print(system_calls(min(given.experiments, 20), given.checkpoints))


if __name__ == "__main__":
    main()
