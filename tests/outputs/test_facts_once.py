"""Other policies are weighed by what files told the first of them that asked for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ckptrules.engine.entries import Directory
from ckptrules.outputs import facts
from ckptrules.outputs.evidence import Looks
from ckptrules.outputs.links import Links
from ckptrules.outputs.listing import scan
from ckptrules.outputs.picking import Tree, rules_here
from ckptrules.rules.load import load_rules


def test_files_are_read_once_for_all_policies_that_ask_for_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, loss in ((5, 0.1), (10, 0.2)):
        (tmp_path / "x" / f"checkpoint-{step}").mkdir(parents=True)
        text = (
            f'{{"best_model_checkpoint": "x/checkpoint-5", "log_history": [{{"step": {step}, "eval_loss": {loss}}}]}}'
        )
        (tmp_path / "x" / f"checkpoint-{step}" / "trainer_state.json").write_text(text, encoding="utf-8")
    rules = rules_here(Tree(str(tmp_path)), load_rules({"rules/x.yaml": "packs: [huggingface]"}), "x")
    listing = scan(str(tmp_path), Directory("x", "x"))
    names = facts.names_of(listing, rules)
    sources = facts.find_sources(str(tmp_path), listing, rules.facts, names)
    asked: list[tuple[facts.Sources, dict[str, Any]]] = [
        (sources, {"metrics": metrics, "out": frozenset(out)})
        for out in ((), ("checkpoint-10",))
        for metrics in (True, False)
    ]
    asked.append((sources._replace(files=sources.files[:1]), {"metrics": True, "out": frozenset()}))
    by_itself = [facts.read_facts(str(tmp_path), listing, some, names, **more) for some, more in asked]
    assert len({repr(one) for one in by_itself}) > 1
    looks = Looks(-1, listing, rules, Links(str(tmp_path)), 0)
    real, opened = facts.read_facts, list[object]()

    def counted(*some: Any, **more: Any) -> Any:
        opened.append(more)
        return real(*some, **more)

    monkeypatch.setattr(facts, "read_facts", counted)
    for _ in range(3):
        read = [looks.facts_of(some, **more) for some, more in asked]
        assert read == by_itself
    assert len(opened) == len(asked)
