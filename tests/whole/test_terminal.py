"""On a real terminal tables fit it and no id is broken; in a pipe every column is there. The docs say which go first."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from ckptrules.commands import catalog, history, trash, usage
from ckptrules.report import overview
from ckptrules.report.style import columns
from ckptrules.vault import report
from tests.conftest import ROOT, Project, default

pytestmark = pytest.mark.whole

COLOUR = re.compile(r"\x1b\[\d*m")
RUN = re.compile(r"\d{8}T\d{6}Z-\d+")
NAME = "epoch_epoch_02_step_step_000264_20251009_015037.ckpt"


def on_terminal(project: Project, width: int, *words: str) -> list[str]:
    """Run a command on a terminal of some columns, and return the lines that it shows."""
    main, side = pty.openpty()
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
    return COLOUR.sub("", shown.decode()).replace("\r\n", "\n").splitlines()


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


def test_a_pipe_gets_every_column_whatever_columns_says(deleted: Project) -> None:
    for words, headings in (("history", history.HEADINGS), ("trash", trash.HEADINGS), ("catalog", catalog.HEADINGS)):
        first = deleted.doit(words, env={"COLUMNS": "40"}).splitlines()[0]
        assert re.split(" {2,}", first) == list(headings)


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
