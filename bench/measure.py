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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
CALLS = """
import ctypes, fcntl, os, re, sys
renameat2 = ctypes.CDLL(None).renameat2
rule = re.compile(r"(?:epoch_epoch_(\\d+)_step_step_(\\d+)_\\d{8}_\\d{6}"
                  r"|epoch_(\\d+)_step_(\\d+)|epoch=(\\d+)-step=(\\d+))\\.ckpt")
processes = int(sys.argv[1])
experiments = os.listdir("outputs")
own = next((n for n in range(1, processes) if os.fork() == 0), 0)
journal = os.open(f"journal{own}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for experiment in experiments[own::processes]:
    folder = os.open(f"outputs/{experiment}/checkpoints", os.O_RDONLY)
    renames = []
    for entry in os.scandir(folder):
        entry.stat(follow_symlinks=False)
        if match := rule.fullmatch(entry.name):
            file = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            os.close(file)
            epoch, step = (int(number) for number in match.groups() if number)
            renames.append((entry.name, f"epoch-{epoch:02d}_step-{step:06d}.ckpt"))
    os.write(journal, repr(renames).encode())
    os.fdatasync(journal)
    for old, new in renames:
        os.lstat(old, dir_fd=folder)
        renameat2(folder, old.encode(), folder, new.encode(), 1)
    os.close(folder)
while own == 0 and processes > 1:
    os.wait()
    processes -= 1
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
# Python keeps what it has compiled, beside its source, as it does for most users; some environments say otherwise
ELSEWHERE = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
CHANGE = "outputs/exp_00000/checkpoints/epoch=900-step=900000.ckpt"
FIRST, SECOND, CHANGED = "first run", "second run", "one changed"
BARE_LOOP, BARE_CALLS = "bare loop (scandir, re, os.rename)", "bare loop with our system calls"
SHARED_CALLS = f"the same, shared by {os.cpu_count()} processes"
PERL_RENAME = "perl rename behind find"
OURS, ONE_PROCESS = "ckptrules", "ckptrules, -n 1"
EMPTY_TASKS, PLAN, LIST, EMPTY_DODO = (
    "doit, empty tasks",
    "ckptrules plan",
    "ckptrules list",
    "doit list, empty dodo.py",
)
TREELESS = (EMPTY_TASKS, PLAN, LIST, EMPTY_DODO)  # these need not wait for a large tree to be made


class Run(NamedTuple):
    """What one command took: seconds, and the most memory that it or a process of it held, in MB."""

    seconds: float
    memory: float


Runs = Mapping[str, Mapping[str, Sequence[Run]]]  # by peer, then by FIRST, SECOND or CHANGED


def make(folder: Path, experiments: int, checkpoints: int) -> None:
    """Make a tree: three legacy formats mixed, ``last.ckpt`` and one best in each experiment, one byte a file."""
    for number in range(experiments):
        directory = folder / "outputs" / f"exp_{number:05d}" / "checkpoints"
        directory.mkdir(parents=True)
        names = [FORMATS[(number + n) % 3].format(epoch=n, step=(n + 1) * 88) for n in range(checkpoints)]
        for name in (*names, "last.ckpt", f"best-hmean-0.{1000 + number % 9000}.ckpt"):
            (directory / name).write_bytes(b"x")


def measured(command: Sequence[str], folder: Path) -> Run:
    """Run a command and return what it took."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=ENVIRONMENT)  # noqa: S603 - no shell
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(seconds, usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def peers() -> dict[str, dict[str, list[str]]]:
    """Return by name what is run on a fresh tree, one command after the other."""
    doit = [sys.executable, "-m", "doit"]
    bare, ours = [sys.executable, "-c", BARE], [*doit, "migrate"]
    one_process, empty = [*doit, "-n", "1", "migrate"], [*doit, "-f", "empty.py"]
    calls = {
        BARE_CALLS: {FIRST: [sys.executable, "-c", CALLS, "1"]},
        SHARED_CALLS: {FIRST: [sys.executable, "-c", CALLS, str(os.cpu_count())]},
    }
    listed = {
        BARE_LOOP: {FIRST: bare, SECOND: bare},
        **(calls if sys.platform == "linux" else {}),
        OURS: {FIRST: ours, SECOND: ours, CHANGED: ours},
        ONE_PROCESS: {FIRST: one_process, SECOND: one_process},
        EMPTY_TASKS: {FIRST: empty, SECOND: empty},
        PLAN: {FIRST: [*doit, "-d", "small", "plan"]},
        LIST: {FIRST: [*doit, "-d", "small", "list"]},
        EMPTY_DODO: {FIRST: [*doit, "-f", "nothing.py", "list"]},
    }
    if rename := shutil.which("prename") or shutil.which("file-rename"):
        perl = ["find", "outputs", "-name", "*.ckpt", "-exec", rename, PERL, "{}", "+"]
        listed[PERL_RENAME] = {FIRST: perl, SECOND: perl}
    return listed


def prepare(folder: Path, experiments: int, checkpoints: int) -> None:
    """Make the folder that everything is run in; let Python compile what it needs."""
    make(folder, experiments, checkpoints)
    make(folder / "small", 3, 5)
    for place in (folder, folder / "small"):
        shutil.copy(ROOT / "dodo.py", place)
        shutil.copytree(ROOT / "rules", place / "rules")
    (folder / "nothing.py").write_text(EMPTY_LIST)
    for words in (["-d", "small", "plan"], ["-f", "nothing.py", "list"]):
        measured([sys.executable, "-m", "doit", *words], folder)
    shutil.copytree(folder / "__pycache__", folder / "small" / "__pycache__", dirs_exist_ok=True)
    os.sync()


def measure(experiments: int, checkpoints: int, rounds: int, only: Sequence[str] = ()) -> Runs:
    """Run everything, or only some, in turn, some rounds; each peer has a fresh tree.

    The trees are removed at the end only: ext4 makes new files slowly where many have just been removed.
    """
    found: dict[str, dict[str, list[Run]]] = {}
    with tempfile.TemporaryDirectory() as parent:
        for _ in range(rounds):
            for name, commands in peers().items():
                if only and name not in only:
                    continue
                folder = Path(tempfile.mkdtemp(dir=parent))
                prepare(folder, 1 if name in TREELESS else experiments, checkpoints)
                (folder / "empty.py").write_text(EMPTY % experiments)
                for what, command in commands.items():
                    if what == CHANGED:
                        (folder / CHANGE).write_bytes(b"x")
                    found.setdefault(name, {}).setdefault(what, []).append(measured(command, folder))
    return found


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
            measured([strace, "-f", "-c", "-o", str(log), *doit], Path(folder))
            counts.append({row.split()[-1]: int(row.split()[3]) for row in log.read_text().splitlines()[2:-2]})
    for call in sorted(counts[0], key=lambda call: -counts[0][call])[:8]:
        first = counts[0][call] / experiments / checkpoints
        lines.append(f"| {call} | {first:.2f} | {counts[1].get(call, 0) / experiments:.2f} |")
    return "\n".join(lines)


def median(runs: Sequence[Run]) -> float:
    """Return the median of the seconds."""
    return statistics.median(run.seconds for run in runs)


def most_memory(runs: Mapping[str, Sequence[Run]]) -> float:
    """Return the most memory that any run took, in MB."""
    return max(run.memory for every in runs.values() for run in every)


def table(found: Runs) -> str:
    """Write medians with their range, and the most memory of all runs, as Markdown."""
    lines = ["| | first run: s (min–max) | second run | one experiment changed | most memory |", "| --- " * 5 + "|"]
    for name, runs in found.items():
        cells = [_seconds(runs.get(what, ())) for what in (FIRST, SECOND, CHANGED)]
        lines.append(f"| {name} | {' | '.join(cells)} | {most_memory(runs):.0f} MB |")
    return "\n".join(lines)


def ratios(found: Runs) -> str:
    """Write what is to be compared, as ratios, as Markdown."""
    pairs = (
        ("first run, default settings / bare loop", (OURS, FIRST), (BARE_LOOP, FIRST)),
        ("first run, -n 1 / bare loop", (ONE_PROCESS, FIRST), (BARE_LOOP, FIRST)),
        ("bare loop with our system calls / bare loop", (BARE_CALLS, FIRST), (BARE_LOOP, FIRST)),
        (f"{SHARED_CALLS} / bare loop", (SHARED_CALLS, FIRST), (BARE_LOOP, FIRST)),
        ("first run, default settings / perl rename", (OURS, FIRST), (PERL_RENAME, FIRST)),
        ("second run / doit with as many empty tasks", (OURS, SECOND), (EMPTY_TASKS, SECOND)),
        ("one experiment changed / second run", (OURS, CHANGED), (OURS, SECOND)),
        ("plan, small tree / doit list, empty dodo.py", (PLAN, FIRST), (EMPTY_DODO, FIRST)),
        ("list, small tree / doit list, empty dodo.py", (LIST, FIRST), (EMPTY_DODO, FIRST)),
    )
    lines = ["", "| ratio | |", "| --- | --- |"]
    for label, (one, what), (other, base) in pairs:
        if one in found and other in found:
            lines.append(f"| {label} | {median(found[one][what]) / median(found[other][base]):.2f} |")
    if OURS in found and EMPTY_TASKS in found:
        ratio = most_memory(found[OURS]) / most_memory(found[EMPTY_TASKS])
        lines.append(f"| memory / doit with as many empty tasks | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("experiments", 100), ("checkpoints", 100), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", action="append", default=[], help="a row of the table; may be given again")
    given = parser.parse_args()
    found = measure(given.experiments, given.checkpoints, given.rounds, given.only)
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{given.experiments} experiments × {given.checkpoints} checkpoints, {given.rounds} rounds; {machine}\n")
    print(table(found))
    print(ratios(found))
    if not given.only:
        print(system_calls(min(given.experiments, 20), given.checkpoints))


def _seconds(runs: Sequence[Run]) -> str:
    if not runs:
        return ""
    every = [run.seconds for run in runs]
    return f"{statistics.median(every):.2f} ({min(every):.2f}–{max(every):.2f})"


if __name__ == "__main__":
    main()
