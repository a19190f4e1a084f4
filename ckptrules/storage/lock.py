"""Lets one run at a time into a tree: by the kernel's lock on one machine, by a file between hosts (`hosts`)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from ckptrules import stopping
from ckptrules.engine.state_folder import LOCK, STATE
from ckptrules.storage.base import LockedError, Say
from ckptrules.storage.hosts import PACE, Host, HostLock, Pace, this_host
from ckptrules.storage.state import open_directory, open_own

LOCK_POLL = 0.2  # seconds between two tries
HOSTS_POLL = 1.0  # likewise, where each try asks the file server
SIZE = 200  # bytes to which the holder's text is padded: to change the size of a file may take milliseconds


class Lock(contextlib.AbstractContextManager["Lock"]):
    """The lock of a tree, held until it is closed.

    ``descriptor`` belongs to the kernel's lock: a process that inherits it holds that lock as well.
    """

    def __init__(self, descriptor: int, among_hosts: HostLock) -> None:
        self.descriptor, self._among_hosts = descriptor, among_hosts

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock between hosts first: until the kernel's is free, no run of this machine takes that file."""
        self._among_hosts.release()
        with contextlib.suppress(OSError):  # NFS reports only now that the disk had no room for the holder's text
            os.close(self.descriptor)


def lock(
    outputs_dir: str,
    holder: str,
    wait: float = 0,
    say: Say = lambda _: None,
    host: Host | None = None,
    pace: Pace = PACE,
) -> Lock:
    """Take the lock of ``outputs_dir``, as `Storage.lock`; the kernel's ends with this process and its children.

    ``host`` is this machine unless given; ``pace`` says how often holders give signs of life to other hosts.

    Raises:
        LockedError: another run has the lock.
        OSError: ``outputs_dir`` cannot be written.
    """
    with open_directory(outputs_dir, STATE, make=True) as state:
        descriptor = open_own(state, LOCK, os.path.join(outputs_dir, STATE), os.O_RDWR)
        host = host or this_host(state)
    among_hosts = HostLock(outputs_dir, holder, host, pace)
    deadline = time.monotonic() + wait
    try:
        while not ((is_alone := _try_lock(descriptor)) and among_hosts.take(say)):
            if time.monotonic() >= deadline or stopping.stopped():
                text = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
                raise LockedError(among_hosts.other() or text or "it has just begun")  # noqa: TRY301 - closes the file
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
