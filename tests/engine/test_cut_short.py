"""A save that ended between two files: what shows it, and what stays because of that."""

from __future__ import annotations

import pytest

from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.plan import make_plan
from ckptrules.engine.retention import with_line
from ckptrules.rules.load import load_rules

RULES = load_rules({"rules/x.yaml": "{packs: [words], layout: ['*'], retention: {default: {keep_last: 1}}}"})
PAIRS = [f"net{net}_epoch_{n}.pth" for n in (1, 2) for net in "GD"]


@pytest.mark.parametrize("name", ["netG_epoch_1.pth", "netD_epoch_1.pth"])
@pytest.mark.parametrize("how", ["broken", "in use", "empty"])
def test_an_earlier_pair_shows_what_the_newest_lacks_though_one_of_it_is_no_good(name: str, how: str) -> None:
    """One broken file of the first epoch, and the half of the last one counted as whole: the only whole pair went."""
    sizes = {one: int(one != name or how != "empty") for one in [*PAIRS, "netG_epoch_3.pth"]}
    listing = Listing("x", "x", tuple(Entry(one, "file", size, 0) for one, size in sizes.items()))
    said = {name: "it is cut off, or open"}
    evidence = {"broken": Evidence(broken=said), "in use": Evidence(in_use=said), "empty": Evidence()}[how]
    made = make_plan(
        RULES, listing, with_line(RULES.policies["default"], "keep_last", 1, "min_epoch"), evidence=evidence
    )
    assert not made.going
    assert "netG_epoch_3.pth" in made.unwhole
    assert "netG_epoch_2.pth" not in made.unwhole


@pytest.mark.parametrize("first", [0, -1])
def test_which_empty_part_is_told_does_not_depend_on_the_order_of_the_listing(first: int) -> None:
    text = r"{layout: ['*'], formats: [{id: x, match: 's(?P<step>\d+)\.(?P<part>\w+)', examples: {s1.a: {step: 1}}}]}"
    entries = [Entry("s1.a", "file", 0, 0), Entry("s1.b", "file", 0, 0), Entry("s1.c", "file", 1, 0)]
    ordered = sorted(entries, reverse=bool(first))
    made = make_plan(load_rules({"rules/x.yaml": text}), Listing("x", "x", tuple(ordered)))
    assert "s1.c is not whole: s1.b is empty" in made.notes[0].text
