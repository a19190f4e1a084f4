"""Measures ours beside plain tools that do as much, in turn, several rounds; prints ratios.

``python bench/copies.py --files 32 --megabytes 64 --renames 100000 --rounds 5``, in ``TMPDIR``, which needs five times
the room. The files are torch checkpoints with content like weights; all are in the memory of the system when the rounds
begin, and in the rows "from the disk" none is (a file system in memory cannot do that). A ratio is that of two commands
run one after the other, so that what else the machine does weighs on both. Files are synced by name (`sync FILE`), as
others may be writing to the disk.
"""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import shutil
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from measure import BARE, EMPTY, ROOT, make, measured

EXPONENTS = bytes(b"\x3a\x3b\x3c\x3d\xba\xbb\xbc\xbd"[n % 8] for n in range(256))  # what small floats begin with
HASH = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from blake3 import blake3
paths = [os.path.join(folder, name) for folder, _, names in os.walk(sys.argv[1]) for name in names]
with ThreadPoolExecutor() as pool:
    print(*pool.map(lambda path: blake3().update_mmap(path).hexdigest(), paths))
"""
FORGET = """
import os, sys
for top in sys.argv[1:]:
    for folder, _, names in os.walk(top):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
"""
DOIT = f"{sys.executable} -m doit"
READ = "cat outputs/exp/checkpoints/* > /dev/null"


class Pair(NamedTuple):
    """Our command and plain ones, for a shell; what is done before both and each; the most that the ratio is to be."""

    ours: str
    plain: str
    before: str = "true"
    at_most: float | None = None
    each: str = "true"


def pairs() -> Mapping[str, Pair]:
    """Return by name what is compared; what is needed later comes first."""
    clean = "rm -rf outputs_backup_* .outputs_backup_* plain; sync"
    b3 = shutil.which("b3sum")
    hashing = f"{b3} --no-names outputs/*/*/*" if b3 else f"{sys.executable} hash.py outputs"
    backed_up = f"ls -d outputs_backup_* 2>/dev/null || {DOIT} backup mode=link"
    unverified = "rm -rf outputs/.ckptrules/verified half?/.ckptrules"
    half = f"{DOIT} verify outputs_dir=half{{}} executor=none"
    archive = f"{DOIT} archive experiments=exp archive_dir=packed keep_source=1"
    hash_name = "`b3sum`" if b3 else "BLAKE3 of the mapped files, a thread a core"
    two_at_once = f"{half.format(0)} & {half.format(1)}; wait $!"
    forget = f"{sys.executable} forget.py outputs outputs_backup_*"  # the halves are hard links to the same files
    reading = {
        f"backups verify=1 / {hash_name}": Pair(f"{DOIT} backups verify=1", hashing, backed_up, 1.2),
        "backups verify=1 / `cat`": Pair(f"{DOIT} backups verify=1", READ, backed_up),
        "verify / `cat`": Pair(f"{DOIT} verify", READ, unverified, 1.2),
        "verify by two processes / two of it at once, half the files each": Pair(
            f"{DOIT} -n 2 verify executor=processes", two_at_once, unverified, 1.15
        ),
    }
    return {
        "backup / `cp -r` + `sync`": Pair(
            f"{DOIT} backup mode=copy", "cp -r outputs plain; find plain -type f -exec sync {} +", clean, 1.2
        ),
        **reading,
        **{f"{name}, from the disk": pair._replace(each=forget) for name, pair in reading.items()},
        "archive / `tar \\| zstd -T0` + `zstd -t`": Pair(
            archive,
            "tar c -C outputs exp | zstd -q -T0 -o packed/x.zst; zstd -q -t packed/x.zst; sync packed/x.zst",
            "rm -rf packed; mkdir packed; sync",
            1.2,
        ),
        "unarchive / `zstd -dc \\| tar x`": Pair(
            f"{DOIT} unarchive archive=packed/exp.tar.zst",
            "mkdir plain; zstd -q -dc packed/exp.tar.zst | tar x -C plain",
            f"[ -e packed/exp.tar.zst ] || {{ mkdir packed; {archive}; }}; "
            "rm -rf outputs/exp plain outputs/.ckptrules/trash; sync",
            1.3,
        ),
        "undo / the migrate that it takes back": Pair(
            f"{DOIT} -d small undo", f"{DOIT} -d small migrate", "rm -rf small/outputs/.ckptrules", 1.5
        ),
        "first run / bare loop (scandir, re, os.rename)": Pair(
            f"{DOIT} -d fresh migrate",
            f"cd bare; {sys.executable} ../bare.py",
            "rm -rf fresh bare; cp -a made fresh; cp -a made bare; sync",
            2.5,
        ),
        "second run / doit with as many empty tasks": Pair(
            f"{DOIT} -d fresh migrate", f"{DOIT} -d fresh -f fresh/empty.py", at_most=1.5
        ),
    }


def prepare(folder: Path, files: int, megabytes: int, renames: int) -> None:
    """Make the folder that everything is run in."""
    (folder / "hash.py").write_text(HASH)
    (folder / "forget.py").write_text(FORGET)
    checkpoints = folder / "outputs/exp/checkpoints"
    checkpoints.mkdir(parents=True)
    for number in range(files):
        path = checkpoints / f"epoch-{number:02d}_step-{number:06d}.ckpt"
        write_checkpoint(path, number, megabytes << 20)
        half = folder / f"half{number % 2}/exp/checkpoints"
        half.mkdir(parents=True, exist_ok=True)
        os.link(path, half / path.name)
    make(folder / "small", max(1, renames // 1000), min(1000, renames))
    make(folder / "made", max(1, renames // 100), min(100, renames))
    (folder / "bare.py").write_text(BARE)
    (folder / "made/empty.py").write_text(EMPTY % max(1, renames // 100))
    for place in (folder, folder / "small", folder / "made"):
        shutil.copy(ROOT / "dodo.py", place)
        shutil.copytree(ROOT / "rules", place / "rules")
    os.sync()


def write_checkpoint(path: Path, number: int, size: int) -> None:
    """Write what torch would: a zip of a pickle and of numbers like weights, of which one byte in four shrinks."""
    weights = bytearray(size)
    for at in range(3):
        weights[at::4] = os.urandom(size // 4)
    weights[3::4] = os.urandom(size // 4).translate(EXPONENTS)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"epoch": number, "global_step": number}, protocol=2))
        file.writestr("archive/data/0", weights)
        file.writestr("archive/version", "3\n")


def seconds(command: str, folder: Path) -> float:
    """Return how long a shell takes for a command."""
    return measured(["bash", "-e", "-o", "pipefail", "-c", command], folder).seconds


def measure(folder: Path, rounds: int, only: str, tell: Callable[[str], object]) -> None:
    """Measure pair after pair, and tell a row of each."""
    for name, pair in pairs().items():
        if only not in name:
            continue
        taken: dict[str, list[float]] = {"ours": [], "plain": []}
        for number in range(rounds + 1):  # the first fills the memory of the system
            first, second = ("plain", "ours") if name.startswith("undo") or number % 2 else ("ours", "plain")
            seconds(pair.before, folder)
            for what in (first, second):
                seconds(pair.each, folder)
                took = seconds(getattr(pair, what), folder)
                if number:
                    taken[what].append(took)
        ratios = [ours / plain for ours, plain in zip(taken["ours"], taken["plain"], strict=True)]
        cells = [spread(taken["ours"]), spread(taken["plain"]), spread(ratios), str(pair.at_most or "")]
        tell(f"| {name} | {' | '.join(cells)} |")


def spread(values: list[float]) -> str:
    """Write the median and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("files", 32), ("megabytes", 64), ("renames", 100_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="", help="a part of the name of a row")
    given = parser.parse_args()
    machine = f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    load = os.getloadavg()[0]
    print(f"{given.files} files of {given.megabytes} MiB, {given.renames:,} renames, {given.rounds} rounds; {machine}")
    print(f"load when it began: {load:.1f}\n")
    print("| | ours: s (min–max) | plain | ratio | at most |\n" + "| --- " * 5 + "|")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), given.files, given.megabytes, given.renames)
        measure(Path(folder), given.rounds, given.only, lambda row: print(row, flush=True))


if __name__ == "__main__":
    main()
