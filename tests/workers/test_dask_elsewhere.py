"""Dask workers of other machines: one whose link is cut, and jobs of SLURM, of which one is cancelled.

The commands are those of docs/cluster.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ckptrules.workers.pieces import SMALL, Lost
from ckptrules.workers.workers import Workers
from tests.conftest import ROOT, Project, default
from tests.support.dask_work import File, work, workers_of
from tests.support.torch_files import write_large

dask = pytest.importorskip("dask", reason="needs ckptrules[dask]")
pytestmark = [pytest.mark.whole, pytest.mark.filterwarnings("ignore::ResourceWarning")]
PAGE = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
HERE, THERE = "10.213.77.1", "10.213.77.2"
PATIENCE = 60
SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=p Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def run(*words: str, **more: str) -> str:
    """Run a program, and return what it says; where that is not allowed here, the test is skipped."""
    done = subprocess.run(words, env={**os.environ, **more}, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{words[0]} cannot do this here: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def started(*words: str | Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Let a program run, with the tests at hand."""
    environment = {**default(), "PYTHONPATH": str(ROOT), **(env or {})}
    program = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield program
    finally:
        program.terminate()
        try:
            program.wait(10)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


@contextlib.contextmanager
def scheduler(place: Path, host: str, *words: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Let a scheduler run, and give its address."""
    file = place / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", host, "--port", "0", "--no-dashboard"]
    with started(*command, "--dashboard-address", f"{host}:0", "--scheduler-file", file, *words, env=env):
        wait_for(file.exists)
        yield json.loads(file.read_text())["address"]


def wait_for(true: object) -> None:
    assert callable(true)
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def certified(place: Path) -> dict[str, str]:
    """Make a certificate as the page says, and return what Dask wants to know of it."""
    command = re.findall(r"^openssl .*$", PAGE, re.MULTILINE)[0]
    subprocess.run(command, shell=True, cwd=place, check=True, capture_output=True)
    settings = {"ca-file": "ca.pem"}
    for role in ("client", "scheduler", "worker"):
        settings |= {f"{role}.cert": "cert.pem", f"{role}.key": "key.pem"}
    return {f"distributed.comm.tls.{name}": str(place / file) for name, file in settings.items()}


def as_environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": value for name, value in settings.items()}


@pytest.fixture
def other_machine() -> Iterator[str]:
    """Give the name of a network namespace: to all that runs in it, this machine is another one."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root, and the program ip")
    name, link = f"ck{os.getpid()}", f"ck{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        for words in (
            f"link add {link} type veth peer name inner netns {name}",
            f"addr add {HERE}/30 dev {link}",
            f"link set {link} up",
            f"-n {name} addr add {THERE}/30 dev inner",
            f"-n {name} link set inner up",
            f"-n {name} link set lo up",
        ):
            run("ip", *words.split())
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)


def test_a_machine_that_loses_its_link_costs_no_more_than_its_piece(other_machine: str, tmp_path: Path) -> None:
    settings = {**certified(tmp_path), "distributed.comm.timeouts.tcp": "11s"}
    env = as_environment(settings)
    command = [sys.executable, "-m", "distributed.cli.dask_worker"]
    words = "--nthreads 1 --memory-limit 0 --no-nanny --no-dashboard".split()
    with (
        scheduler(tmp_path, HERE, "--protocol", "tls", env=env) as url,
        started(*command, url, *words, env=env),
        started("ip", "netns", "exec", other_machine, *command, url, *words, env=env),
        dask.config.set(settings),
    ):
        assert url.startswith(f"tls://{HERE}:")
        workers = workers_of(f"dask:{url}", tmp_path / "outputs")
        answers, pids = begun_by_two(workers, 24)
        run("ip", "link", "set", other_machine, "down")
        cut = time.monotonic()
        pids += answers
        workers.end(killed=False)
    assert len(pids) == 24
    assert all(isinstance(pid, int) for pid in pids)
    assert time.monotonic() - cut < PATIENCE


def begun_by_two(workers: Workers, files: int) -> tuple[Iterator[int | Lost], list[int | Lost]]:
    """Have workers do slow files until two of them have answered; return the answers to come, and those so far."""
    answers = workers.each(work, [File("slow")] * files, lambda _: None)
    pids = [next(answers)]
    while len(set(pids)) < 2:
        pids.append(next(answers))
    return answers, pids


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[None]:
    """Let SLURM run with this machine as its only node."""
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, and slurmctld, slurmd, slurm-client and munge (not there: {', '.join(missing)})")
    place = tmp_path / "slurm"
    for folder in (place, place / "state", place / "spool"):
        folder.mkdir()
    host = socket.gethostname().partition(".")[0]
    config = place / "slurm.conf"
    config.write_text(SLURM.format(place=place, host=host, ports=free_ports()))
    (place / "key").write_bytes(os.urandom(1024))
    (place / "key").chmod(0o400)
    files = {"key-file": "key", "socket": "munge", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{name}={place / file}" for name, file in files.items()]
    env = {"SLURM_CONF": str(config)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("SLURM_CONF", str(config))
        stack.enter_context(started("munged", "--foreground", "--force", *munge))
        wait_for((place / "munge").exists)
        stack.enter_context(started("slurmctld", "-D", env=env))
        stack.enter_context(started("slurmd", "-D", env=env))
        wait_for(
            lambda: subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, check=False).stdout == b"idle\n"
        )
        yield
        subprocess.run(["scancel", "--user=root"], check=False)


def free_ports() -> list[int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return [server.getsockname()[1] for server in (one, two)]


@pytest.mark.usefixtures("slurm")
def test_a_job_of_slurm_that_is_cancelled_costs_no_more_than_its_piece(project: Project, tmp_path: Path) -> None:
    """The workers are those of the page; so is the main process that is a job itself."""
    env = {"PYTHONPATH": str(ROOT), "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    array = next(block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "#SBATCH --array" in block)
    log = tmp_path / "log"
    with scheduler(tmp_path, "127.0.0.1") as url:
        script = tmp_path / "workers.sh"
        script.write_text(array.replace("tls://head.cluster:8786", url))
        job = run("sbatch", "--parsable", "--array=1-2", f"--output={log}.%a", str(script), **env)
        workers = workers_of(f"dask:{url}", tmp_path / "seen")
        answers, pids = begun_by_two(workers, 16)
        run("scancel", f"{job}_1")
        pids += answers
        workers.end(killed=False)
        assert len(pids) == 16
        assert all(isinstance(pid, int) for pid in pids)
        write_large(project.outputs / "a/checkpoints/epoch-01_step-000001.ckpt", {}, SMALL)
        main = f"{sys.executable} -m doit verify executor=dask:{url}"
        run("sbatch", "--wait", f"--chdir={project.folder}", f"--output={log}", "--wrap", main, **env)
        assert "read now    1" in log.read_text()
