"""The JSON Schema of docs/json.schema.json, in force for every file that a command of a test writes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.conftest import ROOT

SCHEMA: dict[str, Any] = json.loads((ROOT / "docs/json.schema.json").read_text(encoding="utf-8"))
RUNS = SCHEMA["$defs"]["run"]["properties"]["command"]["enum"]


def strict() -> dict[str, Any]:
    """Return the schema without leave for a field that it does not describe, but where any key is one."""
    schema = copy.deepcopy(SCHEMA)
    for name, one in schema["$defs"].items():
        for part in parts(one):
            if part.get("type") == "object" and "properties" in part and name != "head":  # which others go on from
                part["unevaluatedProperties"] = False
    return schema


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all schemas in it."""
    if isinstance(schema, dict):
        yield schema
    values = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for value in values:
        yield from parts(value)


STRICT = strict()


def faults(data: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the content of a file: by its own command, and with nothing that is not described."""
    name = "run" if data["command"] in RUNS else str(data["command"])
    schema = {"$schema": SCHEMA["$schema"], "$ref": f"#/$defs/{name}", "$defs": STRICT["$defs"]}
    found = Draft202012Validator(schema).iter_errors(data)
    return [f"{error.json_path}: {error.message[:300]}" for error in found]


def read(path: Path) -> dict[str, Any]:
    """Read a file as any program may, which knows neither NaN nor infinity; and see that it is as described."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=no_number)
    assert faults(data) == []
    assert Draft202012Validator(SCHEMA).is_valid(data)
    return data


def no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")
