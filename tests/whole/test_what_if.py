"""The JSON of a plan says what other options would come to: what the commands that it names come to."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from ckptrules.run.deciding import decided_of
from ckptrules.run.declared import declared
from ckptrules.run.jobs import jobs_of
from ckptrules.run.options import Planning
from ckptrules.run.session import Session
from ckptrules.run.what_if import weigh, with_others
from ckptrules.run.words import read_command_line
from tests.conftest import Project, default, run_program
from tests.whole.test_golden import FILES

pytestmark = pytest.mark.whole

SIZE = 1000
NAMING = "target: {match: 'e(?P<epoch>\\d+)(_(?P<hmean>0\\.\\d+))?\\.ckpt', template: 'e{{ epoch }}.ckpt', examples: [e77.ckpt]}\n"
TEN = [f"a/e{number}.ckpt" for number in range(1, 11)]
TWO_RUNS = [f"{run}/e{number}_0.{(number * 7 + at) % 10}.ckpt" for at, run in enumerate("ab") for number in range(1, 7)]


class Case(NamedTuple):
    """Rules, one line of a policy a line; checkpoints, the oldest first (``PATH -> PATH``: a second name), the words."""

    rules: str
    files: Sequence[str] = TEN
    words: str = "plan delete_old=1"


CASES: Mapping[str, Case] = {
    "several lines": Case("  default:\n    min_epoch: 9\n    keep_last: 3\n    keep_every_epochs: 4\n"),
    "nothing is deleted": Case("  default:\n    min_epoch: 9\n    keep_last: 3\n", words="plan"),
    "other words than any row": Case("  default: {min_epoch: 9}\n", words="plan delete_old=1 keep_last=4 keep_min_epoch=8"),
    "another policy": Case(
        "  default: {min_epoch: 9}\n  'it''s':\n    keep_last: 7\n    max_total_size: 4KB\n",
        words="plan delete_old=1 policy=it's",
    ),
    "an assigned policy": Case(
        "  default:\n    keep_last: 3\n    min_epoch: 4\n  all: {keep: all}\nexperiments: [{match: b, policy: all}]\n", TWO_RUNS,
    ),
    "a budget": Case("  default:\n    keep_last: 1\n    min_epoch: 6\nbudget: {total: 5KB}\n", TWO_RUNS),
    "the best across experiments": Case(
        "  default:\n    keep_last: 1\n    keep_best: {metric: hmean, mode: max, count: 2, across: '*'}\n", TWO_RUNS,
    ),
    "names of one file in several experiments": Case(
        "  default:\n    keep_last: 1\n    min_epoch: 3\n",
        ["a/e1.ckpt", "a/e2.ckpt", "a/e3.ckpt", "b/e1.ckpt -> a/e1.ckpt", "b/e3.ckpt -> a/e2.ckpt", "b/e5.ckpt -> a/e3.ckpt"],
    ),
    "one experiment": Case("  default:\n    keep_last: 2\n    min_epoch: 3\n", TWO_RUNS, "plan:b delete_old=1"),
    "a pattern": Case("  default:\n    keep_last: 2\n    min_epoch: 3\n", TWO_RUNS, "plan delete_old=1 experiments=a*"),
    "a page": Case("  default:\n    keep_last: 2\n    min_epoch: 3\n", TWO_RUNS, "page out=page.html"),
    "verified": Case("  default:\n    keep_last: 2\n    min_epoch: 3\n", words="plan delete_old=1 verified=1"),
    "protected names": Case("  default:\n    keep_last: 2\n    min_epoch: 9\nprotected:\n  - e1.ckpt\n  - e9.ckpt\n  - best*\n"),
}  # fmt: skip


def make(project: Project, case: Case) -> None:
    for file in (project.folder / "rules").iterdir():
        file.unlink()
    (project.folder / "rules/mine.yaml").write_text(f"layout: ['*']\n{NAMING}retention:\n{case.rules}")
    for number, path in enumerate(case.files):
        name, _, other = path.partition(" -> ")
        if other:
            (project.outputs / name).parent.mkdir(exist_ok=True)
            os.link(project.outputs / other, project.outputs / name)
        else:
            project.make({name: SIZE})
        os.utime(project.outputs / name, (1_600_000_000 + number, 1_600_000_000 + number))


def told(project: Project, *words: str) -> dict[str, Any]:
    """Run a command, whatever its exit code, and return its JSON."""
    path = project.folder / "told.json"
    path.unlink(missing_ok=True)
    out = run_program("doit", *words, "json=told.json", folder=project.folder, environment=default())[1]
    assert path.exists(), out
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def gone(data: Mapping[str, Any]) -> dict[str, int]:
    """Return what goes, with its bytes."""
    return {
        f"{one['directory']}/{action['name']}": action["bytes"]
        for one in data["experiments"]
        for action in one["actions"]
        if action["action"] == "trash"
    }


def check_rows(project: Project, data: Mapping[str, Any]) -> None:
    """Run the command of each row: it would delete what the row says; one row is the plan itself, if it deletes."""
    for row in data["what_if"]:
        other = told(project, *shlex.split(row["command"])[1:])
        assert {key: other["summary"][key] for key in ("bytes_deleted", "deleted")} == {
            key: row[key] for key in ("bytes_deleted", "deleted")
        }, row
    current = [row for row in data["what_if"] if row["current"]]
    assert len(current) == data["options"]["delete_old"]
    assert [row["bytes_deleted"] for row in current] == [data["summary"]["bytes_deleted"]] * len(current)


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_what_its_command_comes_to(name: str, project: Project) -> None:
    make(project, CASES[name])
    words = CASES[name].words.split()
    if "verified=1" in words:
        project.doit("verify", check=1)
    data = told(project, *words)
    assert [row["keep_last"] for row in data["what_if"]][-4:] == [1, 2, 3, 5]
    check_rows(project, data)


@pytest.mark.parametrize("name", [name for name in CASES if name != "other words than any row"])
def test_what_a_line_keeps_alone_goes_without_it(name: str, project: Project) -> None:
    make(project, CASES[name])
    words = [word for word in (*CASES[name].words.split(), "delete_old=1") if word != "verified=1"]
    words = list(dict.fromkeys(words))
    data = told(project, *words)
    file = project.folder / "rules/mine.yaml"
    text = file.read_text()
    tested = 0
    for line in data["rules"]["lines"]:
        number = int(line["rule"].partition(":")[2])
        rows = text.splitlines(keepends=True)
        if not rows[number - 1].lstrip().startswith((f"{line['key']}: ", f"- {line['value']}")):
            continue  # what stands in one line with its policy cannot be taken out of the file by that line
        file.write_text("".join([*rows[: number - 1], *rows[number:]]))
        more = gone(told(project, *words)).items() - gone(data).items()
        assert len(more) == line["alone"], line
        if "several" not in name:
            assert sum(size for _, size in more) == line["bytes_alone"], line
        tested += 1
    assert tested > 1
    file.write_text(text)


def test_lines_say_how_much_they_keep(project: Project) -> None:
    make(project, CASES["protected names"])
    found = told(project, "plan")["rules"]["lines"]
    assert [(one["key"], one["value"], one["policy"], one["keeps"], one["alone"], one["bytes_alone"]) for one in found] == [
        ("keep_last", "2", "default", 2, 0, 0),
        ("min_epoch", "9", "default", 2, 0, 0),
        ("protected", "e1.ckpt", None, 1, 1, SIZE),
        ("protected", "e9.ckpt", None, 1, 0, 0),
        ("protected", "best*", None, 0, 0, 0),
    ]  # fmt: skip


def test_pins_and_pointers_have_lines_of_their_own(project: Project) -> None:
    """They kept checkpoints, and no line of the rules in force said so."""
    make(project, Case("  default: {keep_last: 1}\n", [f"{x}/e{n}.ckpt" for x in "ab" for n in (1, 2, 3)]))
    with (project.folder / "rules/mine.yaml").open("a") as file:
        file.write("pointers: [chosen, 'best*', {match: SUMS, protects: false}]\n")
    for pointer, name in (("a/chosen", "e2.ckpt"), ("b/chosen", "e3.ckpt"), ("b/SUMS", "e1.ckpt")):
        (project.outputs / pointer).write_text(f"newest: {name}\n")
    project.doit("pin", "name=a/e1.ckpt")
    found = [line for line in told(project, "plan", "delete_old=1")["rules"]["lines"] if line["key"] != "protected"]
    assert [(one["key"], one["value"], one["rule"], one["keeps"], one["alone"], one["bytes_alone"]) for one in found] == [
        ("pins", "rules/pins.yaml", None, 1, 1, SIZE),
        ("keep_last", "1", "rules/mine.yaml:4", 2, 0, 0),
        ("pointers", "chosen", "rules/mine.yaml:5", 2, 1, SIZE),
    ]  # fmt: skip


def test_a_row_is_what_its_command_comes_to_in_the_golden_tree(project: Project) -> None:
    for path, content in FILES.items():
        file = project.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(content) if isinstance(content, str) else file.write_bytes(content)
    for words in ("plan delete_old=1", "plan delete_old=1 on_conflict=keep_newest keep_last=1"):
        check_rows(project, told(project, *words.split()))


def test_processes_that_share_the_tree_weigh_it_together(project: Project) -> None:
    make(project, Case(CASES["a budget"].rules, [f"r{n}/e{e}.ckpt" for n in range(30) for e in (1, 2, 3)]))
    alone, shared = told(project, "plan", "delete_old=1"), told(project, "-n", "2", "plan", "delete_old=1")
    assert alone["what_if"] == shared["what_if"]
    assert alone["rules"]["lines"] == shared["rules"]["lines"]


def test_what_cannot_be_read_is_told_by_the_plan_and_weighs_nothing(project: Project) -> None:
    make(project, Case("  default: {keep_last: 1}\n", ["a/e1.ckpt", "a/e2.ckpt", "b/e1.ckpt", "b/e2.ckpt", "b/latest"]))
    with (project.folder / "rules/mine.yaml").open("a") as file:
        file.write("pointers: [latest]\n")
    (project.outputs / "b/latest").unlink()
    (project.outputs / "b/latest").mkdir()
    (project.outputs / "b/latest/x").write_text("")
    data = told(project, "plan", "delete_old=1")
    assert [row["deleted"] for row in data["what_if"]] == [data["summary"]["deleted"]] * 2 + [0, 0, 0]
    check_rows(project, data)


def test_a_directory_that_has_gone_weighs_nothing(project: Project) -> None:
    make(project, Case("  default: {keep_last: 1}\n"))
    session = Session(read_command_line(["plan"]), {})
    options = declared("plan")(outputs_dir=str(project.outputs), rules_dir=str(project.folder / "rules"))
    assert isinstance(options, Planning)
    job, pairs = jobs_of(session, "plan", options.but(delete_old=True, dry_run=True))
    ((own, found),) = with_others(session, "plan", job, pairs)[0]
    read = decided_of(own, found)
    assert own.others
    assert weigh(own, own.others, read)
    assert weigh(own, own.others, read._replace(listing=read.listing._replace(directory="gone"))) is None
