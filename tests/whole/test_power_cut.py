"""The power goes on a real file system: its log is shut down in the middle of a run, and it is mounted again.

Needs root, a loop device, and the tools to make the file system.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project
from tests.support import crash
from tests.support.undisturbed import CASES, Case, Place

pytestmark = pytest.mark.whole

GOING_DOWN = 0x8004587D  # _IOR('X', 125, __u32): XFS_IOC_GOINGDOWN, and EXT4_IOC_SHUTDOWN
WITH_LOG, WITHOUT_LOG = (
    1,
    2,
)  # whether what waits in memory of the log is written first; what waits of contents never is
INSTANTS = 8
MIB = 1 << 20
DISKS = {
    "ext4": (16 * MIB, ["mkfs.ext4", "-q", "-F"], "loop"),
    "ext4, data=writeback": (16 * MIB, ["mkfs.ext4", "-q", "-F"], "loop,data=writeback"),
    "xfs": (300 * MIB, ["mkfs.xfs", "-q"], "loop"),  # no smaller one can be made
}
COMMANDS = ("migrate", "migrate in training", "undo", "undo in training", "refs", "restore")


class Disk:
    """A file system in a file."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.image, self.folder = folder / "image", folder / "disk"
        self.folder.mkdir()
        size, make, self.options = DISKS[kind]
        self.image.touch()
        os.truncate(self.image, size)
        subprocess.run([*make, str(self.image)], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        words = ["mount", "-o", self.options, str(self.image), str(self.folder)]
        subprocess.run(words, check=True, capture_output=True)
        self.mounted = True

    def unmount(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True, capture_output=True)
        self.mounted = False

    def lose_power(self, flag: int) -> None:
        """Let nothing more reach the image."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, GOING_DOWN, struct.pack("I", flag))
        finally:
            os.close(folder)

    def power_returns(self) -> None:
        """Mount what has reached the image; the file system takes from its log what it finds there."""
        self.unmount()
        self.mount()

    def copy(self, origin: Path, to: Path) -> None:
        self.unmount()
        subprocess.run(["cp", "--sparse=always", str(origin), str(to)], check=True)
        self.mount()


@functools.cache
def why_not(kind: str) -> str:
    """Say why there can be no power cut here, or nothing."""
    if os.geteuid() != 0:
        return "only root can mount"
    if not shutil.which(program := DISKS[kind][1][0]):
        return f"{program} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        try:
            disk = Disk(kind, Path(folder))
        except subprocess.CalledProcessError as error:
            return f"{error.cmd[0]}: {error.stderr.decode().strip()}"
        try:
            disk.lose_power(WITHOUT_LOG)
        except OSError as error:
            return f"the shutdown is refused: {error.strerror}"
        finally:
            disk.unmount()
    return ""


class PlaceOnDisk(Place):
    """A project on a disk of its own; all that it is before the command has reached the disk."""

    def __init__(self, project: Project, case: Case, kept: Path, disk: Disk) -> None:
        self.disk = disk
        super().__init__(project, case, kept)

    def keep(self) -> None:
        self.disk.copy(self.disk.image, self.kept)

    def begin(self) -> None:
        self.disk.copy(self.kept, self.disk.image)


@pytest.fixture(params=DISKS)
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    if why := why_not(request.param):
        pytest.skip(why)
    disk = Disk(request.param, tmp_path)
    try:
        yield disk
    finally:
        disk.unmount()


@pytest.mark.parametrize("case", COMMANDS)
def test_the_power_goes(case: str, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(disk.folder / "my project")
    project.outputs.mkdir(parents=True)
    shutil.copy(ROOT / "dodo.py", project.folder)
    shutil.copytree(ROOT / "rules", project.folder / "rules")
    monkeypatch.setenv("XDG_STATE_HOME", str(project.folder / "state"))
    place = PlaceOnDisk(project, CASES[case], tmp_path / "kept", disk)
    changes = place.undisturbed.changes
    for number in range(INSTANTS):
        cut, flag = 1 + number * changes // (INSTANTS - 1), (WITHOUT_LOG, WITH_LOG)[number % 2]

        def at_change(change: int, cut: int = cut, flag: int = flag) -> None:
            if change == cut:
                disk.lose_power(flag)
                os.kill(os.getpid(), signal.SIGKILL)

        place.begin()
        ended = crash.run(project.folder, *place.case.command, at_change=at_change)
        assert ended.code == (0 if cut > changes else -signal.SIGKILL), (cut, ended)
        if cut > changes:  # it has ended, and told so
            disk.lose_power(flag)
        disk.power_returns()
        assert place.must_stay <= place.contents(), (cut, flag)
        place.finish((cut, flag))
        assert not place.dangling(), (cut, flag)
