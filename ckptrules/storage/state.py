"""Opens directories below a root; makes the files and folders of the state."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator, Sequence

from ckptrules.engine.entries import Spot, lies_in
from ckptrules.engine.state_folder import STATE, WORK
from ckptrules.storage import believing, reading
from ckptrules.storage.believing import open_believed
from ckptrules.storage.metadata import PRIVATE
from ckptrules.storage.moving import rename, status_of
from ckptrules.storage.reading import NO_TRICKS, open_below
from ckptrules.storage.writing import new_file, remove, temporary_name

NEW_LINK = "link-"  # begins the name in the workplace of a new link that is to be exchanged with an old one


def open_directory(root: str, path: str, *, make: bool = False) -> contextlib.AbstractContextManager[int]:
    """Open a directory below a root, through no link, and give its descriptor.

    With ``make``, missing folders of the state are made.

    Raises:
        StateError: a part of it in the state is no folder, is not believed, or cannot be written.
        OSError: a part is missing, cannot be made, is no directory, or leads upwards.
    """
    if is_state(path):
        return believing.open_state(root, path, _open_or_make if make else reading.open_folder)
    return open_below(root, path)


class Folders(contextlib.ExitStack):
    """The open directories of a piece of work: each is opened once, all are closed at the end.

    Every part of a path is opened without following links, so a directory that is swapped for a link cannot lead out
    of ``outputs_dir``. ``texts`` allows to rewrite texts elsewhere: only the user's own state may do that.
    """

    def __init__(self, outputs_dir: str, *, texts: bool = False) -> None:
        super().__init__()
        self.outputs_dir = outputs_dir
        self.texts = texts
        self._open: dict[str, int] = {}

    def descriptor(self, path: str, *, create: bool = False) -> int:
        """Return the descriptor of a directory; ``create`` makes missing folders of the state. As `open_directory`."""
        if path not in self._open:
            self._open[path] = self.enter_context(open_directory(self.outputs_dir, path, make=create))
        return self._open[path]

    def is_free(self, spot: Spot) -> bool:
        """Return whether a name is free; OSError if its directory is missing."""
        return status_of(self.descriptor(spot.directory), spot.name) is None


def is_state(path: str) -> bool:
    """Return whether a path below a root is the state folder, or below it."""
    return lies_in(path, STATE)


def open_own(directory: int, name: str, place: str, flags: int) -> int:
    """Open a file of the state for writing, or make it; ``place`` is the path of its directory, for messages.

    Raises:
        StateError: it is no plain file, has several names, is not believed, or cannot be written.
    """
    try:
        file = open_believed(directory, name, place, flags=flags)
    except FileNotFoundError:
        try:
            return make_file(directory, name, place, flags)
        except FileExistsError:  # another process has just made it
            return open_own(directory, name, place, flags)
    share(file, directory, is_new=False)
    return file


def make_own(outputs_dir: str, name: str) -> None:
    """Make an empty file in the state, if it is missing, with rights for those with whom the folder is shared."""
    with open_directory(outputs_dir, STATE, make=True) as directory:
        os.close(open_own(directory, name, os.path.join(outputs_dir, STATE), os.O_RDWR))


def keeps_modes(outputs_dir: str) -> bool:
    """Return whether the file system of the state keeps the mode of a file (FAT does not): try it."""
    name = temporary_name("mode-")
    with (
        contextlib.suppress(OSError),
        open_below(outputs_dir, STATE) as directory,
        new_file(directory, name, 0o600) as file,
    ):
        os.unlink(name, dir_fd=directory)
        return not os.fstat(file).st_mode & stat.S_IWOTH
    return True


def set_aside_database(outputs_dir: str, name: str, companions: Sequence[str]) -> str:
    """Give a damaged database of the state another name, and return that.

    The files of SQLite beside it, whose names end in one of the ``companions``, are renamed with it.
    """
    with open_directory(outputs_dir, STATE, make=True) as directory:
        taken = set(os.listdir(directory))
        ends = (*companions, "")
        names = (f"{name}.damaged-{number}" for number in itertools.count(1))
        aside = next(new for new in names if taken.isdisjoint(new + end for end in ends))
        for end in ends:
            if name + end in taken:
                rename(directory, name + end, aside + end)
    return aside


def _open_or_make(directory: int, name: str, path: str) -> int:
    """Open a folder of the state, or make it."""
    is_new = False
    try:
        folder = reading.open_folder(directory, name, path)
    except FileNotFoundError:
        is_new = _made_folder(directory, name, path)
        folder = reading.open_folder(directory, name, path)
    share(folder, directory, is_new=is_new)
    return folder


def _made_folder(directory: int, name: str, path: str) -> bool:
    """Make a folder of the state; return False if another process has just made it."""
    try:
        os.mkdir(name, PRIVATE, dir_fd=directory)
    except FileExistsError:
        return False
    except PermissionError as error:
        raise error if name == STATE else _not_shared(error, os.path.dirname(path)) from None
    return True


def _not_shared(error: OSError, folder: str) -> reading.StateError:
    return reading.StateError(folder, f"cannot be written: {reading.why_of(error)}", believing.SHARE)


def make_file(directory: int, name: str, place: str, flags: int) -> int:
    """Make a file of the state, and return its descriptor; as `open_own`.

    Raises:
        FileExistsError: the name is taken.
    """
    try:
        file = os.open(name, flags | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600, dir_fd=directory)
    except PermissionError as error:
        raise _not_shared(error, place) from None
    share(file, directory, is_new=True)
    return file


def share(file: int, directory: int, *, is_new: bool) -> None:
    """Share an open file or folder of the state with those with whom ``directory``, in which it lies, is shared.

    A new one gets the group of the directory (from root, its owner as well) and its modes for group and others,
    whatever the umask; but others never get the right to write. An older one of ours gets the rights of the group.
    """
    status, folder = os.fstat(file), os.fstat(directory)
    is_folder = stat.S_ISDIR(status.st_mode)
    may = folder.st_mode & (0o2075 if is_folder else 0o064)
    mode = 0o700 if is_folder else 0o600
    if not is_new:
        mode, may = stat.S_IMODE(status.st_mode), may & 0o2070
        if status.st_uid != os.geteuid() or not folder.st_mode & stat.S_IWGRP or not may & ~mode:
            return
    owner = folder.st_uid if os.geteuid() == 0 else status.st_uid
    if (owner, folder.st_gid) != (status.st_uid, status.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(file, owner, folder.st_gid)
    if os.fstat(file).st_gid != folder.st_gid:  # we are not in that group, and no other one gets its rights
        may &= ~0o070
    with contextlib.suppress(OSError):  # FAT, say, has no modes
        os.fchmod(file, mode | may)
    if is_new and os.fstat(file).st_mode & stat.S_IWOTH:
        believing.NO_MODES.add(status.st_dev)


def clear_work(outputs_dir: str) -> None:
    """Remove what an interrupted run left in the workplace. The caller holds the lock.

    A file with the name of a new link (`NEW_LINK`) stays: just before the crash it was exchanged with that link, so it
    is somebody's.
    """
    with contextlib.suppress(OSError), open_directory(outputs_dir, WORK) as work:
        for name in os.listdir(work):
            with contextlib.suppress(OSError):
                if not (name.startswith(NEW_LINK) and not stat.S_ISLNK(os.lstat(name, dir_fd=work).st_mode)):
                    remove(work, name)


def make_own_state(path: str) -> None:
    """Make a folder in the user's own state, and those above it, with rights for nobody else."""
    os.makedirs(os.path.dirname(os.path.dirname(path)), PRIVATE, exist_ok=True)
    for folder in (os.path.dirname(path), path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, PRIVATE)


@contextlib.contextmanager
def token(outputs_dir: str) -> Iterator[str]:
    """Make an empty file with a secret name in the workplace, and give its path; remove it at the end.

    A process that sees it sees the same folder as this one. The folders that were made for it are removed as well.
    Another run, which clears the workplace, may remove it earlier.
    """
    made = [path for path in (WORK, STATE) if not os.path.lexists(os.path.join(outputs_dir, path))]
    name = f"token-{os.urandom(16).hex()}"
    with open_directory(outputs_dir, WORK, make=True) as folder:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600, dir_fd=folder))
        try:
            yield os.path.join(os.path.abspath(outputs_dir), WORK, name)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
            for path in made:
                with contextlib.suppress(OSError):  # it is no longer empty
                    os.rmdir(os.path.join(outputs_dir, path))
