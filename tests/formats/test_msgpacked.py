"""msgpack that is damaged or hostile is found, and what is whole is not called damaged."""

from __future__ import annotations

import io

import pytest

from ckptrules.formats import msgpacked
from ckptrules.formats.content import UnsoundError
from ckptrules.formats.files import check_file
from tests.commands.test_verify import checked
from tests.support.tables import every_row
from tests.support.weights import Array, packed


@every_row(
    "value",
    [
        {"a": {}}, {"w": Array((2, 3), "float32", bytes(24))}, {"w": Array((), "bool", bytes(1), 3)}, {"w": [None, 1.5, -1, -7]},
        {"w": Array((5,), "int4", bytes(5))}, {"w": Array((5,), "float8_e4m3fn", bytes(5))}, {"w": Array((2,), "complex64", bytes(16))},
        {"w": Array((0, 7), "bfloat16", b"")}, {"w": Array((3,), "a_type_of_tomorrow", bytes(5))}, {"a" * 15: b"w" * 300},
        {f"layer_{n}": Array((1,), "uint8", b"w") for n in range(20)},
    ],
)  # fmt: skip
def test_msgpack_that_is_whole_is(value: object) -> None:
    assert checked(packed(value)) == "msgpack"
    assert checked(packed(value) + b"\xc0") == "damaged: has 1 bytes too many"
    assert checked(packed(value)[:-1]).startswith("truncated")


ONE_OF_EACH = [
    b"\x7f", b"\x80", b"\x81\xa0\x00", b"\x90", b"\x91\x00", b"\xa0", b"\xbf" + bytes(31), b"\xc0", b"\xc2", b"\xc3", b"\xe0", b"\xff",
    b"\xc4\x01w", b"\xc5\0\x01w", b"\xc6\0\0\0\x01w", b"\xd9\x01w", b"\xda\0\x01w", b"\xdb\0\0\0\x01w",
    b"\xc7\x01\x05w", b"\xc8\0\x01\x05w", b"\xc9\0\0\0\x01\x05w", *(bytes([0xD4 + n, 5]) + bytes(1 << n) for n in range(5)),
    b"\xca" + bytes(4), b"\xcb" + bytes(8), *(bytes([code + n]) + bytes(1 << n) for code in (0xCC, 0xD0) for n in range(4)),
    b"\xdc\0\x01\x00", b"\xdd\0\0\0\x01\x00", b"\xde\0\x01\xa0\x00", b"\xdf\0\0\0\x01\xa0\x00",
]  # fmt: skip # https://github.com/msgpack/msgpack/blob/master/spec.md


def test_each_value_has_the_bytes_that_the_format_says() -> None:
    for value in ONE_OF_EACH:
        content = b"\x81\xa1w" + value
        assert checked(content) == "msgpack", value
        assert checked(content + b"\xc0") == "damaged: has 1 bytes too many", value
        assert checked(content[:-1]).startswith("truncated"), value


@every_row(
    "content",
    [
        packed({"w": Array((2, 3), "float32", bytes(20))}), packed({"w": Array((2, 3), "float32", bytes(28))}),
        packed({"w": Array((2**40, 2**40), "float32", bytes(24))}), packed({"w": Array((-2, -3), "float32", bytes(24))}),
        packed({"w": Array((1,) * 15, "float32", bytes(4))}).replace(b"\x9f", b"\xdd\xff\xff\xff\xff"),
        b"\x81\xa1w\xc1", b"\x81\xa1w\xdf\xff\xff\xff\xff", b"\x81\xa1w\xc6\xff\xff\xff\xffww", b"\xdf\xff\xff\xff\xff\xa1w",
        b"\x81\xa1w" + b"\x91" * 100_000, b"\x81\xa1w\xc7\x03\x01\x93\x91", b"\x81\xa1w\xd8\x01" + b"\x93" * 16,
    ],
)  # fmt: skip
def test_msgpack_that_lies_is_not_verified(content: bytes) -> None:
    assert checked(content).partition(":")[0] in ("damaged", "truncated")


def test_values_without_end_are_given_up_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep they are: nothing is kept of them."""
    monkeypatch.setattr(msgpacked, "MOST_VALUES", 20_000)
    told: list[int] = []
    for one in (b"\xc0", b"\x91"):
        content = b"\x81\xa1w\xdd\0\1\0\0" + one * 2**17
        with pytest.raises(UnsoundError, match="values is not read"):
            check_file(io.BytesIO(content), len(content), told.append, quick=False)
    assert len(told) == 10
