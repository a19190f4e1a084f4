"""`doit demo`: make a sample tree, and run the main commands on it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

from doit.exceptions import TaskFailed

from ckptrules.engine.state_folder import TRASH
from ckptrules.run.hints import quoted
from ckptrules.run.options import Common
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict
from ckptrules.storage import writing

STEPS_PER_EPOCH = 88
DAY_NS, MS_NS = 86_400 * 10**9, 10**6
SAMPLE: Mapping[str, tuple[str, range, tuple[str, ...]]] = {
    "ocr_training": (
        "epoch_epoch_{epoch:02d}_step_step_{step:06d}_20251009_015037.ckpt",
        range(2, 23, 5),
        ("last.ckpt", "best-hmean-0.8756.ckpt"),
    ),
    "detector_v2": ("epoch_{epoch:02d}_step_{step:06d}.ckpt", range(0, 15, 3), ("last.ckpt",)),
    "lr=0.1,bs=32": ("epoch={epoch}-step={step}.ckpt", range(7, 120, 28), ("notes from friday.ckpt",)),
}
WALK = (
    ("plan",),
    ("migrate",),
    ("plan", "delete_old=1", "keep_min_epoch=10"),
    ("migrate", "delete_old=1", "keep_min_epoch=10"),
    ("migrate", "delete_old=1", "keep_min_epoch=10"),
    ("page", "keep_last=2"),
)


def sample_tree(outputs_dir: str) -> None:
    """Make three experiments of yesterday, each with names in another legacy format, in files of a few KB."""
    time_ns = time.time_ns() - DAY_NS
    for experiment, (template, epochs, others) in SAMPLE.items():
        names = [template.format(epoch=epoch, step=(epoch + 1) * STEPS_PER_EPOCH) for epoch in epochs]
        for number, name in enumerate([*names, *others]):
            size = len(f"{experiment}/{name}\n".encode()) * (100 + number)
            epoch = epochs[min(number, len(epochs) - 1)]
            content = sample_checkpoint(epoch, (epoch + 1) * STEPS_PER_EPOCH, size)
            path = os.path.join(outputs_dir, experiment, "checkpoints", name)
            writing.write_new(path, content, time_ns := time_ns + MS_NS)


def sample_checkpoint(epoch: int, step: int, size: int) -> bytes:
    """Return a file of ``size`` bytes (at least some 1000) that torch loads as ``{"epoch": …, "global_step": …}``."""
    import io
    import pickle
    import zipfile

    data = pickle.dumps({"epoch": epoch, "global_step": step, "state_dict": {}}, protocol=2)
    entries = {"data.pkl": data, "byteorder": b"little", "version": b"3\n"}

    def packed(filling: int) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for entry, content in {**entries, "fill": b"\0" * max(0, filling)}.items():
                archive.writestr(zipfile.ZipInfo(f"archive/{entry}"), content)
        return file.getvalue()

    return packed(size - len(packed(0)))


class Options(Common):
    """The options of `doit demo`: the common ones, of which it needs none."""

    needs_outputs = False


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:  # noqa: ARG001 - all commands are called alike
    """Make the one task of the demo."""
    yield {"basename": "demo", "actions": [preview if options.dry_run else walk_through], "verbosity": 2}


def preview() -> None:
    """Print what the demo would make."""
    print(f"Would make a sample tree in {os.path.join(free_folder(), 'outputs')}, and show the main job on it.")


def walk_through() -> TaskFailed | None:
    """Run the commands of `WALK` on a new sample tree, and print each with its output."""
    folder = free_folder()
    outputs_dir = os.path.join(folder, "outputs")
    try:
        sample_tree(outputs_dir)
    except OSError as error:
        print(f"The sample tree cannot be made in {os.path.abspath(folder)}: {error.strerror}")
        return TaskFailed("no sample tree", report=False)
    print(f"A sample tree is in {outputs_dir}.")
    print(f"\n$ cd {folder}")  # away from rules of the user's own, which would not know the names of the sample
    absolute = os.path.abspath(outputs_dir)  # so that the hints work in the folder of the user
    for words in WALK:
        print(f"\n$ ckptrules {' '.join(words)} outputs_dir={quoted(absolute)}", flush=True)
        command = [sys.executable, "-m", "ckptrules", *words, f"outputs_dir={absolute}"]
        if subprocess.run(command, check=False, env=_environment(), cwd=folder).returncode != 0:  # noqa: S603 - our own command
            return TaskFailed("a command failed", report=False)
    print(f"\nOpen {folder}/checkpoints.html in a browser: it shows what a stricter policy would leave of the tree.")
    print(f"Look around in {outputs_dir}; what was deleted is in {outputs_dir}/{TRASH}.")
    print(f"Remove it when you have seen enough: rm -r {folder}")
    return None


def _environment() -> dict[str, str]:
    """Return an environment in which Python finds this package, also if it is not installed."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return {**os.environ, "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])}


def free_folder() -> str:
    """Return a free name for the folder of the demo: ``demo``, ``demo-2`` and so on."""
    names = (f"demo-{number}" if number > 1 else "demo" for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))
