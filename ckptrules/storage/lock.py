"""One run at a time in one tree: by the kernel's lock on this machine, by a file among hosts (`storage.hosts`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Self

from ckptrules import stopping
from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import LockedError, Say
from ckptrules.storage.hosts import PACE, Host, HostLock, Pace, this_host
from ckptrules.storage.state import open_directory, open_own

LOCK_POLL = 0.2  # seconds
SIZE = 200  # bytes of what a holder says of itself: to change the size of a file may take milliseconds
HOSTS_POLL = 1.0  # likewise; it asks the file server


class Lock(contextlib.AbstractContextManager["Lock"]):
    """The lock of a tree, until it is closed.

    ``descriptor`` is of the kernel's lock: a process that has it, too, keeps other runs of this machine out.
    """

    def __init__(self, descriptor: int, among_hosts: HostLock) -> None:
        self.descriptor, self._among_hosts = descriptor, among_hosts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let it go, first among hosts: as long as we have the other, no run of this machine makes that file."""
        self._among_hosts.release()
        # NFS tells only here that there was no room for what a holder says of itself.
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def lock(
    outputs_dir: str,
    holder: str,
    wait: float = 0,
    say: Say = lambda _: None,
    host: Host | None = None,
    pace: Pace = PACE,
) -> Lock:
    """Take the lock of ``outputs_dir``, as `Storage.lock`; the kernel's goes when process and children are gone.

    ``host`` is where this run is, found out where it is not given; ``pace`` is that of the signs of life among hosts.

    Raises:
        LockedError: another run has it.
        OSError: ``outputs_dir`` cannot be written.
    """
    with open_directory(outputs_dir, STATE, make=True) as state:
        descriptor = open_own(state, "lock", os.path.join(outputs_dir, STATE), os.O_RDWR)
        host = host or this_host(state)
    among_hosts = HostLock(outputs_dir, holder, host, pace)
    deadline = time.monotonic() + wait
    try:
        while not ((is_alone := _try_lock(descriptor)) and among_hosts.take(say)):
            if time.monotonic() >= deadline or stopping.stopped():
                text = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
                raise LockedError(among_hosts.other() or text or "it has just begun")  # noqa: TRY301 - closed as well
            time.sleep(HOSTS_POLL if is_alone else LOCK_POLL)
    except BaseException:
        os.close(descriptor)
        raise
    with contextlib.suppress(OSError):  # on a full disk 'doit purge' must be able to begin
        said = holder.encode("utf-8", "backslashreplace").ljust(SIZE)
        if os.fstat(descriptor).st_size > len(said):
            os.ftruncate(descriptor, 0)
        os.write(descriptor, said)
    return Lock(descriptor, among_hosts)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
