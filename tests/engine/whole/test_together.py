"""Runs whose files are written together are one training, whatever they are called."""

from __future__ import annotations

from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.plan import make_plan
from ckptrules.rules.load import load_rules
from tests.support.tables import every_row

TEXT = r"""
layout: ['*']
retention: {default: {keep_last: 1}}
formats: [{id: x, match: '(?P<run>.+)_(?P<epoch>\d+)\.pt', examples: {a_1.pt: {run: a, epoch: 1}}}]
"""
RULES = load_rules({"rules/x.yaml": TEXT})
TORN = "vqvae_1@0 prior_1@2 vqvae_2@100 prior_2@103 vqvae_3@200 prior_3@201 vqvae_4@300"


@every_row(
    ("files", "torn", "goes"),
    [
        (TORN, "vqvae_4", "prior_1 vqvae_1"),
        (f"{TORN} prior_4@301", "", "prior_1 prior_2 prior_3 vqvae_1 vqvae_2 vqvae_3"),
        (TORN.replace("prior", "best_model"), "", "best_model_1 best_model_2 vqvae_1 vqvae_2 vqvae_3"),
        ("a_1@0 b_1@1 c_1@2 a_2@100 b_2@101 c_2@102 a_3@200 b_3@201 c_3@202 a_4@300 c_4@301", "a_4 c_4", "a_1 b_1 c_1"),
        ("a_1@0 b_1@1 c_1@2 a_2@100 b_2@101 c_2@102 a_3@200 b_3@260", "a_3 b_3", ""),  # a full disk
        ("a_1@0 b_1@40 a_2@100 b_2@140 a_3@200 b_3@240 a_4@300", "", "a_1 a_2 a_3 b_1 b_2"),  # side by side
        ("a_1@0 a_2@100 a_3@200 a_4@300 b_1@400 b_2@500 b_3@600", "", "a_1 a_2 a_3 b_1 b_2"),  # one after the other
        ("a_1@0 b_1@0 a_2@0 b_2@0 a_3@0 b_3@0 a_4@0", "", "a_1 a_2 a_3 b_1 b_2"),  # a copy
        ("a_1@0 b_1@1 a_2@100", "a_2", ""),  # once, as a first run with `keep_last: 1` leaves it
        ("a_1@0 b_1@1 a_2@100 a_3@200", "", "a_2"),
        ("a_1@0 b_1@20 a_2@100", "", "a_1"),
        ("a_1@0 b_1@1 a_2@100 b_2@150 a_3@200", "", "a_1 a_2 b_1"),  # once of twice
        ("a_1@0 b_1@1 a_01@2 b_01@3", "", ""),  # of one number alone
    ],
)
def test_a_save_is_cut_short_if_it_lacks_what_was_written_with_those_before(files: str, torn: str, goes: str) -> None:
    """``vqvae_4`` made ``vqvae_3`` go, and ``prior_3``, the newest, had nothing to work with."""
    rows = [one.split("@") for one in files.split()]
    listing = Listing("x", "x", tuple(Entry(f"{name}.pt", "file", 1, int(time) * 10**9) for name, time in rows))
    made = make_plan(RULES, listing, RULES.policies["default"])
    assert " ".join(name.removesuffix(".pt") for name in made.unwhole) == torn
    assert " ".join(sorted(name.removesuffix(".pt") for name in made.going)) == goes
