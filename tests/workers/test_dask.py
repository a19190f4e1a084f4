"""Dask workers do as this process does: what dies, fails or does not fit costs no more than it must, and is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ckptrules
from ckptrules.stopping import KilledError
from ckptrules.workers.pieces import BYTES, SMALL, Lost
from ckptrules.workers.workers import Workers
from tests.conftest import ROOT, Project, content_hash, default
from tests.support.dask_work import LOCAL, File, Scheduler, kill_other, work, workers_of
from tests.support.torch_files import write_large
from tests.verify.test_check_portions import EXPECTED, large

distributed = pytest.importorskip("distributed", reason="needs ckptrules[dask]")
pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Give two Dask workers of this machine."""
    outputs = tmp_path_factory.mktemp("seen")
    found = workers_of(LOCAL, outputs)
    yield found
    found.end(killed=False)
    assert not list(outputs.iterdir())  # the token, and what it needed, is gone


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Scheduler]:
    """Give a scheduler that each test leaves as it is."""
    found = Scheduler()
    yield found
    found.end()


@pytest.fixture
def own_scheduler(request: pytest.FixtureRequest) -> Iterator[Scheduler]:
    found = Scheduler(**getattr(request, "param", {}))
    yield found
    found.end()


def test_files_are_worked_on_by_dask_workers_and_all_bytes_are_told(workers: Workers) -> None:
    told: list[int] = []
    pids = list(workers.each(work, [File("a")] * 8, told.append))
    assert os.getpid() not in pids
    assert len(set(pids)) == 2
    assert sum(told) == 8 * SMALL


def test_what_dies_or_fails_costs_no_more_than_its_file(workers: Workers, tmp_path: Path) -> None:
    names = ["a", "kills once", "kills", "b", "fails", "c"]
    answers = list(workers.each(work, [File(name, str(tmp_path)) for name in names], lambda _: None))
    lost = {name: answer for name, answer in zip(names, answers, strict=True) if isinstance(answer, Lost)}
    assert lost == {
        "kills": Lost("3 workers died of it (KilledWorker)"),
        "fails": Lost("the worker failed: PermissionError: Permission denied"),
    }


def test_a_worker_that_is_slow_to_come_back_is_not_taken_for_lost(tmp_path: Path) -> None:
    """On a busy machine its cluster ended it as soon as it was there, and with it a file that had harmed nobody."""
    import dask

    starts, killed = tmp_path / "starts", tmp_path / "kills once"
    (tmp_path / "slow.py").write_text(
        f"import os, time\nopen({str(starts)!r}, 'a').write(f'{{os.getpid()}}\\n')\nif os.path.exists({str(killed)!r}): time.sleep(6)\n"
    )
    with dask.config.set({"distributed.worker.preload": [str(tmp_path / "slow.py")]}):
        workers = workers_of("dask:local:1", tmp_path / "outputs")
        [answer] = workers.each(work, [File(killed.name, str(tmp_path))], lambda _: None)
        workers.end(killed=False)
    assert answer != os.getpid()
    assert len(set(starts.read_text().split())) == 2


@pytest.mark.parametrize(("times", "lost"), [(0, 0), (1, 0), (99, 3)])
def test_whole_pieces_go_to_workers_too_and_come_back_when_these_die(
    workers: Workers, tmp_path: Path, times: int, lost: int
) -> None:
    assert len(list(workers.each(work, [File("a")] * 2, lambda _: None))) == 2  # they have started
    with ThreadPoolExecutor(4) as threads:  # as doit has them
        answers = list(threads.map(lambda _: workers.do(kill_other, os.getpid(), tmp_path, times), range(4)))
    died = [answer for answer in answers if isinstance(answer, Lost)]
    assert set(died) == {Lost("3 workers died of it")} or not lost
    assert len(died) >= lost
    assert len(set(answers) - {os.getpid()}) >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_to_stop_reaches_a_worker_in_the_middle_of_a_file(number: signal.Signals, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to all processes of the group, SLURM sends SIGTERM: only the main one heeds it itself."""
    code = "import sys; from pathlib import Path; from tests.support.dask_work import wait_for_stop; wait_for_stop(Path(sys.argv[1]))"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=ROOT, env=default(), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as run:  # fmt: skip
        assert run.stdout
        assert run.stdout.readline() == "done: 1\n"
        deadline = time.monotonic() + 60
        while not (tmp_path / "long").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(run.pid, number)
        out, _ = run.communicate(timeout=60)
    assert out == "stopped\n"
    assert (tmp_path / "long.stopped").exists()


@pytest.mark.parametrize("own_scheduler", [{"threads": 2}], indirect=True)
def test_a_worker_of_several_threads_is_refused(own_scheduler: Scheduler, tmp_path: Path) -> None:
    assert refusal(own_scheduler, tmp_path) == (
        "worker <address> has 2 threads, which would share one folder\n    hint: start it with --nthreads 1"
    )


def test_workers_of_another_version_and_those_that_see_other_files_are_refused(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ckptrules.__version__
    same = "\n    hint: install the same on all machines"
    with scheduler.of_another_version():
        assert refusal(scheduler, tmp_path) == f"worker <address> has ckptrules 9.9; here is {here}{same}"
    with monkeypatch.context() as other:
        other.setattr("ckptrules.workers.dask.PYTHON", "3.9")
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        assert refusal(scheduler, tmp_path) == (
            f"worker <address> has ckptrules {here} on Python {python}; here is {here} on 3.9{same}"
        )
    monkeypatch.setattr("ckptrules.workers.dask.token", lambda _: NoToken())
    assert refusal(scheduler, tmp_path) == (
        "worker <address> does not see /nowhere/token\n"
        "    hint: all machines must have the same folders under the same paths"
    )


class NoToken:
    """A token on a disk that only this process has."""

    def __enter__(self) -> str:
        return "/nowhere/token"

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("own_scheduler", [{"host": "0.0.0.0"}], indirect=True)
def test_a_scheduler_that_others_can_reach_is_refused(own_scheduler: Scheduler, tmp_path: Path) -> None:
    url = own_scheduler.executor.removeprefix("dask:")
    assert refusal(own_scheduler, tmp_path) == (
        "its scheduler <address> has no TLS: whoever reaches it runs code as you\n"
        f"    hint: where you trust all who do: executor=dask:insecure:{url}"
    )


def refusal(scheduler: Scheduler, tmp_path: Path) -> str:
    workers = workers_of(scheduler.executor, tmp_path / "outputs")
    with pytest.raises(KilledError) as refused:
        list(workers.each(work, [File("a")], lambda _: None))
    workers.end(killed=True)
    return addressed(str(refused.value).removeprefix(f"executor={scheduler.executor}: "))


def addressed(text: str) -> str:
    return re.sub(r"(worker|scheduler) tcp://[\d.:]+", r"\1 <address>", text)


def test_a_worker_that_comes_later_and_does_not_fit_is_sent_away(scheduler: Scheduler, tmp_path: Path) -> None:
    (tmp_path / "older.py").write_text("import ckptrules\nckptrules.__version__ = '0.0.9'\n")
    said: list[str] = []
    workers = workers_of(scheduler.executor, tmp_path / "outputs", said.append)
    answers = workers.each(work, [File("slow", size=BYTES)] * 200, lambda _: None)
    pids = {next(answers)}
    url = scheduler.executor.removeprefix("dask:")
    words = "--nthreads 1 --no-nanny --no-dashboard --preload".split()
    with subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", url, *words, tmp_path / "older.py"],
        cwd=ROOT, env=default(), stderr=subprocess.DEVNULL,
    ) as newcomer:  # fmt: skip
        while newcomer.poll() is None and (pid := next(answers, None)):
            pids.add(pid)
        answers.close()
        newcomer.kill()
    wait_until_nothing_is_kept(scheduler)
    workers.end(killed=False)
    assert pids == set(scheduler.client.run(os.getpid).values())
    here = ckptrules.__version__
    sent = (
        f"Sent away: worker <address> has ckptrules 0.0.9; here is {here}\n    hint: install the same on all machines"
    )
    assert [*map(addressed, said)] == [sent]


def wait_until_nothing_is_kept(scheduler: Scheduler) -> None:
    """Wait for that, as what is kept would be done again when its worker dies."""
    deadline = time.monotonic() + 10
    while any(scheduler.client.who_has().values()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_was_answered_is_let_go_while_others_are_at_work(scheduler: Scheduler, tmp_path: Path) -> None:
    workers = workers_of(scheduler.executor, tmp_path / "outputs")
    answers = workers.each(work, [File("a"), File("long", str(tmp_path), 2 * SMALL)], lambda _: None)
    assert next(answers)
    wait_until_nothing_is_kept(scheduler)
    answers.close()
    workers.end(killed=False)


def test_what_listens_and_is_no_scheduler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptrules.workers.dask.CALL", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        workers = workers_of(f"dask:tcp://127.0.0.1:{server.getsockname()[1]}", tmp_path / "outputs")
        with pytest.raises(KilledError, match="what listens there does not answer as a scheduler of Dask"):
            list(workers.each(work, [File("a")], lambda _: None))
    workers.end(killed=True)


def test_where_the_scheduler_is_gone_what_was_done_stands(own_scheduler: Scheduler, tmp_path: Path) -> None:
    workers = workers_of(own_scheduler.executor, tmp_path / "outputs")
    answers = workers.each(work, [File("slow", size=BYTES)] * 24, lambda _: None)
    assert next(answers)
    own_scheduler.cluster.close()
    with pytest.raises(KilledError, match="the scheduler is gone\n    hint: start it, and run again: what was done"):
        list(answers)
    workers.end(killed=True)


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def big(project: Project) -> Project:
    """Give a project with directories that are worth workers: one is damaged, one is small."""
    for name, count, size in (("a", 2, SMALL), ("b", 3, SMALL // 2), ("c", 2, 1000)):
        for number in range(count):
            write_large(project.outputs / name / f"checkpoints/epoch-0{number}_step-00000{number}.ckpt", {}, size)
    with (project.outputs / "b/checkpoints/epoch-01_step-000001.ckpt").open("r+b") as file:
        file.seek(SMALL // 4)
        file.write(b"flipped")
    return project


def doit(project: Project, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "doit", *words], cwd=project.folder, env={**default(), "PYTHONPATH": str(ROOT), **(env or {})},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_verify_by_dask_tells_and_remembers_the_same(big: Project) -> None:
    for path in big.outputs.rglob("*.ckpt"):
        os.utime(path, (1e9, 1e9))  # else it is too young to be remembered
    code, here = doit(big, "verify", "executor=none")
    assert code == 1
    assert "damaged" in here
    shutil.rmtree(big.outputs / ".ckptrules")
    assert blocks(doit(big, "verify", f"executor={LOCAL}")[1]) == blocks(here)
    broken = big.folder / "broken" / "distributed"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise SystemExit('imported')")
    shutil.rmtree(big.outputs / "b")  # what is damaged is read by each run
    code, again = doit(big, "verify", f"executor={LOCAL}", env={"PYTHONPATH": f"{broken.parent}:{ROOT}"})
    assert code == 0, again
    assert re.search(r"checkpoints 4 *\n +verified +4 .*\n +read now +0", again), again


def test_verify_by_dask_shares_the_files_of_a_folder(project: Project, scheduler: Scheduler) -> None:
    assert EXPECTED in doit(large(project), "verify", f"executor={scheduler.executor}")[1]
    assert "read now    2" in doit(project, "verify")[1]  # what is broken is read by each run


def blocks(text: str) -> list[str]:
    """Return what is told of each experiment, in the order of their names: the first that is done is told first."""
    return sorted(re.split(r"(?m)^(?=Verifying|Summary)", text))


def test_a_backup_by_dask_is_the_same_and_nothing_is_left_where_there_are_no_workers(
    big: Project, scheduler: Scheduler
) -> None:
    (big.folder / "here").mkdir()
    (big.folder / "dask").mkdir()
    for to, executor in (("here", "none"), ("dask", LOCAL)):
        code, out = doit(big, "backup", f"to={to}", f"executor={executor}", "mode=copy")
        assert code == 0, out
    assert held(big.folder / "dask") == held(big.folder / "here") == held(big.outputs)
    assert doit(big, "backups", "to=dask", "verify=1", f"executor={scheduler.executor}")[1].split()[-1] == "verified"
    shutil.rmtree(big.outputs / "a")
    [backup] = (big.folder / "dask").iterdir()
    code, out = doit(big, "restore", f"backup={backup}", f"executor={scheduler.executor}")
    assert code == 0, out
    assert held(big.outputs) == held(big.folder / "here")
    with scheduler.of_another_version():
        code, out = doit(big, "backup", "to=here", f"executor={scheduler.executor}", "mode=copy")
    assert code == 2
    assert f"\nERROR: executor={scheduler.executor}: worker <address> has ckptrules 9.9; here is" in addressed(out)
    assert len(list((big.folder / "here").iterdir())) == 1


def held(folder: Path) -> dict[str, str]:
    """Return what a folder of checkpoints, or the one backup in a folder, holds."""
    return {
        str(path).rpartition("checkpoints/")[2] + path.parts[-3]: content_hash(str(path))
        for path in folder.rglob("*.ckpt")
    }


def test_what_changes_names_stays_where_its_journal_is(project: Project) -> None:
    for task in ("migrate", "plan", "page"):
        out = project.doit(task, f"executor={LOCAL}", check=3)
        assert (
            f"executor={LOCAL}: must be one of none, processes\n    hint: this stays where its journal is; what copies"
            in out
        )


def test_a_scheduler_that_is_not_there_is_told_in_one_line(project: Project) -> None:
    out = project.doit("verify", "executor=dask:tcp://127.0.0.1:9", check=3)
    assert out.startswith(
        "ERROR: command line: executor=dask:tcp://127.0.0.1:9: nobody answers there: Connection refused\n    hint: "
    )
