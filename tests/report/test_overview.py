"""`plan summary=1`: a sentence, and a line an experiment, in any terminal."""

from __future__ import annotations

import pytest

from ckptrules.engine.names.drafting import unread
from ckptrules.report.overview import overview
from ckptrules.report.style import Style
from ckptrules.report.text import Outlook, Tally, magnitude, trash_sentence

GB = 1_000_000_000
LONG = "a-long-name-of-an-experiment_lr=0.0003_bs=512_seed=7"
ROWS = [
    Outlook("small", Tally(kept=2, bytes_kept=3 * GB)),
    Outlook("検出器", Tally(kept=4, deleted=1, bytes_kept=2 * GB, bytes_deleted=GB, problems=2)),
    Outlook(
        LONG,
        Tally(kept=10, deleted=8, renamed=3, bytes_kept=7 * GB, bytes_deleted=40 * GB),
        unread=unread([("net_12.pt", False), ("net_13.pt", False), ("readme.txt", False)]),
    ),
]
TOTAL = Tally(kept=16, deleted=9, renamed=3, bytes_kept=12 * GB, bytes_deleted=41 * GB, problems=2)
FIRST = "41 GB would go of 53 GB; 12 GB stays, 3 need you."
WIDE = f"""\
{FIRST}

experiment                                             goes  to delete  stays  kept  to rename  needs you
{LONG}  40 GB          8   7 GB    10          3  1 kind unread
検出器                                                 1 GB          1   2 GB     4             2 problems
small                                                                    3 GB     2
all                                                   41 GB          9  12 GB    16          3  2 problems, 1 kind unread
"""
IN = {
    0: WIDE,
    125: WIDE,
    120: f"""\
{FIRST}

experiment                                             goes  to delete  stays  kept  needs you
{LONG}  40 GB          8   7 GB    10  1 kind unread
検出器                                                 1 GB          1   2 GB     4  2 problems
small                                                                    3 GB     2
all                                                   41 GB          9  12 GB    16  2 problems, 1 kind unread
Left out to fit the terminal: to rename
""",
    80: f"""\
{FIRST}

experiment
   goes  to delete  stays  kept  to rename  needs you
{LONG}
  40 GB          8   7 GB    10          3  1 kind unread
検出器
   1 GB          1   2 GB     4             2 problems
small
                     3 GB     2
all
  41 GB          9  12 GB    16          3  2 problems, 1 kind unread
""",
    40: f"""\
41 GB would go of 53 GB; 12 GB stays, 3
need you.

experiment
   goes  needs you
{LONG}
  40 GB  1 kind unread
検出器
   1 GB  2 problems
small
all
  41 GB  2 problems, 1 kind unread
Left out to fit the terminal: to delete,
stays, kept, to rename
""",
}


@pytest.mark.parametrize("width", IN)
def test_the_table_fits_the_terminal_and_says_in_words_who_needs_a_person(width: int) -> None:
    assert overview(ROWS, TOTAL, Style(width=width)) == IN[width]


def test_a_name_is_escaped_and_an_order_is_kept() -> None:
    rows = [Outlook("a\x1b[2J", Tally()), Outlook("b", Tally())]
    lines = overview(rows, Tally(), Style()).splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["a\\x1b[2J", "b", "all"]


def test_a_kind_of_names_that_is_unread_in_two_experiments_is_one_kind_in_all() -> None:
    rows = [Outlook(name, Tally(), unread=unread([("net_12.pt", False)])) for name in "ab"]
    lines = overview(rows, Tally(), Style()).splitlines()
    assert [line.split(maxsplit=3) for line in lines[3:]] == [
        [name, "0", "B", "1 kind unread"] for name in ("a", "b", "all")
    ]


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (Tally(kept=3, bytes_kept=GB), "Nothing would go: 3 checkpoints stay, 1 GB."),
        (Tally(kept=3, bytes_kept=GB, problems=1), "Nothing would go: 3 checkpoints stay, 1 GB, 1 needs you."),
        (Tally(bytes_kept=GB, bytes_deleted=GB, problems=2), "1 GB would go of 2 GB; 1 GB stays, 2 need you."),
    ],
)
def test_the_first_sentence(total: Tally, said: str) -> None:
    assert overview([Outlook("a", total)], total, Style()).splitlines()[0] == said


def test_one_of_a_kind_is_no_plural() -> None:
    rows = [Outlook(f"e{number}", Tally(deleted=1), largest=((5, "x.pt"),)) for number in range(12)]
    assert "\n1 other " in magnitude(rows[:11], Style(), named=True)
    assert "\n2 others " in magnitude(rows, Style(), named=True)
    assert "freed after 1 day (trash_days)" in trash_sentence(2, 10, 1)
    assert "freed after 7 days (trash_days)" in trash_sentence(2, 10, 7)
