"""A report is the JSON that Python would write, with a row a line; what is unpacked is cut where blocks end."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptrules.engine.state_folder import STATE
from ckptrules.storage.reading import open_below
from ckptrules.storage.unfinished import drop_archive, new_archive
from ckptrules.storage.writing import HOLE, change_file, in_blocks, remove, temporary_file, write_json

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


class Made:
    """A list whose items are made as they are read; the last of them may fail."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[object]:
        yield {"a": 1}
        if self.fails:
            raise OSError(errno.EIO, "made to fail")
        yield {"b": []}


def test_what_is_made_as_it_is_written_is_written_like_a_list(tmp_path: Path) -> None:
    write_json(str(tmp_path / "r.json"), {"experiments": Made(fails=False)})
    write_json(str(tmp_path / "s.json"), {"experiments": [{"a": 1}, {"b": []}]})
    assert (tmp_path / "r.json").read_bytes() == (tmp_path / "s.json").read_bytes()


def test_what_cannot_be_made_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")
    with pytest.raises(OSError, match="made to fail"):
        write_json(str(tmp_path / "r.json"), {"experiments": Made(fails=True)})
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("r.json", "old")]


@given(lengths=st.lists(st.sampled_from([0, 1, 3, HOLE - 1, HOLE, HOLE + 1, 3 * HOLE + 7])))
def test_pieces_are_cut_where_blocks_end(lengths: list[int]) -> None:
    pieces = [bytes([number]) * length for number, length in enumerate(lengths)]
    *whole, last = in_blocks(pieces)
    assert b"".join([*whole, last]) == b"".join(pieces)
    assert [len(piece) % HOLE for piece in whole] == [0] * len(whole)
    assert len(last) < HOLE


def test_what_cannot_be_removed_keeps_only_our_state_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a backup still has its manifest."""
    for name in ("a", "held/b", "held/c", f"{STATE}/manifest.json"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).touch()
    unlink = os.unlink

    def refused(name: str, **where: int) -> None:
        if name == "b":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
        unlink(name, **where)

    monkeypatch.setattr(os, "unlink", refused)
    with open_below(str(tmp_path), "") as folder:
        with pytest.raises(PermissionError):
            remove(folder, "x")
        left = sorted(str(path.relative_to(tmp_path / "x")) for path in tmp_path.rglob("*") if path.is_file())
        assert left == [f"{STATE}/manifest.json", "held/b"]
        monkeypatch.undo()
        remove(folder, "x")
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_of_a_file_goes_and_what_is_called_alike_stays(tmp_path: Path) -> None:
    for name in (
        "pins.yaml.tmp",
        "pins.yaml.mine.tmp",
        "pins.yaml.4711-7.tmp",
        "pins.yaml.4711-1700000000000000000.tmp",
    ):
        (tmp_path / name).write_text(name)
    change_file(str(tmp_path / "pins.yaml"), lambda _: "pins: []")
    assert sorted(os.listdir(tmp_path)) == ["pins.yaml", "pins.yaml.4711-7.tmp", "pins.yaml.mine.tmp", "pins.yaml.tmp"]


@pytest.mark.parametrize("name", ["a.zst", "a" * 151, "ü" * 100], ids=["short", "long", "not ASCII"])
def test_what_a_killed_run_left_goes_and_what_a_run_still_writes_stays(tmp_path: Path, name: str) -> None:
    """Runs of two trees wrote one archive, and the second removed what the first still wrote: "No such file"."""
    with new_archive(str(tmp_path / name)) as (file, _):
        file.write(b"first")
        drop_archive(str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == b"first"
    with open_below(str(tmp_path), "") as folder, temporary_file(folder, name, []):
        pass  # killed before it is renamed
    drop_archive(str(tmp_path / name))
    assert os.listdir(tmp_path) == [name]
