"""Each name is read once, in a directory of more names than are remembered in common, too."""

from __future__ import annotations

from collections import Counter

import pytest

from ckptrules.engine.checkpoints import Claim, Evidence
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.names import naming
from ckptrules.engine.names.sorting import sort_entries
from ckptrules.engine.plan import make_plan
from ckptrules.engine.ruleset import RuleSet
from ckptrules.engine.whole.wholeness import unwhole
from ckptrules.rules.load import load_rules

PLAIN = """
target: {template: 'e-{{ epoch | pad(3) }}.pt', match: 'e-(?P<epoch>[0-9]{3,})[.]pt', examples: [e-003.pt]}
legacy: [{id: old, match: 'epoch(?P<epoch>[0-9]+)[.]pt', examples: {epoch7.pt: e-007.pt}}]
"""
PARTS = r"""
target:
  template: 'e-{{ epoch | pad(3) }}_{{ part }}.pt'
  match: 'e-(?P<epoch>[0-9]{3,})_(?P<part>[a-z]+)[.]pt'
  examples: [e-003_model.pt]
legacy: [{id: old, match: 'epoch(?P<epoch>[0-9]+)_(?P<part>[a-z]+)[.]pt', examples: {epoch7_model.pt: e-007_model.pt}}]
"""
CASES = {
    "as many as in common": (PLAIN, [f"epoch{n}.pt" for n in range(8)]),
    "more": (PLAIN, [f"epoch{n}.pt" for n in range(9)]),
    "many more": (PLAIN, [f"epoch{n}.pt" for n in range(100)]),
    "parts, which are read by their new names as well": (
        PARTS,
        [f"epoch{n}_{part}.pt" for n in range(50) for part in ("model", "optimizer")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_name_is_read_once(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    text, names = CASES[case]
    rules = load_rules({f"rules/{case}.yaml": "layout: [x]" + text}, proved=True)
    listing = Listing("x", "x", tuple(Entry(name, "file", 1, 0) for name in names))
    read: Counter[str] = Counter()
    claim = naming.claim

    def counted(name: str, rules: RuleSet, *, folder: bool | None = None) -> Claim:
        read[name] += 1
        return claim(name, rules, folder=folder)

    monkeypatch.setattr(naming, "IN_COMMON", 8)
    monkeypatch.setattr(naming, "claim", counted)
    plans = [make_plan(rules, listing) for _ in range(3)]
    assert not any(unwhole(sort_entries(rules, listing), listing, rules, Evidence()))
    assert plans[0] == plans[1] == plans[2]
    assert plans[0].actions
    assert set(names) <= read.keys()
    assert set(read.values()) == {1}
