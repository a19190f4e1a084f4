"""``docs/json.schema.json`` is sound, and ``docs/json.md`` is its description in tables.

Run this file as a script (``python -m tests.report.test_data_schema``) to write the tables anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from jsonschema import Draft202012Validator

from ckptrules.changes.kinds import ACTIONS
from ckptrules.report.checkpoints import State
from ckptrules.report.data import SCHEMA_VERSION
from ckptrules.report.text import Tally
from ckptrules.run.declared import TASKS, declared
from ckptrules.verify.report import VerifyTally
from tests.conftest import ROOT
from tests.support.json_files import RUNS, SCHEMA, parts

PAGE = ROOT / "docs/json.md"
TABLES = re.compile(r"(?s)(<!-- fields -->\n).*?(<!-- end of fields -->\n)")
DEFS: Mapping[str, Any] = SCHEMA["$defs"]
WORDS = {"string": "text", "integer": "number", "number": "number", "boolean": "true or false", "null": "null"}


def tables() -> str:
    """Write a table for each kind of object."""
    return "".join(f"\n## {one['title'].capitalize()}\n\n{one['description']}\n\n{table(one)}" for one in DEFS.values())


def table(one: Mapping[str, Any]) -> str:
    rows = [f"| `{name}` | {words(field)} | {field['description']} |\n" for name, field in one["properties"].items()]
    return "".join(["| field | is | meaning |\n| --- | --- | --- |\n", *rows])


def words(field: Mapping[str, Any]) -> str:
    """Say what a field may hold."""
    if "$ref" in field:
        title = DEFS[field["$ref"].rpartition("/")[2]]["title"]
        return f"[{title}](#{title.replace(' ', '-')})"
    for key in ("anyOf", "allOf"):
        if key in field:
            return " or ".join(map(words, field[key]))
    if "const" in field or "enum" in field:
        values = [field["const"]] if "const" in field else field["enum"]
        return ", ".join("null" if value is None else f"`{value}`" for value in values)
    kinds = [field["type"]] if isinstance(field["type"], str) else field["type"]
    return " or ".join(one for kind in kinds for one in [WORDS.get(kind) or holding(kind, field)])


def holding(kind: str, field: Mapping[str, Any]) -> str:
    if kind == "array":
        return f"list: {words(field['items'])}"
    if "properties" in field:
        return ", ".join(f"`{name}`" for name in field["properties"])
    return f"name → {words(field['additionalProperties'])}" if "additionalProperties" in field else "object"


def test_the_tables_of_the_page_are_current() -> None:
    assert TABLES.search(PAGE.read_text(encoding="utf-8"))[0].split("\n", 1)[1].startswith(tables())  # type: ignore[index]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert all(field.get("description") for one in DEFS.values() for field in one["properties"].values())
    assert all(set(part["required"]) == set(part["properties"]) for part in parts(SCHEMA) if "required" in part)


def test_what_is_listed_is_what_there_is() -> None:
    assert DEFS["head"]["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert DEFS["action"]["properties"]["action"]["enum"] == sorted(ACTIONS)
    assert DEFS["checkpoint"]["properties"]["state"]["enum"] == list(get_args(State))
    assert set(DEFS["summary"]["properties"]) == set(Tally._fields)
    assert set(DEFS["verify"]["properties"]["summary"]["properties"]) == set(VerifyTally._fields)


def test_every_command_that_writes_such_a_file_is_in_it() -> None:
    assert {*RUNS, "verify", "explain", "history", "packs"} == {*writing()}  # that one writes a list of names


def writing() -> Iterator[str]:
    yield from (task for task in TASKS if "json" in declared(task).known())


if __name__ == "__main__":
    text = TABLES.sub(lambda found: found[1] + tables() + "\n" + found[2], PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")
    assert json.loads((ROOT / "docs/json.schema.json").read_text(encoding="utf-8"))
