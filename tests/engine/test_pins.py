"""Under which name what is pinned stands, and when something else stands there."""

from __future__ import annotations

import pytest

from ckptrules.engine.entries import Directory, Entry, EntryKind
from ckptrules.engine.measures import NS
from ckptrules.engine.pins import GONE, OTHER, Found, Pin, by_place, find_pinned, is_it, name_in
from tests.support.tables import every_row

PIN = Pin("exp/checkpoints/a.ckpt", 100, 7 * NS + 5, "Table 2")
HERE = Directory("exp", "exp/checkpoints", part_folders=("mp_rank_*",))
SAME, LARGER, LATER = (Entry("", "file", *row) for row in ((100, 7 * NS + 5), (101, 7 * NS + 5), (100, 7 * NS + 6)))


@every_row(
    ("there", "leads_to", "name", "fault"),
    [
        ({"a.ckpt": SAME}, "exp/checkpoints/b.ckpt", "a.ckpt", ""),
        ({"b.ckpt": SAME}, "exp/checkpoints/b.ckpt", "b.ckpt", ""),
        ({"a.ckpt": LARGER, "b.ckpt": SAME}, "exp/checkpoints/b.ckpt", "b.ckpt", ""),
        ({"a.ckpt": LARGER}, "exp/checkpoints/a.ckpt", "a.ckpt", OTHER),
        ({"a.ckpt": LATER}, "exp/checkpoints/a.ckpt", "a.ckpt", OTHER),
        ({"b.ckpt": SAME}, "exp/checkpoints/a.ckpt", "a.ckpt", GONE),
        ({"b.ckpt": SAME}, ".ckptrules/trash/run/exp/checkpoints/b.ckpt", "a.ckpt", GONE),
        ({"b.ckpt": LARGER}, "exp/checkpoints/b.ckpt", "b.ckpt", OTHER),
        ({}, "exp/checkpoints/b.ckpt", "a.ckpt", GONE),
    ],
)
def test_what_is_pinned_is_known_by_what_it_is(there: dict[str, Entry], leads_to: str, name: str, fault: str) -> None:
    found = find_pinned(PIN, HERE.directory, there.get, lambda _: ["exp/checkpoints/c.ckpt", leads_to])
    assert found == Found(PIN, HERE.directory, name, fault)


@every_row(
    ("kind", "pinned", "there", "same"),
    [
        ("file", 7 * NS + 5, 7 * NS + 5, True),
        ("directory", 7 * NS + 5, 7 * NS + 5, True),
        ("link", 7 * NS + 5, 7 * NS + 5, False),
        ("file", 7 * NS + 5, 7 * NS, True),  # a copy without fractions
        ("file", 7 * NS, 7 * NS + 5, True),
        ("file", 7 * NS + 5, 7 * NS + 6, False),
        ("file", 7 * NS, 8 * NS, False),
        ("file", -1, -NS, True),
    ],
)
def test_a_copy_may_have_lost_the_fractions_of_a_second(
    kind: EntryKind, pinned: int, there: int, *, same: bool
) -> None:
    assert is_it(PIN._replace(mtime_ns=pinned), Entry("a.ckpt", kind, 100, there)) == same


def test_what_is_not_there_is_not_it() -> None:
    assert not is_it(PIN, None)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("exp/checkpoints/a.ckpt", "a.ckpt"),
        ("exp/checkpoints/mp_rank_00/a.ckpt", "mp_rank_00/a.ckpt"),
        ("exp/checkpoints/other/a.ckpt", ""),
        ("exp/checkpoints/mp_rank_00/other/a.ckpt", ""),
        ("exp/checkpoints2/a.ckpt", ""),
        ("exp/a.ckpt", ""),
    ],
)
def test_a_pin_lies_in_the_directory_of_its_checkpoint(path: str, name: str) -> None:
    """Also in a folder there that holds parts of checkpoints."""
    pin = Pin(path, 1, 1)
    assert name_in(pin, HERE) == name
    assert not name or pin in by_place([pin])[HERE.directory]
