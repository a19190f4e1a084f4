"""A draft for names that no rule knows: it loads, and reads the name that it was made from."""

from __future__ import annotations

import pytest

from ckptrules.engine.drafting import draft, format_lines, joined, unread
from ckptrules.engine.naming import claim
from ckptrules.rules.load import load_rules

CASES: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "net-40.npz": (["net-1.npz", "net-20.npz"], r"net-(?P<number>\d+)\.npz", {"number": "40"}),
    "gan_v2_7.pt": (["gan_v2_8.pt"], r"gan_v2_(?P<number>\d+)\.pt", {"number": "7"}),
    "run3 epoch 5 loss 0.25 (2).pt": (
        ["run3 epoch 6 loss 0.125 (3).pt"],
        r"run3 epoch (?P<epoch>\d+) loss \d+\.\d+ \(\d+\)\.pt",
        {"epoch": "5"},
    ),
    "m_ep3_iter400_x.bin": ([], r"m_ep(?P<epoch>\d+)_iter(?P<step>\d+)_x\.bin", {"epoch": "3", "step": "400"}),
    "it's-7": (["it's-8"], r"it's-(?P<number>\d+)", {"number": "7"}),
    "ckpt1².pt": (["ckpt22².pt"], r"ckpt(?P<number>\d+)²\.pt", {"number": "1"}),
    "²ckpt٣-7.pt": (["²ckpt٣-8.pt"], r"²ckpt٣-(?P<number>\d+)\.pt", {"number": "7"}),
    r"a\=b\-c\ 7.pt": ([], r"a\\=b\\-c\\ (?P<number>\d+)\.pt", {"number": "7"}),
    "epoch_2nd_00004.pth": (["epoch_2nd_00006.pth"], r"epoch_2nd_(?P<number>\d+)\.pth", {"number": "00004"}),
    "12th_step_40k_7.pt": (["12th_step_40k_8.pt"], r"12th_step_40k_(?P<number>\d+)\.pt", {"number": "7"}),
    "7kitten.pt": (["8kitten.pt"], r"(?P<number>\d+)kitten\.pt", {"number": "7"}),
    "1234": (["1235"], r"(?P<number>\d+)", {"number": "1234"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_draft_reads_the_name_that_it_is_made_from(name: str) -> None:
    others, match, fields = CASES[name]
    lines = draft(name, [*others, "other.txt"])
    assert lines[2] == "    match: '" + match.replace("'", "''") + "'"
    rules = load_rules({"rules/draft.yaml": "\n".join(["layout: ['*']", *lines, ""])})
    for one in (name, *others):
        assert claim(one, rules).kind == "format"
    assert claim(name, rules).fields == fields


@pytest.mark.parametrize(
    "name",
    [
        "final weights",
        "",
        "step_1M.pt",
        "60k.ckpt",
        "epoch=3-epoch=4.ckpt",
        "loss0.5.pt",
        "net\n4.pt",
        "net\udcff4.pt",
        "ckpt².pt",
        "epoch٣.pt",
    ],
)
def test_where_no_number_counts_there_is_no_draft(name: str) -> None:
    assert draft(name, []) == []


KINDS: dict[str, list[tuple[str, int]]] = {  # names of two directories → the ids, and how many names each
    "net-1.npz net-2.npz | net-3.npz": [("net", 3)],
    "net-1.npz net_1.pt | net_2.pt": [("net", 2), ("net_2", 1)],
    "mp_rank_00/net-1.npz mp_rank_01/net-1.npz |": [("net", 2)],
    "final.pt notes.txt epoch=1-epoch=2.ckpt |": [],  # no number counts, no checkpoint, two epochs
    "step_1/ | step_2/ step_1.pt": [("step", 2), ("step_2", 1)],
}


@pytest.mark.parametrize("names", KINDS)
def test_kinds_of_names_share_a_draft_each(names: str) -> None:
    rows = [[(name.rstrip("/"), name.endswith("/")) for name in half.split()] for half in names.split("|")]
    kinds = joined(one for half in rows for one in unread(half))
    lines = format_lines(kinds)
    heads = [line.partition(" # ") for line in lines if line.startswith("  - id: ")]
    assert [(head[8:].strip(), int(comment.split()[0])) for head, _, comment in heads] == KINDS[names]
    if not heads:
        return
    rules = load_rules({"rules/draft.yaml": "\n".join(["layout: ['*']", "part_folders: ['mp_*']", *lines, ""])})
    for kind in kinds:
        assert all(claim(name, rules, folder=kind.folder).kind in ("format", "ambiguous") for name in kind.names)


def test_a_draft_is_made_from_some_names_however_many_there_are() -> None:
    (one,) = joined(unread((f"net-{number}.npz", False) for number in range(1000)))
    assert (one.number, len(one.names)) == (1000, 20)
    assert one.draft[2] == r"    match: 'net-(?P<number>\d+)\.npz'"
