"""Files that no rule reads, and what stays where the newest save has none of them."""

from __future__ import annotations

from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.plan import make_plan
from ckptrules.engine.policy.retention import with_line
from ckptrules.rules.load import load_rules
from tests.support.tables import every_row

RULES = r"""
layout: ['*']
formats:
  - id: tested
    match: '(?:(?P<run>[a-z]+)_)?(?:model_|ckpt\.|AFNO\.0\.)(?:(?P<epoch>\d+)_)?(?P<step>\d+)(?:\.(?:bin|th|mdlus|pt))?'
    examples: {model_100.bin: {step: 100}, a_model_3_300.pt: {run: a, epoch: 3, step: 300}}
retention: {default: {keep_last: 1}}
"""


def going(names: str, more: str = "") -> list[str]:
    """Return what goes of names, each written later than the one before; ``more`` are rules."""
    listing = Listing("x", "x", tuple(Entry(name, "file", 9, 9 * n) for n, name in enumerate(names.split())))
    rules = load_rules({"rules/x.yaml": RULES + more})
    made = make_plan(rules, listing, with_line(rules.policies["default"], "keep_last", 1, "min_epoch"))
    return sorted(action.name for action in made.actions if action.kind == "trash" and not action.follows)


@every_row(
    "names",
    [
        "model_50.bin DONE_50 model_100.bin DONE_100 model_200.bin DONE_200 model_300.bin",
        "model_00050.bin DONE_00050 model_00100.bin DONE_00100 model_00200.bin DONE_00200 model_00300.bin",
        "ckpt.50 sentinel_complete.50 ckpt.100 sentinel_complete.100 ckpt.200 sentinel_complete.200 ckpt.300",
        "model_50.th model_50.th.1 model_100.th model_100.th.1 model_200.th model_200.th.1 model_300.th",
        "AFNO.0.50.mdlus checkpoint.0.50.pt AFNO.0.100.mdlus checkpoint.0.100.pt AFNO.0.200.mdlus checkpoint.0.200.pt AFNO.0.300.mdlus",
        "model_50.bin model_50.yaml model_100.bin model_100.yaml model_200.bin model_200.yaml model_300.bin",
        "model_1_50.bin DONE_50 model_1_100.bin DONE_100 model_2_200.bin DONE_200 model_3_300.bin",
        "model_1_50.bin e1_50.done model_1_100.bin e1_100.done model_2_200.bin e2_200.done model_3_300.bin",
        "model_50.bin x_50_0 x_50_1 model_100.bin x_100_0 x_100_1 model_200.bin x_200_0 x_200_1 model_300.bin x_300_0",
        "model_50.bin commit_50.txt model_100.bin commit_100.txt model_200.bin commit_200.txt model_300.bin",
        "a_model_50.bin DONE_50 a_model_100.bin DONE_100 a_model_200.bin DONE_200 a_model_300.bin b_model_300.bin",
    ],
)
def test_the_last_saves_with_a_file_that_the_newest_lacks_stay(names: str) -> None:
    """A training goes on from the save that a marker, or what lies beside it, calls whole: this one went."""
    assert going(names) == [names.split(maxsplit=1)[0]]


@every_row("since", ["model_300.bin", "model_300.bin model_400.bin", "model_300.bin model_400.bin model_500.bin"])
def test_no_save_since_two_with_a_file_has_one(since: str) -> None:
    gone = going(f"model_50.bin DONE_50 model_100.bin DONE_100 model_200.bin DONE_200 {since}")
    assert gone == sorted(["model_50.bin", *since.split()[:-1]])


@every_row("more", ["sidecars: [.yaml]", "ignored: ['*.yaml']"])
def test_a_sidecar_and_what_is_ignored_are_such_files(more: str) -> None:
    names = "model_50.bin model_50.yaml model_100.bin model_100.yaml model_200.bin model_200.yaml model_300.bin"
    assert going(names, more) == ["model_50.bin"]


@every_row(
    "names",
    [
        "model_100.bin DONE_100 model_200.bin DONE_200 model_300.bin DONE_300",
        "model_100.bin DONE_100 model_200.bin model_300.bin",
        "model_100.bin model_200.bin old_model_200.bin model_300.bin",
        "model_100.bin 100.png model_200.bin 200.png model_300.bin",
        "model_100.bin samples_100 model_200.bin samples_200 model_300.bin",
        "model_100.bin config.json model_200.bin model_300.bin",
    ],
)
def test_what_not_every_save_has_or_is_made_of_it_keeps_none(names: str) -> None:
    assert going(names) == ["model_100.bin", "model_200.bin"]
