"""``docs/rules.md``: every block of rules is loaded, together with the rules that come with the package."""

from __future__ import annotations

import re

import pytest

from ckptrules.rules.load import load_rules
from tests.conftest import ROOT

RULES = {f"rules/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")}
BLOCKS = re.findall(r"(?ms)^```yaml\n(.*?)^```$", (ROOT / "docs/rules.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_rules_holds(block: str) -> None:
    load_rules(RULES | {"docs/rules.md": block})


def test_there_are_blocks() -> None:
    assert BLOCKS
