"""The lock between hosts: one holds it, who lives keeps it, who is dead loses it, and whoever lost it ends."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptrules import stopping
from ckptrules.engine.state_folder import HOST_LOCK, STATE
from ckptrules.storage import hosts, lock, posix
from ckptrules.storage.base import LockedError
from ckptrules.storage.hosts import Host, HostLock, Pace
from tests.conftest import Project, default, run_program
from tests.support import crash
from tests.support.disturbing import Fault

QUICK = Pace(beat=0.01, silence=300, watch=0.03)
HERE, THERE = Host("here", "boot 1", "8"), Host("there", "boot 2", "8")
RESTARTED = Host("there", "boot 3")
NAMELESS = Host("there")  # on macOS, say
MINUTE = 60
HOLDER = "process 5 on there, since 2026-11-26 20:15:00"


@pytest.fixture
def tree(tmp_path: Path) -> str:
    (tmp_path / "outputs").mkdir()
    return str(tmp_path / "outputs")


def file_of(tree: str, name: str = HOST_LOCK) -> Path:
    return Path(tree, STATE, name)


def left_by(tree: str, host: Host, ago: float = 0, holder: str = HOLDER) -> bytes:
    """Leave the file of a holder who gave the last sign of life some seconds ago."""
    file_of(tree).parent.mkdir(exist_ok=True)
    file_of(tree).write_text(
        json.dumps({"holder": holder, "host": host.name, "boot": host.boot, "disk": host.disk, "nonce": "x"})
    )
    signed(tree, ago)
    return file_of(tree).read_bytes()


def signed(tree: str, ago: float = 0) -> None:
    os.utime(file_of(tree), (time.time() - ago, time.time() - ago))


def a_lock(tree: str, host: Host = HERE, pace: Pace = QUICK) -> HostLock:
    return HostLock(tree, f"process 1 on {host.name}", host, pace)


@contextlib.contextmanager
def held(tree: str, host: Host = HERE) -> Iterator[list[str]]:
    said: list[str] = []
    with lock.lock(tree, f"process 1 on {host.name}", 0, said.append, host, QUICK):
        yield said


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


TAKEN = "The lock was taken over from process 5 on there, since 2026-11-26 20:15:00: it gave no sign of life."


@pytest.mark.parametrize(
    ("left", "ago", "is_taken"),
    [
        (THERE, 6 * MINUTE, True),
        (THERE, 4 * MINUTE, False),
        (THERE, -60 * MINUTE, False),
        (NAMELESS, 6 * MINUTE, True),
        (NAMELESS, 4 * MINUTE, False),
        (Host("here", "boot 0"), 0, True),  # this machine was started anew
        (Host("here"), 0, True),
        (HERE._replace(disk="9"), 6 * MINUTE, True),  # the same disk, mounted a second time
        (HERE._replace(disk="9"), 4 * MINUTE, False),
    ],
)
def test_the_lock_of_a_dead_host_is_taken_over_and_no_other(tree: str, left: Host, ago: float, is_taken: bool) -> None:  # noqa: FBT001 - a column of the table
    before = left_by(tree, left, ago)
    if is_taken:
        with held(tree) as said:
            assert said[-1] == TAKEN
            assert f"{HOLDER} has the lock and gives no sign of life; it is watched for" in said[0]
            assert file_of(tree).read_bytes() != before
        assert not file_of(tree).exists()
    else:
        with pytest.raises(
            LockedError, match=f"^{HOLDER}; its last sign of life came {'4m' if ago > 0 else '0s'} ago$"
        ):
            held(tree).__enter__()
        assert file_of(tree).read_bytes() == before


def test_what_was_left_on_this_machine_is_taken_over_at_once(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(tree, HERE)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    with held(tree) as said:
        assert said == []
    assert sorted(os.listdir(Path(tree, STATE))) == ["lock", hosts.NEXT]


@pytest.mark.parametrize(
    ("processes", "number", "is_taken"),
    [
        ("ours", "one that has ended", True),
        ("ours", "1", False),
        ("ours", "", False),
        ("ours", "0", False),
        ("ours", "9" * 30, False),
        ("those of a container", "one that has ended", False),
        ("", "one that has ended", False),
    ],
)
def test_where_the_disk_was_mounted_anew_the_list_of_processes_tells_who_is_dead(
    tree: str,
    monkeypatch: pytest.MonkeyPatch,
    processes: str,
    number: str,
    is_taken: bool,  # noqa: FBT001 - a column of the table
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    with subprocess.Popen(["true"]) as ended:
        pass
    here = HERE._replace(processes="ours")
    left = {**dict(zip(("host", "boot", "disk", "processes"), here, strict=True)), "disk": "9", "processes": processes}
    left_by(tree, HERE)
    number = str(ended.pid) if number.startswith("one") else number
    file_of(tree).write_text(json.dumps({**left, "holder": HOLDER, "process": number}))
    if is_taken:
        with held(tree, here) as said:
            assert said == []
    else:
        with pytest.raises(LockedError, match="came 0s ago"):
            held(tree, here).__enter__()


@pytest.mark.parametrize("ahead", [-5, 5])
def test_the_clock_of_this_machine_decides_nothing(tree: str, monkeypatch: pytest.MonkeyPatch, ahead: int) -> None:
    left_by(tree, THERE, 4 * MINUTE)
    really, really_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: really() + ahead * 60 * MINUTE)
    monkeypatch.setattr(time, "time_ns", lambda: really_ns() + ahead * 60 * MINUTE * 10**9)
    with pytest.raises(LockedError, match="came 4m ago"):
        held(tree).__enter__()


def test_who_gives_a_sign_of_life_while_watched_keeps_the_lock(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each host gives the times of its files, a clock that is ahead makes the living look dead."""
    before = left_by(tree, THERE, 60 * MINUTE)
    monkeypatch.setattr(time, "sleep", lambda _: signed(tree, 59 * MINUTE))
    monkeypatch.setattr(os, "rename", lambda *_, **__: pytest.fail("took the file of the living away"))
    with pytest.raises(LockedError, match=HOLDER):
        held(tree).__enter__()
    assert file_of(tree).read_bytes() == before


def test_who_gives_one_just_before_being_taken_over_gets_the_lock_back(
    tree: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, really = left_by(tree, THERE, 6 * MINUTE), os.rename

    def rename(name: str, to: str, **where: int) -> None:
        if name == HOST_LOCK:
            signed(tree)
        really(name, to, **where)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(LockedError, match=HOLDER):
        held(tree).__enter__()
    assert file_of(tree).read_bytes() == before


def test_of_two_that_take_over_at_once_one_gets_it(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other has looked before, and comes to rename only now."""
    left_by(tree, THERE, 6 * MINUTE)
    other, first = a_lock(tree, Host("elsewhere", "boot 4")), a_lock(tree)
    really = os.rename

    def rename(name: str, to: str, **where: int) -> None:
        if name == HOST_LOCK:
            monkeypatch.setattr(os, "rename", really)
            assert first.take()
        really(name, to, **where)

    monkeypatch.setattr(os, "rename", rename)
    assert not other.take()
    assert json.loads(file_of(tree).read_bytes())["host"] == HERE.name
    time.sleep(5 * QUICK.beat)
    assert stopping.why_lost() == ""
    first.release()


def test_who_is_robbed_just_after_taking_over_does_not_begin(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(tree, THERE, 6 * MINUTE)
    really = time.sleep
    monkeypatch.setattr(
        time, "sleep", lambda slept: left_by(tree, RESTARTED) if slept == QUICK.beat / 5 else really(slept)
    )
    assert not a_lock(tree).take()


def test_a_holder_gives_signs_of_life_and_lets_go(tree: str) -> None:
    with held(tree):
        signed(tree, 60 * MINUTE)
        until(lambda: time.time() - file_of(tree).stat().st_mtime < MINUTE)
        assert not stopping.stopped()
        with pytest.raises(LockedError, match="process 1 on here; its last sign of life came 0s ago"):
            held(tree, THERE).__enter__()
    assert not file_of(tree).exists()
    time.sleep(5 * QUICK.beat)
    assert not stopping.stopped()


def test_who_has_the_lock_after_a_holder_with_a_longer_name_is_told_of(tree: str) -> None:
    """The file that is left for the next run is longer."""
    for name in ("long" * 200, "short"):
        first = HostLock(tree, name, HERE, QUICK)
        assert first.take()
        assert a_lock(tree, THERE).other().startswith(f"{name}; its last sign of life came ")
        assert a_lock(tree).other() == name
        first.release()
    assert a_lock(tree).other() == ""


def test_a_holder_whose_lock_was_taken_over_hears_of_it_and_leaves_it(tree: str) -> None:
    with held(tree):
        other = left_by(tree, THERE)
        until(stopping.stopped)
        assert stopping.why_lost() == hosts.TAKEN_OVER
        assert stopping.exit_code() == stopping.FAILED
    assert file_of(tree).read_bytes() == other


def test_a_holder_that_can_give_no_sign_ends_after_half_of_the_time(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the machine slept, or the file server is away; it does not come back after that."""
    now = stopping.now()
    monkeypatch.setattr(stopping, "now", lambda: now)
    with held(tree):
        Path(tree, STATE).rename(Path(tree, "away"))
        Path(tree, STATE).write_text("not a folder")  # each look fails
        now += 149
        assert not stopping.stopped()
        now += 2
        Path(tree, STATE).unlink()
        Path(tree, "away").rename(Path(tree, STATE))
        time.sleep(5 * QUICK.beat)
        assert stopping.why_lost() == stopping.SILENT
    assert file_of(tree).exists()  # nobody knows whose it is


def test_processes_at_work_know_until_when_the_lock_is_held(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask a time in the memory of all, also while the main process is stuck."""
    now = stopping.now()
    monkeypatch.setattr(stopping, "now", lambda: now)
    with held(tree):
        at_work = [0, 0]
        stopping.share(at_work)  # as the main process does, when it has begun them
        Path(tree, STATE).rename(Path(tree, "away"))
        Path(tree, STATE).write_text("not a folder")
        for name in ("_locks", "_why"):  # which they do not know
            monkeypatch.setattr(stopping, name, {})
        assert not stopping.stopped()
        now += 151
        assert stopping.stopped()
        assert at_work[stopping.WISH] == stopping.LOST


def test_a_sign_that_comes_while_the_lock_is_let_go_holds_nothing(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    is_let_go, really = threading.Event(), os.utime

    def utime(*arguments: Any) -> None:
        is_let_go.wait(20)
        really(*arguments)

    begun = held(tree)
    begun.__enter__()
    monkeypatch.setattr(os, "utime", utime)
    time.sleep(5 * QUICK.beat)
    begun.__exit__(None, None, None)
    is_let_go.set()
    time.sleep(5 * QUICK.beat)
    assert stopping._run[stopping.UNTIL] == 0  # noqa: SLF001 - by which all processes go


def test_a_fork_lets_nothing_go(tree: str) -> None:
    with held(tree):
        own = a_lock(tree)
        own._content = file_of(tree).read_bytes()  # noqa: SLF001 - as if it had taken it
        own._process += 1  # noqa: SLF001
        stopping.hold(own, stopping.now() + 100)
        own.release()
        assert file_of(tree).exists()


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOTSUP])
def test_where_there_are_no_second_names_one_holds_it_as_well(
    tree: str, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", link)
    with held(tree):
        assert json.loads(file_of(tree).read_bytes())["host"] == HERE.name
        assert not a_lock(tree, THERE).take()
    left_by(tree, THERE, 6 * MINUTE)
    with held(tree):
        pass


def test_a_link_whose_answer_is_lost_is_made(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS asks again, and hears that the name is taken: by ourselves."""
    really = os.link

    def link(name: str, to: str, **how: Any) -> None:
        really(name, to, **how)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "link", link)
    with held(tree):
        assert not a_lock(tree, THERE).take()


def test_on_a_full_disk_it_is_held_as_well(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(tree):
        pass
    spare = file_of(tree, hosts.NEXT).stat().st_ino

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with held(tree):
            assert file_of(tree).stat().st_ino == spare
            assert not a_lock(tree, THERE).take()
            assert not stopping.stopped()
        file_of(tree, hosts.NEXT).unlink()
        with held(tree, THERE):
            assert file_of(tree).read_bytes() == b""
            assert not a_lock(tree).take()
    assert not file_of(tree).exists()


def test_what_a_crash_left_on_the_way_does_not_hinder_and_goes_in_time(tree: str) -> None:
    left_by(tree, HERE)
    names = [file_of(tree, f"{HOST_LOCK}.{name}.tmp") for name in ("made", "link", "dead")]
    os.link(file_of(tree), names[1])
    for name in (names[0], names[2]):
        name.write_text("x")
    with held(tree):
        assert all(name.exists() for name in names)  # another host may be at work on them
    for name in names:
        os.utime(name, (0, 0))
    with held(tree):
        assert not any(name.exists() for name in names)


@pytest.mark.parametrize("what", ["", "{", "[1]", '{"holder": 3}', "\x1b[2J"])
def test_what_is_no_record_is_believed_for_as_long_as_it_is_young(tree: str, what: str) -> None:
    left_by(tree, THERE)
    file_of(tree).write_text(what)
    with pytest.raises(LockedError, match="its last sign of life came 0s ago"):
        held(tree).__enter__()
    signed(tree, 6 * MINUTE)
    with held(tree):
        pass


HOLDS = """
import sys, time
from ckptrules.storage.hosts import Host, HostLock, Pace
assert HostLock(sys.argv[1], "process 5 on there", Host("there", "boot 2"), Pace(0.05, 1, 0.15)).take()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.whole
def test_two_machines(tree: str) -> None:
    """Each is a process that is told who it is; the lock of the kernel, which they do not share, is left out."""
    other = subprocess.Popen([sys.executable, "-c", HOLDS, tree], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    ours = a_lock(tree, HERE, Pace(0.05, 1, 0.15))
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert not ours.take()
    other.send_signal(signal.SIGSTOP)
    until(ours.take)
    other.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    assert json.loads(file_of(tree).read_bytes())["host"] == HERE.name
    assert not stopping.stopped()
    ours.release()
    other.kill()
    other.communicate()


@pytest.mark.parametrize("ago", [0, 6 * MINUTE])
def test_ctrl_c_ends_a_wait_and_a_watch(tree: str, monkeypatch: pytest.MonkeyPatch, ago: float) -> None:
    left_by(tree, THERE, ago)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        monkeypatch.setattr(stopping, "_run", [stopping.ASKED, 0])

    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(LockedError, match=HOLDER):
        lock.lock(tree, "process 1 on here", 60, host=HERE)
    assert len(slept) == 1
    assert slept[0] < 2


def test_a_wait_is_for_the_other_host_too(tree: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(tree, THERE)
    monkeypatch.setattr(time, "sleep", lambda _: file_of(tree).unlink(missing_ok=True))
    with lock.lock(tree, "process 1 on here", 60, host=HERE, pace=QUICK):
        pass


def test_a_run_whose_lock_was_taken_over_ends_before_its_next_change(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"epoch={number}-step={number}.ckpt" for number in range(1, 9)]
    project.make({f"{exp}/checkpoints/{name}": 9 for exp in ("one", "two") for name in names})
    before, folder = project.tree(), str(project.outputs)
    monkeypatch.setattr(posix, "lock", functools.partial(lock.lock, pace=QUICK))

    is_robbed = False

    def rob(_: int) -> None:
        nonlocal is_robbed
        if not (is_robbed or (project.outputs / "one/checkpoints" / names[3]).exists()):
            is_robbed = True
            left_by(folder, THERE)
            until(stopping.stopped)

    ended = crash.run(project.folder, "migrate", at_change=rob)
    assert ended.code == stopping.FAILED
    assert f"ERROR: {hosts.TAKEN_OVER}\n    hint: run again, on one host: that finishes what was begun" in ended.output
    left = project.tree()
    changed = [path for path in before if path not in left]
    assert 4 <= len(changed) <= 6, ended.output
    assert json.loads(file_of(folder).read_bytes())["host"] == "there"
    file_of(folder).unlink()
    assert crash.run_in_turn(project.folder, "migrate").code == 0
    while "There is nothing to take back" not in crash.run_in_turn(project.folder, "undo").output:
        pass
    assert project.tree() == before


ENDS = {
    "well": ("", 0, ("migrate",)),
    "refused, with the lock": ("", 3, ("migrate", "delete_old=1", "max_delete=0")),
    "a fault": ("1 / 0\n", 3, ("migrate",)),
    "stopped": ("import signal\nsignal.raise_signal(signal.SIGTERM)\n", 130, ("migrate",)),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_lock_goes_with_every_end_of_a_run(project: Project, end: str) -> None:
    more, code, command = ENDS[end]
    project.make({f"one/checkpoints/epoch={epoch}-step=2.ckpt": 9 for epoch in (1, 2, 30)})
    with (project.folder / "dodo.py").open("a") as dodo:
        dodo.write(f"import os\nassert os.path.exists('outputs/{STATE}/{HOST_LOCK}')\n{more}")
    ended, out, _ = run_program("doit", *command, folder=project.folder, environment=default())
    assert (ended, "AssertionError" in out) == (code, False), out
    assert not file_of(str(project.outputs)).exists()


@pytest.mark.whole
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_run_that_was_killed_while_it_took_the_lock_hinders_none(project: Project, how: str) -> None:
    for at in range(1, 13):
        project.make({"one/checkpoints/epoch=1-step=2.ckpt": 9})
        assert crash.run_in_turn(project.folder, "migrate", fault=Fault(at, how)).code == -signal.SIGKILL
        assert crash.run_in_turn(project.folder, "purge").code == 0, at
        assert not file_of(str(project.outputs)).exists()
