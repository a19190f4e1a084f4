"""``rules/schema.json`` is generated; run this file as a script to write it anew."""

from __future__ import annotations

import json
from typing import Any

from ckptrules.engine.shapes import Choice, Either, Keys, ListOf, MapOf, Number, Shape, Text
from ckptrules.rules.load import SHAPE
from tests.conftest import ROOT

SCHEMA = ROOT / "rules" / "schema.json"


def test_the_schema_for_editors_is_current() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), f"run: python -m {__name__}"


def test_the_default_rule_files_name_the_schema() -> None:
    for file in SCHEMA.parent.glob("*.yaml"):
        assert file.read_text().startswith("# yaml-language-server: $schema=schema.json\n"), file.name


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft-07) of a rule file."""
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "ckptrules rule file"}
    return {**head, **schema_of(SHAPE)}


def schema_of(shape: Shape) -> dict[str, Any]:
    """Return the JSON Schema of what may stand in one place."""
    match shape:
        case Text(doc):
            return {"type": ["string", "number"], "description": doc}
        case Number(doc, minimum, maximum, also):
            most = {} if maximum is None else {"maximum": maximum}
            row = {"type": "integer", "minimum": minimum, **most}
            return {**(row if also is None else {"anyOf": [row, {"const": also}]}), "description": doc}
        case Choice(doc, words):
            return {"enum": list(words.values()), "description": doc}
        case ListOf(doc, item, empty):
            least = {} if empty else {"minItems": 1}
            return {"type": "array", "items": schema_of(item), "description": doc, **least}
        case MapOf(doc, item):
            inside = {"additionalProperties": schema_of(item), "minProperties": 1}
            return {"type": "object", **inside, "description": doc}
        case Keys(doc, keys, required):
            inside = {"properties": {key: schema_of(value) for key, value in keys.items()}, "required": list(required)}
            return {"type": "object", **inside, "additionalProperties": False, "description": doc}
        case Either(shapes):
            return {"anyOf": [schema_of(one) for one in shapes]}


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
