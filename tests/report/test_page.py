"""The page as a text: what stands in it, what never does, and that it is drawn from its data alone."""

from __future__ import annotations

import base64
import copy
import hashlib
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import accumulate
from typing import Any

import pytest

from ckptrules.report.page.drawing import PageError, draw, unpacked
from ckptrules.report.page.sections import sections
from tests.support.json_files import faults
from tests.support.page_data import GOES, HOSTILE, checkpoint, experiment, plan, sample
from tests.support.tables import every, every_row

Data = dict[str, Any]


class Read(HTMLParser):
    """All tags with their attributes, and the text of each section."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self._inside = ["head"]
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.tags.append((tag, given))
        if tag in ("section", "script", "style", "header", "footer"):
            self._inside.append(given.get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("section", "script", "style", "header", "footer"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        self.texts[self._inside[-1]] = self.texts.get(self._inside[-1], "") + data


def said(data: Data) -> str:
    """Return the verdict of some data, as one sentence."""
    return "".join(text for text, _ in sections(data)["verdict"])


def stays(many: int = 3) -> Data:
    one = experiment(0, many)
    for row in one["checkpoints"]:
        row.update(state="stays", bytes=1000)
    return one


def test_it_holds_the_data_that_it_was_drawn_from() -> None:
    data = sample()
    assert unpacked(draw(data)) == data


def test_the_data_of_these_tests_are_what_the_schema_describes() -> None:
    assert faults(sample()) == []


def test_the_same_data_give_the_same_page() -> None:
    assert draw(sample()) == draw(copy.deepcopy(sample()))


def test_nothing_in_it_leads_anywhere_or_runs_from_a_tag() -> None:
    page = draw(sample())
    read = Read(page)
    for tag, given in read.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form") or given.get("id") == "tools"
        assert not [key for key in given if key.startswith("on") or key in ("style", "src", "action", "srcset")], tag
        assert given.get("href", "#").startswith("#")
    assert "://" not in page
    assert "@import" not in page


def test_its_policy_lets_nothing_in_but_its_own_style_and_script() -> None:
    page = draw(sample())
    policy = next(
        given["content"] for _, given in Read(page).tags if given.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert (len(inside), rules[rule]) == (1, f"'sha256-{digest}'")


@every([*HOSTILE])
def test_a_hostile_name_is_text_and_what_cannot_be_seen_is_written_out(name: str) -> None:
    one = experiment(0, 2, name)
    one["checkpoints"][0]["name"] = name
    one["problems"] = [
        {"id": "empty", "names": [name], "text": name, "hint": f"'doit explain name={name}'", "remarks": []}
    ]
    page = draw(plan([one]))
    assert page.isprintable() or not {c for c in page if not c.isprintable()} - {"\n", "\u202f", "\u00a0"}
    tags = {tag for tag, _ in Read(page).tags}
    assert not tags & {"b", "img"} - {"b"}
    assert "onmouseover=" not in re.sub(r"&lt;.*?&gt;", "", page)
    assert page.count("<script") == draw(plan([experiment(0, 2)])).count("<script")


@every_row(
    ("data", "sentence"),
    [
        (plan([stays()]), "Nothing would go: 3 checkpoints stay, 3 KB."),
        (plan([stays()], dry_run=False, command="migrate"), "Nothing went: 3 checkpoints stayed, 3 KB."),
        (plan([]), "No checkpoint was found."),
        (
            plan([{**stays(), "checkpoints": [checkpoint("a", bytes=1000), checkpoint("b", bytes=500, state="goes")]}]),
            "500 B would go of 1.5 KB; 1 KB stays.",
        ),
        (
            plan([{**stays(), "checkpoints": [checkpoint("b", bytes=500, state="goes")]}], dry_run=False),
            "500 B went of 500 B; 0 B stayed.",
        ),
        (
            plan([{**stays(2), "problems": [{"id": "empty", "names": ["a"], "text": "is empty", "hint": None, "remarks": []}]}]),
            "Nothing would go: 2 checkpoints stay, 2 KB, 1 needs you.",
        ),
        (
            plan([{**stays(2), "checkpoints": [checkpoint("a", bytes=500, state="undecided"), checkpoint("b", bytes=500, state="goes")], "problems": [
                {"id": "empty", "names": ["a"], "text": "is empty", "hint": None, "remarks": []}]}]),
            "500 B would go of 1 KB; 0 B stays, 1 needs you (500 B).",
        ),
        (
            plan([], command="verify", what_if=[], space=None, summary={"checkpoints": 5, "verified": 3, "bytes_verified": 3000}),
            "2 of 5 are not sound: 3 KB verified.",
        ),
        (
            plan([], command="verify", what_if=[], space=None, summary={"checkpoints": 1, "verified": 1, "bytes_verified": 10}),
            "1 checkpoint is sound: 10 B verified.",
        ),
        (
            plan([], command="verify", what_if=[], space=None, summary={"checkpoints": 5, "to_read": 2, "bytes_to_read": 3000}),
            "2 checkpoints to read: 3 KB.",
        ),
        (plan([], command="history", runs=plan([])["history"]), "3 runs, 1.71 TB deleted and not taken back."),
        (plan([{**stays(0), "actions": [{}, {}]}], command="undo", dry_run=False), "2 changes made."),
    ],
)  # fmt: skip
def test_the_verdict_is_a_sentence_with_the_numbers_in_it(data: Data, sentence: str) -> None:
    if data["command"] == "undo":
        data["experiments"][0]["actions"] = [
            {"action": "restore", "name": str(i), "to": None, "bytes": 1, "reasons": []} for i in range(2)
        ]
    assert said(data) == sentence


@pytest.mark.parametrize(
    ("trees", "lines"),
    [
        ("+", ["The best and the last checkpoint stay; nothing pinned goes."]),
        ("++", ["The best and the last of all 2 experiments stay; nothing pinned goes."]),
        ("-", ["The last checkpoint stays; nothing pinned goes.", "in 1 experiment: there none is kept."]),
        ("--", ["The last of all 2 experiments stay; nothing pinned goes.", "in 2 experiments: there none is kept."]),
        (
            "+-+",
            ["The best of 2 experiments and the last of all 3 stay; nothing pinned goes.", "in 1 experiment: there"],
        ),
        ("s", []),
    ],
)
def test_it_says_whether_the_best_and_the_last_stay_and_where_no_best_is_known(trees: str, lines: list[str]) -> None:
    made = []
    for number, kind in enumerate(trees):
        made.append(stays() if kind == "s" else experiment(number, 5))
        for row in made[-1]["checkpoints"]:
            row["best"] &= kind == "+"
    found = [line["text"] for line in sections(plan(made))["assurances"]]
    assert len(found) == len(lines)
    assert all(words in line for words, line in zip(lines, found, strict=True))


def by(*goes: str, of: str = "val_loss", marked: str = "stays") -> Data:
    """Make an experiment of which the best by some metrics goes; that by ``of`` is marked, and stays or goes."""
    one = {**experiment(0, 5), "metric": of and {"name": of, "mode": "min"}, "best_goes": [*goes]}
    for row in one["checkpoints"]:
        row["state"] = marked if row["best"] else row["state"]
        row["last"] = False
    return one


KEPT = "The best by val_loss and the last"


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        ([by("acc")], [f"{KEPT} checkpoint stay; nothing pinned goes.", "Not kept: the best by acc in 1 experiment."]),
        (
            [by("acc", "f1"), by("acc"), by()],
            [f"{KEPT} of all 3 experiments stay; nothing pinned goes.",
             "Not kept: the best by acc in 2 experiments, the best by f1 in 1 experiment."],
        ),
        (
            [by("val_loss"), by()],  # of one run in it; the best of another one is that of the directory
            ["The best by val_loss of 1 experiment and the last of all 2 stay; nothing pinned goes.",
             "Not kept: the best by val_loss in 1 experiment."],
        ),
        ([by("val_loss", marked="goes")], ["1 of the 4 that go is the best of its experiment."]),
        (
            [by("val_loss", "acc", marked="goes")],
            ["1 of the 4 that go is the best of its experiment.", "Not kept: the best by acc in 1 experiment."],
        ),
    ],
)  # fmt: skip
def test_it_says_by_which_metric_the_best_stays_where_that_by_another_goes(made: list[Data], lines: list[str]) -> None:
    """`The best of all 4 experiments stay`, it said, and below, three times, `the best by val/acc goes`."""
    assert [line["text"] for line in sections(plan(made))["assurances"]] == lines


@pytest.mark.parametrize(("key", "words"), [("best", "the best"), ("last", "the last"), ("pinned", "pinned")])
def test_it_warns_where_something_goes_that_may_be_missed(key: str, words: str) -> None:
    one = experiment(0, 5)
    assert [line["kind"] for line in sections(plan([one]))["assurances"]] == [""]
    next(row for row in one["checkpoints"] if row["state"] == "goes")[key] = True
    warned = sections(plan([one]))["assurances"]
    assert [line["kind"] for line in warned] == ["warns"]
    assert words in warned[0]["text"]


def test_what_needs_a_person_stands_with_what_settles_it() -> None:
    read = Read(draw(sample()))
    said = " ".join(read.texts["needs-you"].split())
    assert "both would become epoch-03_step-004000.ckpt" in said
    assert "doit migrate on_conflict=keep_newest" in said
    assert "match: 'weird-checkpoint-(?P<number>" in said


def test_names_that_one_draft_reads_stand_together() -> None:
    trees = [stays(1) for _ in range(3)]
    for number, one in enumerate(trees):
        row = {
            "name": f"odd-{number}.ckpt",
            "kind": "unrecognised",
            "reasons": [],
            "bytes": 1,
            "time_ns": 1,
            "draft": "the lines",
        }
        one["skipped"] = [row]
    needs = sections(plan(trees))["needs"]
    assert [need["names"] for need in needs] == [["odd-0.ckpt", "odd-1.ckpt", "odd-2.ckpt"]]


@pytest.mark.parametrize(("mode", "value"), [("min", 0.2), ("max", 0.9)])
def test_of_several_called_best_the_best_is_told(mode: str, value: float) -> None:
    one = experiment(0, 4) | {"metric": {"name": "acc", "mode": mode}}
    for row, acc in zip(one["checkpoints"], (0.5, 0.9, 0.2, 0.95), strict=True):
        row.update(metrics={"acc": acc}, best=acc != 0.95)
    assert f"best acc {value} ·" in sections(plan([one]))["experiments"][0]["about"]


def test_what_is_no_number_is_passed_over() -> None:
    """A loss of NaN, of what a link calls the best, and ``model_final.pt`` of a rule that takes any word for a step."""
    one = experiment(0, 3) | {"metric": {"name": "loss", "mode": "min"}, "number": "step"}
    for row, loss, step in zip(one["checkpoints"], (None, 0.5, 0.7), ("final", 100, 200), strict=True):
        row.update(metrics={"loss": loss}, fields={"step": step}, best=loss != 0.7)
    assert sections(plan([one]))["experiments"][0]["about"].startswith("3 checkpoints · step 200 · best loss 0.5 · ")
    data = sample()
    data["history"][0].update(when=None, started_ns=None)
    draw(data)


def test_experiments_stand_biggest_first_on_one_scale() -> None:
    trees = [experiment(i, many) for i, many in enumerate((2, 9, 4))]
    rows = sections(plan(trees))["experiments"]
    assert [row["name"] for row in rows] == ["exp_0001", "exp_0002", "exp_0000"]
    lengths = [sum(part["share"] for part in row["parts"]) for row in rows]
    assert lengths[0] == pytest.approx(100)
    sizes = [row["stays"] + row["goes"] for row in rows]
    assert lengths == pytest.approx([100 * size / sizes[0] for size in sizes])


def test_the_parts_of_space_are_the_whole_bar() -> None:
    found = sections(sample())["space"]
    *bar, _ = found["parts"]  # the last one tells of what is there twice
    ends = list(accumulate(part["share"] for part in bar))
    assert [part["at"] for part in bar] == pytest.approx([0, *ends[:-1]])
    assert ends[-1] == pytest.approx(100)
    assert sum(
        part["bytes"] for part in found["parts"] if part["kind"] in ("protected", "kept", "goes", "undecided")
    ) == sum(row["bytes"] for one in sample()["experiments"] for row in one["checkpoints"])


def test_what_went_counts_once_in_the_bar_and_on_the_disk() -> None:
    done = sections(sample() | {"dry_run": False})["space"]
    assert [part["name"] for part in done["parts"]] == [
        "protected", "kept", "needs you", "in the trash", "the same bytes twice",
    ]  # fmt: skip
    assert done["disk"] == "The disk has 620 GB of 8 TB free; 1.03 TB when the trash is empty."


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"trash": 0}, "The disk has 620 GB of 8 TB free."),
        ({"trash": 10**9}, "The disk has 620 GB of 8 TB free; 621 GB when the trash is empty."),
        ({"trash": 10**9, "disk_free": None}, ""),
    ],
)
def test_an_undo_knows_the_disk_and_not_what_goes(given: Data, sentence: str) -> None:
    nothing = dict.fromkeys(("protected", "kept", "goes", "undecided", "same_twice"))
    room = {**sample()["space"], **nothing, **given}
    page = sections(plan([], command="undo", dry_run=True, space=room))
    assert (page["space"] or {"disk": sentence})["disk"] == sentence


def test_a_line_that_keeps_nothing_is_marked_but_for_a_floor() -> None:
    data = sample()
    data["rules"]["lines"].append({**data["rules"]["lines"][-1], "key": "keep_at_least", "value": "1"})
    assert [row["idle"] for row in sections(data)["rules"]] == [False, False, False, True, False]


def test_what_was_taken_back_does_not_count_as_deleted() -> None:
    deleted = sections(sample())["deleted"]
    assert deleted["total"] == 1_712 * 10**9
    assert (deleted["first"], deleted["last"]) == ("2026-11-02", "2026-11-20")
    assert deleted["label"].startswith("1.71 TB deleted by ")  # what waits in the trash is not free


def test_of_very_many_experiments_the_smaller_ones_are_summed_up() -> None:
    trees = [{**stays(1), "directory": f"{i}/checkpoints", "experiment": str(i)} for i in range(1200)]
    page = sections(plan(trees))
    assert len(page["experiments"]) == 1000
    assert (
        page["other_experiments"] == "And 200 smaller experiments: 200 KB stay, 0 B go. Their checkpoints stand below."
    )


@pytest.mark.parametrize(("trees", "each", "most"), [(20, 50, 250_000), (100, 100, 1_500_000)])
def test_it_stays_small(trees: int, each: int, most: int) -> None:
    assert len(draw(plan([experiment(i, each) for i in range(trees)])).encode()) < most


def without_each(data: Data) -> Iterator[Data]:
    """Yield the data without one of its keys, for each key that it has, also deep inside."""
    for key, value in data.items():
        yield {k: v for k, v in data.items() if k != key}
        yield {**data, key: 7}
        if isinstance(value, dict):
            yield from ({**data, key: less} for less in without_each(value))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from ({**data, key: [less, *value[1:]]} for less in without_each(value[0]))


def test_data_that_lack_something_give_a_page_or_a_refusal() -> None:
    refused = drawn = 0
    for broken in without_each(plan([experiment(0, 2)])):
        try:
            draw(broken)
            drawn += 1
        except PageError:
            refused += 1
    assert refused > 50
    assert drawn > 20


@pytest.mark.parametrize("data", [{}, [], None, 5, {"schema_version": 1}, {"schema_version": "2"}])
def test_other_data_are_refused_by_their_version(data: Any) -> None:
    with pytest.raises(PageError, match="schema_version 2 is wanted, not"):
        draw(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda page: page.replace('"json": "', '"json": "!'),
        lambda page: page.replace("gzip, base64", "<"),
        lambda page: re.sub(r'"json": "[^"]*"', '"json": ""', page),
        lambda page: page.replace('{"encoding"', "{"),
    ],
)
def test_a_page_whose_data_are_spoilt_is_refused(spoil: Callable[[str], str]) -> None:
    with pytest.raises(PageError):
        draw(unpacked(spoil(draw(plan([experiment(0, 2)])))))


def test_a_reason_names_its_rule() -> None:
    assert GOES["rule"]
    one = sections(sample())["experiments"][0]
    assert one["notes"] == ["policy 'default' (rules/retention.yaml:4)"]
