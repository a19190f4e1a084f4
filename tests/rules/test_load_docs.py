"""``docs/rules.md``: every block of rules is loaded, together with the rules that come with the package.

Run this file as a script (``python -m tests.rules.test_load_docs``) to write its table of keys anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ckptrules.engine.shapes import Either, ListOf, MapOf, Record, Shape
from ckptrules.rules.load import SHAPE, load_rules
from ckptrules.rules.policies import POLICY
from tests.conftest import ROOT

RULES = {f"rules/{path.name}": path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.yaml")}
FILE = ROOT / "docs/rules.md"
PAGE = FILE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?ms)^```yaml\n(.*?)^```$", PAGE)
TABLE = re.compile(r"(?s)(<!-- keys: .*? -->\n).*?(<!-- end of keys -->\n)")


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_rules_holds(block: str) -> None:
    load_rules(RULES | {"docs/rules.md": block})


def test_there_are_blocks() -> None:
    assert BLOCKS


def test_the_table_of_keys_is_current() -> None:
    assert with_table(PAGE) == PAGE, f"run: python -m {__name__}"


def with_table(page: str) -> str:
    """Write the table of keys anew."""
    rows = "".join(f"| {key} | {meaning} |\n" for key, meaning in rows_of(SHAPE))
    assert TABLE.search(page)
    return TABLE.sub(lambda found: f"{found[1]}| key | meaning |\n| --- | --- |\n{rows}{found[2]}", page)


def rows_of(record: Record) -> Iterator[tuple[str, str]]:
    """List the keys of rule files, and those inside them; the lines of policies have a table of their own."""
    listed = [POLICY]
    for key, shape in record.keys.items():
        yield f"`{key}`", shown(shape)
        inside = mapping_in(shape)
        if inside and inside not in listed:
            listed.append(inside)
            yield from ((f"`{key}` › `{own}`", shown(value)) for own, value in inside.keys.items())


def shown(shape: Shape) -> str:
    return re.sub(r"[*<|]", r"\\\g<0>", doc_of(shape))


def doc_of(shape: Shape) -> str:
    return doc_of(shape.shapes[0]) if isinstance(shape, Either) else shape.doc


def mapping_in(shape: Shape) -> Record | None:
    """Return the mapping that a value is, or that its entries are."""
    if isinstance(shape, (ListOf, MapOf)):
        return mapping_in(shape.item)
    if isinstance(shape, Either):
        return next(filter(None, map(mapping_in, shape.shapes)), None)
    return shape if isinstance(shape, Record) else None


if __name__ == "__main__":
    FILE.write_text(with_table(PAGE), encoding="utf-8")
