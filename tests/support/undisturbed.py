"""What each command makes of a small project when nothing goes wrong: what tests compare with in which something does."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ckptrules.storage.moving import TICK_NS
from tests.conftest import ROOT, Project, all_below
from tests.support import crash
from tests.support.crash import Ended
from tests.support.disturbing import Fault
from tests.support.killing import NUMBERS, kills, on_disk
from tests.support.putting_back import put_back

EARLY, EARLY_NEW = "epoch_epoch_02_step_step_000176_20251009_011245.ckpt", "epoch-02_step-000176.ckpt"
DOUBLED = "epoch_epoch_22_step_step_001932_20251009_015037.ckpt"
TREE: dict[str, int | str] = {
    f"ocr/checkpoints/{DOUBLED}": 300,
    f"ocr/checkpoints/{EARLY}": 200,
    "ocr/checkpoints/epoch=3-step=40.ckpt": 210,
    "ocr/checkpoints/last.ckpt": f"-> {DOUBLED}",
    f"ocr/checkpoints/{DOUBLED[:-5]}.metadata.json": 20,
    f"ocr/checkpoints/{EARLY[:-5]}.config.json": 21,
    "ocr/checkpoints/epoch=25-step=9.ckpt": 120,
    "ocr/checkpoints/epoch_25_step_9.ckpt": 121,
    "ocr/checkpoints/epoch-26_step-000010.ckpt": 122,  # loses the name that it has
    "ocr/checkpoints/epoch_26_step_10.ckpt": 123,
    "links/best.ckpt": f"-> ../ocr/checkpoints/{DOUBLED}",
    "sharded/checkpoints/epoch=30-step=500.ckpt/0.pt": 10,
    "sharded/checkpoints/epoch=30-step=500.ckpt/1.pt": 11,
    "sharded/checkpoints/epoch=1-step=5.ckpt/0.pt": 12,
    "sharded/checkpoints/last": "-> epoch=30-step=500.ckpt/1.pt",
}
COMMAND = ("migrate", "delete_old=1", "on_conflict=keep_largest")
IN_TRAINING = ("migrate", "leave_links=1", "fix_state=1")
OLD, NEW = "epoch=9-step=40.ckpt", "epoch-09_step-000040.ckpt"
SMALL: dict[str, int | str] = {
    f"ocr/checkpoints/{DOUBLED}": 300,
    f"ocr/checkpoints/{EARLY}": 200,
    f"ocr/checkpoints/{EARLY[:-5]}.config.json": 21,
    "ocr/checkpoints/last.ckpt": f"-> {DOUBLED}",
    "ocr/checkpoints/epoch=25-step=9.ckpt": 120,
    "ocr/checkpoints/epoch_25_step_9.ckpt": 121,
    "ocr/checkpoints/epoch=30-step=500.ckpt/0.pt": 10,
    "ocr/checkpoints/epoch=1-step=5.ckpt/0.pt": 12,
    "links/best.ckpt": f"-> ../ocr/checkpoints/{DOUBLED}",
}
NOTES = tuple(f"outputs/.ckptrules/{name}" for name in ("journal/", "doit.db", "lock", "proved", "work/"))
APART = ("archive/", "state/")  # the latter is $XDG_STATE_HOME


def trained(project: Project) -> Path:
    """Put a few checkpoints of a real training into a project, and return their folder."""
    folder = project.outputs / "lightning_default" / "checkpoints"
    shutil.copytree(ROOT / "tests/real/outputs/lightning_default/checkpoints", folder)
    for name in sorted(os.listdir(folder))[2:-1]:
        os.unlink(folder / name)
    return folder


def contents(project: Project) -> Counter[str]:
    """Count the contents of the files that are no notes of ours."""
    ours = tuple(f".ckptrules/{name}" for name in ("journal/", "doit.db", "lock", "proved"))
    return Counter(
        text for path, text in project.tree(state=True).items() if not path.startswith(ours) and text[:2] != "->"
    )


def trash(project: Project) -> Counter[str]:
    return Counter(text for path, text in project.tree(state=True).items() if path.startswith(".ckptrules/trash/"))


def wait_a_tick() -> None:
    """Let the clock go on: a run remembers nothing of a directory that has changed within the same tick, see `moving`."""
    time.sleep(2 * TICK_NS / 1e9)


class Undisturbed:
    """A project, what one command makes of it when nothing goes wrong, and the disks that disturbed runs have left."""

    def __init__(self, project: Project, kept: Path, command: Sequence[str], *, old_system: bool) -> None:
        self.project, self.kept, self.command, self.old_system = project, kept, command, old_system
        self.run = functools.partial(crash.run_in_turn, project.folder, old_system=old_system)
        self.start, self.everything, self.links = project.tree(), set(contents(project)), self._links()
        shutil.copytree(project.outputs, kept, symlinks=True)
        wait_a_tick()
        self.began, self.seen = time.time_ns(), set[tuple[str, str]]()
        ended = self.run(*command)
        assert (ended.code, "Traceback" in ended.output) == (0, False), ended.output
        self.output, self.instants = ended.output, range(1, ended.changes + 1)
        self.final, self.trash = project.tree(), trash(project)

    def begin(self) -> None:
        """Put the outputs folder back to how it was."""
        put_back(self.kept, self.project.outputs)
        self.began = time.time_ns()

    def kills(self) -> list[Fault]:
        """List each way to kill a run that leaves another disk."""
        self.begin()
        return kills(self.project, self.command, old_system=self.old_system)

    def has_its_links(self) -> bool:
        return self._links() == self.links

    def holds_all(self) -> bool:
        """Say whether nothing is lost; on an old system, a file may have both of its names for a moment."""
        return set(contents(self.project)) == self.everything

    def leaves_another_disk(self, then: str = "finish") -> bool:
        """Say whether the disk is as none was before, when it came to this: what comes of it need not be seen twice."""
        left = then, on_disk(self.project.outputs, self.began)
        is_new = left not in self.seen
        self.seen.add(left)
        return is_new

    def finish_and_take_back(self, at: object) -> None:
        """Run again after a fault, and then undo all: each must come to what it comes to undisturbed."""
        self.finish(at)
        if self.leaves_another_disk("take back"):
            self.take_back(at)

    def finish(self, at: object) -> Ended:
        ended = self.run(*self.command)
        assert ended.code == 0, (at, ended.output)
        assert self.project.tree() == self.final, (at, ended.output)
        assert trash(self.project) == self.trash or self.command != COMMAND, at  # others keep what a text held
        return ended

    def take_back(self, at: object) -> None:
        while "There is nothing to take back" not in (ended := self.run("undo")).output:
            assert ended.code == 0, (at, ended.output)
        assert self.project.tree() == self.start, (at, ended.output)

    def _links(self) -> set[str]:
        return {path for path, text in self.project.tree().items() if text.startswith("->")}


class Case(NamedTuple):
    """A project as it is at first, the commands run on it, and the one to be disturbed.

    Undo leads back to the project as it was at first, unless it ``ends_here``. What is done only ``once`` is refused, or
    takes back something else, when all is done. An ``old_system`` knows no rename with flags.
    """

    prepare: Callable[[Project], object]
    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    ends_here: bool = False
    once: bool = False
    old_system: bool = False


def small(project: Project) -> None:
    project.make(SMALL)


TRACKED = r"""
layout: ['*/checkpoints']
target: {template: 'run-{{ step | pad(6) }}{{ part }}', match: 'run-(?P<step>\d{6,})(?P<part>\.index|\.data)', examples: [run-000100.index]}
legacy: [{id: saver, match: 'm-(?P<step>\d+)(?P<part>\.index|\.data)', examples: {m-100.index: run-000100.index}}]
pointers: [checkpoint, {match: MD5SUMS, protects: false}]
retention: {default: {keep_last: 1}}
"""


def tracked(project: Project) -> None:
    """Make a tracker that names a stem, and a list of checksums that names each file."""
    for path in (project.folder / "rules").glob("*.yaml"):
        path.unlink()
    (project.folder / "rules" / "tracked.yaml").write_text(TRACKED)
    names = [f"m-{step}{end}" for step in (100, 200, 300) for end in (".data", ".index")]
    project.make({f"ocr/checkpoints/{name}": 100 + number for number, name in enumerate(names)})
    folder = project.outputs / "ocr" / "checkpoints"
    (folder / "checkpoint").write_text('path: "m-200"\n')
    (folder / "MD5SUMS").write_text("".join(f"{'0' * 32}  {name}\n" for name in names))


def pinned(project: Project) -> None:
    """Pin one that the policy would let go; it gets another name, too."""
    small(project)
    assert crash.run_in_turn(project.folder, "pin", f"name={EARLY}", "note=Table 2").code == 0


def without_a_trash(project: Project) -> None:
    small(project)
    retention = project.folder / "rules/retention.yaml"
    retention.write_text(retention.read_text().replace("trash_days: 7", "trash_days: 0"))


def in_training(project: Project) -> None:
    """Make one checkpoint of a real training, with another that must stay as it is, a link, and a pointer file."""
    folder = trained(project)
    for name in sorted(os.listdir(folder))[2:-1]:
        os.unlink(folder / name)
    (folder / "link.ckpt").symlink_to("epoch=11-step=48.ckpt")
    (folder / "latest").write_text("epoch=11-step=48.ckpt\n")


def referred_to(project: Project) -> None:
    project.make({f"one/checkpoints/{OLD}": 50})
    (project.folder / "scripts").mkdir()
    for name in ("a.py", "b.md"):
        (project.folder / "scripts" / name).write_text(f"load('outputs/one/checkpoints/{OLD}')  # {name}\n")


def to_be_packed(project: Project) -> None:
    project.make({f"old/checkpoints/{OLD}": 50, "old/checkpoints/last.ckpt": f"-> {OLD}", "old/notes.txt": 7})
    (project.folder / "archive").mkdir()


def changed_since_the_backup(project: Project) -> None:
    """Make a backup of three names; then one is written to, one removed, one made to lead elsewhere."""
    folder, saved = project.outputs / "one/checkpoints", project.folder / "saved"
    project.make({f"one/checkpoints/{OLD}": 50, f"one/checkpoints/{NEW}": 60, "one/checkpoints/last.ckpt": f"-> {OLD}"})
    saved.mkdir()
    assert crash.run_in_turn(project.folder, "backup", "to=saved").code == 0
    (made,) = saved.iterdir()
    made.rename(saved / "made")
    (folder / OLD).write_text("trained on\n")
    for name in (NEW, "last.ckpt"):
        (folder / name).unlink()
    (folder / "last.ckpt").symlink_to(f"./{OLD}")


REFS, BACK, UNDO = ("refs", "apply=1"), ("undo", "experiments=references"), ("undo",)
LEAVE, DROP = ("migrate", "leave_links=1", "on_conflict=keep_largest"), ("drop_links",)
ARCHIVE, UNARCHIVE = ("archive", "experiments=old", "archive_dir=archive"), ("unarchive", "archive=archive/old.tar.zst")
RESTORE = ("restore", "backup=saved/made", "force=1")
CASES = {
    "migrate": Case(small, COMMAND),
    "migrate, old system": Case(small, COMMAND, old_system=True),
    "migrate without a trash": Case(without_a_trash, COMMAND, ends_here=True),
    "migrate in training": Case(in_training, IN_TRAINING),
    "migrate in training, old system": Case(in_training, IN_TRAINING, old_system=True),
    "undo": Case(small, UNDO, (COMMAND,)),
    "undo, old system": Case(small, UNDO, (COMMAND,), old_system=True),
    "undo in training": Case(in_training, UNDO, (IN_TRAINING,)),
    "undo in training, old system": Case(in_training, UNDO, (IN_TRAINING,), old_system=True),
    "migrate with trackers": Case(tracked, ("migrate", "delete_old=1")),
    "undo of it": Case(tracked, UNDO, (("migrate", "delete_old=1"),)),
    "migrate with a pin": Case(pinned, COMMAND),
    "undo with a pin": Case(pinned, UNDO, (COMMAND,)),
    "refs": Case(referred_to, REFS, (("migrate",),)),
    "undo of refs": Case(referred_to, BACK, (("migrate",), REFS), once=True),
    "drop_links": Case(small, DROP, (LEAVE,)),
    "undo of drop_links": Case(small, UNDO, (LEAVE, DROP), once=True),
    "archive": Case(to_be_packed, ARCHIVE, once=True),
    "unarchive": Case(to_be_packed, UNARCHIVE, (ARCHIVE,), ends_here=True, once=True),
    "restore": Case(changed_since_the_backup, RESTORE),
    "purge": Case(small, ("purge",), (COMMAND,), ends_here=True),
}


class Place:
    """A project that can be put back to how it was before the command, and what the command makes of it undisturbed."""

    def __init__(self, project: Project, case: Case, kept: Path) -> None:
        self.project, self.case, self.kept = project, case, kept
        self.run = functools.partial(crash.run_in_turn, project.folder, old_system=case.old_system)
        case.prepare(project)
        self.start = self.tree()
        for command in case.before:
            self._run_well(*command)
        wait_a_tick()
        self.keep()
        had = self.contents()
        self.undisturbed = self._run_well(*case.command)
        self.final, self.must_stay = self.tree(), had & self.contents()
        if not case.ends_here:
            back = self.take_back()
            assert back == self.start, sorted(back.items() ^ self.start.items())

    def keep(self) -> None:
        """Remember everything as it is now."""
        shutil.copytree(self.project.folder, self.kept, symlinks=True)

    def begin(self) -> None:
        """Put everything back to how it was; files get other inodes."""
        put_back(self.kept, self.project.folder)

    def tree(self) -> dict[str, str]:
        """Return what people have: path → hash, or ``-> text`` of a link. Archives stay, whatever is undone."""
        return {path: text for path, text in self._all() if ".ckptrules/" not in path and not path.startswith(APART)}

    def contents(self) -> set[str]:
        """Return the contents that are there; the workplace does not count, since it is cleared."""
        return {text for path, text in self._all() if not path.startswith(NOTES) and not text.startswith("->")}

    def dangling(self) -> list[str]:
        """List the links that lead nowhere, and what pointer files name and is not there."""
        folder, tree = self.project.folder, self.tree()
        links = [path for path, text in tree.items() if text[:2] == "->" and not (folder / path).exists()]
        pointers = [folder / path for path in tree if path.endswith("/latest")]
        return links + [
            name for file in pointers for name in file.read_text().split() if not (file.parent / name).exists()
        ]

    def left(self, ended: Ended) -> str:
        """Return what tells one end of a run from another: all that is on the disk and was printed, but for its numbers."""
        state = [
            (path, path.endswith(".jsonl") and self._text(path)) for path, _ in self._all() if "doit.db" not in path
        ]
        return NUMBERS.sub("N", repr((ended[:2], self.tree(), sorted(state))))

    def finish(self, at: object) -> None:
        """Run again, and then undo all: each must come to what it comes to undisturbed."""
        if not (self.case.once and self.tree() == self.final):
            ended = self.run(*self.case.command)
            assert (ended.code, "Traceback" in ended.output) == (0, False), (at, ended.output)
            assert self.tree() == self.final, (at, ended.output)
        assert self.case.ends_here or self.take_back() == self.start, at

    def take_back(self) -> dict[str, str]:
        """Undo until there is nothing left to undo."""
        done = ""
        while "There is nothing to take back" not in done:
            ended = self.run("undo")
            done = ended.output
            assert (ended.code, "Traceback" in done) == (0, False), done
        return self.tree()

    def _run_well(self, *command: str) -> Ended:
        ended = self.run(*command, count="later reads")
        assert (ended.code, "Traceback" in ended.output) == (0, False), ended.output
        return ended

    def _text(self, path: str) -> str:
        return (self.project.folder / path).read_text()

    def _all(self) -> Iterator[tuple[str, str]]:
        return all_below(str(self.project.folder), "__pycache__")
