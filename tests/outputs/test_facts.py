"""Files that know more are found below the folder of the experiments only, and read within bounds."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest

from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.ruleset import Fact, Location
from ckptrules.outputs import facts
from ckptrules.outputs.listing import scan
from ckptrules.rules.load import load_rules

RULES = load_rules(
    {
        "naming.yaml": r"""
layout: ['*/checkpoints']
target: {template: 'c-{{ step }}', match: 'c-(?P<step>\d+)', examples: [c-1]}
retention: {default: {keep: all}}
"""
    }
)
HERE = "run/checkpoints"
PLACE = Location("rules.yaml", 1, 1)


def put(folder: Path, path: str, content: str | bytes) -> Path:
    file = folder / HERE / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def listed(folder: Path) -> Listing:
    """Return what lies there, the oldest first: a disk may list it in any order."""
    listing = scan(str(folder), Directory("run", HERE))
    return listing._replace(entries=tuple(sorted(listing.entries)))


def read(folder: Path, *wanted: Fact, metrics: bool = True) -> tuple[Evidence, list[str]]:
    listing = listed(folder)
    names = facts.names_of(listing, RULES)
    evidence, notes = facts.read_facts(
        str(folder), listing, facts.find_sources(str(folder), listing, wanted, names), names, metrics=metrics
    )
    return evidence, [note.text for note in notes]


def by_step(file: str, *, within: bool = False, rows: str = "", best: str = "") -> Fact:
    return Fact(file, PLACE, within, rows, (("step", "step"),), best=best)


@pytest.fixture(name="tree")
def a_tree(tmp_path: Path) -> Path:
    outputs = tmp_path / "outputs"
    for step in (1, 2):
        put(outputs, f"c-{step}/model.pt", "weights")
    return outputs


ROW = '{"step": 1, "acc": 0.5}'
TELLS = {"acc": "0.5"}
NONE = "no row of f.json names a checkpoint of this directory"
CONTENTS: Mapping[str, tuple[str, str | bytes, Mapping[str, str], str]] = {
    "a document": ("f.json", ROW, TELLS, ""),
    "a list": ("f.json", f"[{ROW}]", TELLS, ""),
    "lines": ("f.json", f"{ROW}\n\n" + '{"step": 2, "acc": 1}\n', TELLS, ""),
    "a last line that is being written": ("f.json", f"{ROW}\n" + '{"step": 2, "ac', TELLS, ""),
    "a line that is none": ("f.json", f"oops\n{ROW}\n", TELLS, "f.json is no JSON in 1 of 2 lines, the first of them 1"),
    "no JSON": ("f.json", "step 1", {}, "f.json is no JSON in 1 of 1 lines, the first of them 1"),
    "an empty file": ("f.json", "", {}, ""),
    "UTF-16": ("f.json", ROW.encode("utf-16"), TELLS, ""),
    "a step that is text": ("f.json", '{"step": "1", "acc": 0.5}', TELLS, ""),
    "a step with a fraction": ("f.json", '{"step": 1.0, "acc": 0.5}', TELLS, ""),
    "a step between": ("f.json", '{"step": 1.5, "acc": 0.5}', {}, NONE),
    "a step that is true": ("f.json", '{"step": true, "acc": 0.5}', {}, NONE),
    "a step that is nan": ("f.json", '{"step": NaN, "acc": 0.5}', {}, NONE),
    "no step": ("f.json", '{"acc": 0.5}', {}, NONE),
    "metrics below a key": ("f.json", '{"step": 1, "metrics": {"acc": 0.5}}', TELLS, ""),
    "texts and truths are no metrics": ("f.json", '{"step": 1, "acc": 0.5, "a": "0.5", "b": true, "c": []}', TELLS, ""),
    "deep JSON": ("f.json", "[" * 90_000, {}, "f.json is no JSON in 1 of 1 lines, the first of them 1"),
    "many values": ("f.json", "[" + "1," * 2_000_001 + "1]", {}, "f.json is not understood: JSON of more than 2 million values is not read"),
    "a number that is huge": ("f.json", f'{{"step": {"9" * 5000}, "acc": 0.5}}', {}, NONE),
    "a text that is a huge number": ("f.json", f'{{"step": "{"9" * 5000}", "acc": 0.5}}', {}, NONE),
    "no ending that is known": ("log.txt", ROW, TELLS, ""),
    "a table": ("f.csv", "step,acc\n1,0.5\n", TELLS, ""),
    "a table with spaces and a mark": ("f.csv", "\ufeff  step ,  acc\r\n   1,  0.5\r\n", TELLS, ""),
    "a table with a second head": ("f.csv", "step,acc\n1,0.5\nstep,acc\n2,1\n", TELLS, ""),
    "a table whose rows are short and long": ("f.csv", "step,acc\n1,0.5,7\n2\n", TELLS, ""),
    "a table of tabs": ("f.tsv", "step\tacc\n1\t0.5\n", TELLS, ""),
    "a table of semicolons": ("f.csv", "step;acc\n1;0.5\n", {}, NONE.replace("json", "csv")),
    "a table in UTF-16": ("f.csv", "step,acc\n1,0.5\n".encode("utf-16"), {}, NONE.replace("json", "csv")),
    "a table of a head": ("f.csv", "step,acc\n", {}, ""),
    "an empty table": ("f.csv", "", {}, ""),
    "a quote that never ends": ("f.csv", 'step,acc\n1,0.5\n2,"' + "x" * 200_000, TELLS, "f.csv is not understood: field larger than field limit (131072)"),
    "bytes that are no text": ("f.csv", b"step,acc\n1,0.5\n\xff,\xfe\n\0,\0\n", TELLS, ""),
    "YAML": ("f.yaml", "step: 1\nacc: 0.5\n", TELLS, ""),
    "YAML with a tag": ("f.yml", "step: 1\nacc: 0.5\nx: !!python/object/apply:os.system ['false']\n", TELLS, ""),
    "YAML with an alias": ("f.yml", "a: &a [1]\nb: *a\nstep: 1\nacc: 0.5\n", TELLS, ""),
    "YAML with a bomb": ("f.yml", "a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]\nstep: 1\nacc: 0.5\n", TELLS, ""),
    "YAML with a key that is a list": ("f.yml", "? [1]\n: 2\nstep: 1\nacc: 0.5\n", TELLS, ""),
    "YAML in quotes is no number": ("f.yml", "step: 1\nacc: 0.5\nx: '2'\n", TELLS, ""),
    "deep YAML": ("f.yml", "[" * 60, {}, "f.yml is not understood: nested too deeply"),
    "no YAML": ("f.yml", "a: b: c", {}, "f.yml is not understood: no YAML: mapping values are not allowed in this context"),
    "long YAML": ("f.yml", "#" * 2**18 + "\n", {}, "f.yml is not understood: YAML of more than 256 KB is not read"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENTS)
def test_what_a_file_tells(tree: Path, case: str) -> None:
    name, content, metrics, note = CONTENTS[case]
    put(tree, name, content)
    told, notes = read(tree, by_step(name))
    assert told.metrics.get("c-1", {}) == metrics
    assert notes == [note] * bool(note)


@pytest.mark.parametrize(
    ("content", "metrics", "noted"),
    [
        ('{"step": 7, "best": "c-1"}', True, False),  # the name of the best is enough
        ('{"step": 7}', True, True),
        ('{"step": 7}', False, True),  # it may have named the best
        ('{"step": 1}', True, False),
    ],
)
def test_rows_that_are_about_nothing_here_are_noted(tree: Path, content: str, *, metrics: bool, noted: bool) -> None:
    """A table with semicolons named the best, and nothing said that it was not understood."""
    put(tree, "f.json", content)
    assert read(tree, by_step("f.json", best="best"), metrics=metrics)[1] == [NONE] * noted
    put(tree, "g.json", ROW)
    fact = by_step("[fg].json", best="best")
    assert read(tree, fact, metrics=metrics)[1] == []  # of files that fit one pattern, one is enough
    assert read(tree, by_step("f.json"), metrics=False)[1] == []  # nobody asks for its metrics


@pytest.mark.whole
def test_a_table_of_many_rows_costs_a_few_times_its_bytes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MOST_ROWS", 20_000)  # each row that is watched takes long
    content = b"step,acc\n" + b"1,0.5\n" * 200_000
    put(tree, "f.csv", content)
    tracemalloc.start()
    told, notes = read(tree, by_step("f.csv"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (told.metrics["c-1"], notes) == (TELLS, ["f.csv has more than 20,000 rows: the rest is not read"])
    assert peak < 6 * len(content)


def test_half_of_a_letter_names_no_checkpoint(tree: Path) -> None:
    put(tree, "f.json", r'{"step": 1, "best": "runs/\ud800/c-1", "\ud800": 0.5, "acc": 0.5}')
    told, notes = read(tree, by_step("f.json", best="best"))
    assert (told.metrics["c-1"]["acc"], told.pointers, notes) == ("0.5", {}, [])


@pytest.mark.parametrize(
    ("file", "at"),
    [
        ("f.json", "f.json"),
        ("../f.json", "../f.json"),
        ("../../f.json", "../../f.json"),
        ("sub/f.json", "sub/f.json"),
        ("*/vis_data/s?.json", "20240101/vis_data/s1.json"),
        ("../v[0-9]/f.json", "../v1/f.json"),
    ],
)
def test_where_a_file_may_lie(tree: Path, file: str, at: str) -> None:
    put(tree, at, ROW)
    told, notes = read(tree, by_step(file))
    assert (told.metrics, notes) == ({"c-1": TELLS}, [])


def test_a_file_that_is_not_there_is_no_news(tree: Path) -> None:
    assert read(tree, by_step("f.json"), by_step("*/x/f.json"), by_step("f.json", within=True)) == (Evidence(), [])


def test_no_path_leads_out_and_no_link_is_followed(tree: Path) -> None:
    secret = tree.parent / "secret"
    secret.mkdir()
    (secret / "f.json").write_text(ROW)
    here = tree / HERE
    (here / "link.json").symlink_to(secret / "f.json")
    (here / "folder").symlink_to(secret)
    (tree / "outside").symlink_to(secret)
    (tree / ".ckptrules").mkdir()
    (tree / ".ckptrules/f.json").write_text(ROW)
    asked = ["../../../secret/f.json", "../../.ckptrules/f.json", "folder/f.json", "f*/f.json", "../../outside/f.json"]
    told, notes = read(tree, *map(by_step, asked), by_step("link.json"))
    assert told.metrics == {}
    outside = "lies outside of the folder of the experiments: not read"
    assert notes[:2] == [f"{path} {outside}" for path in asked[:2]]
    assert notes[2:] == [f"link.json cannot be read: {os.strerror(40)}"]


def test_what_is_no_plain_file_holds_nothing_up(tree: Path) -> None:
    os.mkfifo(tree / HERE / "pipe.json")
    (tree / HERE / "folder.json").mkdir()
    _, notes = read(tree, by_step("pipe.json"), by_step("folder.json"))
    assert notes == [f"{name}.json cannot be read: is not a plain file" for name in ("pipe", "folder")]


def test_a_file_without_a_right_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "f.json", ROW)

    def refuse(*_: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ckptrules.storage.reading.open_file", refuse)
    assert read(tree, by_step("f.json"))[1] == ["f.json cannot be read: Permission denied"]


@pytest.mark.parametrize(("file", "call"), [("f.json", "open_file"), ("*.json", "open_below")])
def test_a_read_that_fails_is_not_taken_for_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch, file: str, call: str
) -> None:
    put(tree, "f.json", ROW)

    def fail(*_: object) -> object:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(f"ckptrules.storage.reading.{call}", fail)
    with pytest.raises(OSError, match="Input/output"):
        read(tree, by_step(file))


def test_what_is_too_long_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tree, "a.json", ROW)
    put(tree, "b.json", ROW)
    put(tree, "long.json", ROW + " " * 100)
    put(tree, "rows.csv", "step,acc\n1,0.5\n1,0.6\n1,0.7\n")
    monkeypatch.setattr(facts, "LONGEST", 50)
    monkeypatch.setattr(facts, "LONGEST_SUM", 60)
    monkeypatch.setattr(facts, "MOST_ROWS", 2)
    told, notes = read(tree, *map(by_step, ("long.json", "a.json", "rows.csv", "b.json", "b.json")))
    assert notes == [
        "long.json is longer than 0 MB: not read",
        "rows.csv has more than 2 rows: the rest is not read",
        "b.json is not read: too long together with what was read before; nor are 1 more",
    ]
    assert told.metrics == {"c-1": TELLS}


@pytest.mark.parametrize("metrics", [True, False])
def test_all_files_of_the_newest_say_which_one_is_the_best(tree: Path, metrics: bool) -> None:  # noqa: FBT001 - a case
    for step in (3, 4):
        put(tree, f"c-{step}/model.pt", "weights")
    for step, by_acc, by_loss in ((3, 2, 3), (4, 1, 2)):
        put(tree, f"c-{step}/best_acc.json", json.dumps({"best": f"c-{by_acc}"}))
        put(tree, f"c-{step}/best_loss.json", json.dumps({"best": f"c-{by_loss}"}))
    fact = by_step("best_*.json", within=True, best="best")
    told, _ = read(tree, fact, metrics=metrics)
    named = {path: [one.name for one in said] for path, said in told.pointers.items()}
    assert named == {"c-4/best_acc.json": ["c-1"], "c-4/best_loss.json": ["c-2"]}
    put(tree, "c-4/best_loss.json", "{")
    assert read(tree, fact, metrics=metrics)[0].best_unknown == ("c-4/best_loss.json",)


def test_where_the_best_is_not_read_for_want_of_room_nobody_knows_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        put(tree, f"c-{step}/s.json", '{"best": "c-1"}')
    put(tree, "best.json", '{"best": "c-1"}')
    within = by_step("s.json", within=True, best="best")
    monkeypatch.setattr(facts, "LONGEST_SUM", 20)
    told, notes = read(tree, within, by_step("best.json", best="best"))
    assert told.best_unknown == ("best.json",)  # of those inside the newest was read
    assert notes == ["c-1/s.json is not read: too long together with what was read before; nor are 1 more"]


def test_of_many_files_the_last_are_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        put(tree, f"v{number}.json", json.dumps({"step": 1, f"m{number}": number}))
    monkeypatch.setattr(facts, "MOST_FILES", 2)
    told, notes = read(tree, by_step("v*.json"))
    assert told.metrics == {"c-1": {"m3": "3", "m4": "4"}}
    assert notes == ["v*.json fits 5 files: the last 2 are read"]


def test_each_folder_checkpoint_tells_of_itself(tree: Path) -> None:
    for step in (1, 2):
        put(tree, f"c-{step}/s.json", json.dumps({"log": [{"step": n, "acc": n / 4} for n in (1, 2)], "best": "c-1"}))
    put(tree, "other/s.json", json.dumps({"log": [{"step": 1, "acc": 9}]}))
    told, _ = read(tree, by_step("s.json", within=True, rows="log", best="best"))
    assert told.metrics == {"c-1": {"acc": "0.25"}, "c-2": {"acc": "0.5"}}
    assert {path: [one.name for one in said] for path, said in told.pointers.items()} == {"c-2/s.json": ["c-1"]}


def test_files_inside_checkpoints_are_read_from_the_newest_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (3, 10):
        put(tree, f"c-{step}/model.pt", "weights")
    state = '{"log": [{"step": %s, "acc": 1}], "best": "c-%s"}'
    for step in (1, 2, 3, 10):
        put(tree, f"c-{step}/s.json", state % (step, 2 if step == 10 else 1))
    monkeypatch.setattr(facts, "LONGEST_SUM", 2 * len(state) + 2)
    fact = by_step("s.json", within=True, rows="log", best="best")
    told, notes = read(tree, fact)
    assert sorted(told.metrics) == ["c-10", "c-3"]
    assert list(told.pointers) == ["c-10/s.json"]
    assert notes == ["c-2/s.json is not read: too long together with what was read before; nor are 1 more"]
    told, notes = read(tree, fact, metrics=False)
    assert (list(told.pointers), notes) == (["c-10/s.json"], [])
    put(tree, "c-10/s.json", '{"best": null}')
    assert list(read(tree, fact, metrics=False)[0].pointers) == ["c-3/s.json"]


def test_the_name_of_a_checkpoint_is_no_pattern(tree: Path) -> None:
    put(tree, "c-[1]/s.json", ROW)
    found = facts.find_sources(str(tree), listed(tree), [by_step("s.json", within=True)], {"c-[1]": {"step": "1"}})
    assert found.paths == ["c-[1]/s.json"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1_700_000_000),
        ("1700000000.5", 1_700_000_000.5),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000),
        ("2023-11-14 22:13:20Z", 1_700_000_000),
        ("'2023-11-15T00:13:20+02:00'", 1_700_000_000),
        ("0", None),
        ("-5", None),
        (".nan", None),
        (".inf", None),
        ("1e300", None),
        ("true", None),
        ("soon", None),
        ("2023-13-01", None),
        ("[1700000000]", None),
    ],
)
def test_a_time(tree: Path, text: str, seconds: float | None) -> None:
    put(tree, "c-1/meta.yaml", f"unixtime: {text}\n")
    told, _ = read(tree, Fact("meta.yaml", PLACE, within=True, time="unixtime"))
    assert told.times == ({} if seconds is None else {"c-1": int(seconds * 1_000_000_000)})


@pytest.mark.parametrize(
    ("accs", "losses", "best", "score", "by"),
    [
        ((0.5, 1.0), (2.0, 1.5), "c-2", 1.0, ("acc", "max")),
        ((0.5, 1.0), (2.0, 1.5), "out/c-2", 1.5, ("loss", "min")),
        ((0.5, 1.0), (2.0, 1.5), "c-1", 0.5, ("acc", "min")),  # whatever it is called: the framework says so
        ((0.5, 1.0), (2.0, 1.0), "c-2", 1.0, ("", "")),  # it may be either
        ((1.0, 1.0), (2.0, 1.5), "c-2", 1.0, ("", "")),  # which end of it is the best, nothing tells
        ((0.5, 1.0), (2.0, 1.5), "c-2", 0.7, ("", "")),
        ((0.5, 1.0), (2.0, 1.5), "c-2", None, ("", "")),
        ((0.5, 1.0), (2.0, 1.5), "c-9", 1.0, ("", "")),
    ],
)
def test_the_score_of_the_best_tells_by_which_metric(
    tree: Path,
    accs: tuple[float, float],
    losses: tuple[float, float],
    best: str,
    score: float | None,
    by: tuple[str, str],
) -> None:
    for step, (acc, loss) in enumerate(zip(accs, losses, strict=True), start=1):
        rows = [{"step": step, "acc": acc}, {"step": step, "loss": loss}]
        put(tree, f"c-{step}/state.json", json.dumps({"best": best, "best_score": score, "log": rows}))
    fact = by_step("state.json", within=True, rows="log", best="best")._replace(score="best_score")
    assert read(tree, fact)[0].best_by == by
