"""docs/safety.md promises nothing that no test holds."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
SENTENCES = re.findall(r"^- (.*?) \[(.*)\]$", TEXT, re.MULTILINE)


def test_every_sentence_names_its_tests() -> None:
    assert len(SENTENCES) == TEXT.count("\n- ") > 30


@pytest.mark.parametrize(("sentence", "tests"), SENTENCES, ids=[sentence[:40] for sentence, _ in SENTENCES])
def test_the_tests_that_hold_a_sentence_are_there(sentence: str, tests: str) -> None:
    assert sentence.endswith(".")
    for test in tests.split(", "):
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
