"""``rules/schema.json`` is generated; run this file as a script to write it anew."""

from __future__ import annotations

import json

from ckptrules.rules.load import json_schema
from tests.conftest import ROOT

SCHEMA = ROOT / "rules" / "schema.json"


def test_the_schema_for_editors_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), f"run: python -m {__name__}"


def test_the_default_rule_files_name_the_schema() -> None:
    for file in SCHEMA.parent.glob("*.yaml"):
        assert file.read_text().startswith("# yaml-language-server: $schema=schema.json\n"), file.name


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
