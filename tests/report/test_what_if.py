"""What was weighed in many directories comes to the same whether it is added up as it comes or at the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckptrules.engine.entries import HardLinks
from ckptrules.engine.ruleset import PolicyLine
from ckptrules.engine.what_if import InUse
from ckptrules.report.text import Several, Tally
from ckptrules.report.what_if import Used, Weighed, Weighings, Weight, lines_as_data, rows_as_data

LINES = [InUse(None, PolicyLine(key, 1, None)) for key in ("keep_last", "min_epoch")]
LINKS = st.sampled_from([Several()] * 3 + [Several(gone=(HardLinks(1, n, 10, 2, 1),)) for n in (1, 2)])
WEIGHTS = st.builds(
    lambda deleted, size, links: Weight(Tally(deleted=deleted, bytes_deleted=size), links),
    st.integers(0, 9),
    st.integers(0, 99),
    LINKS,
)
WEIGHED = st.builds(
    Weighed,
    WEIGHTS,
    st.tuples(WEIGHTS, WEIGHTS),
    st.dictionaries(st.sampled_from(LINES), st.builds(Used, st.integers(0, 9), WEIGHTS)),
)
ROWS = [{"policy": "a"}, {"policy": "b"}]


@given(st.lists(WEIGHED, max_size=8))
def test_what_is_added_up_as_it_comes_comes_to_the_same(weighed: list[Weighed]) -> None:
    heard = Weighings()
    for one in weighed:
        heard.add(one)
    assert lines_as_data(heard.all()) == lines_as_data(weighed)
    assert rows_as_data(ROWS, heard.all()) == rows_as_data(ROWS, weighed)
    assert len(heard.all()) <= 1 + sum(not one.adds_up for one in weighed)
