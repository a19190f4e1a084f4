"""Random trees, random commands, random crashes: whatever the order, no content is ever lost."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.conftest import ROOT, Project, content_hash
from tests.support import crash
from tests.support.disturbing import Fault
from tests.support.forking import memory
from tests.support.state_machines import go_through

NAMES = st.one_of(
    st.builds("epoch={}-step={}.ckpt".format, st.integers(0, 15), st.integers(0, 20)),
    st.builds("epoch_{}_step_{}.ckpt".format, st.integers(0, 15), st.integers(0, 20)),
    st.builds("epoch-{:02}_step-{:06}.ckpt".format, st.integers(0, 15), st.integers(0, 20)),
    st.builds("epoch={}-step={}.metadata.json".format, st.integers(0, 15), st.integers(0, 20)),
    st.sampled_from(
        ["last.ckpt", "best-x.ckpt", "$(rm -rf ~).ckpt", "a b'\"`.ckpt", "<script>.ckpt", "\x1b[2J.ckpt", "new\nline", "-rf", "%s%n", "\udcff.ckpt", "…é.ckpt"]
    ),
)  # fmt: skip
EXPERIMENTS = st.sampled_from(["one", "lr=0.1 *", "\x1b]0;x\x07"])
FAULTS = st.sampled_from(["before", "after", errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE])
COMMANDS = st.sampled_from(
    [
        ("migrate",),
        ("migrate", "delete_old=1"),
        ("migrate", "delete_old=1", "keep_min_epoch=5", "on_conflict=keep_newest"),
        ("migrate", "on_conflict=merge_identical"),
        ("undo",),
        ("undo", "experiments=o*"),
        ("plan", "delete_old=1"),
        ("history",),
        ("verify",),
    ]
)
PROTECT = "protected: ['epoch=1*']\n"
STEP = "legacy:\n  - id: stepped\n    match: 'step_(?P<step>\\d+)_(?P<epoch>\\d+)\\.ckpt'\n    examples: {step_1_2.ckpt: epoch-02_step-000001.ckpt}\n"


class Outputs(RuleBasedStateMachine):
    """``contents`` is what must be somewhere below outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=memory())) / "my project"
        self.folder.mkdir()
        shutil.copy(ROOT / "dodo.py", self.folder)
        shutil.copytree(ROOT / "rules", self.folder / "rules")
        self.project = Project(self.folder)
        self.project.outputs.mkdir()
        self.contents: set[str] = set()
        self.number = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder.parent)

    @initialize()
    def begin(self) -> None:
        for epoch in (1, 8, 12):
            self.add("one", f"epoch={epoch}-step=1.ckpt", 9, "file")

    @rule(
        experiment=EXPERIMENTS, name=NAMES, size=st.sampled_from([0, 9, 9]),
        kind=st.sampled_from(["file", "file", "directory", "link"]),
    )  # fmt: skip
    def add(self, experiment: str, name: str, size: int, kind: str) -> None:
        """Add a name to an experiment, unless it is taken."""
        path = self.project.outputs / experiment / "checkpoints" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path):
            return
        if kind == "link":
            names = sorted(os.listdir(path.parent))
            path.symlink_to(names[self.number % len(names)] if names else "nowhere.ckpt")
            return
        if kind == "directory":
            path.mkdir()
            path /= "shard.pt"
        self.number += 1
        path.write_text(f"{self.number:09}"[:size])
        self.contents.add(content_hash(str(path)))

    @rule(text=st.sampled_from([PROTECT, STEP, "settle: 0\n", ""]))
    def edit_rules(self, text: str) -> None:
        (self.folder / "rules" / "more.yaml").write_text(text)
        retention = (ROOT / "rules" / "retention.yaml").read_text()
        (self.folder / "rules" / "retention.yaml").write_text(
            retention.replace("settle:", "# settle:") if "settle" in text else retention
        )

    @rule(command=COMMANDS)
    def run(self, command: tuple[str, ...]) -> None:
        ended = crash.run_in_turn(self.folder, *command)
        assert ended.code in (0, 1) or "no run has changed any" in ended.output, ended
        assert "Traceback" not in ended.output, ended.output

    @rule(command=COMMANDS, at=st.integers(1, 40), how=FAULTS)
    def crash(self, command: tuple[str, ...], at: int, how: str | int) -> None:
        ended = crash.run_in_turn(self.folder, *command, fault=Fault(at, how))
        assert ended.code in (0, 1, 3, -9), ended
        assert "Traceback" not in ended.output, ended.output

    @rule()
    def purge(self) -> None:
        trash = self.project.outputs / ".ckptrules" / "trash"
        gone = {content_hash(str(path)) for path in trash.rglob("*") if path.is_file() and not path.is_symlink()}
        assert crash.run_in_turn(self.folder, "purge").code == 0
        self.contents -= gone - set(self.project.tree().values())

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.contents <= set(self.project.tree(state=True).values())

    @invariant()
    def nothing_is_anywhere_else(self) -> None:
        assert set(os.listdir(self.folder)) - {"__pycache__"} == {"dodo.py", "rules", "outputs"}
        for experiment in os.listdir(self.project.outputs):
            assert experiment == ".ckptrules" or os.listdir(self.project.outputs / experiment) == ["checkpoints"]


def test_whatever_happens_no_content_is_lost() -> None:
    go_through(Outputs)
