"""Sizes, as rules have them."""

from __future__ import annotations

import pytest

from ckptrules.engine import measures


@pytest.mark.parametrize(
    ("limit", "text"), [(999, "999B"), (31_400_000_000, "31.4GB"), (1234, "1234B"), (1_236_000, "1.24MB")]
)
def test_a_limit_that_is_written_is_never_less(limit: int, text: str) -> None:
    assert measures.written(limit) == text
    assert measures.size(text) >= limit
