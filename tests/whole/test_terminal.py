"""On a real terminal tables fit it and no id is broken; in a pipe every column is there. The docs say which go first."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping

import pytest

from ckptrules.commands import catalog, history, trash, usage
from ckptrules.report import overview
from ckptrules.report.page.verdict import experiments_of, needing, verdict
from ckptrules.report.style import columns
from ckptrules.vault import report
from tests.commands.test_verify import put
from tests.conftest import ROOT, Project, default, run_program
from tests.support.torch_files import torch_zip

pytestmark = pytest.mark.whole

COLOUR = re.compile(r"\x1b\[\d*m")
RUN = re.compile(r"\d{8}T\d{6}Z-\d+")
NAME = "epoch_epoch_02_step_step_000264_20251009_015037.ckpt"


def screen_of(project: Project, width: int, *words: str) -> str:
    """Run a command on a terminal of some columns, and return all that it writes there."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {**default(), "COLUMNS": str(width), "TERM": "xterm"}
    with os.fdopen(main, "rb", buffering=0) as screen:
        child = subprocess.Popen(
            [sys.executable, "-m", "doit", *words], cwd=project.folder, env=environment, stdout=side, stderr=side,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(side)
        shown = b""
        try:
            while part := screen.read(1 << 16):
                shown += part
        except OSError:  # the end, on Linux
            pass
        child.wait()
    return COLOUR.sub("", shown.decode()).replace("\r\n", "\n")


def on_terminal(project: Project, width: int, *words: str) -> list[str]:
    """Run a command on a terminal of some columns, and return the lines that it shows."""
    return screen_of(project, width, *words).splitlines()


@pytest.fixture
def deleted(project: Project) -> Project:
    project.make({f"ocr training/checkpoints/{NAME}": 3000, "ocr training/checkpoints/epoch=12-step=1200.ckpt": 4000})
    project.doit("migrate", "delete_old=1")
    return project


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("words", ["history", "trash", "catalog", "usage", "plan delete_old=1 summary=1"])
def test_a_table_fits_and_what_one_would_copy_is_whole(deleted: Project, words: str, width: int) -> None:
    lines = on_terminal(deleted, width, *words.split())
    piped = deleted.doit(*words.split())
    ids = {*RUN.findall(piped), NAME, "ocr training"}
    assert all(columns(line) <= width or line.strip().startswith(tuple(ids)) for line in lines[:4]), lines
    shown = "\n".join(lines)
    assert set(RUN.findall(shown)) <= set(RUN.findall(piped))
    assert (NAME in shown) == (NAME in piped)
    assert "ocr training" in shown or words == "history"


def test_what_goes_and_why_fit_a_narrow_terminal(project: Project) -> None:
    """Places stood in a column of their own, beyond the end of the line; so did the sizes beside a long name."""
    experiment = "an experiment with a name that is long"
    project.make({f"{experiment}/checkpoints/{name}": 3000 for name in (NAME, "epoch=12-step=1200.ckpt")})
    named, *_ = [line for line in on_terminal(project, 80, "explain", "name=*02*") if "named by" in line]
    assert named.endswith("'doubled-prefix'  rules/naming.yaml:23")
    lines = on_terminal(project, 40, "plan", "delete_old=1")
    assert lines[lines.index(experiment) + 1].split() == ["1", "3", "KB", "1", "3", "KB"]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ("verify", ["  ✓ epoch-12_step-000200.ckpt", "      398 B  torch, epoch 12, step 200"]),
        (
            "check",
            ["  policy default", "    2 examples  rules/retention.yaml:6", "    min_epoch: 10, keep_at_least: 1"],
        ),
        ("packs", ["words  */checkpoints      1", "  its names"]),
    ],
)
def test_what_has_no_headings_fits_as_well(project: Project, words: str, rows: list[str]) -> None:
    """These three were laid out as in a pipe: the terminal broke their lines in the middle of words."""
    content = torch_zip({"epoch": 12, "global_step": 200}, {"0": b"w" * 50})
    put(project, "epoch-12_step-000200.ckpt", content, "e1")
    lines = on_terminal(project, 40, words)
    first = lines.index(rows[0])
    assert lines[first : first + len(rows)] == rows
    assert {*project.doit(words).split()} - {"evidence"} <= {*" ".join(lines).split()}  # a heading of the wide table


def test_a_pipe_gets_every_column_whatever_columns_says(deleted: Project) -> None:
    for words, headings in (("history", history.HEADINGS), ("trash", trash.HEADINGS), ("catalog", catalog.HEADINGS)):
        first = deleted.doit(words, env={"COLUMNS": "40"}).splitlines()[0]
        assert re.split(" {2,}", first) == list(headings)


TREES: Mapping[str, Mapping[str, int | str]] = {
    "something goes": {"a/checkpoints/epoch=1-step=1.ckpt": 10, "a/checkpoints/epoch=12-step=2.ckpt": 20},
    "nothing goes": {"a/checkpoints/epoch=12-step=2.ckpt": 20, "a/checkpoints/last.ckpt": "-> epoch=12-step=2.ckpt"},
    "nothing is there": {"a/checkpoints/notes.txt": 10},
    "names are not read": {f"a/checkpoints/net_{n}.pt": 10 for n in (1, 2)} | {"b/checkpoints/w-1.pt": 3, "b/checkpoints/net_3.pt": 3},
    "a conflict": {f"a/checkpoints/{n}": 10 + len(n) for n in ("epoch=1-step=1.ckpt", "epoch_01_step_000001.ckpt", "best.ckpt")},
    "an empty file": {"a/checkpoints/epoch=1-step=1.ckpt": 0, "a/checkpoints/epoch=2-step=1.ckpt": 5},
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_the_verdict_is_that_of_the_page(name: str, project: Project) -> None:
    project.make(TREES[name])
    words = ["plan", "delete_old=1", "summary=1", "json=plan.json"]
    first, *_ = run_program("doit", *words, folder=project.folder, environment=default())[1].splitlines()
    data = json.loads((project.folder / "plan.json").read_text())
    pieces = verdict(data, len(list(needing(experiments_of(data)))))
    assert "".join(text for text, _ in pieces) == first


STATED: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plan summary=1": (overview.DROPS, ()),
    "history": (history.DROPS, ()),
    "trash": (trash.DROPS, trash.LATER),
    "catalog": (catalog.DROPS, catalog.LATER),
    "backups": (report.DROPS, report.LATER),
    "usage": (usage.DROPS, ()),
}


@pytest.mark.parametrize("command", STATED)
def test_the_guide_states_the_order_in_which_columns_go(command: str) -> None:
    drops, later = (", ".join(names) for names in STATED[command])
    row = f"| `{command}` | {drops} | {later} |".replace("|  |", "| |")
    assert row in (ROOT / "docs/guide.md").read_text(encoding="utf-8")


SLOW = "max_rate=2MB/s"  # so that there is time for a bar


@pytest.fixture
def large(project: Project) -> Project:
    """Give a tree of which all is read in a second at that rate."""
    content = torch_zip({"epoch": 12, "global_step": 200}, {"0": b"w" * 50_000})
    for number in range(40):
        put(project, "epoch-12_step-000200.ckpt", content, f"e{number:02}")
    return project


@pytest.mark.parametrize(
    ("words", "bar"),
    [
        (f"verify {SLOW}", r"\d+ of 40: +\d+%\|.*\| \d.*/2\.01M \[00:\d\d<00:\d\d, .*B/s\]"),
        (f"-n 3 verify {SLOW}", r"\d+ of 40: +\d+%\|.*\| \d.*/2\.01M \[00:\d\d<00:\d\d, .*B/s\]"),
        (f"backup {SLOW}", r" *\d+%\|.*\| \d.*/2\.01M \[00:\d\d<00:\d\d, .*B/s\]"),
    ],
)
def test_one_bar_of_bytes_rate_and_time_left_stands_below_the_texts(large: Project, words: str, bar: str) -> None:
    written = screen_of(large, 80, *words.split())
    lines = [line.rpartition("\r")[2] for line in written.split("\n")]
    assert lines[-1] == ""
    assert not [line for line in lines if "%|" in line], lines
    bars = [text for text in re.split("[\r\n]", written) if "%|" in text]
    assert re.fullmatch(bar, bars[-1]), bars
    assert max(map(columns, bars)) <= 80
    assert "\x1b[A" not in written  # no second line


@pytest.mark.parametrize("words", [f"verify {SLOW}", f"backup {SLOW}"])
def test_a_pipe_gets_no_bar(large: Project, words: str) -> None:
    assert "%|" not in large.doit(*words.split())
