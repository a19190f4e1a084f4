"""``docs/rules.md``: its blocks of rules are loaded, its plans are made, its table of keys is current.

Run this file as a script (``python -m tests.rules.test_load_docs``) to write the table anew.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace

import yaml

from ckptrules.engine.policy.lines import IN_POLICIES
from ckptrules.engine.shapes import Either, Keys, ListOf, MapOf, Shape
from ckptrules.rules.load import SHAPE, load_rules
from tests.conftest import ROOT
from tests.engine.test_plan import RULES, Case, entries, lines, plan, read_cases
from tests.support.tables import every, every_row

FILE = ROOT / "docs/rules.md"
PAGE = FILE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```yaml( plan|)\n(.*?)^```$", PAGE)
KEYS = re.compile(r"(?s)(<!-- keys: .*? -->\n).*?(<!-- end of keys -->\n)")


def rules_with(block: str) -> dict[str, str]:
    """Join a block to the default rules: it stands alone where it has a layout, and takes the place of policies."""
    said = yaml.safe_load(block)
    policies = said.keys() & {"settle", "trash_days"} or "default" in said.get("retention", {})
    left_out = {"rules/naming.yaml": "layout" in said, "rules/retention.yaml": "layout" in said or policies}
    return {name: "" if left_out[name] else text for name, text in RULES.items()} | {"docs/rules.md": block}


def plans() -> Iterator[Case]:
    """Yield the plans of the page; each goes by the block of rules above it."""
    rules: dict[str, str] = {}
    for kind, block in BLOCKS:
        if kind:
            (case,) = read_cases(f"- name: {next(iter(rules), '')}\n{textwrap.indent(block, '  ')}", FILE.name)
            yield replace(case, rules=rules)
        else:
            rules = rules_with(block)


@every([block for kind, block in BLOCKS if not kind])
def test_a_block_of_rules_holds(block: str) -> None:
    load_rules(rules_with(block))


@every_row("case", list(plans()))
def test_a_plan_is_as_the_page_has_it(case: Case) -> None:
    assert lines(plan(case, entries(case))) == case.plan


def test_there_are_blocks_and_plans() -> None:
    assert {kind for kind, _ in BLOCKS} == {"", " plan"}


def test_the_table_of_policy_lines_lists_all_of_them_and_what_they_keep() -> None:
    rows = re.findall(r"^\| `(\w+): (.*?)` \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert {key for key, _, _ in rows} == set(IN_POLICIES)
    names = {
        epoch: f"epoch-{epoch:02}_step-{epoch * 100 + 100:06}_hmean-{hmean}.ckpt"
        for epoch, hmean in {0: 0.71, 5: 0.90, 10: 0.83, 12: 0.80}.items()
    }
    given = ["last.ckpt", *(f"{name} 10GB {age}d" for age, name in zip((4, 3, 2, 1), names.values(), strict=True))]
    naming = {"rules/naming.yaml": RULES["rules/naming.yaml"]}
    for key, value, kept in rows:
        left = ["last.ckpt", *(names[int(epoch)] for epoch in kept.replace("none", "").replace(",", "").split())]
        policy = {key: yaml.load(value, yaml.BaseLoader), "examples": [{"given": given, "kept": left}]}
        assert load_rules({**naming, "rules/line.yaml": yaml.safe_dump({"retention": {"one": policy}})})


# --- the table of keys ------------------------------------------------------------------------------------------------


def test_every_key_has_a_section_and_the_table_of_keys_is_current() -> None:
    assert with_keys(PAGE) == PAGE, f"run: python -m {__name__}"


@every([*SHAPE.keys])
def test_the_section_of_a_key_has_the_keys_inside_it(key: str) -> None:
    inside = mapping_in(SHAPE.keys[key])
    (section,) = re.findall(rf"(?ms)^## [^\n]*`{key}`.*?(?=^## |\Z)", PAGE)
    assert not [own for own in (inside.keys if inside else ()) if not re.search(rf"`{own}`|\b{own}:", section)]


def with_keys(page: str) -> str:
    """Write the table of keys anew."""
    rows = "".join(f"| {key} | {meaning} |\n" for key, meaning in rows_of(SHAPE))
    assert KEYS.search(page)
    return KEYS.sub(lambda found: f"{found[1]}| key | meaning |\n| --- | --- |\n{rows}{found[2]}", page)


def rows_of(record: Keys) -> Iterator[tuple[str, str]]:
    """List the keys of rule files, each with the section that describes it."""
    for key, shape in record.keys.items():
        (section,) = [heading for heading in headings() if f"`{key}`" in heading]
        yield f"[`{key}`](#{anchor_of(section)})", shown(shape)


def headings() -> list[str]:
    return re.findall(r"(?m)^## (.*)$", PAGE)


def anchor_of(heading: str) -> str:
    """Return what GitHub calls a heading in an address."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def shown(shape: Shape) -> str:
    return re.sub(r"[*<|]", r"\\\g<0>", doc_of(shape))


def doc_of(shape: Shape) -> str:
    return doc_of(shape.shapes[0]) if isinstance(shape, Either) else shape.doc


def mapping_in(shape: Shape) -> Keys | None:
    """Return the mapping that a value is, or that its entries are."""
    if isinstance(shape, (ListOf, MapOf)):
        return mapping_in(shape.item)
    if isinstance(shape, Either):
        return next(filter(None, map(mapping_in, shape.shapes)), None)
    return shape if isinstance(shape, Keys) else None


if __name__ == "__main__":
    FILE.write_text(with_keys(PAGE), encoding="utf-8")
