"""Rules that would hang or fill the memory are refused, or bounded, and named."""

from __future__ import annotations

import pytest

from ckptrules.engine.names import naming
from tests.conftest import Project
from tests.support import crash

pytestmark = pytest.mark.whole

SLOW = r"""legacy:
  - id: slow
    match: '(?P<epoch>\d+)(?P<rest>(a|aa)+)-(?P<step>\d+)\.ckpt'
    examples: {%s: epoch-01_step-000002.ckpt}
"""
MANY = "a" * 60
SOON = 0.1  # seconds, after which a rule is given up


def test_a_rule_that_backtracks_for_ever_is_given_up_and_named(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "SECONDS", SOON)
    (project.folder / "rules" / "slow.yaml").write_text(SLOW % "1aa-2.ckpt")
    project.make(
        {
            f"exp/checkpoints/1{MANY}!-2.ckpt": 9,
            "exp/checkpoints/epoch=1-step=2.ckpt": 9,
            "other/checkpoints/epoch=1-step=2.ckpt": 9,
        }
    )
    before = project.names("exp")
    out = crash.run(project.folder, "migrate").output
    fact = f"1{MANY}!-2.ckpt cannot be named: legacy rule 'slow' (rules/slow.yaml:2) needs too long for it"
    assert (
        f"  ! Problem: {fact}\n      hint: make the pattern simpler: nested or alternative repetitions backtrack\n"
        in out
    )
    assert project.names("exp") == before
    assert project.names("other") == ["epoch-01_step-000002.ckpt"]
    for command in ("-n 2 migrate", "verify", "fix_state", "catalog", "usage", "migrate fix_state=1"):
        code, out, *_ = crash.run(project.folder, *command.split())
        assert (code, fact in out) == (1, True), (command, out)
        assert command != "catalog" or "  epoch-01_step-000002.ckpt  " in out


def test_a_rule_whose_own_example_takes_for_ever_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "SECONDS", SOON)
    (project.folder / "rules" / "slow.yaml").write_text(SLOW % f"1{MANY}!-2.ckpt")
    assert crash.run(project.folder, "check").output == (
        f"ERROR: rules/slow.yaml:2:5: legacy rule 'slow' needs too long for '1{MANY}!-2.ckpt'\n"
        "    hint: make the pattern simpler: nested or alternative repetitions backtrack\n"
    )


BIG = 10_000_000
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "a file of 10 MB": ("#" * BIG, "rules/hostile.yaml:1:1: the file is larger than 1,000,000 bytes"),
    "anchors in anchors": (
        "ignored: &a [x, x]\nprotected: [*a, *a]\n",
        "rules/hostile.yaml:2:13: an alias (*name) is not allowed in rules",
    ),
    "deep nesting": ("[" * 100_000, "rules/hostile.yaml:1:"),
    "a NUL": ("ignored: ['\0']\n", "rules/hostile.yaml:1:"),
    "half of a letter": (
        r'ignored: [a, "\ud800"]',
        "rules/hostile.yaml:1:14: not valid YAML: an escape stands for NUL, or for half",
    ),
    "an escaped NUL": (r'ignored: [a, "\0"]', "rules/hostile.yaml:1:14: not valid YAML: an escape stands for NUL"),
    "no text": (b"\xff\xfe\xfa", "rules/hostile.yaml:1:1: is not UTF-8"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_rule_file_is_refused_in_one_sentence(project: Project, case: str) -> None:
    content, told = HOSTILE[case]
    file = project.folder / "rules" / "hostile.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    project.make({"exp/checkpoints/epoch=1-step=2.ckpt": 9})
    out = project.doit("migrate", check=3)
    assert out.startswith(f"ERROR: {told}"), out[:500]
    assert len(out) < 1000
    assert project.names("exp") == ["epoch=1-step=2.ckpt"]
