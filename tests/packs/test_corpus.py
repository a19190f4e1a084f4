"""Real names (``cases/wild_names.tsv``): what all packs together make of each, reviewed by eye; none is read wrongly.

``UPDATE_GOLDEN=1 pytest tests/packs/test_corpus.py`` writes anew what the packs say; what a name tells (the second column
of ``cases/corpus.tsv``) is a reader's finding, and stays. Look at the difference before it is committed.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from ckptrules.commands.packs import verdict
from ckptrules.engine.checkpoints import numbers_told
from ckptrules.engine.names.naming import own_claim
from ckptrules.outputs.picking import LAST_RESORT
from tests.conftest import ROOT
from tests.packs.test_packs import PACKS
from tests.support.tables import every

CASES = ROOT / "tests/cases"
CORPUS = CASES / "corpus.tsv"
PAGE = ROOT / "docs/packs/README.md"
NUMBERS = re.compile(r"^Of \d+ real names.*$", re.MULTILINE)
NOBODY_CAN_SAY = "?"
NOTHING = "-"


class Row(NamedTuple):
    """A name; what it tells; what the packs make of it, the fields that they agree on, and which they are."""

    name: str
    tells: str
    kind: str = ""
    fields: str = ""
    packs: str = ""

    @property
    def carries(self) -> bool:
        """Say whether it carries a training number, as far as anybody can say."""
        return self.tells not in (NOTHING, NOBODY_CAN_SAY)


def rows() -> list[Row]:
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    return [Row(*line.split("\t")) for line in lines if not line.startswith("#")]


def judged(row: Row) -> Row:
    """Ask all packs for a name, as ``doit packs names=FILE`` does."""
    said = verdict(row.name, list(PACKS.values()))
    return row._replace(kind=said["kind"], fields=shown(said["fields"]), packs=" ".join(said["packs"]))


def shown(fields: Mapping[str, int] | None) -> str:
    return " ".join(f"{key}={value}" for key, value in (fields or {}).items()) or NOTHING


def numbers(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}


def is_right(row: Row) -> bool:
    """Say whether what is read is what the name tells; a number of unknown unit may be any of these."""
    read, tells = numbers(row.fields), numbers(row.tells)
    return all(value in tells.values() if key == "number" else tells.get(key) == value for key, value in read.items())


def summary(judged_rows: list[Row]) -> str:
    """Return the sentence of the page."""
    kinds = Counter(row.kind for row in judged_rows)
    carry = [row for row in judged_rows if row.carries]
    read = [row for row in carry if row.fields != NOTHING]
    by_words = sum(row.packs == LAST_RESORT for row in read)
    others = ", ".join(f"{kinds[kind]} {kind}" for kind in ("protected", "ignored", "ambiguous", "unknown"))
    return (
        f"Of {len(judged_rows)} real names, {len(carry)} carry a training number. The packs read {len(read)} of these "
        f"({len(read) / len(carry):.1%}; `{LAST_RESORT}` alone reads {by_words}), and none wrongly. "
        f"{kinds['format']} names are checkpoints, {others}."
    )


def test_the_packs_say_of_each_name_what_they_said_before() -> None:
    found = [judged(row) for row in rows()]
    if os.environ.get("UPDATE_GOLDEN"):
        head = CORPUS.read_text(encoding="utf-8").splitlines()[0]
        CORPUS.write_text("\n".join([head, *("\t".join(row) for row in found), ""]), encoding="utf-8")
        PAGE.write_text(NUMBERS.sub(lambda _: summary(found), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    assert found == rows(), "UPDATE_GOLDEN=1 writes them anew: look at the difference"


def test_every_wild_name_is_in_the_table() -> None:
    lines = (CASES / "wild_names.tsv").read_text(encoding="utf-8").splitlines()
    wild = {line.split("\t")[0].rpartition("/")[2] for line in lines if not line.startswith("#")}
    assert [row.name for row in rows()] == list(dict.fromkeys(row.name for row in rows()))
    assert {row.name for row in rows()} == wild


@every({row.name: row for row in rows()})
def test_no_name_is_read_wrongly(row: Row) -> None:
    assert is_right(judged(row))
    for pack in PACKS.values():
        said = own_claim(row.name, pack.rules)
        assert is_right(row._replace(fields=shown(numbers_told(said.fields)))), pack.name


def test_the_page_says_how_many_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    said = summary([judged(row) for row in rows()])
    with capsys.disabled():
        print(f"\n{said}")
    assert said in PAGE.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes it anew"
