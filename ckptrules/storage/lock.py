"""One run at a time in one tree."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from ckptrules.engine.values import STATE
from ckptrules.storage.base import LockedError
from ckptrules.storage.state import open_own, open_state

LOCK_POLL = 0.2  # seconds


def lock(outputs_dir: str, holder: str, wait: float = 0) -> int:
    """Take the lock of ``outputs_dir``; the kernel drops it when the process and its children are gone.

    Args:
        outputs_dir: the folder that one run at a time may change.
        holder: what another run is told about this one.
        wait: seconds to wait for another run to finish.

    Raises:
        LockedError: another run has it.
        OSError: ``outputs_dir`` cannot be written.
    """
    with open_state(outputs_dir) as state:
        descriptor = open_own(state, "lock", os.path.join(outputs_dir, STATE), os.O_RDWR)
    deadline = time.monotonic() + wait
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            text = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise LockedError(text or "it has just begun")
        time.sleep(LOCK_POLL)
    with contextlib.suppress(OSError):  # on a full disk 'doit purge' must be able to begin
        os.ftruncate(descriptor, 0)
        os.write(descriptor, holder.encode("utf-8", "backslashreplace"))
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
