"""Every fault of a rule file: ``bad_rules/*.yaml``, and beside each the whole text that the user reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptrules.engine.ruleset import RuleError
from ckptrules.rules.load import load_rules
from ckptrules.rules.shape import FAST, MAX_BYTES, parsed_by
from ckptrules.run import finding
from ckptrules.run.command_line import command_line
from ckptrules.run.options import Planning
from ckptrules.run.session import Session
from tests.conftest import ROOT, Project
from tests.support.tables import every, every_row

RULES = {f"rules/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")}
BAD_RULES = sorted((ROOT / "tests/cases/bad_rules").glob("*.yaml"))
ALONE = "# loaded alone\n"  # in the first line of what must not meet the default rules


def told(name: str, text: str) -> str:
    """Load a rule file, beside the default ones unless it says otherwise, and return what the user is told."""
    with pytest.raises(RuleError) as refused:
        load_rules({**({} if text.startswith(ALONE) else RULES), f"rules/{name}": text})
    return str(refused.value)


@every(BAD_RULES)
def test_a_bad_rule_file_is_refused_with_place_fact_and_hint(path: Path) -> None:
    expected = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert told(path.name, path.read_text(encoding="utf-8")) + "\n" == expected


def test_every_expected_text_has_its_rule_file() -> None:
    assert {path.stem for path in (ROOT / "tests/cases/bad_rules").iterdir()} == {path.stem for path in BAD_RULES}


def test_the_default_rules_are_no_bad_ones() -> None:
    assert load_rules(RULES).files == tuple(sorted(RULES))


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    text = "#" * (MAX_BYTES + 1)
    assert told("huge.yaml", text) == "rules/huge.yaml:1:1: the file is larger than 1,000,000 bytes"


OTHERWISE = {
    "faults, to regex": ("a{e}", "'{' is no count here: write \\{"),
    "behind a backslash": (r"\\\\{e<=1}", "'{' is no count here: write \\{"),
    "half a count": ("a{2", "'{' is no count here: write \\{"),
    "a class in a set": ("[[:alpha:]]", "Possible nested set at position 1"),
    "two sets": ("[a&&b]", "Possible set intersection at position 2"),
    "one group twice": ("(?P<a>x)(?P<a>y)", "redefinition of group name 'a' as group 2; was group 1"),
    "flags in the middle": ("a(?i)", "global flags not at the start of the expression"),
    "a count of four billions": ("a{4294967294}", "it is too long, or repeats too often"),
    "counts of counts": ("((a{255}){255}){255}", "it is too long, or repeats too often"),
    "the same, apart": ("(?x)((a{255}) {255} ){255}", "it is too long, or repeats too often"),
    "none of something": ("(x){0}((a{255}){255}){255}", "it is too long, or repeats too often"),
}


@every_row("case", OTHERWISE)
def test_a_pattern_that_python_and_regex_read_otherwise_is_refused(case: str) -> None:
    pattern, fact = OTHERWISE[case]
    text = f"legacy:\n  - id: other\n    match: '{pattern}'\n    examples: {{x: y}}\n"
    refused = told("other.yaml", text)
    assert refused.startswith("rules/other.yaml:3:"), refused
    assert refused.endswith(f": legacy rule 'other': not a regular expression: {fact}"), refused


@pytest.mark.parametrize(
    "pattern",
    [r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", r"a\{e\}", "a{,3}", "(?P<a>x{2,}){1,3}", "a{2}+"],
)
def test_a_pattern_that_both_read_alike_is_taken(pattern: str) -> None:
    text = f"legacy:\n  - id: other\n    match: '{pattern}'\n    examples: {{x: y}}\n"
    assert load_rules({**RULES, "rules/other.yaml": text}, proved=True).legacy[-1].match.pattern == pattern


def test_a_number_that_python_does_not_read_is_refused_like_any_other() -> None:
    text = f"trash_days: {'9' * 5000}\n"
    assert told("huge.yaml", text).startswith(
        "rules/huge.yaml:1:13: trash_days must be a whole number, 0 or more, not '999"
    )


def test_no_rule_file_at_all_is_refused() -> None:
    with pytest.raises(RuleError) as refused:
        load_rules({})
    facts = [line for line in str(refused.value).splitlines() if "hint:" not in line]
    assert facts == [
        "rules:1:1: no rule file has 'layout'",
        "rules:1:1: no rule file has 'target', nor 'targets', 'formats' or 'packs'",
    ]


def flat(node: Any) -> list[tuple[object, ...]]:
    """Return what is used of a node and of those in it, in the order of the text."""
    start, end = node.start_mark, node.end_mark
    here = (type(node), start.line, start.column)
    if isinstance(node, yaml.ScalarNode):
        return [(*here, end.line, end.column, node.style or "", node.value)]
    parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else [pair])]
    return [here, *(row for part in parts for row in flat(part))]


TEXTS = {
    **{path.name: path.read_text() for path in sorted((ROOT / "rules").glob("*.yaml"))},
    "quotes and comments": "a: 'it''s'  # why\nb: \"x\\ty\" # z\nc: plain text # d\n",
    "letters of two bytes": "ä: 'öü'\n\u00e9: [\u20ac, 'x']  # \u00df\n",
    "blocks": "a: |\n  one\n  two\nb: >\n  three\n  four\nc:\n- 1\n- {d: e}\n",
    "empty values": "a:\nb: ''\nc: []\n",
}


@pytest.mark.skipif(FAST is yaml.SafeLoader, reason="PyYAML was built without libyaml")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_both_parsers_of_yaml_read_the_same_at_the_same_places(text: str) -> None:
    nodes = [parsed_by(loader, text, "x.yaml") for loader in (FAST, yaml.SafeLoader)]
    assert all(isinstance(node, yaml.Node) for node in nodes)
    assert flat(nodes[0]) == flat(nodes[1])


EXAMPLE = "epoch=67-step=18564.ckpt: epoch-67_step-018564.ckpt"


def test_rules_that_hold_are_tested_again_when_they_have_changed_or_are_checked(project: Project) -> None:
    naming, proof = project.folder / "rules" / "naming.yaml", project.outputs / ".ckptrules" / "proved"
    project.make({"exp/checkpoints/epoch=1-step=2.ckpt": 1})
    project.doit("migrate")
    sound, proved = naming.read_text(), proof.read_text()
    naming.write_text(sound.replace(EXAMPLE, EXAMPLE.replace("018564", "018565")))
    refused = project.doit("migrate", check=3)
    assert "example 'epoch=67-step=18564.ckpt' becomes 'epoch-67_step-018564.ckpt', not" in refused
    assert proof.read_text() == proved
    proof.write_text("other")
    assert project.doit("migrate", check=3) == refused
    texts = {f"rules/{path.name}": path.read_text() for path in naming.parent.glob("*.yaml")}
    proof.write_text(finding.proof_of(texts))  # as if they had been found sound
    assert "up to date" in project.doit("migrate")
    assert project.doit("check", check=3) == refused


def test_a_backup_notes_that_the_rules_hold_and_its_preview_does_not(project: Project) -> None:
    proof = project.outputs / ".ckptrules" / "proved"
    project.make({"exp/checkpoints/epoch=1-step=2.ckpt": 1})
    project.doit("backup", "dry_run=1")
    assert not proof.exists()
    project.doit("backup")
    noted = proof.read_text()
    project.doit("migrate")
    assert noted == proof.read_text()


def test_what_is_noted_is_what_was_tested_also_if_it_is_edited_meanwhile(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    project.outputs.mkdir(exist_ok=True)
    naming = project.folder / "rules" / "naming.yaml"
    session, later = (Session(command_line([]), {}) for _ in range(2))
    tested = finding.read_rules(session, None)
    naming.write_text(naming.read_text() + "# edited while the run waited for another one\n")
    finding.note_proof(session, Planning())
    assert (project.outputs / ".ckptrules" / "proved").read_text() == finding.proof_of(tested)
    assert finding.proof_of(finding.read_rules(later, None)) != finding.proof_of(tested)
