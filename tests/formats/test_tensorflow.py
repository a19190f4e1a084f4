"""Checkpoints of TensorFlow that are damaged or hostile are found: the index, and what is named after it."""

from __future__ import annotations

import pytest

from ckptrules.formats import tensorflow
from tests.commands.test_verify import checked, put, result
from tests.conftest import Project
from tests.support import weights
from tests.support.tables import every_row
from tests.support.weights import HEAD, block, message, table, tensor, varint


def test_a_bit_that_changes_in_an_index_is_seen() -> None:
    for place in range(9, len(weights.INDEX)):
        changed = bytearray(weights.INDEX)
        changed[place] ^= 1 << place % 8
        assert checked(bytes(changed)).partition(":")[0] in ("damaged", "truncated", "not_read"), place


def test_the_checksum_is_that_of_castagnoli() -> None:
    """RFC 3720, appendix B.4, for 32 zeros."""
    assert weights.crc32c(bytes(32)) == 0x8A9136AA


@every_row(
    "content",
    [
        table(block([(b"", HEAD), (b"w", tensor(4, 0, 1))])),  # of a shard that is not there
        table(block([(b"", message({1: 2**31, 3: message({1: 1})})), (b"w", tensor(4))])),
        table(block([(b"", message({1: 2**31, 3: message({1: 1})}))])),
        table(block([(b"", HEAD), (b"w", varint(1 << 3) + b"\xff" * 11)])),
        table(block([(b"", HEAD), (b"w", b"\x0b")])),
        table(block([(b"", HEAD), (b"w", b"\x12\x7f")])),
        table(block([(b"", HEAD), (b"w", tensor(4))], packed_as=1)),
        table(block([(b"", HEAD)]) + b"\0" * 9),
        weights.INDEX[:-48] + varint(0) + varint(2**60) + weights.INDEX[-46:],
        block([(b"", HEAD)]) + bytes(40) + weights.INDEX[-8:],
    ],
)  # fmt: skip
def test_an_index_that_lies_is_not_verified(content: bytes) -> None:
    assert tensorflow.INDEX.fits(content)
    assert checked(content).partition(":")[0] in ("damaged", "truncated", "not_read")
    assert checked(content, quick=True).partition(":")[0] in ("damaged", "truncated", "not_read")


def test_an_index_of_many_tensors_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow, "MOST_TENSORS", 2)
    assert checked(weights.INDEX).startswith("not_read: is not verified: an index of more than 2 tensors")
    monkeypatch.setattr(tensorflow, "LONGEST", len(weights.INDEX) - 1)
    assert checked(weights.INDEX).startswith("not_read: is not verified: an index, or a graph, of more than")


RULES = r"""
layout: ['*/checkpoints']
formats:
  - id: saver
    match: 'model\.ckpt-(?P<step>\d+)(?P<part>\.index|\.meta|\.data-\d{5}-of-\d{5})'
    complete: {all: [.index, '.data-*']}
    examples: {model.ckpt-5.index: {step: 5, part: .index}}
"""
GRAPH = message({1: b"v1", 2: b"w" * 300})


def save(project: Project, step: int, **change: bytes) -> None:
    files = {"index": weights.INDEX, "data-00000-of-00001": weights.DATA, "meta": GRAPH}
    for ending, content in {**files, **{key.replace("_", "-"): value for key, value in change.items()}}.items():
        put(project, f"model.ckpt-{step}.{ending}", content)


def test_the_files_of_a_saver_are_verified_by_their_index(project: Project) -> None:
    (project.folder / "rules" / "naming.yaml").write_text(RULES)
    (project.folder / "rules" / "retention.yaml").write_text("retention:\n  default: {keep_last: 1}\n")
    save(project, 1)
    assert "✓ model.ckpt-1.data-00000-of-00001 (3 files)" in project.doit("verify")
    save(project, 2, data_00000_of_00001=weights.DATA[:-1])
    out = project.doit("plan", "delete_old=1", check=1)
    assert "as a glance at it shows: it is cut off: it has 447 bytes and should have 448" in out
    save(project, 3, meta=GRAPH[:-1])
    save(project, 4, index=weights.INDEX[:-1])
    save(project, 5, index=b"a format that nobody knows", data_00000_of_00001=b"w" * 448)
    (found,) = result(project, check=1)["experiments"]
    assert {(row["id"], row["text"][:40], len(row["names"])) for row in found["problems"]} == {
        ("truncated", "is cut off: it has 447 bytes and should ", 1),
        ("truncated", "is cut off: a message in it is longer th", 1),
        ("truncated", "is cut off: the end of its index is miss", 3),
        ("unknown_format", "is in no known format", 3),
    }
    assert [row["verified"] for row in found["checkpoints"]] == [True, False, False, False, False]
