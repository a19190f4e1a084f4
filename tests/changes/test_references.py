"""`doit refs` goes through a text once, however many old names are in it and however many there are."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ckptrules.changes.history import Run
from ckptrules.changes.journal import UnitRef
from ckptrules.changes.record import Intent
from ckptrules.changes.references import LONGEST_PATH, OldNames, Reference, find, renames, stays_valid
from ckptrules.commands import refs
from ckptrules.commands.refs import TextFile, diff, unsure_lines
from ckptrules.engine.actions import Step, Unit
from ckptrules.engine.entries import Spot
from ckptrules.report.style import Style
from tests.support.tables import every_row

ONE = {"old.ckpt": (Spot("one/checkpoints", "new.ckpt"),)}


class Counted(str):
    """A text that counts the letters that are gone through; a regular expression goes through it unseen."""

    seen: ClassVar[int] = 0
    __slots__ = ()

    def __getitem__(self, key: Any) -> str:
        found = super().__getitem__(key)
        Counted.seen += len(found)
        return found

    def _span(self, start: Any, end: Any) -> None:
        Counted.seen += max(0, (len(self) if end is None else end) - (start or 0))

    def count(self, sub: str, start: Any = None, end: Any = None) -> int:
        self._span(start, end)
        return super().count(sub, start, end)

    def rfind(self, sub: str, start: Any = None, end: Any = None) -> int:
        self._span(start, end)
        return super().rfind(sub, start, end)


def letters(work: Callable[[Counted], object], text: str) -> int:
    Counted.seen = 0
    work(Counted(text))
    return Counted.seen


def is_linear(work: Callable[[Counted], object], piece: str, number: int = 400) -> bool:
    """Say whether twice the text is twice the work, to a tenth."""
    work(Counted(piece))
    small, large = letters(work, piece * number), letters(work, piece * 2 * number)
    return 0 < large <= 2.1 * small


def looked_for(text: str) -> TextFile:
    references = tuple(find(str(text), OldNames(ONE)))
    return TextFile("a.py", b"", text, "utf-8", references)


PIECES = {
    "names alone": "old.ckpt\n",
    "names in one line": "old.ckpt ",
    "names behind each other": "old.ckpt/",
    "names with paths": "one/checkpoints/old.ckpt\n",
    "names of others": "two/checkpoints/old.ckpt ",
}


@pytest.mark.parametrize("piece", PIECES.values(), ids=list(PIECES))
def test_the_place_of_each_name_is_found_in_one_pass(piece: str) -> None:
    texts = {len(piece) * n: looked_for(piece * n) for n in (400, 800)}

    def tell(text: Counted) -> object:
        return unsure_lines([texts[len(text)]._replace(text=text)], Style()) if len(text) in texts else None

    if sum(not reference.new for reference in texts[len(piece) * 400].references) > 1:
        assert letters(tell, piece * 800) <= 2.1 * letters(tell, piece * 400)  # an expression reads without being seen


@pytest.mark.parametrize("piece", PIECES.values(), ids=list(PIECES))
def test_whether_a_name_stands_is_asked_with_its_own_path_only(
    piece: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    really = os.path.isfile

    def counted(path: str) -> bool:
        asked.append(path)
        return really(path)

    file = tmp_path / "a.md"
    file.write_text(piece * 3000)
    monkeypatch.setattr(os.path, "isfile", counted)
    refs.read(str(file), OldNames(ONE), {})
    assert len(asked) <= 3000
    assert sum(map(len, asked)) < 3000 * 2 * LONGEST_PATH
    if piece != PIECES["names behind each other"]:
        assert len(asked) <= 2


@pytest.mark.parametrize("number", [50, 100])
def test_a_text_is_searched_once_for_all_names(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with a space or a bracket were searched for one after the other."""
    names = OldNames({f"my run ({n}).ckpt": (Spot("one", "x"),) for n in range(number)})
    monkeypatch.setattr(re, "finditer", lambda *_: pytest.fail("a pass for each name"))
    found = find("'one/my run (7).ckpt' one/my run (8).ckpt\n", names)
    assert [(reference.old, reference.new) for reference in found] == [
        ("my run (7).ckpt", "x"), ("my run (8).ckpt", "x"),
    ]  # fmt: skip


class Same(str):
    """A name that counts how often it is compared."""

    compared: ClassVar[int] = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Same.compared += 1
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def renaming_run(rows: list[tuple[str, str]]) -> Run:
    units = tuple(Unit("rename", 1, (Step("move", "d", Same(old), "d", Same(new)),)) for old, new in rows)
    intent = Intent(UnitRef("r", "1", 1, 0), "d", "d", units)
    done = dict(zip(intent.refs, units, strict=True))
    return Run("r", {}, (intent,), done, {ref: (ref, unit) for ref, unit in done.items()}, frozenset(), False)  # noqa: FBT003


CHAINS = {
    "many names": lambda n: [(f"a{k}", f"b{k}") for k in range(n)],
    "one name, renamed again and again": lambda n: [(f"a{k}", f"a{k + 1}") for k in range(n)],
    "two names that take turns": lambda n: [("a", "b"), ("b", "a")] * n,
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=list(CHAINS))
def test_the_journals_are_gone_through_once(chain: Callable[[int], list[tuple[str, str]]]) -> None:
    counts = []
    for number in (200, 400):
        run = renaming_run(chain(number))
        Same.compared = 0
        renames([run])
        counts.append(Same.compared)
    assert counts[1] <= 2.6 * counts[0] + 100


def test_a_chain_of_renames_leads_to_the_last_name() -> None:
    run = renaming_run([("a", "b"), ("x", "a"), ("b", "c"), ("a", "d"), ("c", "c2")])
    found = {old: rows[0].name for old, rows in renames([run]).items()}
    assert found == {"a": "d", "b": "c2", "c": "c2", "x": "d"}


def test_an_old_name_that_thousands_had_is_told_in_a_few_words() -> None:
    rows = tuple(Spot(f"run_{n}/checkpoints", "new") for n in range(2000))
    (bare,) = find("old", OldNames({"old": rows}))
    assert bare.why == (
        "no path stands before it; it was in run_0/checkpoints, run_1/checkpoints, run_10/checkpoints, 1997 others"
    )
    (both,) = find("checkpoints/old", OldNames({"old": rows}))
    assert both.why.endswith(" and in run_10/checkpoints and in 1997 others")
    (one,) = find("x/run_77/checkpoints/old", OldNames({"old": rows}))
    assert one.new == "new"
    (few,) = find("old", OldNames({"old": rows[:3]}))
    assert few.why.endswith("it was in run_0/checkpoints, run_1/checkpoints, run_2/checkpoints")


# --- the same as before ----------------------------------------------------------------------------------------------

WAYS = {
    "two directories, one the end of the other": (("b", "a/b"), "x/a/b/old", None),
    "one of them": (("b", "a/b"), "c/b/old", "b"),
    "a longer path": (("a/b",), "/x/y/a/b/old", "a/b"),
    "a shorter path": (("a/b/c",), "b/c/old", "a/b/c"),
    "another directory": (("a/b",), "a/c/old", ""),
    "a longer name of a directory": (("a/b",), "xa/b/old", ""),
    "dots": (("a/b",), "./a/../b/./old", None),
    "an odd directory": (("lr=1, x/c",), "'out/lr=1, x/c/old'", "lr=1, x/c"),
    "an odd directory that is longer": (("x (1)",), "'out/ax (1)/old'", ""),
}


@every_row(("directories", "text", "leads_to"), WAYS.values(), ids=list(WAYS))
def test_a_path_leads_where_it_led(directories: tuple[str, ...], text: str, leads_to: str | None) -> None:
    found = find(text, OldNames({"old": tuple(Spot(one, f"new of {one}") for one in directories)}))
    if leads_to is not None:
        assert [r.new for r in found if r.new] == ([f"new of {leads_to}"] if leads_to else [])


ODD = {
    "a longer name": ("one/x my run.ckpt.bak", 0),
    "a longer beginning": ("one/xmy run.ckpt", 0),
    "the end of a sentence": ("one/my run.ckpt.", 1),
    "an option": ("ckpt=x/one/my run.ckpt", 1),
    "in quotes": ("'one/my run.ckpt'", 1),
}


@pytest.mark.parametrize(("text", "number"), ODD.values(), ids=list(ODD))
def test_a_name_with_a_space_is_found_whole_or_not_at_all(text: str, number: int) -> None:
    found = find(text, OldNames({"my run.ckpt": (Spot("one", "new"),)}))
    assert [reference.new for reference in found] == ["new"] * number


def test_a_name_inside_a_longer_one_is_none() -> None:
    names = OldNames({"my run.ckpt": (Spot("one", "long"),), "run.ckpt": (Spot("one", "short"),)})
    assert [reference.new for reference in find("one/my run.ckpt one/run.ckpt", names)] == ["long", "short"]


LINES = [f"line {number}" for number in range(30)]


@pytest.mark.parametrize("at", [(0,), (29,), (0, 1), (3, 5), (3, 6), (3, 7), (1, 2, 3, 10, 28, 29), tuple(range(30))])
@pytest.mark.parametrize("end", ["", "\n"])
def test_the_diff_is_that_of_difflib(at: tuple[int, ...], end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{line} one/checkpoints/old.ckpt" if n in at else line for n, line in enumerate(LINES)]
    text = looked_for("\n".join(lines) + end)
    wanted = list(
        difflib.unified_diff(text.text.splitlines(), text.new_text.splitlines(), "a.py", "a.py", lineterm="", n=1)
    )
    monkeypatch.setattr(difflib, "unified_diff", lambda *_, **__: pytest.fail("it is quadratic"))
    assert list(diff(text, Style())) == wanted


@pytest.mark.parametrize("new", ["new.ckpt", 'n"ew.ckpt', "n\\ew.ckpt"])
def test_a_notebook_is_not_parsed_to_see_that_it_stays_one(new: str) -> None:
    reference = Reference(0, "old.ckpt", new)
    assert stays_valid(".ipynb", [reference]) == (new == "new.ckpt")
    assert stays_valid(".md", [reference])
    assert stays_valid(".json", [Reference(0, 'o"ld', "")])
