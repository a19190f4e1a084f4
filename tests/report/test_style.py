"""Tables fit a terminal: columns go, or stand below; no cell is ever cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ckptrules.commands import catalog, history, trash, usage
from ckptrules.report.style import columns, table
from ckptrules.vault import report
from tests.support.tables import every_row

RUN = "20261126T184002Z-0123451234"
NAME = "epoch_epoch_22_step_step_002024_20251009_015037.ckpt"


class Shown(NamedTuple):
    """A table as a command makes it."""

    headings: tuple[str, ...]
    drops: tuple[str, ...]
    later: tuple[str, ...]
    rows: list[tuple[str, ...]]


TABLES: Mapping[str, Shown] = {
    "history": Shown(
        history.HEADINGS,
        history.DROPS,
        (),
        [
            (RUN, "2026-11-26 18:40:02", "somebody@gpu-node-7", "migrate delete_old=1", "12", "3", "4.2 GB", "done"),
            (RUN, "2026-11-26 18:40:02", "山田@gpu", "migrate", "1", "", "", "trash freed"),
        ],
    ),
    "history with a long command": Shown(
        history.HEADINGS,
        history.DROPS,
        (),
        [(RUN, "2026-11-26 18:40:02", "me@x", f"undo run={RUN} experiments='ocr*'", "2", "1", "4.2 GB", "done")],
    ),
    "trash": Shown(
        trash.HEADINGS,
        trash.DROPS,
        trash.LATER,
        [(RUN, "ocr training/checkpoints", NAME, "4.2 GB", "2026-12-03"), (RUN, "検出器", "最後.ckpt", "30 GB", "2026-12-03")],
    ),
    "catalog": Shown(
        (*catalog.HEADINGS, "pinned"),
        catalog.DROPS,
        catalog.LATER,
        [
            ("ocr training", NAME, "legacy", "22", "2024", "val_loss 0.31", "4.2 GB", "yes", "Table 2"),
            ("検出器", "エポック-22.ckpt", "target", "22", "", "", "30 GB", "", ""),
        ],
    ),
    "backups": Shown(
        report.HEADINGS,
        report.DROPS,
        report.LATER,
        [("outputs-20261126T184002Z", "2026-11-26 18:40:02", "link", "1204", "4.2 TB", "damaged: 3 files")],
    ),
    "usage": Shown(
        usage.HEADINGS,
        usage.DROPS,
        (),
        [("ocr training", "1 GB", "2 GB", "3 GB", "", "6 GB"), ("all", "9 GB", "9 GB", "9 GB", "9 GB", "36 GB")],
    ),
}  # fmt: skip


@every_row(("name", "width", "left"), [
    ("history", 0, "run when who command renamed deleted size state"),
    ("history", 120, "run when command renamed deleted size state"),
    ("history", 80, "run command renamed deleted state"),
    ("history", 40, "run | command state"),
    ("history with a long command", 0, "run when who command renamed deleted size state"),
    ("history with a long command", 120, "run command renamed deleted size state"),
    ("history with a long command", 80, "run | command deleted state"),
    ("history with a long command", 40, "run | command | state"),
    ("trash", 120, "directory name size freed on"),
    ("trash", 80, "directory | name size freed on"),
    ("trash", 60, "directory | name"),
    ("trash", 40, "directory | name"),
    ("catalog", 120, "experiment name epoch metric size verified pinned"),
    ("catalog", 80, "experiment name size"),
    ("catalog", 40, "experiment | name"),
    ("backups", 80, "name created files size state"),
    ("backups", 40, "name | files size state"),
    ("usage", 80, "experiment protected kept could go other total"),
    ("usage", 40, "experiment kept could go total"),
])  # fmt: skip
def test_columns_go_in_the_stated_order_and_no_cell_is_cut(name: str, width: int, left: str) -> None:
    headings, drops, later, rows = TABLES[name]
    lines = table(headings, rows, (len(headings) - 2,), width, drops, later).splitlines()
    above = lines[: left.count("|") + 1]
    assert " | ".join(" ".join(line.split()) for line in above) == left
    there = [number for number, heading in enumerate(headings) if heading in left]
    for row in rows:
        assert all(any(row[number] in line for line in lines) for number in there)
    whole = max(columns(row[number]) for row in (headings, *rows) for number in there) + 2
    assert not width or max(map(columns, lines)) <= max(width, whole)
