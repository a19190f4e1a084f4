"""What every command prints on one tree, word by word: ``tests/cases/golden/*.txt``.

They are there for changes that must change nothing. Where a change is meant, ``UPDATE_GOLDEN=1 pytest
tests/whole/test_golden.py`` writes the files anew; the diff of git then shows what the change does to people.
"""

from __future__ import annotations

import difflib
import io
import os
import pickle
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project, server
from tests.support.forking import start_of
from tests.support.golden_commands import COMMANDS

GOLDEN = ROOT / "tests/cases/golden"
UPDATE = "UPDATE_GOLDEN"
MTIME_NS = 1_614_600_000 * 10**9  # 2021-03-01 12:00 UTC; no other time of this year is in what is printed
PROGRAMS = ("doit", "ckptrules")
ABSENT = (
    "lightning",
    "pytorch_lightning",
    "torch",
    "backports.zstd",
    "compression.zstd",
)  # as where nothing optional is installed
HOST = "gpu-7"
DAMAGED = 700  # bytes that are left of a checkpoint


# --- the tree --------------------------------------------------------------------------------------------------------


def checkpoint(epoch: int, step: int, size: int, paths: Mapping[str, str] | None = None) -> bytes:
    """Return what ``torch.save`` could have written: some bytes more than the size."""
    data: dict[str, object] = {"epoch": epoch, "global_step": step, "pytorch-lightning_version": "2.6.0"}
    if paths:
        data["callbacks"] = {"ModelCheckpoint{'monitor': 'hmean'}": dict(paths)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (
            ("data.pkl", pickle.dumps(data, protocol=2)),
            ("byteorder", b"little"),
            ("data/0", bytes(size)),
            ("version", b"3\n"),
        ):
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return file.getvalue()


OCR = "outputs/ocr training/checkpoints"
DOUBLED = "epoch_epoch_{:02}_step_step_{:06}_20251009_015037.ckpt"
INSIDE = {
    "dirpath": OCR,
    "best_model_path": f"{OCR}/{DOUBLED.format(12, 1144)}",
    "last_model_path": f"{OCR}/last.ckpt",
}
FILES: Mapping[str, bytes | str] = {
    **{f"{OCR}/{DOUBLED.format(n, n * 88 + 88)}": checkpoint(n, n * 88 + 88, 2000 + n) for n in (2, 7, 12)},
    f"{OCR}/{DOUBLED.format(22, 2024)}": checkpoint(22, 2024, 2022, INSIDE),
    f"{OCR}/{DOUBLED.format(22, 2024).replace('.ckpt', '.metadata.json')}": b'{"hmean": 0.87}\n',
    f"{OCR}/last.ckpt": checkpoint(22, 2024, 2500, INSIDE),
    f"{OCR}/best-hmean-0.8756.ckpt": checkpoint(12, 1144, 2600),
    f"{OCR}/last_checkpoint": f"{DOUBLED.format(22, 2024)}\n".encode(),
    "outputs/ocr training/hparams.yaml": b"lr: 0.1\n",
    "outputs/exp/checkpoints/epoch=1-step=10.ckpt": checkpoint(1, 10, 3000),
    "outputs/exp/checkpoints/epoch=12-step=120.ckpt": checkpoint(12, 120, 3100),
    "outputs/exp/checkpoints/last.ckpt": "epoch=12-step=120.ckpt",
    "outputs/exp/checkpoints/model-final.ckpt": checkpoint(13, 130, 3200),
    "outputs/exp/checkpoints/epoch_20_step_000200.ckpt": b"",
    "outputs/exp/checkpoints/notes.tmp": b"ignored\n",
    "outputs/newest": "exp/checkpoints/epoch=12-step=120.ckpt",
    "outputs/detector/checkpoints/epoch_09_step_002730.ckpt": checkpoint(9, 2730, 4000),
    "outputs/detector/checkpoints/epoch=9-step=2730.ckpt": checkpoint(9, 2730, 4100),
    "outputs/detector/checkpoints/epoch_11_step_003000.ckpt": checkpoint(11, 3000, 4200),
    "outputs/detector/checkpoints/epoch-11_step-003000.ckpt": checkpoint(11, 3000, 4300),
    "outputs/detector/checkpoints/epoch_14_step_004000.ckpt": checkpoint(13, 4000, 4400),  # says another epoch
    "outputs/detector/checkpoints/best.ckpt": "gone.ckpt",
    "outputs/lr=0.1,bs=32/checkpoints/epoch=3-step=40.ckpt": checkpoint(3, 40, 5000),
    "outputs/lr=0.1,bs=32/checkpoints/epoch_03_step_000040.ckpt": checkpoint(3, 40, 5000),  # the same
    "outputs/lr=0.1,bs=32/checkpoints/epoch=30-step=400.ckpt": checkpoint(30, 400, 5100),
    "outputs/sharded/checkpoints/epoch=3-step=8.ckpt/model-00001-of-00002.pt": checkpoint(3, 8, 1000),
    "outputs/sharded/checkpoints/epoch=3-step=8.ckpt/model-00002-of-00002.pt": checkpoint(3, 8, 1001),
    "outputs/sharded/checkpoints/epoch=15-step=40.ckpt/model-00001-of-00002.pt": checkpoint(15, 40, 1002),
    "outputs/group/run_1/checkpoints/epoch=5-step=50.ckpt": checkpoint(5, 50, 6000),
    "outputs/group/run_1/checkpoints/epoch=25-step=250.ckpt": checkpoint(25, 250, 6100),
    "outputs/group/run_1/checkpoints/epoch=26-step=260.ckpt": checkpoint(26, 260, 6200),
    "outputs/group/run_1/checkpoints/epoch=26-step=260.ckpt-unfinished": b"",
    "outputs/paper_1/checkpoints/epoch-02_step-000020.ckpt": checkpoint(2, 20, 7000),
    "outputs/paper_1/checkpoints/epoch-40_step-000400.ckpt": checkpoint(40, 400, 7100),
    "outputs/paper_1/checkpoints/epoch-41_step-000410.ckpt": checkpoint(41, 410, 7200)[:DAMAGED],
    "outputs/deep/er/still/weights/epoch=4-step=4.ckpt": checkpoint(4, 4, 100),  # no layout covers it
    "scripts/evaluate.py": f"""\
load("outputs/exp/checkpoints/epoch=12-step=120.ckpt")
load("{OCR}/{DOUBLED.format(22, 2024)}")
load("epoch=25-step=250.ckpt")
""".encode(),
    "docs/notes.md": b"Best so far: `outputs/group/run_1/checkpoints/epoch=25-step=250.ckpt`.\n",
    "bad_rules/naming.yaml": b"layuot: ['*/checkpoints']\nprotected: 7\nsettle: soon\n",
    "false_rules/naming.yaml": rb"""
layout: [checkpoints]
target:
  template: 'e{{ epoch }}.ckpt'
  match: 'e(?P<epoch>\d+)\.ckpt'
  examples: [e1.ckpt, x1.ckpt]
legacy:
  - {id: old, match: 'old(?P<epoch>\d+)\.ckpt', examples: {old5.ckpt: e6.ckpt}}
""",
}


@pytest.fixture
def here(project: Project) -> Path:
    """Return a project with the tree, an empty folder, and rules for a nested layout and two policies."""
    naming, retention = (project.folder / "rules" / name for name in ("naming.yaml", "retention.yaml"))
    naming.write_text(naming.read_text().replace("['*/checkpoints'] ", "['*/checkpoints', 'group/*/checkpoints'] "))
    retention.write_text(f"{retention.read_text()}\nexperiments: [{{match: 'paper_*', policy: keep_all}}]\n")
    for path, content in FILES.items():
        file = project.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(content) if isinstance(content, str) else file.write_bytes(content)
    for name in ("empty", "archives", "saved"):
        (project.folder / name).mkdir()
    for folder, directories, files in os.walk(project.folder, topdown=False):
        for name in (*files, *directories):
            path = os.path.join(folder, name)
            minutes = os.lstat(path).st_size % 50
            os.utime(path, ns=(MTIME_NS, MTIME_NS + minutes * 60 * 10**9 * os.path.isfile(path)), follow_symlinks=False)
    return project.folder


# --- the commands ----------------------------------------------------------------------------------------------------


class Session:
    """A place where commands are run one after the other, and their output is written down."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = self.start = folder
        self.scratch = scratch
        self.runs: dict[str, str] = {}
        self.environment = environment(scratch)
        self.server = server(start_of(self.environment), *ABSENT)

    def told(self, command: str) -> str:
        """Run a command, and return it with all that it told."""
        words = shlex.split(self.as_here(command))
        if words[0] in PROGRAMS:
            code, out, err = self.run(words[0], words[1:])
            parts = [f"exit code {code}", *([f"stdout:\n{out}"] if out else []), *([f"stderr:\n{err}"] if err else [])]
        else:
            parts = [f"{self.normal(getattr(self, f'do_{words[0]}')(*words[1:]))}"]
        return "\n".join([f"$ {command}", *parts]).rstrip("\n") + "\n"

    def run(self, program: str, arguments: list[str]) -> tuple[int, str, str]:
        """Run one of the programs: exit code, stdout and stderr, without what differs from run to run."""
        code, *told = self.server.run(
            program, *arguments, folder=self.folder, environment=self.environment, host=HOST, apart=True
        )
        for run in sorted(RUN_ID.findall("\n".join(file.name for file in self.journals()))):
            self.runs.setdefault(run, f"<run {len(self.runs) + 1}>")
        out, err = map(self.normal, told)
        return code, out, err

    def journals(self) -> Iterator[Path]:
        for place in (self.start, self.scratch):
            yield from place.rglob("journal/*.jsonl")

    def normal(self, text: str) -> str:
        """Put placeholders in the place of what differs from run to run."""
        text = text.replace(str(self.start), "<here>").replace(sys.executable, "<python>")
        if text.startswith("run "):  # a table, whose columns are as wide as the number of the process is long
            text = re.sub(r"(?<=\S) {3,}", "  ", text)
        text = RUN_ID.sub(lambda match: self.runs.get(match[0], "<run>"), text)
        for pattern, placeholder in NORMAL:
            text = pattern.sub(placeholder, text)
        return text

    def as_here(self, command: str) -> str:
        """Put the names of this run in the place of placeholders."""
        backups = sorted(path.name for path in self.start.glob("*/outputs_backup_*"))
        for placeholder, name in (*((v, k) for k, v in self.runs.items()), ("<backup>", (backups or [""])[0])):
            command = command.replace(placeholder, name)
        return command

    # What else can be done, for want of a shell that is the same everywhere.

    def do_cd(self, folder: str) -> str:
        self.folder = self.folder / folder
        return ""

    def do_rm(self, *paths: str) -> str:
        for path in paths:
            shutil.rmtree(self.folder / path) if (self.folder / path).is_dir() else (self.folder / path).unlink()
        return ""

    def do_write(self, path: str, text: str) -> str:
        (self.folder / path).write_text(f"{text}\n")
        return ""

    def do_cat(self, path: str) -> str:
        return "\n".join(file.read_bytes().decode(errors="replace") for file in sorted(self.folder.glob(path)))

    def do_ls(self, place: str) -> str:
        return "".join(f"{line}\n" for line in sorted(listed(self.folder / place, self.folder)))


def listed(place: Path, start: Path) -> Iterator[str]:
    """Yield what is below a place, with where links lead, and how long files of people are."""
    for folder, directories, files in os.walk(place):
        for name in (*files, *directories):
            path = Path(folder, name)
            shown = str(path.relative_to(start))
            if path.is_symlink():
                yield f"{shown} -> {os.readlink(path)}"
            elif name in files:
                is_theirs = name.endswith((".ckpt", ".pt", ".trashed", ".py", ".md"))
                yield f"{shown} ({path.stat().st_size})" if is_theirs else shown
            elif not os.listdir(path):
                yield f"{shown}/"


RUN_ID = re.compile(r"\d{8}T\d{6}Z-\d+")
NORMAL = [
    (re.compile(pattern), placeholder)
    for pattern, placeholder in (
        (r"(<run \d+>)\.\d+\.jsonl", r"\1.<process>.jsonl"),
        (r"outputs_backup_\d{8}_\d{6}", "<backup>"),
        (r"empty_backup_\d{8}_\d{6}", "<empty backup>"),
        (r"\b(?!2021)20\d\d-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?( ?[+-]\d\d:?\d\d)?", "<time>"),
        (r"\b(?!2021)20\d\d-\d\d-\d\d\b", "<date>"),
        (r"\b(?!161)[1-9]\d{18}\b", "<ns>"),
        (r"\d+ s ago", "<long> ago"),
        (r"packed [\d.]+ K?B", "packed <size>"),
        (r"\bckptrules \d+\.\d+\S*", "ckptrules <version>"),
        (r'"(disk_free|disk_total)": \d+', r'"\1": <bytes>'),
        (r'"version": "[\w.]+"', '"version": "<version>"'),
        (r'"(naming_digest|fingerprint)": "\w+"', r'"\1": "<digest>"'),
    )
]


def environment(scratch: Path) -> dict[str, str]:
    """Return an environment that is the same everywhere, but for where Python is and what it hashes with."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "PYTHONHASHSEED", "TZ") if name in os.environ}
    return {
        **kept,
        "HOME": str(scratch),
        "LC_ALL": "C.UTF-8",
        "LOGNAME": "ada",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_STATE_HOME": str(scratch / "state"),
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_what_it_printed(name: str, here: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    session = Session(here, scratch)
    found = "\n".join(session.told(command) for command in COMMANDS[name])
    file = GOLDEN / f"{name}.txt"
    if os.environ.get(UPDATE):
        file.write_text(found, encoding="utf-8")
    golden = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = difflib.unified_diff(golden.splitlines(), found.splitlines(), str(file), "now", lineterm="")
    if found != golden:
        pytest.fail("\n".join(["other output than before:", *lines]), pytrace=False)


def test_each_file_is_written_by_a_test_and_holds_no_crash() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.txt")}
    assert sorted(texts) == sorted(COMMANDS)
    assert [name for name, text in texts.items() if "Traceback" in text] == []
