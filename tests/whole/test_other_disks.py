"""On disks that cannot do what others can, and on full ones: needs root, to mount them; some are imitated as well."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptrules.storage import moving
from tests.conftest import Project
from tests.support import crash

TREE: dict[str, int | str] = {f"exp/checkpoints/epoch={epoch}-step=1.ckpt": 5000 for epoch in (3, 8, 12, 13)}
MIB = 1 << 20
MADE = {  # how to make a disk of that kind in a file, and to mount it
    "exfat, by FUSE": (16 * MIB, "mkfs.exfat {}", "mount.exfat-fuse {loop} {to}"),
    "vfat": (16 * MIB, "mkfs.vfat {}", "mount -t vfat -o loop {} {to}"),
    "ext4": (4 * MIB, "mkfs.ext4 -q -F -m 0 {}", "mount -o loop {} {to}"),
    "tmpfs": (0, "true", "mount -t tmpfs -o size=512k tmpfs {to}"),
}
IN_CAPITALS = r"""
  - {id: capitals, match: 'EPOCH-(?P<epoch>\d+)_STEP-(?P<step>\d+)\.ckpt', examples: {EPOCH-03_STEP-000103.ckpt: epoch-03_step-000103.ckpt}}
"""


@pytest.fixture
def disk(project: Project, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Mount a disk as ``outputs``."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    size, make, mount = MADE[request.param]
    if missing := [words.split()[0] for words in (make, mount) if not shutil.which(words.split()[0])]:
        pytest.skip(f"{missing[0]} is not installed")
    image, loop, to = tmp_path / "image", "", project.outputs
    image.touch()
    os.truncate(image, size)
    try:
        run(make.split(), image)
        loop = run("losetup -f --show {}".split(), image).strip() if "{loop}" in mount else ""
        run(mount.split(), image, loop=loop, to=to)
    except subprocess.CalledProcessError as error:
        if loop:
            run(["losetup", "-d", loop])
        pytest.skip(f"{error.cmd[0]}: {error.stderr.strip()}")
    try:
        yield to
    finally:
        run(["umount", str(to)])
        if loop:
            run(["losetup", "-d", loop])


def run(words: list[str], image: object = "", **names: object) -> str:
    command = [word.format(image, **names) for word in words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def only(*kinds: str) -> pytest.MarkDecorator:
    """Let a test run on disks of some kinds; it finds them as the outputs of its project."""
    return pytest.mark.parametrize("disk", kinds, indirect=True)


# --- neither exclusive renames nor hard links ------------------------------------------------------------------------


def refused_in_one_sentence(project: Project, doit: Callable[..., crash.Ended]) -> None:
    """Ask for changes that cannot be made without danger, and for what can be done all the same."""
    (project.folder / "saved").mkdir()
    before = project.tree()
    for command in (["plan"], ["backup", "to=saved"], ["plan", "delete_old=1"], ["catalog"], ["usage"]):
        ended = doit(*command)
        assert (ended.code, "Traceback" in ended.output) == (0, False), ended.output
    for command in (["migrate"], ["migrate", "delete_old=1"]):
        ended = doit(*command)
        assert ended.code in (1, 3), ended.output
        assert "file system" in ended.output, ended.output
        assert ended.output.count("! Problem: ") <= 1, ended.output
        assert "the owner and the mode" not in ended.output
        assert project.tree() == before
    ended = doit("undo")
    assert (ended.code, project.tree()) == (0, before), ended.output


def test_a_disk_without_links_and_exclusive_renames_is_refused_in_one_sentence(project: Project) -> None:
    project.make(TREE)
    refused_in_one_sentence(
        project, lambda *words: crash.run_in_turn(project.folder, *words, old_system=True, no_links=True)
    )


@only("exfat, by FUSE")
@pytest.mark.usefixtures("disk")
def test_so_is_a_real_one(project: Project) -> None:
    project.make(TREE)
    refused_in_one_sentence(project, lambda *words: crash.run_in_turn(project.folder, *words))


@only("vfat")
@pytest.mark.usefixtures("disk")
def test_on_fat_by_the_kernel_all_is_done_or_nothing(project: Project) -> None:
    """Since Linux 4.9 it knows exclusive renames."""
    project.make({**TREE, f"exp/checkpoints/epoch=4-step=1{'0' * 100}.ckpt": 5000})
    before = project.tree()
    ended = crash.run_in_turn(project.folder, "migrate", "delete_old=1")
    assert "Traceback" not in ended.output
    assert set(before.values()) <= set(project.tree(state=True).values())
    assert ended.code == 0 or project.tree() == before, ended.output
    ended = crash.run_in_turn(project.folder, "undo")
    assert (ended.code, project.tree()) == (0, before), ended.output


@only("exfat, by FUSE", "vfat")
@pytest.mark.usefixtures("disk")
def test_a_rename_of_case_only_meets_no_other_file(project: Project) -> None:
    """The advice for a taken name is to delete one of the two: here they are one."""
    with (project.folder / "rules/naming.yaml").open("a") as rules:
        rules.write(IN_CAPITALS)
    project.make({f"exp/checkpoints/EPOCH-0{epoch}_STEP-000001.ckpt": 50 + epoch for epoch in (3, 4)})
    before = set(project.tree().values())
    ended = crash.run_in_turn(project.folder, "migrate")
    assert "File exists" not in ended.output
    assert "delete" not in ended.output.partition("Summary")[0]
    assert set(project.tree().values()) == before
    assert ended.code or project.names("exp") == ["epoch-03_step-000001.ckpt", "epoch-04_step-000001.ckpt"], (
        ended.output
    )


@only("exfat, by FUSE", "vfat")
def test_a_name_is_changed_in_case_only(disk: Path) -> None:
    (disk / "Epoch").write_text("weights")
    folder = os.open(disk, os.O_RDONLY)
    try:
        moving.rename(folder, "Epoch", "epoch")
    finally:
        os.close(folder)
    assert os.listdir(disk) == ["epoch"]
    assert (disk / "epoch").read_text() == "weights"


# --- full ------------------------------------------------------------------------------------------------------------


NO_HELP = "hint: make space (df -h, quota -s), and run again\n"  # that is what was asked for


def fill(disk: Path) -> None:
    for size in (1 << 16, 4096, 512, 1):
        with contextlib.suppress(OSError), (disk / f"filler-{size}").open("wb", buffering=0) as file:
            while file.write(b"x" * size):
                os.fsync(file.fileno())


def without_a_trash(project: Project) -> None:
    retention = project.folder / "rules/retention.yaml"
    retention.write_text(retention.read_text().replace("trash_days: 7", "trash_days: 0"))


def asked_for_space(project: Project, old: set[str]) -> str:
    """Ask for space: it is made, or all is kept and there is advice."""
    before = project.tree()
    ended = crash.run_in_turn(project.folder, "migrate", "delete_old=1")
    assert ended.code in (0, 1, 3), ended.output
    assert "Traceback" not in ended.output
    here = {
        text for path, text in project.tree(state=True).items() if path.startswith("exp/") or path.endswith(".trashed")
    }
    assert {text for path, text in before.items() if path.startswith("exp/")} - here <= old, ended.output
    assert not ended.code or "hint: " in ended.output, ended.output
    return ended.output


def hashes(project: Project, *epochs: int) -> set[str]:
    return {text for path, text in project.tree().items() if any(f"epoch={epoch}-" in path for epoch in epochs)}


@only("ext4", "tmpfs")
@pytest.mark.parametrize("days", [7, 0])
def test_a_first_run_on_a_full_disk_makes_space_or_says_what_helps(project: Project, disk: Path, days: int) -> None:
    project.make(TREE)
    if not days:
        without_a_trash(project)
    fill(disk)
    out = asked_for_space(project, set() if days else hashes(project, 3, 8))
    assert days or NO_HELP not in out


@only("ext4", "tmpfs")
def test_without_a_trash_a_later_run_on_a_full_disk_makes_space_or_says_what_helps(
    project: Project, disk: Path
) -> None:
    without_a_trash(project)
    project.make(TREE)
    assert crash.run_in_turn(project.folder, "purge").code == 0  # makes the state
    fill(disk)
    assert NO_HELP not in asked_for_space(project, hashes(project, 3, 8))


@only("ext4", "tmpfs")
def test_on_a_full_disk_with_a_trash_purge_is_named_and_works(project: Project, disk: Path) -> None:
    project.make(TREE)
    assert crash.run_in_turn(project.folder, "migrate", "delete_old=1").code == 0
    project.make({"exp/checkpoints/epoch=5-step=1.ckpt": 5000})
    fill(disk)
    out = asked_for_space(project, set())
    assert NO_HELP not in out
    assert "purge" in out
    ended = crash.run_in_turn(project.folder, "purge")
    assert ended.code == 0, ended.output
    assert not [path for path in project.tree(state=True) if path.endswith(".trashed")]
    ended = crash.run_in_turn(project.folder, "migrate", "delete_old=1")
    assert len(project.names("exp")) == 2, ended.output
