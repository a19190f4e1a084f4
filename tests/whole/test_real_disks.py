"""On disks that are really full or really read-only: needs root, to mount them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project

TREE: dict[str, int | str] = {f"exp/checkpoints/epoch={epoch}-step=1.ckpt": 5000 for epoch in range(8, 14)}


def mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(project: Project) -> Iterator[Path]:
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(project.outputs)):
        pytest.skip("cannot mount here")
    try:
        yield project.outputs
    finally:
        subprocess.run(["umount", str(project.outputs)], check=True)


def test_a_full_disk_is_told_loses_nothing_and_goes_on_with_space(project: Project, disk: Path) -> None:
    project.make(TREE)
    project.doit("purge")
    before = project.tree()
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    out = project.doit("migrate", "delete_old=1", check=1)
    assert (
        "! Problem: exp/checkpoints lies on a file system that is full\n      hint: make space (df -h), and run again: "
        in out
    )
    filler.unlink()
    assert project.tree() == before
    project.doit("migrate", "delete_old=1")
    assert len(project.names("exp")) == 4
    project.doit("undo")
    assert project.tree() == before


def test_a_disk_that_fills_up_on_the_way_is_told_without_a_traceback(project: Project, disk: Path) -> None:
    project.make(TREE)
    before = project.tree()
    project.begin_dodo(
        "from ckptrules.storage import moving\nreally = moving.rename\n"
        "def rename(*args):\n"
        "    really(*args)\n"
        f"    with open({str(disk / 'filler')!r}, 'ab', buffering=0) as file:\n"
        "        try:\n"
        "            while file.write(b'x' * 4096): pass\n"
        "        except OSError: pass\n"
        "moving.rename = rename\n"
    )
    project.doit("migrate", "delete_old=1", check=1)
    assert set(before.values()) <= set(project.tree(state=True).values())
    (disk / "filler").unlink()
    shutil.copy(ROOT / "dodo.py", project.folder)
    project.doit("migrate", "delete_old=1")
    assert len(project.names("exp")) == 4
    while "Taken back: " in project.doit("undo"):
        pass
    assert project.tree() == before


def test_a_disk_that_fills_up_from_the_start_refuses_the_run(project: Project, disk: Path) -> None:
    project.make(TREE)
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    before = project.tree()
    out = project.doit("migrate", check=3)
    assert "No space left on device" in out
    project.doit("plan")
    assert project.tree() == before


def test_a_read_only_disk_can_be_looked_at_and_nothing_else(project: Project, disk: Path) -> None:
    project.make(TREE)
    project.doit("migrate")
    before = project.tree(state=True)
    assert mount("-o", "remount,ro", str(disk))
    for command in (["plan", "delete_old=1"], ["history"], ["undo", "dry_run=1"], ["verify", "quick=1"], ["catalog"]):
        out = project.doit(*command, check=1 if command[0] in ("undo", "verify") else 0)
        assert ("Note: nothing could be changed now: it lies on a file system that is read-only" in out) == (
            command[0] == "plan"
        )
        assert ("cannot be renamed to epoch=8-step=1.ckpt: Read-only file system" in out) == (command[0] == "undo")
    told = "ERROR: outputs_dir 'outputs' cannot be written: Read-only file system\n"
    for task in ("migrate", "undo", "purge"):
        assert project.doit(task, check=3) == told
    (project.folder / "saved").mkdir()
    assert "Backup made: saved/outputs_backup_" in project.doit("backup", "to=saved")
    assert mount("-o", "remount,rw", str(disk))
    assert project.tree(state=True) == before


@pytest.fixture
def twice(project: Project) -> Iterator[tuple[str, str]]:
    """Mount the outputs twice, as ``here`` and ``there``."""
    mounted: list[str] = []
    for name in ("here", "there"):
        (project.folder / name).mkdir()
        command = ["bindfs", os.fspath(project.outputs), os.fspath(project.folder / name)]
        if shutil.which("bindfs") and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            mounted.append(command[-1])
    try:
        if len(mounted) != 2:
            pytest.skip("cannot mount with bindfs here")
        yield "outputs_dir=here", "outputs_dir=there"
    finally:
        for folder in mounted:
            subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_mounted_twice_has_one_lock(project: Project, twice: tuple[str, str]) -> None:
    """As for two hosts of an NFS server: the kernel's lock of one mount knows nothing of that of the other."""
    project.make(TREE)
    here, there = twice
    before, dodo = project.tree(), project.folder / "dodo.py"
    text = dodo.read_text()
    dodo.write_text(
        "import time\nfrom ckptrules.storage import moving\nmoving.rename = lambda *_: time.sleep(60)\n" + text
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen([sys.executable, "-m", "doit", "migrate", here], cwd=project.folder, env=environment)
    try:
        while not (project.outputs / ".ckptrules/lock.host").exists():
            time.sleep(0.01)
        dodo.write_text(text)
        out = project.doit("migrate", there, check=3)
        assert re.match(
            r"ERROR: another run is at work in 'there': process .*; its last sign of life came \d+s ago\n", out
        )
        assert project.tree() == before
    finally:
        first.kill()
        first.wait()
    project.doit("migrate", here)
    assert len(project.names("exp")) == len(TREE)


def test_left_links_on_a_disk_of_their_own_can_be_dropped_and_taken_back(project: Project) -> None:
    """The workplace, by way of which a link is removed, lies on another one."""
    inner = project.outputs / "exp"
    inner.mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(inner)):
        pytest.skip("cannot mount here")
    try:
        project.make(TREE)
        before = project.tree()
        project.doit("migrate", "leave_links=1")
        project.doit("undo")
        assert project.tree() == before
        project.doit("migrate", "leave_links=1")
        project.doit("drop_links")
        assert project.names("exp") == [f"epoch-{epoch:02}_step-000001.ckpt" for epoch in range(8, 14)]
    finally:
        subprocess.run(["umount", str(inner)], check=True)


def test_what_is_mounted_inside_a_checkpoint_is_not_freed_with_it(project: Project) -> None:
    project.make(
        {**TREE, "exp/checkpoints/epoch=1-step=1.ckpt/sub/x": "-> y", "exp/checkpoints/epoch=1-step=1.ckpt/w": 9}
    )
    folder, elsewhere = project.outputs / "exp/checkpoints/epoch=1-step=1.ckpt", project.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    if os.geteuid() != 0 or not mount("--bind", str(elsewhere), str(folder / "sub")):
        pytest.skip("cannot mount here")
    mounted = folder / "sub"
    try:
        project.doit("migrate", "delete_old=1")
        (mounted,) = project.outputs.glob(".ckptrules/trash/*/exp/checkpoints/epoch=1-step=1.ckpt.trashed/sub")
        out = project.doit("purge", check=1)
        assert f"hint: something is mounted there: end that (umount '{mounted}'); 'doit purge' tries again" in out
        assert (elsewhere / "precious").read_text() == "precious"
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    project.doit("purge")
    assert not mounted.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_rewrites_stays_its_owners(project: Project) -> None:
    project.make({"exp/checkpoints/epoch=9-step=1.ckpt": 5000})
    pointer = project.outputs / "exp/checkpoints/latest"
    pointer.write_text("epoch=9-step=1.ckpt\n")
    os.chown(pointer, 12345, 54321)
    project.doit("migrate")
    assert pointer.read_text() == "epoch-09_step-000001.ckpt\n"
    assert (pointer.stat().st_uid, pointer.stat().st_gid) == (12345, 54321)
