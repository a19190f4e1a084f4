"""Which numbers are found inside a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ckptrules.outputs.scouting import look_into
from tests.support.tables import every_row
from tests.support.torch_files import torch_zip

ENGINE = {"epoch_length": 4, "max_epochs": 6, "iteration": 8}


@every_row(
    ("content", "inside"),
    [
        ({"epoch": 3, "global_step": 40}, {"epoch": 3, "step": 40}),
        ({"model": {"w": 1}, "trainer": ENGINE}, {"iterations": 8, "epochs": 2}),
        ({"trainer": {**ENGINE, "iteration": 9}}, {"iterations": 9}),
        ({"trainer": {"epoch_length": None, "max_iters": 20, "iteration": 9}}, {"iterations": 9}),
        ({"trainer": {**ENGINE, "iteration": -1}}, {}),
        ({"trainer": {**ENGINE, "epoch_length": 0}}, {"iterations": 8}),
        ({"settings": {"max_epochs": 6}}, {}),
        (ENGINE, {}),
    ],
)
def test_numbers_stand_where_the_framework_puts_them(
    tmp_path: Path, content: dict[str, Any], inside: dict[str, int]
) -> None:
    (tmp_path / "x.pt").write_bytes(torch_zip(content))
    assert look_into(str(tmp_path), "", "x.pt", folder=False) == {"epoch": None, "step": None, **inside}
