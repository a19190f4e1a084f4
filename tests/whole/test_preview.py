"""The preview is the run: after any sequence of events, `migrate` does what `plan` said, and then `plan` is empty."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.conftest import ROOT, Project
from tests.support import crash
from tests.support.disturbing import Fault
from tests.support.forking import memory
from tests.support.state_machines import go_through

EPOCHS, DAY = st.integers(8, 12), 86_400
CHECKPOINTS = st.one_of(
    st.builds("epoch={0}-step={0}.ckpt".format, EPOCHS),
    st.builds("epoch_{0}_step_{0}.ckpt".format, EPOCHS),
    st.builds("epoch-{0:02}_step-{0:06}.ckpt".format, EPOCHS),
    st.builds("epoch-{0:02}_step-{0:06}_acc-0.{0}.ckpt".format, EPOCHS),
    st.builds("s{}.ckpt".format, EPOCHS),
    st.sampled_from(["last.ckpt", "best-acc-0.9.ckpt", "strange.bin"]),
)
BESIDE = st.one_of(
    st.builds("epoch={0}-step={0}.metadata.json".format, EPOCHS),
    st.builds("epoch-{0:02}_step-{0:06}.metadata.json".format, EPOCHS),
    st.builds("epoch={0}-step={0}-unfinished".format, EPOCHS),
    st.builds("epoch-{0:02}_step-{0:06}.ckpt-unfinished".format, EPOCHS),
    st.sampled_from(["latest", "last_checkpoint"]),
)
TEXTS = st.sampled_from(
    ['{"acc": 0.99}', '{"acc": 0.01}', "x" * 25, "epoch-10_step-000010.ckpt", "epoch-11_step-000011.ckpt"]
)
AGES = st.sampled_from([0, 1, 3, 10, 100, -2, -400])
POLICIES = [
    "{min_epoch: 10}",
    "{keep_last: 1}",
    "{keep_last: 2, keep_at_least: 2}",
    "{keep_within: 2d}",
    "{keep_within: 2d from newest}",
    "{max_total_size: 30B}",
    "{keep_best: {metric: acc, mode: max, count: 1}}",
    "{keep: protected}",
    "{keep_every_epochs: 2}",
]
OPTIONS = st.lists(
    st.sampled_from(
        ["delete_old=1", "delete_old=1", "on_conflict=keep_newest", "on_conflict=keep_largest", "on_conflict=skip",
         "on_conflict=merge_identical", "leave_links=1", "settle=5", "keep_min_epoch=11"]
    ), max_size=4, unique_by=lambda option: option.partition("=")[0],
)  # fmt: skip
STEPS = r"""
legacy:
  - {id: steps, match: 's(?P<n>\d+)\.ckpt', template: 'epoch-99_step-{{ n | pad(6) }}.ckpt', examples: {s5.ckpt: epoch-99_step-000005.ckpt}}
"""
FAULTS = st.sampled_from(["before", "after", errno.ENOSPC, errno.EIO])


class Preview(RuleBasedStateMachine):
    """One directory of checkpoints and one beside it; time is told by dating files."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=memory())) / "my project"
        self.folder.mkdir()
        shutil.copy(ROOT / "dodo.py", self.folder)
        shutil.copytree(ROOT / "rules", self.folder / "rules")
        self.project = Project(self.folder)
        self.place = self.project.outputs / "one" / "checkpoints"
        self.place.mkdir(parents=True)
        self.data = self.folder.parent / "run.json"
        self.number = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder.parent)

    def there(self) -> list[str]:
        return sorted(os.listdir(self.place))

    def pick(self, number: int) -> Path | None:
        names = self.there()
        return self.place / names[number % len(names)] if names else None

    def write(self, path: Path, text: str, age: float, mode: str = "w") -> None:
        with open(path, mode) as file:
            file.write(text)
        os.utime(path, (time.time() - age * DAY - 1, time.time() - age * DAY - 1))

    @initialize(policy=st.sampled_from(POLICIES))
    def begin(self, policy: str) -> None:
        self.edit_policy(policy)
        for epoch in (8, 10, 12):
            self.add(f"epoch={epoch}-step={epoch}.ckpt", 13 - epoch, "file", 9)

    @rule(
        name=CHECKPOINTS, age=AGES, kind=st.sampled_from(["file", "file", "directory", "link", "hard link"]),
        size=st.sampled_from([0, 9, 9, 9, 9, 20, 20]),
    )  # fmt: skip
    def add(self, name: str, age: int, kind: str, size: int) -> None:
        path = self.place / name
        if os.path.lexists(path):
            return
        other = self.pick(self.number)
        self.number += 1
        if kind == "link":
            path.symlink_to(other.name if other else "nowhere.ckpt")
        elif kind == "hard link" and other and other.is_file() and not other.is_symlink():
            os.link(other, path)
        elif kind == "directory":
            path.mkdir()
            self.write(path / "shard.pt", "x" * size, age)
        else:
            self.write(path, f"{self.number:020}"[-size:] if size else "", age)

    @rule(
        name=BESIDE, number=st.integers(0, 20), text=st.sampled_from(["", '{"acc": 0.5}', '{"metrics": {"acc": 0.95}}'])
    )
    def add_beside(self, name: str, number: int, text: str) -> None:
        other = self.pick(number)
        path = self.place / name
        if not os.path.lexists(path):
            self.write(path, text if name.endswith(".json") or not other else other.name, 0)

    @rule(number=st.integers(0, 20), text=TEXTS, age=AGES)
    def rewrite(self, number: int, text: str, age: int) -> None:
        """Write into a file, or into one inside a directory, while no name changes."""
        path = self.pick(number)
        if path and path.is_dir() and not path.is_symlink():
            self.write(path / "shard.pt", text, age)
        elif path and path.is_file() and not path.is_symlink():
            self.write(path, text, age, "r+")

    @rule(
        number=st.integers(0, 20),
        name=st.sampled_from(["more.pt", "deep.bin", "notes.txt"]),
        size=st.sampled_from([0, 9]),
    )
    def arrive(self, number: int, name: str, size: int) -> None:
        path = self.pick(number)
        if path and path.is_dir() and not path.is_symlink():
            self.write(path / name, "y" * size, 0)

    @rule(number=st.integers(0, 20))
    def remove(self, number: int) -> None:
        if path := self.pick(number):
            self.discard(path)

    def discard(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()

    @rule(number=st.integers(0, 20))
    def link_from_elsewhere(self, number: int) -> None:
        path, link = self.pick(number), self.place.parent / "best.pt"
        if os.path.lexists(link):
            link.unlink()
        elif path:
            link.symlink_to(f"checkpoints/{path.name}")

    @rule(policy=st.sampled_from(POLICIES))
    def edit_policy(self, policy: str) -> None:
        (self.folder / "rules" / "retention.yaml").write_text(f"retention:\n  default: {policy}\n")

    @rule(text=st.sampled_from([STEPS, "protected: ['epoch=9*']\n", "unfinished: [.part]\n", ""]))
    def edit_rules(self, text: str) -> None:
        (self.folder / "rules" / "more.yaml").write_text(text)

    @rule(command=st.sampled_from([("undo",), ("purge",), ("verify",), ("migrate",), ("migrate", "delete_old=1")]))
    def run(self, command: tuple[str, ...]) -> None:
        ended = crash.run_in_turn(self.folder, *command)
        assert "Traceback" not in ended.output, ended.output

    @rule(options=OPTIONS, at=st.integers(1, 30), how=FAULTS)
    def crash(self, options: list[str], at: int, how: str | int) -> None:
        ended = crash.run_in_turn(self.folder, "migrate", *options, fault=Fault(at, how))
        assert "Traceback" not in ended.output, ended.output

    @rule(
        options=OPTIONS, policy=st.sampled_from(POLICIES[3:7]), number=st.integers(0, 20),
        changes=st.lists(st.tuples(TEXTS, AGES), min_size=4, max_size=4),
    )  # fmt: skip
    def what_changes_without_a_name_is_seen(
        self, options: list[str], policy: str, number: int, changes: list[tuple[str, int]]
    ) -> None:
        """Make the directory one that is remembered, write into something, and see what the next run makes of that."""
        options = sorted({*options, "delete_old=1"})
        self.edit_policy(policy)
        for problem in self.data_of("plan", *options)["problems"]:
            for name in problem["names"]:
                self.discard(self.place / name)
        self.the_preview_is_the_run(options)
        for n, (text, age) in enumerate(changes, start=number):
            self.rewrite(n, text, age)
            self.the_preview_is_the_run(options)

    @rule(options=OPTIONS)
    def the_preview_is_the_run(self, options: list[str]) -> None:
        if "interrupted" in crash.run_in_turn(self.folder, "plan").output:  # what was begun is finished first
            crash.run_in_turn(self.folder, "migrate")
        planned, done = self.data_of("plan", *options), self.data_of("migrate", *options)
        if done["state"] == "up to date":
            assert (planned["actions"], planned["problems"]) == ([], []), (planned, self.there())
            return
        assert said(done) == said(planned)
        if not done["problems"]:
            assert self.data_of("plan", *options)["actions"] == []

    def data_of(self, *command: str) -> dict[str, Any]:
        ended = crash.run_in_turn(self.folder, *command, f"json={self.data}")
        assert "Traceback" not in ended.output, ended.output
        found: dict[str, Any] = json.loads(self.data.read_text())["experiments"][0]
        return found


def said(data: dict[str, Any]) -> Any:
    """Return what a plan, or a run, says; not how old something is, as time goes on."""
    actions = [
        {key: value for key, value in action.items() if key not in ("reasons", "saves")} for action in data["actions"]
    ]
    problems = [(row["id"], row["names"]) for row in data["problems"]]
    stays = [row["name"] for row in data["stays"]] + [(row["name"], row["state"]) for row in data["checkpoints"]]
    notes = [re.sub(r"changed \d+ s ago", "changed a while ago", note["text"]) for note in data["notes"]]
    return actions, problems, notes, stays


def test_the_preview_is_the_run_and_then_there_is_nothing_to_do() -> None:
    go_through(Preview)
