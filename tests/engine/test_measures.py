"""Sizes, as rules have them."""

from __future__ import annotations

import pytest

from ckptrules.engine import measures
from ckptrules.engine.entries import HardLinks
from tests.support.tables import every_row


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (999, "999B"),
        (31_400_000_000, "31.4GB"),
        (1234, "1234B"),
        (1_236_000, "1.24MB"),
        (1_234_567_890_123, "1234567890123B"),
    ],
)
def test_a_limit_that_is_written_is_never_less(limit: int, text: str) -> None:
    assert measures.written(limit) == text
    assert measures.size(text) >= limit


@pytest.mark.parametrize(
    ("text", "expected"), [("2GB/s", 2 * 10**9), ("500MB/s", 500 * 10**6), ("1.5 GiB/s", 3 << 29), ("1B/s", 1)]
)
def test_a_rate_is_bytes_a_second(text: str, expected: int) -> None:
    assert measures.rate(text) == expected


@every_row("text", ["2GB", "2GB/m", "2/s", "GB/s", "0GB/s", "-1GB/s", "2GB/s/s", "/s", "s", ""])
def test_what_is_no_rate_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match="a rate such as 2GB/s"):
        measures.rate(text)


def test_a_file_with_two_names_in_one_checkpoint_takes_its_room_once() -> None:
    """Its parts may be names of one file, as where a tool has joined what is equal."""
    link = HardLinks(1, 7, 1000, names=2)
    counted = set[tuple[int, int]]()
    assert measures.taken(2500, [link, link], counted) == measures.taken(2500, [link, link]) == 1500
    assert measures.taken(2500, [link, link], counted) == 500
