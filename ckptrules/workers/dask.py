"""Does work in workers of Dask, on this machine or on others. They read files; answers come back as values."""

from __future__ import annotations

import contextlib
import logging
import os
import pkgutil
import secrets
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from functools import partial
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import ckptrules
from ckptrules import stopping
from ckptrules.stopping import KilledError, StoppedError, heed
from ckptrules.storage import believing
from ckptrules.storage.state import token
from ckptrules.workers.at_dask import PYTHON, SAME, TOPIC, Terms, UnfitError, do_files, do_whole, join, stop
from ckptrules.workers.here_first import BLOCKED, HereFirst
from ckptrules.workers.pieces import DEATHS, TICK, Answer, File, Lost, Work
from ckptrules.workers.pool import quiet_resource_tracker
from ckptrules.workers.where import Cluster, is_private

if TYPE_CHECKING:  # the import takes a second, and a run with nothing to do needs no worker
    from distributed import Client

PATIENCE = 2.0  # seconds of work in this process before workers are started: as long as their start takes
LOOK = 2.0  # seconds between two looks at the workers that are there
LONELY = 10.0  # seconds without any worker, after which a message says so
GOING = 3.0  # seconds for workers to end when the run is to stop
CALL = 15.0  # seconds for a scheduler to answer
TIMEOUT = "12s"  # for a connection that does not answer; Dask's default is 30, and the least that it takes 11
SILENT = logging.CRITICAL + 1
QUIETLY = {
    "distributed.scheduler.allowed-failures": 0,  # deaths are counted by `pieces`
    "distributed.deploy.lost-worker-timeout": "60s",  # on a busy machine a new process is there after many seconds
    "distributed.scheduler.http.routes": [],  # all users of this machine could read them
    "distributed.worker.http.routes": [],
}


class Dask(HereFirst["Client"]):
    """Does each piece of work in one worker, which has one thread. It is a `pieces.Backend`, too.

    Args:
        cluster: the workers.
        name: the value of ``executor=``.
        folders: those that the workers must see as this process does.
        say: writes a line for the user.
        rate: bytes a second for all workers together, or None.
    """

    deaths = (Exception,)  # any: what fails with a file comes back as an answer

    def __init__(
        self, cluster: Cluster, name: str, folders: Sequence[str], say: Callable[[str], object], rate: float | None
    ) -> None:
        super().__init__(PATIENCE)
        self._cluster, self._name, self._folders, self._say, self._rate = cluster, name, folders, say, rate
        self._terms = Terms(secrets.token_hex(8), ckptrules.__version__, PYTHON, os.getcwd())
        self._client: Any = None
        self._local: Any = None
        self._ends = contextlib.ExitStack()
        self._lock, self._reported = threading.Lock(), 0
        self._fit: frozenset[str] = frozenset()
        self._look_at, self._lonely_at = 0.0, time.monotonic() + LONELY
        self._looking: Future[None] = Future()
        self._looking.set_result(None)
        self._stopper = threading.Thread(target=self._tell_to_stop, daemon=True)

    @property
    def slots(self) -> int:
        """As `pieces.Backend`. The first call waits until there is a worker.

        Raises:
            KilledError: no worker can be had.
            StoppedError: the run is to stop.
        """
        self._wait_for_workers()
        return max(1, len(self._fit))

    def begin(self, work: Work[File, Answer], files: Sequence[File]) -> Future[list[Answer | Lost]]:
        """As `pieces.Backend`."""
        share = self._rate and self._rate / max(1, len(self._fit))
        return self._submit(do_files, self._terms, share, work, files)

    def done(self) -> int:
        """As `pieces.Backend`.

        Raises:
            KilledError: the scheduler is gone.
        """
        self._look_after()
        with self._lock:
            count, self._reported = self._reported, 0
        return count

    def end(self, *, killed: bool) -> None:  # noqa: ARG002 - as `pool.Pool.end`; other workers still listen
        """Stop what is still at work, and disconnect from the workers."""
        if self._start and not self._start.exception():
            with self._lock:
                self._stop()
            self._stopper.join(GOING)
        with contextlib.suppress(Exception):  # some may be gone already
            self._ends.close()

    def _wait_for_workers(self) -> Client:
        start = self._others()
        while not wait([start], TICK).done:
            heed()
        return start.result()

    def _submit(self, function: Callable[..., Answer], *values: Any) -> Future[Answer]:
        """Have a worker call a function. The answer goes with the future; else Dask may make it again."""
        asked: Future[Answer] = self._wait_for_workers().get_executor(pure=False).submit(function, *values)
        return asked

    def _do_elsewhere(self, work: Callable[..., Answer], values: Sequence[Any]) -> Answer | Lost:
        from distributed import KilledWorker

        for _ in range(DEATHS):
            future: Future[Answer] = self._submit(do_whole, self._terms, work, values)
            with contextlib.suppress(KilledWorker, CancelledError, UnfitError):
                return self._answer(future)
        return Lost(f"{DEATHS} workers died of it")

    def _answer(self, future: Future[Answer]) -> Answer:
        """Wait for an answer; if the run is to stop, only `GOING` seconds.

        Raises:
            StoppedError: the run is to stop, and the worker has not ended.
            BaseException: one that the work raised.
        """
        left = GOING
        while not wait([future], TICK).done:
            self._look_after()
            left -= TICK * stopping.stopped()
            if left < 0:
                future.cancel()
                raise StoppedError
        return future.result()

    def _start_others(self) -> Client:
        try:
            return self._connect_all()
        except (KilledError, StoppedError):
            raise
        except Exception as error:  # noqa: BLE001 - of Dask, TLS or the network
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise self._no_workers(why, "docs/cluster.md says what is needed") from None

    def _connect_all(self) -> Client:
        import dask

        with quiet_resource_tracker():
            resource_tracker.ensure_running()  # first, as it unblocks signals
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)  # threads and processes that start from here inherit this
        dask.config.set({f"distributed.comm.timeouts.{what}": TIMEOUT for what in ("connect", "tcp")})
        for handler in logging.getLogger("distributed").handlers:
            handler.setLevel(SILENT)
        self._renew_tokens()
        self._client = self._connect()
        self._ends.callback(self._client.close)
        self._client.subscribe_topic(TOPIC, self._count)
        if why := self._open_to_all(self._client.scheduler_info()["address"]):
            raise self._no_workers(f"its scheduler {why}")
        while not (there := self._look()):
            heed()
            time.sleep(TICK)
        if unfit := self._unfit(there):
            worker, why = next(iter(unfit.items()))
            more = f" (and {len(unfit) - 1} more do not fit)" * (len(unfit) > 1)
            raise self._no_workers(f"worker {worker}{more} {why}")
        client: Client = self._client
        return client

    def _connect(self) -> Client:
        import dask
        from distributed import Client, LocalCluster

        if self._cluster.url:
            return _call(self._cluster.url)
        dask.config.set(QUIETLY)
        self._local = LocalCluster(
            n_workers=self._cluster.workers, threads_per_worker=1, memory_limit=0, host="127.0.0.1",
            security=True, silence_logs=SILENT,
            dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
        )  # fmt: skip
        self._ends.callback(self._local.close)
        return Client(self._local, set_as_default=False)

    def _no_workers(self, why: str, hint: str = "") -> KilledError:
        return KilledError(f"executor={self._name}: {why}" + f"\n    hint: {hint}" * bool(hint))

    def _renew_tokens(self) -> None:
        tokens = tuple(self._ends.enter_context(token(folder)) for folder in self._folders)
        no_modes = tuple(folder for folder in self._folders if os.stat(folder).st_dev in believing.NO_MODES)
        self._terms = self._terms._replace(tokens=tokens, no_modes=no_modes)

    def _look_after(self) -> None:
        """Tell the workers to stop if the run is to; now and then, look whether there are new ones.

        Raises:
            KilledError: the scheduler is gone.
        """
        if self._client.status != "running":
            raise self._no_workers("the scheduler is gone", "start it, and run again: what was done is remembered")
        with self._lock:
            if stopping.stopped():
                self._stop()
            elif self._looking.done() and time.monotonic() > self._look_at:
                self._look_at = time.monotonic() + LOOK
                self._looking = self._starter.submit(self._renew_workers)

    def _look(self) -> dict[str, int]:
        """Return the workers that are there, with their numbers of threads; after long without any, say so once."""
        there: dict[str, int] = self._client.nthreads()
        if there:
            self._lonely_at = time.monotonic() + LONELY
        elif time.monotonic() > self._lonely_at:
            self._lonely_at = float("inf")
            self._say(f"Waiting for a worker: executor={self._name} has none.")
        return there

    def _renew_workers(self) -> None:
        """Send away new workers that do not fit; on this machine, start workers in place of those that died."""
        there = self._look()
        if len(there) < self._cluster.workers:
            self._local.scale(self._cluster.workers)
        self._fit &= there.keys()
        if not all(map(os.path.exists, self._terms.tokens)):  # another run has cleared the workplace
            self._renew_tokens()
        for worker, why in self._unfit({one: there[one] for one in there.keys() - self._fit}).items():
            self._say(f"Sent away: worker {worker} {why}")
            self._client.retire_workers([worker])

    def _unfit(self, there: Mapping[str, int]) -> dict[str, str]:
        """Return why workers do not fit, with hints; note the others as fit, but for those that are gone by now."""
        ask = partial(self._client.run, on_error="return")
        versions = ask(pkgutil.resolve_name, "ckptrules:__version__", workers=[*there]) if there else {}
        alike = [one for one, version in versions.items() if version == self._terms.version]
        joined = ask(join, self._terms, workers=alike) if alike else {}
        answers = {**versions, **joined}
        reasons = {
            one: self._complaint(one, there[one], answer, is_alike=one in joined) for one, answer in answers.items()
        }
        self._fit |= {one for one, why in reasons.items() if why == ""}
        return {one: why for one, why in reasons.items() if why}

    def _complaint(self, worker: str, threads: int, answer: str | Exception, *, is_alike: bool) -> str | None:
        """Return why a worker does not fit: an empty text if it fits, None if it did not answer."""
        if isinstance(answer, OSError):
            return None
        if why := self._open_to_all(worker):
            return why
        if threads > 1:
            return f"has {threads} threads, which would share one folder\n    hint: start it with --nthreads 1"
        if is_alike:
            return str(answer)
        fact = f"cannot take part: {answer}" if isinstance(answer, Exception) else f"has ckptrules {answer}"
        return f"{fact}; here is {self._terms.version}{SAME}"

    def _open_to_all(self, address: str) -> str:
        """Return why an address is open to strangers; an empty text if it is not, or is trusted."""
        if self._cluster.is_trusted or is_private(address):
            return ""
        trust = f"where you trust all who do: executor=dask:insecure:{self._cluster.url}"
        return f"{address} has no TLS: whoever reaches it runs code as you\n    hint: {trust}"

    def _count(self, event: tuple[float, Mapping[str, Any]]) -> None:
        _, report = event
        if report["run"] == self._terms.run:
            with self._lock:
                self._reported += report["done"]

    def _stop(self) -> None:
        if not self._stopper.ident:
            self._stopper.start()

    def _tell_to_stop(self) -> None:
        with contextlib.suppress(Exception):  # workers that cannot be reached are gone
            self._client.run(stop, self._terms.run, on_error="ignore")


def _call(url: str) -> Client:
    """Connect to a scheduler. Another program on that port may never answer, and Dask would wait for ever.

    Raises:
        Exception: there is no scheduler, or it refuses the connection.
    """
    from distributed import Client

    called: Future[Any] = Future()
    called.set_running_or_notify_cancel()

    def call() -> None:
        try:
            called.set_result(Client(url, set_as_default=False))
        except Exception as error:  # noqa: BLE001 - it is raised below
            called.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    if not wait([called], CALL).done:
        raise TimeoutError("what listens there does not answer as a scheduler of Dask")
    return called.result()
