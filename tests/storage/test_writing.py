"""A report is the JSON that Python would write, with a row a line."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptrules.storage.writing import write_json

PLAIN = st.none() | st.booleans() | st.integers() | st.text()
DATA = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@given(data=DATA)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_again(tmp_path: Path, data: object) -> None:
    write_json(str(tmp_path / "r.json"), data)
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8")) == data


def test_a_row_is_a_line(tmp_path: Path) -> None:
    data = {"run": None, "experiments": [{"name": "a", "rows": [{"n": [1, {}]}, {"n": []}], "none": []}]}
    write_json(str(tmp_path / "r.json"), data)
    assert (
        (tmp_path / "r.json").read_text(encoding="utf-8")
        == """\
{
 "run": null,
 "experiments": [
  {
   "name": "a",
   "rows": [
    {"n": [1, {}]},
    {"n": []}
   ],
   "none": []
  }
 ]
}
"""
    )
