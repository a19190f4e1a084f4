"""Several processes at once: workers of one run, two runs, a run beside a training that goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project, content_hash

EXPERIMENTS, EPOCHS, MOST = 8, 12, 2000
TREE: dict[str, int | str] = {
    f"run{n}/checkpoints/epoch={epoch}-step={epoch * 10}.ckpt": 100 + n
    for n in range(EXPERIMENTS)
    for epoch in range(4, EPOCHS)
}
TREE |= {
    f"run{n}/checkpoints/last.ckpt": f"-> epoch={EPOCHS - 1}-step={(EPOCHS - 1) * 10}.ckpt" for n in range(EXPERIMENTS)
}
COMMAND = ("migrate", "delete_old=1")
PATIENCE = 120  # seconds; only a process that never ends takes so long
HOOK = """
import os, signal
from ckptrules.storage import moving
really, count, MAIN = moving.rename, 0, int(os.environ.setdefault("MAIN", str(os.getpid())))
def once():
    try:
        os.close(os.open("once", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
def rename(*args):
    global count
    count += 1
    if count == {at}:
        {act}
    return really(*args)
moving.rename = rename
"""
BETWEEN = """
import os, signal
from ckptrules.changes.journal import Journal
really, MAIN = Journal.conclude, int(os.environ.setdefault("MAIN", str(os.getpid())))
def conclude(*args):
    really(*args)
    if os.getpid() != MAIN:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.conclude = conclude
"""
READS = """
import os, signal
from ckptrules.verify import check
really, MAIN = check.begin, int(os.environ.setdefault("MAIN", str(os.getpid())))
def begin(*args):
    if os.getpid() != MAIN:
        os.kill(os.getpid(), signal.SIGKILL)
    return really(*args)
check.begin = begin
"""
RUN = re.compile(r"\d{8}T\d{6}Z-\d+")


def hook(project: Project, at: int | str, act: str, text: str = HOOK) -> None:
    """Let every process that `start` starts, and every one of its own, do something right before one of its renames."""
    (project.folder / "hook").mkdir()
    (project.folder / "hook" / "sitecustomize.py").write_text(text.format(at=at, act=act))


def unhook(project: Project) -> None:
    (project.folder / "hook" / "sitecustomize.py").unlink()


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "doit", *arguments],
        cwd=project.folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": f"{project.folder}/hook{os.pathsep}{ROOT}"},
        text=True,
        encoding="utf-8",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def undo_all(project: Project) -> None:
    while "Taken back: " in project.doit("undo"):
        pass


def test_workers_do_what_one_process_does(project: Project) -> None:
    project.make(TREE)
    before = project.tree()
    alone = project.doit(*COMMAND)
    tree = project.tree()
    project.doit("undo")
    together = project.doit("-n", "4", *COMMAND)
    assert project.tree() == tree
    assert sorted(together.splitlines()) == sorted(alone.splitlines())
    history = project.doit("history").splitlines()
    renamed, deleted = EXPERIMENTS * 2, EXPERIMENTS * 6
    did = [len(re.findall(f"  migrate delete_old=1 +{renamed} +{deleted} ", line)) for line in history]
    assert did == [0, 1, 0, 1], history
    project.doit("-n", "4", "undo")
    assert project.tree() == before


def test_workers_take_back_what_one_process_does(project: Project) -> None:
    project.make(TREE)
    before = project.tree()
    project.doit(*COMMAND)
    foreseen = project.doit("undo", "dry_run=1")
    assert sorted(project.doit("-n", "4", "undo", "dry_run=1").splitlines()) == sorted(foreseen.splitlines())
    alone = project.doit("undo")
    assert project.tree() == before
    project.doit(*COMMAND)
    known = set(os.listdir(project.outputs / ".ckptrules/journal"))
    together = project.doit("-n", "4", "undo")
    assert project.tree() == before
    assert RUN.sub("", "\n".join(sorted(together.splitlines()))) == RUN.sub("", "\n".join(sorted(alone.splitlines())))
    journals = [name.split(".") for name in set(os.listdir(project.outputs / ".ckptrules/journal")) - known]
    assert [run for run, process, _ in journals if not run.endswith(process)], "no worker has written a journal"
    undone = project.doit("history").splitlines()[1]
    assert re.search(rf"  undo +{EXPERIMENTS * 2} ", undone), undone
    assert "There is nothing to take back." in project.doit("-n", "4", "undo")


LINKED: dict[str, int | str] = {"run0/checkpoints/best.ckpt": "-> ../../run1/checkpoints/epoch=5-step=50.ckpt"}


def test_workers_take_back_what_leads_into_other_directories(project: Project) -> None:
    project.make({**TREE, **LINKED})
    before = project.tree()
    project.doit(*COMMAND)
    project.doit("-n", "4", "undo")
    assert project.tree() == before


@pytest.mark.parametrize("at", [1, 4, 9])
def test_workers_killed_while_they_take_back_lose_nothing(project: Project, at: int) -> None:
    project.make(TREE)
    before = project.tree()
    project.doit(*COMMAND)
    hook(project, at, "os.killpg(0, signal.SIGKILL)")
    run = start(project, "-n", "4", "undo")
    run.communicate(timeout=PATIENCE)
    assert run.returncode == -signal.SIGKILL
    had = {text for text in before.values() if text[:2] != "->"}
    assert had <= set(project.tree(state=True).values())
    unhook(project)
    undo_all(project)
    assert project.tree() == before


@pytest.mark.parametrize(
    ("act", "code"),
    [("os.kill(os.getpid(), signal.SIGKILL)", 2), ("once() and os.killpg(0, signal.SIGINT)", 130)],
    ids=["killed", "stopped"],
)
def test_an_undo_of_which_a_worker_ends_goes_on_with_the_next(project: Project, act: str, code: int) -> None:
    project.make(TREE)
    before = project.tree()
    project.doit(*COMMAND)
    hook(project, 3, act)
    run = start(project, "-n", "2", "undo")
    out, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == code, out
    assert "Traceback" not in out
    assert project.tree() != before
    unhook(project)
    undo_all(project)
    assert project.tree() == before


@pytest.mark.parametrize("at", [1, 4, 9])
def test_workers_killed_in_the_midst_lose_nothing(project: Project, at: int) -> None:
    project.make(TREE)
    before = project.tree()
    project.doit(*COMMAND)
    final = project.tree()
    project.doit("undo")
    hook(project, at, "os.killpg(0, signal.SIGKILL)")
    run = start(project, "-n", "4", *COMMAND)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == -signal.SIGKILL
    assert set(before.values()) <= set(project.tree(state=True).values())
    unhook(project)
    project.doit(*COMMAND)
    assert project.tree() == final
    undo_all(project)
    assert project.tree() == before


@pytest.mark.parametrize("at", [1, 2, 5])
def test_workers_do_not_outlive_the_main_process(project: Project, at: int) -> None:
    project.make(TREE)
    before = project.tree()
    hook(project, at, "os.kill(MAIN, signal.SIGKILL)")
    run = start(project, "-n", "4", *COMMAND)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == -signal.SIGKILL
    unhook(project)
    project.doit(*COMMAND, "wait=60")
    undo_all(project)
    assert project.tree() == before


@pytest.mark.parametrize("at", [1, 4])
def test_the_main_process_does_not_wait_for_a_worker_that_was_killed(project: Project, at: int) -> None:
    project.make(TREE)
    before = project.tree()
    hook(project, at, "os.kill(os.getpid(), signal.SIGKILL)")
    run = start(project, "-n", "2", *COMMAND)
    out, _ = run.communicate(timeout=PATIENCE)
    assert "ERROR: a worker was killed (was the memory full?)\n    hint: run again" in out
    assert run.returncode == 2
    unhook(project)
    project.doit(*COMMAND)  # at once: nobody holds the lock any more
    undo_all(project)
    assert project.tree() == before


def test_nor_does_verify_wait_for_one(project: Project) -> None:
    """It said that no rule fits any name: nothing was counted, as what nothing comes to was that of a migration."""
    project.make(TREE)
    hook(project, 0, "", READS)
    out, _ = (run := start(project, "-n", "2", "verify")).communicate(timeout=PATIENCE)
    assert "ERROR: a worker was killed (was the memory full?)\n    hint: run again" in out
    assert (run.returncode, "Nothing was understood" in out) == (2, False), out


def test_history_says_that_a_run_was_cut_short_of_which_a_worker_is_killed_between_two_directories(
    project: Project,
) -> None:
    """Its journals end well, and the main process comes to its end: the run was called done."""
    project.make(TREE)
    hook(project, 0, "", BETWEEN)
    run = start(project, "-n", "2", "migrate:run0")  # another worker would be ended in the middle of something
    out, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 2, out
    unhook(project)
    assert re.search(r"  stopped: \d+ done$", project.doit("history").splitlines()[1]), project.doit("history")


def test_nor_for_one_that_is_killed_when_another_has_come_to_its_end(project: Project) -> None:
    project.make({**TREE, "aaa/checkpoints/epoch=12-step=1.ckpt": 7})
    before = project.tree()
    die = "args[1].startswith('epoch=4-') and (__import__('time').sleep(1.5), os.kill(os.getpid(), signal.SIGKILL))"
    hook(project, "count", die)  # before any rename: one worker may do both
    run = start(project, "-n", "2", "migrate:aaa", "migrate:run0")
    out, _ = run.communicate(timeout=PATIENCE)
    assert "ERROR: a worker was killed (" in out
    assert run.returncode == 2
    unhook(project)
    project.doit("migrate:aaa")
    undo_all(project)
    assert project.tree() == before


def test_nor_where_the_wish_to_stop_comes_first(project: Project) -> None:
    project.make(TREE)
    wake = "os.system(f'(sleep 1; kill -CONT {MAIN}) 2>/dev/null &')"
    die = f"os.kill(MAIN, signal.SIGSTOP), os.kill(MAIN, signal.SIGINT), {wake}, os.kill(os.getpid(), signal.SIGKILL)"
    hook(project, 1, f"os.getpid() != MAIN and args[1].startswith('epoch=4-') and ({die})")
    run = start(project, "-n", "2", "migrate:run0")
    run.communicate(timeout=PATIENCE)
    assert run.returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("processes", ["0", "2"])
def test_an_output_that_cannot_be_written_does_not_stop_the_work(project: Project, processes: str) -> None:
    many = {f"more{n}/checkpoints/{'x' * 200}{n}.ckpt": 3 for n in range(40)}  # more than is held back
    project.make({**TREE, **many})
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "doit", "-n", processes, *COMMAND]
        run = subprocess.run(
            command, cwd=project.folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False
        )
    assert run.stderr == "ERROR: the output cannot be written: No space left on device\n"
    assert run.returncode == 2
    assert project.names("run3")[0].startswith("epoch-10_")
    assert "Up to date: run3\n" in project.doit(*COMMAND, "verbose=1")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_workers_stopped_in_the_midst_leave_nothing_half_done(project: Project, number: str) -> None:
    project.make(TREE)
    before = project.tree()
    hook(project, 2, f"once() and os.killpg(0, signal.{number})")
    run = start(project, "-n", "4", *COMMAND)
    out = run.communicate(timeout=PATIENCE)[0]
    assert run.returncode == 130, out
    assert "Traceback" not in out
    unhook(project)
    out = project.doit(*COMMAND)
    assert "Recovered: " not in out
    undo_all(project)
    assert project.tree() == before


@pytest.mark.parametrize("wait", ["0", "60"])
def test_of_two_runs_one_works_and_the_other_is_refused_or_waits(project: Project, wait: str) -> None:
    project.make(TREE)
    gate, begun = project.folder / "gate", project.folder / "begun"
    os.mkfifo(gate)
    os.mkfifo(begun)
    hook(project, 1, f"open({str(begun)!r}, 'w').close(); open({str(gate)!r}).close()")
    first = start(project, *COMMAND)
    begun.open().close()
    if wait == "0":
        unhook(project)
        refused = project.doit(*COMMAND, check=3)
        assert re.fullmatch(
            r"ERROR: another run is at work in 'outputs': process \d+ on \S+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n"
            r"    hint: wait=60 waits a minute for it to finish; the lock goes with its holder\n",
            refused,
        )
        gate.open("w").close()
    else:
        unhook(project)
        second = start(project, *COMMAND, f"wait={wait}")
        gate.open("w").close()
        out = second.communicate(timeout=PATIENCE)[0]
        assert (second.returncode, out) == (0, f"Nothing to do: {EXPERIMENTS} experiments are up to date.\n")
    first.communicate(timeout=PATIENCE)
    assert first.returncode == 0
    assert len(project.doit("history").splitlines()) == len(["heading", "first"])


def test_a_training_that_goes_on_loses_nothing(project: Project) -> None:
    project.make(TREE)
    written: set[str] = set()
    enough = threading.Event()

    def train() -> None:
        epoch = EPOCHS
        while not enough.is_set() and epoch < MOST:
            folder = project.outputs / f"run{epoch % EXPERIMENTS}" / "checkpoints"
            temporary = folder / f".{epoch}.tmp"
            temporary.write_text(f"epoch {epoch}")
            written.add(content_hash(str(temporary)))
            temporary.rename(folder / f"epoch={epoch}-step={epoch * 10}.ckpt")
            epoch += 1

    before = set(project.tree().values())
    training = threading.Thread(target=train)
    training.start()
    try:
        for _ in range(3):
            project.doit("-n", "2", *COMMAND)
    finally:
        enough.set()
        training.join()
    project.doit(*COMMAND)
    left = set(project.tree(state=True).values())
    assert {text for text in before if text[:2] != "->"} | written <= left
    names = {Path(path).name for path in project.tree()}
    assert all(re.fullmatch(r"epoch-\d\d+_step-\d{6,}\.ckpt|last\.ckpt", name) for name in names), names
