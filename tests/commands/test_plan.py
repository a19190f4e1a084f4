"""`doit plan`: formats that it drafts for names that no rule reads."""

from __future__ import annotations

import re

from tests.conftest import Project

DRAFTED = r"""problems     0
Some names look like checkpoints, and no rule reads them. These lines in a file
of rules/ would; 'doit check' tests them:
    formats:
      - id: model                    # 4 names
        match: 'model\.ep(?P<epoch>\d+)\.it(?P<step>\d+)\.ckpt'
        examples: {'model.ep1.it100.ckpt': {epoch: 1, step: 100}}
      - id: net                      # 2 names
        match: 'net-(?P<number>\d+)\.npz'
        examples: {'net-1.npz': {number: 1}}
      - id: iter                     # 1 name
        match: 'iter_(?P<step>\d+)'
        folder: true
        examples: {'iter_500': {step: 500}}
    and 2 further kinds of names: 'doit explain name=model_step_5.pt'
"""


def test_each_kind_of_name_is_drafted_once_and_no_more_than_three(project: Project) -> None:
    names = ("model.ep1.it100.ckpt", "model.ep2.it200.ckpt")
    project.make({f"{exp}/checkpoints/{name}": 5 for exp in ("a", "b") for name in names})
    project.make({f"a/checkpoints/{name}": 5 for name in ("net-1.npz", "iter_500/x", "model_step_5.pt", "x 7[b].pt")})
    project.make({"b/checkpoints/net-2.npz": 5, "b/checkpoints/epoch-03_step-000100.ckpt": 5, "b/checkpoints/f.pt": 5})
    out = project.doit("plan")
    assert out.endswith(DRAFTED)
    assert project.doit("migrate", "dry_run=1").endswith(DRAFTED)
    assert "no rule reads" not in project.doit("migrate")
    lines = re.findall(r"^    (formats:|  .*)$", out.partition("tests them:\n")[2], re.MULTILINE)
    (project.folder / "rules/mine.yaml").write_text("\n".join([*lines, ""]))
    assert "net " in project.doit("check")
    out = project.doit("plan")
    assert re.findall(r"Skipped: (.*) \(", out) == ["model_step_5.pt", "x 7[b].pt", "f.pt"]
    assert "- id: model                    # 1 name\n" in out
