"""PLY that is cut off is found, and what is whole is not called damaged."""

from __future__ import annotations

import pytest

from tests.commands.test_verify import checked
from tests.support.tables import every_row

HEADER = """ply
format binary_little_endian 1.0
comment of 3D Gaussian Splatting
element vertex 3
property float x
property uchar red
element camera 1
property double scale
end_header
"""


def ply(*changes: tuple[str, str], rows: int = 23) -> bytes:
    """Return a file with a header that is changed in places, and so many bytes of rows."""
    header = HEADER
    for old, new in changes:
        header = header.replace(old, new)
    return header.encode("latin-1") + bytes(rows)


@pytest.mark.parametrize("file", [ply(), ply(("\n", "\r\n")), ply(("vertex 3", "vertex 0"), rows=8), ply(rows=24)])
def test_ply_that_is_whole_is(file: bytes) -> None:
    assert checked(file) == "PLY"


@every_row(
    ("file", "said"),
    [
        (ply(rows=22), "truncated: is cut off: it has 194 bytes and should have 195"),
        (ply()[:90], "truncated: is cut off inside its header"),
        (ply(("vertex 3", f"vertex {2**62}")), "truncated: is cut off: it has"),
        (ply(("vertex 3", "vertex -3")), "damaged: its PLY header is damaged"),
        (ply(("float", "flaot")), "damaged: its PLY header is damaged"),
        (ply(("binary_little_endian", "ascii")), "not_read: is not verified: it is a PLY that is text"),
        (ply(("float x", "list uchar int x")), "not_read: is not verified: it is a PLY with lists"),
        (ply(("comment of", "comment " + "x" * 70_000)), "not_read: is not verified: a PLY header of more than"),
    ],
)
def test_ply_that_lies_is_not_verified(file: bytes, said: str) -> None:
    assert checked(file).startswith(said)
