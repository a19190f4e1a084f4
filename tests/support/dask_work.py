"""A scheduler of Dask, and what its workers are given to do. Their processes import this, so it imports little."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ckptrules
from ckptrules import stopping
from ckptrules.stopping import StoppedError
from ckptrules.storage.reading import Progress
from ckptrules.workers.pieces import SMALL
from ckptrules.workers.workers import Workers

LOCAL = "dask:local:2"


class File(NamedTuple):
    """A file of so many bytes; its name says what happens to the worker, and ``place`` is a folder for its notes."""

    name: str
    place: str = ""
    size: int = SMALL


def work(file: File, progress: Progress) -> int:
    note = os.path.join(file.place, file.name)
    progress(file.size)
    if file.name == "kills" or (file.name == "kills once" and not os.path.exists(note)):
        Path(note).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if file.name == "fails":
        raise PermissionError(13, "in no language", note)
    if file.name == "slow":
        time.sleep(0.5)
    if file.name == "long":
        _take_long(note, progress)
    return os.getpid()


def _take_long(note: str, progress: Progress) -> None:
    Path(note).touch()
    try:
        for _ in range(1200):
            time.sleep(0.05)
            progress(1)
    except StoppedError:
        Path(f"{note}.stopped").touch()
        raise


def workers_of(executor: str, outputs: Path, say: Callable[[str], object] = print) -> Workers:
    found = Workers({}, say=say)
    found.executor, found.folders = executor, (str(outputs),)
    outputs.mkdir(exist_ok=True)
    return found


def kill_other(main: int, note: Path, times: int) -> int:
    """Return the number of the process; another one than the main process is killed so many times before."""
    time.sleep(0.3)  # so that not all is done here
    if os.getpid() != main and len(list(note.iterdir())) < times:
        (note / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def wait_for_stop(place: Path) -> None:
    """Do what is done until the run is to stop."""
    stopping.install()
    workers = workers_of(LOCAL, place / "outputs")
    files = [File("a"), File("long", str(place)), File("long", str(place)), File("never")]
    try:
        for number, _ in enumerate(workers.each(work, files, lambda _: stopping.heed()), 1):
            print(f"done: {number}", flush=True)
    except StoppedError:
        workers.end(killed=False)
        print("stopped", flush=True)


class Scheduler:
    """A scheduler that the user has started, with some workers, to which others can come."""

    def __init__(self, host: str = "127.0.0.1", threads: int = 1, workers: int = 1) -> None:
        import distributed

        self.cluster = distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            host=host,
            silence_logs=60,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        )
        self.client = distributed.Client(self.cluster, set_as_default=False)
        port = self.cluster.scheduler_address.rpartition(":")[2]
        self.executor = f"dask:tcp://127.0.0.1:{port}"

    def end(self) -> None:
        self.client.close()
        self.cluster.close()

    @contextlib.contextmanager
    def of_another_version(self) -> Iterator[None]:
        """Let the workers seem to have another version."""
        self.client.run(setattr, ckptrules, "__version__", "9.9")
        try:
            yield
        finally:
            self.client.run(setattr, ckptrules, "__version__", ckptrules.__version__)
