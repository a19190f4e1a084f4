"""What several packs say of one name: the stricter, a number, or nothing that may be touched."""

from __future__ import annotations

import pytest

from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.leftovers import leftover_of
from ckptrules.engine.names.naming import claim
from ckptrules.engine.names.packs import agreed_fields, with_packs
from ckptrules.engine.plan import make_plan
from ckptrules.engine.ruleset import Fault, Pack, RuleSet
from ckptrules.rules.load import PACK, compile_pack, load_rules
from tests.support.tables import every, every_row

USER = load_rules(
    {
        "rules/mine.yaml": r"""
layout: ['*']
protected: ['mine-*']
ignored: ['*.log']
formats:
  - {id: mine, match: 'epoch-(?P<epoch>\d+)\.user', examples: {epoch-3.user: {epoch: 3}}}
"""
    }
)
TEXTS = {
    "one": r"""
pack: one
protected: [last.pt, '*-end.pt']
ignored: [notes.pt]
pointers: [latest]
leftovers: {match: '*o*', after: 7d}
formats:
  - {id: epochs, match: 'epoch-(?P<epoch>\d+)\.(?:pt|user)', keep_name: one reads it, examples: {epoch-3.pt: {epoch: 3}}}
  - {id: steps, match: 'checkpoint_(?P<step>\d+)\.pt', examples: {checkpoint_5.pt: {step: 5}}}
  - {id: odd, match: 'odd_(?P<step>\d+)_(?P<epoch>\d+)\.pt', examples: {odd_1_2.pt: {step: 1}}}
  - {id: more, match: 'more_(?P<epoch>\d+)_\d+\.pt', examples: {more_1_2.pt: {epoch: 1}}}
  - {id: dots, match: '[ab]\.(?P<step>\d+)', examples: {a.1: {step: 1}}}
  - {id: pairs, match: 'net_(?P<step>\d+)(?P<part>\.pt|\.opt)', examples: {net_1.pt: {step: 1}}}
""",
    "two": r"""
pack: two
protected: ['*-end.pt']
formats:
  - {id: ends, match: 'step-(?P<step>\d+)-end\.pt', examples: {step-3-end.pt: {step: 3}}}
  - {id: epochs, match: 'epoch-(?P<epoch>\d+)\.pt', examples: {epoch-3.pt: {epoch: 3}}}
  - {id: numbers, match: 'checkpoint_(?P<number>\d+)\.pt', examples: {checkpoint_5.pt: {number: 5}}}
  - {id: odd, match: 'odd_(?P<epoch>\d+)_(?P<step>\d+)\.pt', examples: {odd_1_2.pt: {epoch: 1}}}
  - {id: more, match: 'more_(?P<epoch>\d+)_(?P<step>\d+)\.pt', examples: {more_1_2.pt: {step: 2}}}
  - {id: runs, match: '(?P<run>a|b)\.(?P<number>\d+)', examples: {a.1: {run: a, number: 1}}}
  - {id: nets, match: 'net_(?P<number>\d+)\.opt', examples: {net_1.opt: {number: 1}}}
  - {id: notes, match: 'notes\.pt|last\.pt', examples: {notes.pt: {epoch: null}}}
""",
}


def pack(name: str) -> Pack:
    faults: list[Fault] = []
    made = compile_pack(name, TEXTS[name], faults)
    assert not faults
    return made


def rules(*names: str) -> RuleSet:
    packs = tuple(pack(name) for name in names)
    return with_packs(USER._replace(packs=packs, naming_digest=f"{USER.naming_digest} {names}"), packs)


CASES = {
    "the stricter of two that read the same": ("epoch-3.pt", "format", {"epoch": "3"}, "format 'one/epochs'"),
    "only the unit differs": (
        "checkpoint_5.pt",
        "format",
        {"number": "5"},
        "the packs one and two count it otherwise; packs: [one] or packs: [two] decides",
    ),
    "only one tells the run": (
        "b.7",
        "format",
        {"number": "7", "run": "b"},
        "the packs one and two count it otherwise; packs: [one] or packs: [two] decides",
    ),
    "only one reads it as a part": (
        "net_1.opt",
        "ambiguous",
        {"step": "1", "part": ".opt"},
        "the packs one and two count it otherwise; packs: [one] or packs: [two] decides",
    ),
    "two read it otherwise": (
        "odd_1_2.pt",
        "ambiguous",
        {},
        "the packs one and two read it otherwise; packs: [one] or packs: [two] decides",
    ),
    "one reads more than the other": (
        "more_1_2.pt",
        "format",
        {"epoch": "1"},
        "format 'one/more'",
    ),
    "one ignores what another claims": (
        "notes.pt",
        "ambiguous",
        {},
        "the packs one and two claim it otherwise; packs: [one] or packs: [two] decides",
    ),
    "one protects what another claims": (
        "last.pt",
        "ambiguous",
        {},
        "the packs one and two claim it otherwise; packs: [one] or packs: [two] decides",
    ),
    "two protect it, and one reads it": ("step-3-end.pt", "protected", {"step": "3"}, "protected by '*-end.pt'"),
    "a pointer of one": ("latest", "ignored", {}, "names checkpoints: 'latest'"),
    "the format of the user comes before packs": ("epoch-3.user", "format", {"epoch": "3"}, "format 'mine'"),
    "what the user protects": ("mine-epoch-3.pt", "protected", {}, "protected by 'mine-*'"),
    "what the user ignores": ("epoch-3.log", "ignored", {}, "no checkpoint: '*.log'"),
    "nobody knows it": ("other.pt", "unrecognised", {}, "unable to parse: no rule fits the whole name"),
}


@every([*CASES])
def test_several_packs_say_one_thing(case: str) -> None:
    name, kind, fields, reason = CASES[case]
    for names in (("one", "two"), ("two", "one")):
        said = claim(name, rules(*names), folder=False)
        assert (said.kind, dict(said.fields)) == (kind, fields)
        if names[0] == "one":
            assert said.reason.text == reason


KEEP = "layout: ['*']\nformats: []\nretention: {default: {keep_last: 1}}"
TARGET = r"""
layout: ['*']
target: {template: 'e{{ epoch }}', match: 'e(?P<epoch>\d+)', examples: [e3]}
"""
OTHER = r"""
pack: three
formats:
  - {id: epochs, match: 'epoch-(?P<epoch>\d+)\.pt', examples: {epoch-3.pt: {epoch: 3}}}
"""


ORDER = r"""
layout: ['*']
targets:
  - {template: 'x-{{ step }}', match: 'x-(?P<step>\d+)', examples: [x-30]}
protected: ['x-1*']
ignored: ['x-?', 'x-1?']
legacy: [{id: old, match: '(?P<t>x|y)-0*(?P<step>\d+)', template: 'x-{{ step }}', examples: {y-30: x-30}}]
formats: [{id: mine, match: '(?:x|y|z)-(?P<step>\d+)', examples: {z-30: {step: 30}}}]
"""
PACK_OF_ALL = r"""
pack: all
protected: ['*-5']
ignored: ['*-7']
formats: [{id: any, match: '[a-z]-(?P<epoch>\d+)', examples: {w-4: {epoch: 4}}}]
"""


@every_row(
    ("name", "kind", "reason"),
    [
        ("x-12", "protected", "protected by 'x-1*'"),
        ("x-3", "ignored", "no checkpoint: 'x-?'"),
        ("x-30", "target", "already in the target format"),
        ("y-30", "legacy", "legacy rule 'old'"),
        ("z-30", "format", "format 'mine'"),
        ("w-30", "format", "format 'all/any'"),
        ("w-5", "protected", "protected by '*-5'"),
        ("w-7", "ignored", "no checkpoint: '*-7'"),
        ("x-25", "target", "already in the target format"),  # what the pack protects is not asked for
        ("z-5", "format", "format 'mine'"),
        ("y-7", "legacy", "legacy rule 'old'"),
    ],
)
def test_the_rules_of_the_user_come_first_and_in_their_order(name: str, kind: str, reason: str) -> None:
    faults: list[Fault] = []
    packs = (compile_pack("all", PACK_OF_ALL, faults),)
    mine = load_rules({"rules/x.yaml": ORDER})
    said = claim(name, with_packs(mine._replace(packs=packs), packs), folder=False)
    assert (said.kind, said.reason.text) == (kind, reason)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("last.pt", "list under 'packs' only the one that wrote it"), ("odd_1_2.pt", "list under 'packs' only the one")],
)
def test_what_packs_say_otherwise_is_left_untouched_and_told(name: str, hint: str) -> None:
    both = rules("one", "two")._replace(policies=load_rules({"x.yaml": KEEP}).policies)
    entries = tuple(Entry(one, "file", 9, 1) for one in (name, "checkpoint_1.pt", "checkpoint_2.pt"))
    plan = make_plan(both, Listing("x", "x", entries), both.policies["default"])
    assert [action.name for action in plan.actions] == ["checkpoint_1.pt"]
    (problem,) = plan.problems
    assert (problem.id, problem.names) == ("ambiguous", (name,))
    assert "packs: [one] or packs: [two] decides" in problem.text
    assert problem.hint.startswith(hint)
    (note,) = plan.notes
    assert note.text.startswith("of checkpoint_1.pt and 1 more only the order counts: the packs one and two count it")
    assert note.text.endswith("packs: [one] or packs: [two] decides")


@every_row(
    ("rename", "picked", "name", "kind"),
    [
        ("two/epochs", ["two"], "epoch-3.pt", "legacy"),
        ("two/epochs", ["one"], "epoch-3.pt", "format"),  # no pack that was picked lets it be renamed
        ("two/epochs", [], "epoch-3.pt", "unrecognised"),
        ("two/epochs", ["one", "two"], "epoch-3.pt", "format"),  # the other one keeps its names
        ("two/epochs", ["two", "three"], "epoch-3.pt", "legacy"),
        ("two/numbers", ["two"], "checkpoint_5.pt", "legacy"),
        ("two/numbers", ["one", "two"], "checkpoint_5.pt", "format"),  # they count it otherwise
        ("two/odd", ["one", "two"], "odd_1_2.pt", "ambiguous"),
        ("two/ends", ["two"], "step-3-end.pt", "protected"),  # the pack protects it
        ("two/notes", ["two"], "last.pt", "legacy"),
        ("two/notes", ["one", "two"], "last.pt", "ambiguous"),  # and here the other one does
    ],
)
def test_a_format_of_a_pack_is_renamed_where_all_packs_of_the_directory_let_it(
    rename: str, picked: list[str], name: str, kind: str
) -> None:
    faults: list[Fault] = []
    packs = (pack("one"), pack("two"), compile_pack("three", OTHER, faults))
    theirs = next(rule for one in packs for rule in one.rules.formats if rule.id == rename)
    mine = load_rules({"rules/x.yaml": TARGET})
    every = mine._replace(packs=packs, legacy=(theirs,), naming_digest=f"{rename} {picked}")
    here = with_packs(every, [one for one in packs if one.name in picked])
    assert claim(name, here, folder=False).kind == kind


def test_what_a_pack_calls_a_leftover_is_one_where_no_format_of_any_pack_reads_it() -> None:
    both = rules("one", "two")
    names = ["torn.tmp", "epoch-3.pt", "notes.pt", "epoch-3.user", "latest.tmp", "odd-end.pt"]
    assert [name for name in names if leftover_of(name, both)] == ["torn.tmp"]
    assert not leftover_of("torn.tmp", rules("two"))


def test_a_pack_that_was_not_picked_says_nothing() -> None:
    both = rules("one", "two")
    assert claim("last.pt", with_packs(both.user._replace(packs=both.packs), []), folder=False).kind == "unrecognised"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("readings", "agreed"),
    [
        ([{"epoch": "3"}, {"epoch": "03"}], {"epoch": 3}),
        ([{"step": "5"}, {"number": "5"}], {"number": 5}),
        ([{"step": "5"}, {"number": "6"}], None),
        ([{"epoch": "3", "step": "5"}, {"epoch": "3"}], {"epoch": 3}),
        ([{"epoch": "3", "step": "5"}, {"number": "3"}], None),
        ([{}, {}], {}),
        ([{}, {"epoch": "3"}], None),
    ],
)
def test_what_readings_agree_on(readings: list[dict[str, str]], agreed: dict[str, int] | None) -> None:
    assert agreed_fields(readings) == agreed
    assert agreed_fields(readings[::-1]) == agreed


def test_the_shape_of_a_pack_knows_no_policy() -> None:
    assert "retention" not in PACK.keys
    assert "formats" in PACK.keys
