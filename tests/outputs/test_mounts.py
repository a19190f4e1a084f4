"""Which file systems are shared by hosts is read from the table of mounts; there, what is young is left alone."""

from __future__ import annotations

import os
import time

import pytest

from ckptrules.outputs import mounts
from tests.conftest import Project
from tests.support import crash
from tests.support.tables import every

TABLE = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
22 21 0:20 / /proc rw,nosuid - proc proc rw
30 21 0:40 / /home rw,relatime shared:7 - nfs4 filer:/home rw,vers=4.2,local_lock=none
31 30 8:1 / /home/ann/local\040disk rw - xfs /dev/sda1 rw
32 21 0:41 / /scratch rw - lustre 10.0.0.1@o2ib:/scratch rw,localflock
33 21 0:42 / /data rw - autofs systemd-1 rw,direct
34 33 0:43 / /data rw - gpfs data rw
35 21 0:44 / /bucket rw - fuse.s3fs s3fs rw
36 21 0:45 / /union rw - fuse.mergerfs a:b rw
37 21 8:2 / /usb rw - fuseblk /dev/sdb1 rw
38 21 0:46 / /mnt/c rw - 9p drvfs rw
39 21 0:47 / /over rw - nfs old:/ rw
40 21 0:48 / /over rw - tmpfs tmpfs rw
41 21 0:49 / /odd\134name rw master:2 propagate_from:3 - beegfs_nodev x rw
a line of another kind
"""
KINDS = {
    "/": "nfs4",  # begins below it
    "/var/outputs": "",
    "/home/ann/outputs": "nfs4",
    "/home": "nfs4",
    "/homeless": "",
    "/home/ann/local disk/outputs": "",
    "/scratch/x": "lustre",
    "/data/x": "gpfs",
    "/bucket/x": "fuse.s3fs",
    "/union/x": "",
    "/usb": "",
    "/mnt": "9p",
    "/over/x": "",
    "/odd\\name/x": "beegfs_nodev",
}
OLD, YOUNG = "epoch=1-step=10.ckpt", "epoch=2-step=20.ckpt"
LIES = "lies on nfs4, where nobody sees what other hosts write to"
LEFT = "outputs lies on nfs4, where nobody sees what other hosts write to: what has changed within 60 s is left alone"


@every([*KINDS])
def test_the_kind_of_a_shared_file_system_is_read_from_the_table(path: str) -> None:
    assert mounts.shared_in(TABLE, path) == KINDS[path]


def test_a_system_that_tells_nothing_shares_nothing() -> None:
    assert mounts.shared_in("", "/outputs") == ""


@pytest.fixture
def shared(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Make a tree with an old and a young checkpoint on what the table calls NFS."""
    project.make({f"one/checkpoints/{name}": 9 for name in (OLD, YOUNG)})
    os.utime(project.outputs / "one/checkpoints" / OLD, (0, 0))
    where = os.fspath(project.folder.resolve()).replace("\\", r"\134").replace(" ", r"\040")
    monkeypatch.setattr(mounts, "table", lambda: f"1 0 0:1 / {where} rw - nfs4 filer:/x rw\n")
    return project


def test_what_is_young_is_left_alone_on_a_shared_file_system_and_the_plan_says_so(shared: Project) -> None:
    planned = crash.run(shared.folder, "plan")
    assert planned.output.count(LEFT) == 1
    assert "(settle: 60)" in planned.output
    ended = crash.run(shared.folder, "migrate")
    assert (ended.code, LEFT in ended.output) == (1, False)
    assert shared.names("one") == ["epoch-01_step-000010.ckpt", YOUNG]
    os.utime(shared.outputs / "one/checkpoints" / YOUNG, (0, 0))
    assert crash.run(shared.folder, "migrate").code == 0
    assert crash.run(shared.folder, "migrate").output == "Nothing to do: 1 experiment is up to date.\n"


@pytest.mark.parametrize("command", ["plan", "migrate"])
@pytest.mark.parametrize("where", ["rules", "option"])
def test_who_says_settle_0_is_obeyed_and_told(shared: Project, command: str, where: str) -> None:
    words = [command, "delete_old=1", "keep_last=1"]
    if where == "rules":
        with (shared.folder / "rules/retention.yaml").open("a") as rules:
            rules.write("\nsettle: 0\n")
    else:
        words.append("settle=0")
    ended = crash.run(shared.folder, *words)
    assert ended.code == 0
    hint = f"hint: 'doit {command} delete_old=1 keep_last=1 settle=60' leaves alone what has just changed"
    assert f"outputs {LIES}.\n    {hint}; in the rules, settle: 60\n" in ended.output
    assert "(settle" not in crash.run(shared.folder, *words).output


@pytest.mark.parametrize("settle", ["30", "3600"])
def test_who_says_another_settle_is_told_nothing(shared: Project, settle: str) -> None:
    ended = crash.run(shared.folder, "plan", f"settle={settle}")
    assert LIES not in ended.output
    assert f"(settle: {settle})" in ended.output


def test_on_a_disk_of_this_host_nothing_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.make({f"one/checkpoints/{YOUNG}": 9})
    monkeypatch.setattr(mounts, "table", lambda: "1 0 0:1 / / rw - ext4 /dev/sda1 rw\n")
    assert crash.run(project.folder, "migrate", "settle=0").code == 0
    project.make({f"one/checkpoints/{OLD}": 9})
    ended = crash.run(project.folder, "plan")
    assert "nobody sees" not in ended.output + crash.run(project.folder, "migrate").output
    assert project.names("one") == ["epoch-01_step-000010.ckpt", "epoch-02_step-000020.ckpt"]


def test_a_run_that_may_go_on_is_left_alone_there_too(shared: Project) -> None:
    """It deletes by a list of its own: that nothing changed for a minute does not say that it is over."""
    (shared.folder / "rules/naming.yaml").write_text("packs: [composer]\nretention: {default: {keep_last: 1}}\n")
    (shared.folder / "rules/retention.yaml").unlink()
    names = [f"ep{epoch}-ba{epoch}-rank0.pt" for epoch in (1, 2, 3)]
    shared.make({f"two/checkpoints/{name}": 9 for name in names})
    for name in names:
        os.utime(shared.outputs / "two/checkpoints" / name, (time.time() - 120,) * 2)
    for settle, is_left in (((), True), (("settle=60",), False)):
        ended = crash.run(shared.folder, "plan", "delete_old=1", *settle)
        assert ("so a run may go on" in ended.output) == is_left, ended.output
