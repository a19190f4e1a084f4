"""The lock between hosts: a file that names its holder, who gives signs of life while at work.

The kernel's lock (`storage.lock`) may reach this machine only: on NFS with ``local_lock`` or ``nolock``, on Lustre with
``localflock``. So its holder also makes the file ``lock.host``, as a hard link to a file of its own: of several hosts,
one succeeds, on every file system. A sign of life is a new time of that file. A holder that gives none for too long is
taken for dead; long before that it has ended itself (`stopping.hold`).

No host's own clock decides. The age of a sign of life is the difference between two times that the file server gave.
Some file systems (Lustre, CephFS) let each host set the times of its files. So a holder that seems dead is also watched
before its lock is taken over: one that is alive gives a sign within that time.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from io import FileIO
from typing import NamedTuple

from ckptrules import stopping
from ckptrules.engine.measures import NS, human_time
from ckptrules.engine.state_folder import HOST_LOCK, STATE
from ckptrules.storage.base import Say
from ckptrules.storage.believing import open_believed
from ckptrules.storage.moving import link_exclusively, rename
from ckptrules.storage.state import make_file, open_directory, open_own
from ckptrules.storage.writing import TEMPORARY, write

NEXT = "lock.next"  # a file that each run leaves for the next: a full disk has no room for a new one
WATCH_POLL = 0.2  # seconds between two looks at a watched holder; Ctrl-C waits no longer than this
SIZE = 400  # bytes to which the file is padded: to change the size of a file may take milliseconds
MOST = 1000  # bytes of it that are read
NAMES = 2  # hard links that it may have: a crash may leave the name under which it was made
TAKEN_OVER = "another host took its lock over, or somebody removed it"


class Host(NamedTuple):
    """A machine between two boots, and a disk of it: as far as the kernel's lock reaches.

    ``boot`` is the id of the boot, empty if the system has none. ``disk`` is the device number, which one disk may have
    two of, if it is mounted twice. ``processes`` is the namespace of process ids: each container has its own.
    """

    name: str
    boot: str = ""
    disk: str = ""
    processes: str = ""


class Pace(NamedTuple):
    """How often a holder gives a sign of life (``beat``), and when it is taken for dead, in seconds.

    After a ``silence``, a holder is watched for the time ``watch``, and then its lock is taken over. A holder that
    could give no sign for half of ``silence`` ends itself.
    """

    beat: float = 10
    silence: float = 300
    watch: float = 30


PACE = Pace()


class Sign(NamedTuple):
    """The content of ``lock.host``, and the time of its holder's last sign of life."""

    content: bytes
    time_ns: int

    def value(self, key: str) -> str:
        """Return a value of the content, as a text; an empty one if the content lacks it."""
        try:
            return str(json.loads(self.content).get(key, ""))
        except (ValueError, AttributeError, RecursionError):
            return ""

    @property
    def holder(self) -> str:
        """The holder, in words."""
        return self.value("holder") or "a run that has just begun"

    @property
    def host(self) -> Host:
        """The holder's machine."""
        return Host(*map(self.value, ("host", "boot", "disk", "processes")))


def this_host(directory: int) -> Host:
    """Return the machine of this process, with the disk of an open directory."""
    processes = ""
    with contextlib.suppress(OSError):  # Linux
        processes = str(os.stat("/proc/self/ns/pid").st_ino)
    return Host(os.uname().nodename, boot_id(), str(os.fstat(directory).st_dev), processes)


def boot_id() -> str:
    """Return the id of the boot of this machine; an empty text if the system has none (not Linux)."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""


class HostLock:
    """The lock of a tree between hosts. Only a run that has the kernel's lock asks for it.

    Args:
        outputs_dir: the tree.
        holder: how other runs are to call this run.
        host: the machine of this run.
        pace: the same on all hosts.
    """

    def __init__(self, outputs_dir: str, holder: str, host: Host, pace: Pace = PACE) -> None:
        self._outputs_dir, self._host, self._pace = outputs_dir, host, pace
        self._nonce = os.urandom(8).hex()
        named = {"host": host.name, "boot": host.boot, "disk": host.disk, "processes": host.processes}
        row = {"holder": holder, **named, "process": os.getpid(), "nonce": self._nonce}
        self._content = json.dumps(row).encode().ljust(SIZE)  # on a full disk, the file may hold less of it
        self._made, self._made_ns = 0.0, 0  # when: by `stopping.now`, and by the file server's clock
        self._process, self._ended = os.getpid(), threading.Event()

    def take(self, say: Say = lambda _: None) -> bool:
        """Make the file, or take over that of a dead holder; return whether it is ours now.

        Raises:
            StateError: the file that is there is not believed.
        """
        with self._state() as state:
            if not (self._make(state) or self._take_over(state, say)):
                return False
            self._clear(state)
        stopping.hold(self, self._made + self._pace.silence / 2)
        try:  # not `threading.Thread`, whose start waits for the thread: milliseconds, on a busy machine
            _thread.start_new_thread(self._live, ())
        except RuntimeError as error:  # no memory, or too many processes of this user
            self.release()
            raise OSError(errno.EAGAIN, str(error)) from None
        return True

    def release(self) -> None:
        """Remove the file if it is still ours. In a forked child, do nothing: the parent holds the lock."""
        self._ended.set()
        if self._process != os.getpid():
            return
        is_held = stopping.let_go(self)
        with contextlib.suppress(OSError), self._state() as state:
            if is_held and self._is_ours(state):
                self._leave(state, HOST_LOCK)

    def other(self) -> str:
        """Return who holds the lock, and the age of the last sign of life of another host; empty if nobody does."""
        with self._state() as state:
            sign = self._look(state)
            if not sign or self._is_here(sign.host):
                return sign.holder if sign else ""
            with self._file(state):
                ago = max(0, self._made_ns - sign.time_ns) // NS
            return f"{sign.holder}; its last sign of life came {human_time(ago)} ago"

    def _is_here(self, host: Host) -> bool:
        """Return whether the kernel's lock, which we have, would keep runs of that host out."""
        return bool(host.boot) and host[1:] == self._host[1:]

    def _has_ended(self, other: Sign) -> bool:
        """Return whether the process of a holder on this machine is gone; it may have another mount of the disk."""
        is_ours = other.host._replace(disk="") == self._host._replace(disk="")
        if is_ours and other.host.boot and other.host.processes:  # else another process may have its id
            try:
                os.kill(int(other.value("process")), 0)
            except ProcessLookupError:
                return True
            except (OSError, OverflowError, ValueError):
                return False
        return False

    def _take_over(self, state: int, say: Say) -> bool:
        other = self._look(state)
        if other is None:
            return self._make(state)
        if not (self._is_dead(state, other, say) and self._take_away(state, other) and self._make(state)):
            return False
        if self._is_here(other.host) or self._has_ended(other):
            return True
        time.sleep(self._pace.beat / 5)  # another host may have seen the dead one's file too, and now take ours away
        if not self._is_ours(state):
            return False
        say(f"The lock was taken over from {other.holder}: it gave no sign of life.")
        return True

    def _is_dead(self, state: int, other: Sign, say: Say) -> bool:
        """Return whether a holder is dead: by the kernel's lock or processes on this machine, else by watching it."""
        if self._is_here(other.host) or self._has_ended(other):
            return True
        ours, theirs = self._host, other.host
        is_restarted = theirs.name == ours.name and not (ours.boot and theirs.boot == ours.boot)
        if not is_restarted and self._made_ns - other.time_ns < self._pace.silence * NS:
            return False
        watch = self._pace.watch  # after a restart as well: it may be another machine of that name
        say(f"{other.holder} has the lock and gives no sign of life; it is watched for {human_time(round(watch))}.")
        end = time.monotonic() + watch
        while (left := end - time.monotonic()) > 0 and not stopping.stopped():
            time.sleep(min(left, WATCH_POLL))
        return not stopping.stopped() and self._look(state) == other

    def _take_away(self, state: int, other: Sign) -> bool:
        """Take the file of a holder away; put it back if it is another by now, or the holder gave a sign of life."""
        aside = f"{HOST_LOCK}.{self._nonce}.dead{TEMPORARY}"
        try:
            os.rename(HOST_LOCK, aside, src_dir_fd=state, dst_dir_fd=state)
        except FileNotFoundError:
            return True
        if self._look(state, aside) != other:
            with contextlib.suppress(FileExistsError):
                rename(state, aside, HOST_LOCK)
            return False
        self._leave(state, aside)
        return True

    @staticmethod
    def _leave(state: int, name: str) -> None:
        """Leave a file to the next run (`NEXT`)."""
        try:
            os.replace(name, NEXT, src_dir_fd=state, dst_dir_fd=state)
        except OSError:  # a folder has that name
            os.unlink(name, dir_fd=state)

    def _make(self, state: int) -> bool:
        """Make the file if there is none; return whether it is ours now."""
        self._made = stopping.now()
        with self._file(state) as temporary:
            try:
                link_exclusively(state, temporary, state, HOST_LOCK)
            except FileExistsError:
                return self._is_ours(state)  # NFS may have made it and lost the answer
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                try:  # no hard links here (FAT, some stores behind FUSE): it is made in place, and empty for a moment
                    self._write(make_file(state, HOST_LOCK, self._place, os.O_WRONLY))
                except FileExistsError:
                    return False
            sign = self._look(state)
            self._content = sign.content if sign else b""
            return bool(sign)

    @contextlib.contextmanager
    def _file(self, state: int) -> Iterator[str]:
        """Make a temporary file with the content of the lock, note its time, give its name, and remove it later."""
        temporary = f"{HOST_LOCK}.{self._nonce}{TEMPORARY}"
        try:
            self._write(self._own_file(state, temporary))
            self._made_ns = os.lstat(temporary, dir_fd=state).st_mtime_ns
            yield temporary
        finally:
            with contextlib.suppress(OSError):  # `_clear` removes it later
                os.unlink(temporary, dir_fd=state)

    def _own_file(self, state: int, name: str) -> int:
        """Open a file of our own for writing: the one that the last run left, or a new one."""
        with contextlib.suppress(OSError):
            status = os.lstat(NEXT, dir_fd=state)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.rename(NEXT, name, src_dir_fd=state, dst_dir_fd=state)
                return open_own(state, name, self._place, os.O_WRONLY)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=state)
        return make_file(state, name, self._place, os.O_WRONLY)

    def _write(self, file: int) -> None:
        """Write the content, durably, and close the file: NFS shows it to others only then.

        After a power cut, the next run sees by the content that the holder was on this machine.
        """
        with contextlib.suppress(OSError):  # on a full disk 'doit purge' must be able to begin
            try:
                write(file, self._content)
                if os.fstat(file).st_size != len(self._content):
                    os.ftruncate(file, len(self._content))
                os.fsync(file)
            finally:
                os.close(file)

    def _look(self, state: int, name: str = HOST_LOCK) -> Sign | None:
        with contextlib.suppress(FileNotFoundError), self._opened(state, name) as file:
            return Sign(file.read(MOST), os.fstat(file.fileno()).st_mtime_ns)
        return None

    def _is_ours(self, state: int) -> bool:
        sign = self._look(state)
        return sign is not None and sign.content == self._content

    def _clear(self, state: int) -> None:
        """Remove old temporary files, of hosts that died on the way; younger ones may be in use."""
        for name in os.listdir(state):
            if name.startswith(f"{HOST_LOCK}.") and name.endswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    if self._made_ns - os.lstat(name, dir_fd=state).st_mtime_ns > self._pace.silence * NS:
                        os.unlink(name, dir_fd=state)

    def _live(self) -> None:
        """Give signs of life until the lock is released or lost."""
        while not self._ended.wait(self._pace.beat):
            began = stopping.now()
            if stopping.is_lost():  # after too long a silence there is no way back
                return
            with contextlib.suppress(OSError):  # no answer from the server: without one, the time of `hold` runs out
                if self._give_sign():
                    stopping.hold(self, began + self._pace.silence / 2)
                    if self._ended.is_set():  # released meanwhile
                        stopping.let_go(self)
                elif not self._ended.is_set():
                    stopping.lose(TAKEN_OVER)

    def _give_sign(self) -> bool:
        """Set the time of the file to that of the file server; return whether the file is ours."""
        try:
            with self._state() as state, self._opened(state) as file:
                is_ours = file.read(MOST) == self._content
                if is_ours:
                    os.utime(file.fileno())
                return is_ours
        except FileNotFoundError:
            return False

    def _opened(self, state: int, name: str = HOST_LOCK) -> FileIO:
        """Open the file anew each time, by its name, so that NFS asks its server."""
        return FileIO(open_believed(state, name, self._place, NAMES))

    def _state(self) -> contextlib.AbstractContextManager[int]:
        return open_directory(self._outputs_dir, STATE, make=True)

    @property
    def _place(self) -> str:
        return os.path.join(self._outputs_dir, STATE)
