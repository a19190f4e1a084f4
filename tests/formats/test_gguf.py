"""GGUF that is damaged or hostile is found, and what is whole is not called damaged."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pytest

from ckptrules.formats import gguf as formats_gguf
from tests.commands.test_verify import checked
from tests.support.tables import every_row
from tests.support.weights import gguf

U64 = struct.Struct("<Q").pack
IN_LISTS = struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 2


@every_row(
    "given",
    [
        {}, {"order": ">"}, {"version": 2}, {"tensors": (), "data": b"", "pairs": {}}, {"pairs": {}},
        {"tensors": [((32,), 99, 0)], "data": b""}, {"tensors": [((), 0, 0)], "data": bytes(4)},
        {"tensors": [((32, 0), 8, 0), ((32, 4), 8, 0)], "data": bytes(136)},
        {"pairs": {"a": struct.pack("<If", 6, 0.5), "b": struct.pack("<IB", 7, 1), "c": struct.pack("<IIQ3h", 9, 3, 3, 1, 2, 3)}},
    ],
)  # fmt: skip
def test_gguf_that_is_whole_is(given: Mapping[str, Any]) -> None:
    assert checked(gguf(**given)) == "GGUF"


@every_row(
    ("given", "said"),
    [
        ({"data": bytes(317)}, "truncated: is cut off: it has 541 bytes and should have 542"),
        ({"tensors": [((2**40, 2**40), 0, 0)]}, "truncated: is cut off: it has"),
        ({"tensors": [((64,), 0, 0), ((64,), 0, 32)]}, "damaged: its tensors overlap"),
        ({"tensors": [((64,), 0, 4)]}, "damaged: a tensor is not aligned"),
        ({"tensors": [((33,), 8, 0)]}, "damaged: a tensor is not aligned, or ends in the middle of a block"),
        ({"tensors": [((1,) * 5, 0, 0)]}, "damaged: a tensor has more than 4 sides"),
        ({"pairs": {"general.alignment": struct.pack("<II", 4, 0)}}, "damaged: its alignment is 0"),
        ({"pairs": {"a": struct.pack("<I", 13)}}, "damaged: its header is damaged"),
        ({"pairs": {"a": struct.pack("<I", 8) + U64(2**63)}}, "truncated: is cut off inside its header"),
        ({"pairs": {"a": struct.pack("<IIQ", 9, 10, 2**61)}}, "truncated: is cut off inside its header"),
        ({"pairs": {"a": struct.pack("<IIQ", 9, 8, 2**61)}}, "truncated: is cut off inside its header"),
        ({"pairs": {"a": IN_LISTS + struct.pack("<IQ", 9, 1) * 3}}, "damaged: its header is damaged"),
        ({"version": 1}, "not_read: is not verified: version 1 of GGUF"),
    ],
)  # fmt: skip
def test_gguf_that_lies_is_not_verified(given: Mapping[str, Any], said: str) -> None:
    assert checked(gguf(**given)).startswith(said)


def test_values_without_end_are_given_up_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_gguf, "MOST_VALUES", 20_000)
    many = struct.pack("<IIQ", 9, 8, 30_000) + U64(0) * 30_000
    assert checked(gguf(pairs={"a": many})).startswith("not_read: is not verified: a header of more than")
