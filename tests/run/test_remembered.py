"""What is remembered as up to date is what a new plan would say: whatever a line reads is looked at again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Project
from tests.support import crash
from tests.support.torch_files import lightning_file
from tests.support.undisturbed import wait_a_tick

pytestmark = pytest.mark.whole

NUMBERS = r"""
layout: ['*/checkpoints']
target: {template: 'epoch-{{ epoch | pad(2) }}_step-{{ step | pad(6) }}.ckpt', match: 'epoch-(?P<epoch>\d{2,})_step-(?P<step>\d{6,})\.ckpt', examples: [epoch-01_step-000001.ckpt]}
legacy:
  - {id: letters, match: 'e(?P<e>\d+)i(?P<i>\d+)\.ckpt', template: 'epoch-{{ e | pad(2) }}_step-{{ i | pad(6) }}.ckpt', examples: {e1i2.ckpt: epoch-01_step-000002.ckpt}}
  - {id: steps, match: 's(?P<step>\d+)\.ckpt', template: 'epoch-99_step-{{ step | pad(6) }}.ckpt', examples: {s5.ckpt: epoch-99_step-000005.ckpt}}
"""


def name(epoch: int) -> str:
    return f"epoch-{epoch:02}_step-{epoch:06}.ckpt"


def put(project: Project, path: str, text: str = "content", *, age: int = 1000) -> Path:
    file = project.outputs / "exp" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (time.time() - age, time.time() - age))
    return file


def deletions(project: Project, command: str, *arguments: str) -> list[str]:
    place = project.folder.parent / "run.json"
    ended = crash.run_in_turn(project.folder, command, "delete_old=1", f"json={place}", *arguments)
    assert "Traceback" not in ended.output, ended.output
    rows = json.loads(place.read_text())["experiments"]
    return [action["name"] for row in rows for action in row.get("actions", ()) if action["action"] == "trash"]


def state_of(project: Project, *arguments: str) -> str:
    place = project.folder.parent / "run.json"
    crash.run_in_turn(project.folder, "migrate", "delete_old=1", f"json={place}", *arguments)
    return str(json.loads(place.read_text())["experiments"][0]["state"])


@pytest.mark.parametrize("policy", ["{min_epoch: 10}", "{keep_last: 2}", "{keep_every_epochs: 2}", "{keep: protected}"])
@pytest.mark.parametrize("names", [["e1i1", "e2i2", "e11i11", "e12i12"], ["e1i1", "e12i12", "s1", "s2"]])
def test_what_the_new_name_tells_decides_the_first_time(project: Project, names: list[str], policy: str) -> None:
    (project.folder / "rules" / "naming.yaml").write_text(NUMBERS)
    (project.folder / "rules" / "retention.yaml").write_text(f"retention: {{default: {policy}}}\n")
    for n, one in enumerate(names):
        put(project, f"checkpoints/{one}.ckpt", age=1000 - n)
    planned = deletions(project, "plan")
    assert planned
    assert deletions(project, "migrate") == planned
    assert deletions(project, "plan") == []
    assert state_of(project) == "up to date"


class Case(NamedTuple):
    """A policy, what makes the tree, what changes in it while no name does, and what the next plan deletes by that."""

    policy: str
    make: Callable[[Project], object]
    change: Callable[[Project], object]
    goes: list[str]
    rules: str = ""
    arguments: tuple[str, ...] = ()


def three(project: Project) -> None:
    for epoch in (10, 11, 12):
        put(project, f"checkpoints/{name(epoch)}", age=4000 - epoch)


def with_metrics(project: Project, *values: object) -> None:
    three(project)
    for epoch, value in zip((10, 11, 12), values, strict=True):
        put(project, f"checkpoints/{name(epoch)[:-5]}.metadata.json", json.dumps({"metrics": {"acc": value}}))


def rewrite(project: Project, path: str, text: str, *, keep_time: bool = False) -> None:
    file = project.outputs / "exp" / path
    status = file.stat()
    with open(file, "r+") as opened:
        opened.write(text)
        opened.truncate()
    if keep_time:
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def folders(project: Project) -> None:
    for epoch in (10, 11, 12):
        put(project, f"checkpoints/{name(epoch)}/rank-0/model.pt", age=(20 - epoch) * 86_400)


def named_by(text: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        three(project)
        put(project, "checkpoints/latest", text)

    return make


def linked_from_outside(project: Project) -> None:
    three(project)
    project.make({"exp/best.pt": f"-> checkpoints/{name(10)}"})


def relink(project: Project) -> None:
    (project.outputs / "exp/best.pt").unlink()
    (project.outputs / "exp/best.pt").symlink_to(f"checkpoints/{name(11)}")


FACTS = """facts:
  - {file: ../log.json, by: {step: step}}
  - {file: '../v*/log.json', by: {step: step}}
  - {file: ../best.json, best: best}
  - {file: state.json, within: true, rows: log, by: {step: step}, time: time}
"""
NONE, SOME = '{"acc": 1}', '{"step": 10, "acc": 0.1}'


def with_facts(path: str, text: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        three(project)
        put(project, "log.json", "".join(json.dumps({"step": n, "acc": n / 100}) + "\n" for n in (11, 12)))
        put(project, path, text)

    return make


def folders_with(text: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        folders(project)
        for epoch, content in ((10, text), (11, "{}"), (12, "{}")):
            put(project, f"checkpoints/{name(epoch)}/state.json", content, age=(20 - epoch) * 86_400)

    return make


INSIDE = "facts: [{file: '*.ckpt', inside: true, best: callbacks/*/best_model_path}]\n"


def calls_best(project: Project, epoch: int) -> None:
    """Let the newest checkpoint name the best inside."""
    file = put(project, f"checkpoints/{name(12)}")
    file.write_bytes(lightning_file(f"/elsewhere/{name(epoch)}"))
    os.utime(file, (time.time() - 1000, time.time() - 1000))


def three_with_a_best(project: Project) -> None:
    three(project)
    calls_best(project, 10)


BEST = "{keep_best: {metric: acc, mode: max, count: 1}}"
KEEP_1 = "{keep_last: 1}"
SIDECAR = f"{name(10)[:-5]}.metadata.json"
CASES = {
    "a metric sidecar is rewritten in place": Case(
        BEST, lambda p: with_metrics(p, "soon", 0.2, 0.3), lambda p: rewrite(p, f"checkpoints/{SIDECAR}", '{"acc": 0.1}'), [name(10)]
    ),
    "a metric sidecar is rewritten, its size and time are the same": Case(
        BEST, lambda p: with_metrics(p, "soon", 0.2, 0.3),
        lambda p: rewrite(p, f"checkpoints/{SIDECAR}", '{"metrics": {"acc": 0.1000}}', keep_time=True), [name(10)],
    ),
    "files arrive inside a checkpoint directory": Case(
        "{keep_within: 2d from newest, keep_at_least: 1}", lambda p: [put(p, f"checkpoints/{name(n)}/model.pt", age=1000) for n in (10, 11)],
        lambda p: put(p, f"checkpoints/{name(10)}/more.txt", age=-30), [],
    ),
    "a pointer file is rewritten in place": Case(KEEP_1, named_by(name(10)), lambda p: rewrite(p, "checkpoints/latest", name(11)), [name(10)]),
    "a pointer file is rewritten, its size and time are the same": Case(
        KEEP_1, named_by(name(10)), lambda p: rewrite(p, "checkpoints/latest", name(11), keep_time=True), [name(10)]
    ),
    "a row of a file of facts is rewritten in place": Case(
        BEST, with_facts("v0/log.json", NONE), lambda p: rewrite(p, "v0/log.json", SOME), [name(10)], FACTS
    ),
    "a file of facts is rewritten, its size and time are the same": Case(
        BEST, with_facts("v0/log.json", '{"step": 90, "acc": 0.1}'), lambda p: rewrite(p, "v0/log.json", SOME, keep_time=True), [name(10)], FACTS
    ),
    "a file of facts appears where a pattern finds it": Case(
        BEST, with_facts("v0/log.json", NONE), lambda p: put(p, "v1/log.json", SOME), [name(10)], FACTS
    ),
    "a file of facts appears in a folder that was there": Case(
        BEST, with_facts("v1/other", ""), lambda p: put(p, "v1/log.json", SOME), [name(10)], FACTS
    ),
    "the best that a file names is another one": Case(
        KEEP_1, with_facts("best.json", json.dumps({"best": name(10)})), lambda p: rewrite(p, "best.json", json.dumps({"best": name(11)})), [name(10)], FACTS
    ),
    "the newest checkpoint calls another one the best": Case(KEEP_1, three_with_a_best, lambda p: calls_best(p, 11), [name(10)], INSIDE),
    "a time inside a checkpoint is rewritten": Case(
        "{keep_within: 30d from newest}", folders_with('{"time": 1}'.replace("1", str(int(time.time())))),
        lambda p: rewrite(p, f"checkpoints/{name(10)}/state.json", '{"time": 1000000000}'), [name(10)], FACTS.replace("rows: log, by: {step: step}, ", "")
    ),
    "a link elsewhere leads to another": Case(KEEP_1, linked_from_outside, relink, [name(10)]),
    "a link elsewhere is gone": Case(KEEP_1, linked_from_outside, lambda p: (p.outputs / "exp/best.pt").unlink(), [name(10)]),
    "a directory grows beyond the limit": Case(
        "{max_total_size: 100B}", folders, lambda p: put(p, f"checkpoints/{name(12)}/rank-1/model.pt", "x" * 90), [name(10), name(11)]
    ),
    "a file grows beyond the limit": Case("{max_total_size: 100B}", three, lambda p: rewrite(p, f"checkpoints/{name(12)}", "x" * 99), [name(10), name(11)]),
    "a file is written anew": Case("{keep_within: 3d from newest}", three, lambda p: os.utime(p.outputs / "exp/checkpoints" / name(10), (1e9, 1e9)), [name(10)]),
    "a directory is written anew": Case(
        "{keep_within: 3d from newest}", folders, lambda p: os.utime(p.outputs / "exp/checkpoints" / name(10) / "rank-0/model.pt", (1e9, 1e9)), [name(10)]
    ),
}  # fmt: skip


def prepared(project: Project, case: Case) -> tuple[str, ...]:
    (project.folder / "rules" / "mine.yaml").write_text(f"{case.rules}retention:\n  mine: {case.policy}\n")
    case.make(project)
    wait_a_tick()
    arguments = ("policy=mine", *case.arguments)
    assert crash.run_in_turn(project.folder, "migrate", "delete_old=1", *arguments).code == 0
    assert deletions(project, "plan", *arguments) == []
    assert state_of(project, *arguments) == "up to date"
    assert state_of(project, *arguments) == "up to date"
    return arguments


@pytest.mark.parametrize("name", CASES)
def test_what_changes_without_a_name_is_seen(project: Project, name: str) -> None:
    case = CASES[name]
    arguments = prepared(project, case)
    case.change(project)
    wait_a_tick()
    planned = deletions(project, "plan", *arguments)
    assert planned == case.goes
    assert deletions(project, "migrate", *arguments) == planned
    assert deletions(project, "plan", *arguments) == []
    assert state_of(project, *arguments) == "up to date"
