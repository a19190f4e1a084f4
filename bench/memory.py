"""Prints the most memory that each command takes, in its main process and in each of its others.

``python bench/memory.py --experiments 10000 --checkpoints 100``: many of the smallest safetensors files, which take
4 KB each on most disks, then a large one that is all hole. Linux only, where the kernel counts (``VmHWM``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
NAME = "epoch={epoch}-step={step}.ckpt"
MANY = ("plan", "plan delete_old=1", "plan json=plan.json", "migrate", "migrate", "verify quick=1", "verify", "usage")
LARGE = ("plan", "verify", "migrate", "catalog", "backup to=backups")
OFTEN = 0.02  # seconds between two looks


class Took(NamedTuple):
    """What a command took: seconds, and the most memory of its main process and of any other, in MB."""

    seconds: float
    main: float
    others: float


def content(size: int) -> bytes:
    """Return the beginning of a safetensors file with so many bytes of weights."""
    tensors = {"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}} if size else {}
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header


def make(folder: Path, experiments: int, checkpoints: int, size: int = 0) -> None:
    """Make a tree of files, whose weights are holes."""
    (folder / "backups").mkdir(parents=True)
    start = content(size)
    for number in range(experiments):
        directory = folder / "outputs" / f"exp_{number:05d}" / "checkpoints"
        directory.mkdir(parents=True)
        for n in range(checkpoints):
            with (directory / NAME.format(epoch=n, step=(n + 1) * 88)).open("wb") as file:
                file.write(start)
                file.truncate(len(start) + size)
    shutil.copy(ROOT / "dodo.py", folder)
    shutil.copytree(ROOT / "rules", folder / "rules")


def measured(words: Sequence[str], folder: Path) -> Took:
    """Run a command, and look at it and what it has started until it ends; exit code 1 says that problems are left."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "doit", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - no shell
    most: dict[int, float] = {process.pid: 0}
    while process.poll() is None:
        most |= {pid: held for pid in in_session(process.pid) if (held := peak(pid))}
        time.sleep(OFTEN)
    seconds = time.perf_counter() - start
    if process.returncode not in (0, 1):
        raise subprocess.CalledProcessError(process.returncode, command)
    return Took(seconds, most.pop(process.pid), max(most.values(), default=0))


def in_session(session: int) -> list[int]:
    """List the processes of a session."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        found += [int(pid)] * (fields[3] == str(session))
    return found


def peak(pid: int) -> float:
    """Return the most memory that a process has held, in MB; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0)


def table(folder: Path, commands: Sequence[str], title: str) -> None:
    """Run commands one after the other, and print a line for each as it ends."""
    print(f"| {title} | s | main process | each of the others |\n| --- | --- | --- | --- |")
    for command in commands:
        took = measured(command.split(), folder)
        others = f"{took.others:.0f} MB" if took.others else ""
        print(f"| {command} | {took.seconds:.1f} | {took.main:.0f} MB | {others} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=10_000)
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--gigabytes", type=int, default=1000, help="the size of the large file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        many, large = Path(parent, "many"), Path(parent, "large")
        make(many, given.experiments, given.checkpoints)
        table(many, MANY, f"{given.experiments:,} × {given.checkpoints:,} files")
        shutil.rmtree(many)
        make(large, 1, 1, given.gigabytes * 10**9)
        print()
        table(large, LARGE, f"one file of {given.gigabytes:,} GB")


if __name__ == "__main__":
    main()
