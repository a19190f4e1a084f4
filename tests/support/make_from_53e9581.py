"""Makes ``tests/cases/from_53e9581/project.tar.gz``: a project as the version 53e9581 left it.

    git worktree add ../old 53e9581
    python -m tests.support.make_from_53e9581 ../old PYTHON

PYTHON is one with the dependencies of that version, zstandard among them. In the archive lie ``dodo.py`` and ``rules/``
of that version, outputs with their state, a backup, two archives, and ``trees.json``: the names and contents below
outputs before each run that changed them, in their order, and at the end what was to become of the run that was killed.
All times are whole seconds: those of a tar file, as Python unpacks it, are no finer, and journals know files by them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.conftest import ROOT, Project
from tests.whole.test_golden import checkpoint

TARGET = ROOT / "tests/cases/from_53e9581/project.tar.gz"
TIME = 1_750_000_000  # seconds since 1970
DOUBLED = "ocr/checkpoints/epoch_epoch_{:02}_step_step_{:06}_20251009_015037"
INSIDE = {"dirpath": "ocr/checkpoints", "best_model_path": f"outputs/{DOUBLED.format(12, 120)}.ckpt"}
FILES: Mapping[str, bytes | str] = {
    **{f"{DOUBLED.format(n, n * 10)}.ckpt": checkpoint(n, n * 10, 500 + n, INSIDE) for n in (2, 7, 12, 22)},
    f"{DOUBLED.format(12, 120)}.metadata.json": b'{"hmean": 0.87}\n',
    f"{DOUBLED.format(2, 20)}.metadata.json": b'{"hmean": 0.1}\n',
    "ocr/checkpoints/last.ckpt": f"epoch_epoch_22_step_step_{220:06}_20251009_015037.ckpt",
    "ocr/checkpoints/last_checkpoint": f"{os.path.basename(DOUBLED.format(22, 220))}.ckpt\n".encode(),
    "newest": f"{DOUBLED.format(22, 220)}.ckpt",
    "rivals/checkpoints/epoch_09_step_000090.ckpt": checkpoint(9, 90, 600),
    "rivals/checkpoints/epoch=9-step=90.ckpt": checkpoint(9, 90, 601),
    "rivals/checkpoints/epoch=30-step=300.ckpt": checkpoint(30, 300, 602),
    "sharded/checkpoints/epoch=3-step=8.ckpt/model-00001-of-00002.pt": checkpoint(3, 8, 300),
    "sharded/checkpoints/epoch=3-step=8.ckpt/model-00002-of-00002.pt": checkpoint(3, 8, 301),
    "sharded/checkpoints/epoch=15-step=40.ckpt/model-00001-of-00001.pt": checkpoint(15, 40, 302),
    "freed/checkpoints/epoch=1-step=1.ckpt": checkpoint(1, 1, 100),
    "freed/checkpoints/epoch=11-step=11.ckpt": checkpoint(11, 11, 100),
    "paper/checkpoints/epoch-02_step-000020.ckpt": checkpoint(2, 20, 700),
    "paper/checkpoints/epoch-40_step-000400.ckpt": checkpoint(40, 400, 710),
    "paper/checkpoints/last.ckpt": "epoch-40_step-000400.ckpt",
    "shelf_gz/checkpoints/epoch-40_step-000400.ckpt": checkpoint(40, 400, 720),
    "shelf_gz/checkpoints/last.ckpt": "epoch-40_step-000400.ckpt",
    "shelf_gz/notes.txt": b"good\n",
    "shelf_zst/checkpoints/epoch-41_step-000410.ckpt": checkpoint(41, 410, 730),
    **{f"killed/checkpoints/epoch={n}-step={n}.ckpt": checkpoint(n, n, 100) for n in (1, 2, 20, 21, 22)},
    **{f"killed/checkpoints/epoch={n}-step={n}.metadata.json": b"{}\n" for n in (1, 2, 20, 21, 22)},
}
RUNS = (
    "migrate:freed delete_old=1",
    "purge",
    "migrate:ocr delete_old=1",
    "migrate:rivals on_conflict=keep_newest leave_links=1",
    "migrate:sharded delete_old=1",
    "drop_links:rivals",
    "fix_state:ocr",
    "refs apply=1",
    "archive experiments=shelf_gz archive_dir=archives format=gz",
    "archive experiments=shelf_zst archive_dir=archives",
)
OTHERS = ("verify:ocr verify:paper verify:rivals", "backup experiments=paper to=saved mode=copy")
KILLED = """
import os, signal, sys
from ckptrules import store
do_step, count = store.do_step, 0
def step(*arguments):
    global count
    count += 1
    if count == 6:  # two are deleted with their sidecars, the first that is renamed has left its sidecar behind
        os.kill(os.getpid(), signal.SIGKILL)
    do_step(*arguments)
store.do_step = step
from doit.__main__ import main
sys.argv[1:] = ["migrate:killed", "delete_old=1"]
main()
"""


def main(old: Path, python: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        project = Project(Path(place, "project"))
        fill(project, old)
        trees = []
        for run in RUNS:
            trees.append([run, project.tree()])
            call(project, old, python, "-m", "doit", *run.split(), *["force=1"] * run.startswith("refs"))
        for run in OTHERS:
            call(project, old, python, "-m", "doit", *run.split())
        trees.append(["migrate:killed delete_old=1", project.tree()])
        call(project, old, python, "-c", KILLED, code=-signal.SIGKILL)
        (project.folder / "trees.json").write_text(json.dumps(trees, indent=1))
        refuse_odd_times(project)
        TARGET.parent.mkdir(exist_ok=True)
        with tarfile.open(TARGET, "w:gz", format=tarfile.PAX_FORMAT) as archive:
            archive.add(project.folder, ".", filter=of_nobody)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


def fill(project: Project, old: Path) -> None:
    """Make the project before any run."""
    for name in ("archives", "saved", "scripts"):
        (project.folder / name).mkdir(parents=True)
    shutil.copy(old / "dodo.py", project.folder)
    shutil.copytree(old / "rules", project.folder / "rules")
    (project.folder / "scripts/evaluate.py").write_text(f'load("outputs/{DOUBLED.format(12, 120)}.ckpt")\n')
    for number, (path, content) in enumerate(FILES.items()):
        file = project.outputs / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(content) if isinstance(content, str) else file.write_bytes(content)
        os.utime(file, (TIME + number, TIME + number), follow_symlinks=False)


def call(project: Project, old: Path, python: str, *words: str, code: int = 0) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(old), "PYTHONDONTWRITEBYTECODE": "1", "USER": "ada"}
    print("$", *words[:4])
    result = subprocess.run([python, *words], cwd=project.folder, env={**environment, "HOME": "/nowhere"}, check=False)
    assert result.returncode == code, result.returncode


def refuse_odd_times(project: Project) -> None:
    """Refuse what a tar file would tell otherwise: a file that a journal knows by a time of more than seconds."""
    for path in project.outputs.rglob("*"):
        in_trash = ".ckptrules/trash/" in str(path)
        if path.is_file() and not path.is_symlink() and (in_trash or ".ckptrules" not in path.parts):
            assert path.lstat().st_mtime_ns % 10**9 == 0, path


def of_nobody(item: tarfile.TarInfo) -> tarfile.TarInfo:
    item.uid = item.gid = 0
    item.uname = item.gname = ""
    return item


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
