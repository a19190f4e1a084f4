"""The lock between hosts: a file that names its holder, who gives a sign of life while at work.

The kernel's lock (`storage.lock`) may be one of this machine only: on NFS with ``local_lock`` or ``nolock``, on Lustre
with ``localflock``. So whoever has it also makes the file ``lock.host``, by giving a second name to a file of its own:
of several hosts one succeeds, on every file system. The holder sets the time of that file again and again; who has been
silent for too long is taken for dead, and by then has ended itself (`stopping.hold`), long before.

No host's own clock decides. The age of a sign of life is the difference between two times that the file server gave.
Some (Lustre, CephFS) let each host give the times of its files, so what seems dead is watched as well before it is
taken over: whoever lives gives a sign within that time.
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
from typing import NamedTuple

from ckptrules import stopping
from ckptrules.engine.measures import NS, human_time
from ckptrules.engine.state_folder import STATE
from ckptrules.storage.base import Say
from ckptrules.storage.believing import open_believed
from ckptrules.storage.moving import link_exclusively, rename
from ckptrules.storage.state import made, open_directory, open_own
from ckptrules.storage.writing import TEMPORARY, write

NAME = "lock.host"
NEXT = "lock.next"  # a file that a run has left for the next: on a full disk there is room for no other
WATCH_POLL = 0.2  # seconds, after which a run that watches another heeds the wish to stop
SIZE = 400  # bytes of such a file: nearly always the same, as to change the size of a file may take milliseconds
MOST = 1000  # bytes of it that are read
NAMES = 2  # that it may have: its own, and the one under which it was made, where a crash left that
TAKEN_OVER = "another host took its lock over, or somebody removed it"


class Host(NamedTuple):
    """A machine from one start to the next, and the number that it gives to the disk: the reach of the kernel's lock.

    Where the system does not name the start, ``boot`` is empty. One disk may be mounted twice, under two numbers.
    ``processes`` names the numbering of processes, which a container has of its own.
    """

    name: str
    boot: str = ""
    disk: str = ""
    processes: str = ""


class Pace(NamedTuple):
    """How often a holder gives a sign of life, and when it is taken for dead, in seconds.

    Who has been silent for ``silence`` is watched for ``watch`` before the lock is taken over. A holder that could give
    no sign for half of the silence ends itself.
    """

    beat: float = 10
    silence: float = 300
    watch: float = 30


PACE = Pace()


class Sign(NamedTuple):
    """The file as it was seen: what it holds, and when its holder gave the last sign of life."""

    content: bytes
    time_ns: int

    def tells(self, key: str) -> str:
        """Return what it tells of its holder; nothing where it tells nothing of that kind."""
        try:
            row = json.loads(self.content)
            return str(row.get(key, ""))
        except (ValueError, AttributeError, RecursionError):
            return ""

    @property
    def holder(self) -> str:
        """Who made it, in words."""
        return self.tells("holder") or "a run that has just begun"

    @property
    def host(self) -> Host:
        """Where that was."""
        return Host(*(self.tells(key) for key in ("host", "boot", "disk", "processes")))


def this_host(directory: int) -> Host:
    """Name the machine that we run on, and the disk of an open directory."""
    boot = processes = ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        processes = str(os.stat("/proc/self/ns/pid").st_ino)
        boot = file.read().strip()
    return Host(os.uname().nodename, boot, str(os.fstat(directory).st_dev), processes)


class HostLock:
    """The lock of a tree among hosts; its owner holds the kernel's lock, too.

    Args:
        outputs_dir: the tree.
        holder: what others are told of this run.
        host: where it runs.
        pace: of the signs of life; all hosts must agree in it.
    """

    def __init__(self, outputs_dir: str, holder: str, host: Host, pace: Pace = PACE) -> None:
        self._outputs_dir, self._host, self._pace = outputs_dir, host, pace
        self._nonce = os.urandom(8).hex()
        named = {"host": host.name, "boot": host.boot, "disk": host.disk, "processes": host.processes}
        row = {"holder": holder, **named, "process": os.getpid(), "nonce": self._nonce}
        self._content = json.dumps(row).encode().ljust(SIZE)  # of the file; on a full disk it may come to less
        self._made, self._made_ns = 0.0, 0  # by our clock that counts on, and by that of the file server
        self._process, self._ended = os.getpid(), threading.Event()

    def take(self, say: Say = lambda _: None) -> bool:
        """Make the file, or take over that of a holder who is dead; say whether it is ours.

        Raises:
            StateError: what stands there is not to be believed.
        """
        with self._state() as state:
            if not (self._make(state) or self._take_over(state, say)):
                return False
            self._clear(state)
        stopping.hold(self, self._made + self._pace.silence / 2)
        try:  # a `threading.Thread` is waited for: milliseconds, on a busy machine
            _thread.start_new_thread(self._live, ())
        except RuntimeError as error:  # no memory, or a user who has as many processes as may be
            self.release()
            raise OSError(errno.EAGAIN, str(error)) from None
        return True

    def release(self) -> None:
        """Let it go; what is ours no longer is left alone, and so is all where another process has forked off ours."""
        self._ended.set()
        if self._process != os.getpid():
            return
        is_held = stopping.let_go(self)
        with contextlib.suppress(OSError), self._state() as state:
            if is_held and self._is_ours(state):
                self._leave(state, NAME)

    def other(self) -> str:
        """Say who holds it and, of another host, when it gave its last sign of life; nothing where nobody does."""
        with self._state() as state:
            sign = self._look(state)
            if not sign or self._is_here(sign.host):
                return sign.holder if sign else ""
            with self._file(state):
                ago = max(0, self._made_ns - sign.time_ns) // NS
            return f"{sign.holder}; its last sign of life came {human_time(ago)} ago"

    def _is_here(self, host: Host) -> bool:
        """Say whether the kernel's lock, which we have, keeps those out who are there."""
        return bool(host.boot) and host[1:] == self._host[1:]

    def _has_ended(self, other: Sign) -> bool:
        """Say whether a run of this machine, to which the disk had another number, has ended without letting go."""
        is_ours = other.host._replace(disk="") == self._host._replace(disk="")
        if is_ours and other.host.boot and other.host.processes:  # else its number may be that of another process
            try:
                os.kill(int(other.tells("process")), 0)
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
        time.sleep(self._pace.beat / 5)  # another host may have looked just before us, and take ours away just now
        if not self._is_ours(state):
            return False
        say(f"The lock was taken over from {other.holder}: it gave no sign of life.")
        return True

    def _is_dead(self, state: int, other: Sign, say: Say) -> bool:
        """Find out whether a holder is dead, by the kernel's lock or its list of processes where one of them tells."""
        if self._is_here(other.host) or self._has_ended(other):
            return True
        ours, theirs = self._host, other.host
        is_restarted = theirs.name == ours.name and not (ours.boot and theirs.boot == ours.boot)
        if not is_restarted and self._made_ns - other.time_ns < self._pace.silence * NS:
            return False
        watch = self._pace.watch  # also where it is restarted: it may be a namesake
        say(f"{other.holder} has the lock and gives no sign of life; it is watched for {human_time(round(watch))}.")
        end = time.monotonic() + watch
        while (left := end - time.monotonic()) > 0 and not stopping.stopped():
            time.sleep(min(left, WATCH_POLL))
        return not stopping.stopped() and self._look(state) == other

    def _take_away(self, state: int, other: Sign) -> bool:
        """Take the file of a holder away; where it is another by now, or gives a sign of life, it is put back."""
        aside = f"{NAME}.{self._nonce}.dead{TEMPORARY}"
        try:
            os.rename(NAME, aside, src_dir_fd=state, dst_dir_fd=state)
        except FileNotFoundError:
            return True
        if self._look(state, aside) != other:
            with contextlib.suppress(FileExistsError):
                rename(state, aside, NAME)
            return False
        self._leave(state, aside)
        return True

    @staticmethod
    def _leave(state: int, name: str) -> None:
        """Leave a file to the next run."""
        try:
            os.replace(name, NEXT, src_dir_fd=state, dst_dir_fd=state)
        except OSError:  # something else stands there
            os.unlink(name, dir_fd=state)

    def _make(self, state: int) -> bool:
        """Make the file where none is, and say whether it is ours now."""
        self._made = stopping.now()
        with self._file(state) as temporary:
            try:
                link_exclusively(state, temporary, state, NAME)
            except FileExistsError:
                return self._is_ours(state)  # NFS may have made it, and lost the answer
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise
                # no second names here (FAT, some stores behind FUSE): it is made in place, and empty for a moment
                try:
                    self._write(made(state, NAME, self._place, os.O_WRONLY))
                except FileExistsError:
                    return False
            sign = self._look(state)
            self._content = sign.content if sign else b""
            return bool(sign)

    @contextlib.contextmanager
    def _file(self, state: int) -> Iterator[str]:
        """Make a file of our own with what the lock is to hold, and note its time; in the end it loses its name."""
        temporary = f"{NAME}.{self._nonce}{TEMPORARY}"
        try:
            self._write(self._own_file(state, temporary))
            self._made_ns = os.lstat(temporary, dir_fd=state).st_mtime_ns
            yield temporary
        finally:
            with contextlib.suppress(OSError):  # `_clear` removes it in time
                os.unlink(temporary, dir_fd=state)

    def _own_file(self, state: int, name: str) -> int:
        """Open a file of our own for writing: what the last run left, or a new one."""
        with contextlib.suppress(OSError):
            status = os.lstat(NEXT, dir_fd=state)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.rename(NEXT, name, src_dir_fd=state, dst_dir_fd=state)
                return open_own(state, name, self._place, os.O_WRONLY)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=state)
        return made(state, name, self._place, os.O_WRONLY)

    def _write(self, file: int) -> None:
        """Write what the lock is to hold, see it on the disk, and close the file: NFS shows it to others only then.

        A power cut may leave the name; by the content the next run knows that it was of this machine.
        """
        with contextlib.suppress(OSError):  # on a full disk 'doit purge' must be able to begin
            try:
                write(file, self._content)
                if os.fstat(file).st_size != len(self._content):
                    os.ftruncate(file, len(self._content))
                os.fsync(file)
            finally:
                os.close(file)

    def _look(self, state: int, name: str = NAME) -> Sign | None:
        with contextlib.suppress(FileNotFoundError), self._opened(state, name) as file:
            return Sign(os.read(file, MOST), os.fstat(file).st_mtime_ns)
        return None

    def _is_ours(self, state: int) -> bool:
        sign = self._look(state)
        return sign is not None and sign.content == self._content

    def _clear(self, state: int) -> None:
        """Remove what hosts left that died on the way; a younger one may be at work."""
        for name in os.listdir(state):
            if name.startswith(f"{NAME}.") and name.endswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    if self._made_ns - os.lstat(name, dir_fd=state).st_mtime_ns > self._pace.silence * NS:
                        os.unlink(name, dir_fd=state)

    def _live(self) -> None:
        """Give a sign of life, again and again, until the lock is let go or lost."""
        while not self._ended.wait(self._pace.beat):
            began = stopping.now()
            if stopping.is_lost():  # nobody comes back who has been silent for too long
                return
            with contextlib.suppress(OSError):  # no answer: if none comes, the time will be up
                if self._give_sign():
                    stopping.hold(self, began + self._pace.silence / 2)
                    if self._ended.is_set():  # meanwhile
                        stopping.let_go(self)
                elif not self._ended.is_set():
                    stopping.lose(TAKEN_OVER)

    def _give_sign(self) -> bool:
        """Set the time of the file to that of the file server; say whether the file is ours."""
        try:
            with self._state() as state, self._opened(state) as file:
                is_ours = os.read(file, MOST) == self._content
                if is_ours:
                    os.utime(file)
                return is_ours
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def _opened(self, state: int, name: str = NAME) -> Iterator[int]:
        """Open the file by its name, so that NFS asks its server anew."""
        file = open_believed(state, name, self._place, NAMES)
        try:
            yield file
        finally:
            os.close(file)

    def _state(self) -> contextlib.AbstractContextManager[int]:
        return open_directory(self._outputs_dir, STATE, make=True)

    @property
    def _place(self) -> str:
        return os.path.join(self._outputs_dir, STATE)
