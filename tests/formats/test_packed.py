"""What is packed by gzip or zstd is unpacked to its end."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable

import pytest

from ckptrules.formats import zips
from tests.commands.test_verify import checked, lightning

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONTENT = lightning(3, 352) * 20
SUMMED: dict[int, int] = {zstd.CompressionParameter.checksum_flag: 1}


@pytest.mark.parametrize(
    ("kind", "pack"), [("gzip", gzip.compress), ("zstd", lambda content: zstd.compress(content, options=SUMMED))]
)
def test_it_is_unpacked_to_its_end(kind: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pack(CONTENT)
    assert checked(whole) == checked(whole, quick=True) == checked(whole + whole) == kind
    assert checked(whole + b"x").startswith("damaged: makes no sense")
    for length in (5, 20, len(whole) // 2, len(whole) - 1):
        assert checked(whole[:length]).startswith("truncated: is cut off"), length
    changed = bytes([whole[len(whole) // 2] ^ 1])
    assert checked(whole[: len(whole) // 2] + changed + whole[len(whole) // 2 + 1 :]).startswith("damaged")
    monkeypatch.setattr("ckptrules.formats.packed.UNPACKS_ALWAYS", 1000)
    assert checked(pack(bytes(zips.UNPACKS_TO * 1000))).startswith("not_read: is not verified: what unpacks to more")


def test_zstd_without_its_library_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compression" if sys.version_info >= (3, 14) else "backports", None)
    assert checked(zstd.compress(CONTENT)).startswith("not_read: is not verified: to unpack it needs")
