"""Opens directories below a root; makes and writes the files of the state, and its folders."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator, Sequence

from ckptrules.engine.entries import Spot, lies_in
from ckptrules.engine.state_folder import STATE
from ckptrules.storage import believing, reading
from ckptrules.storage.believing import checked, explained
from ckptrules.storage.metadata import PRIVATE
from ckptrules.storage.moving import rename, status_of
from ckptrules.storage.reading import NO_TRICKS, open_below
from ckptrules.storage.writing import remove, temporary_name

WORK = f"{STATE}/work"

NEW_LINK = "link-"  # begins the names in the workplace of what is to take the place of a link


def open_directory(root: str, path: str, *, make: bool = False) -> contextlib.AbstractContextManager[int]:
    """Open a directory below a root, through no link; in the state, one that is to be believed. Give its descriptor.

    ``make`` makes what is missing of one in the state.

    Raises:
        StateError: a part of it in the state is no folder, not to be believed, or not ours to write to.
        OSError: it is not there, cannot be made, or a part of its path is no directory or leads upwards.
    """
    if is_state(path):
        return believing.open_state(root, path, _open_or_make if make else reading.open_folder)
    return open_below(root, path)


class Folders(contextlib.ExitStack):
    """Descriptors of the directories that a piece of work needs, each opened once, all closed at its end.

    Every part of a path is opened without following links, so a directory that is swapped for a link cannot
    lead the work out of ``outputs_dir``. ``texts`` says that texts elsewhere may be rewritten: only by what lies in
    the user's own state.
    """

    def __init__(self, outputs_dir: str, *, texts: bool = False) -> None:
        super().__init__()
        self.outputs_dir = outputs_dir
        self.texts = texts
        self._open: dict[str, int] = {}

    def descriptor(self, path: str, *, create: bool = False) -> int:
        """Return the descriptor of a directory; ``create`` makes what is missing of a folder of the state.

        Raises:
            OSError: it is not there, or a part of its path is a link or leads upwards.
        """
        if path not in self._open:
            self._open[path] = self.enter_context(open_directory(self.outputs_dir, path, make=create))
        return self._open[path]

    def is_free(self, spot: Spot) -> bool:
        """Say whether nothing stands under a name; OSError where its directory is not there."""
        return status_of(self.descriptor(spot.directory), spot.name) is None


def is_state(path: str) -> bool:
    """Say whether a path below a root is the state folder, or below it."""
    return lies_in(path, STATE)


def open_own(directory: int, name: str, place: str, flags: int) -> int:
    """Open a file of the state for writing, or make it, in an open directory that is called ``place``.

    Raises:
        StateError: it is no plain file of its own, not to be believed, or not ours to write to.
    """
    try:
        file = os.open(name, flags | NO_TRICKS, dir_fd=directory)
    except FileNotFoundError:
        try:
            return made(directory, name, place, flags)
        except FileExistsError:  # another process has just made it
            return open_own(directory, name, place, flags)
    except OSError as error:
        raise explained(error, directory, name, place) from None
    checked(file, directory, os.path.join(place, name))
    share(file, directory, is_new=False)
    return file


def make_own(outputs_dir: str, name: str) -> None:
    """Make an empty file in the state, where it is missing, so that those who share the folder may write to it."""
    with open_directory(outputs_dir, STATE, make=True) as directory:
        os.close(open_own(directory, name, os.path.join(outputs_dir, STATE), os.O_RDWR))


def keeps_modes(outputs_dir: str) -> bool:
    """Find out by trying whether the state lies where a file has a mode of its own (not so on FAT, say)."""
    name = temporary_name("mode-")
    with contextlib.suppress(OSError), open_below(outputs_dir, STATE) as directory:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_TRICKS, 0o600, dir_fd=directory)
        try:
            return not os.fstat(file).st_mode & stat.S_IWOTH
        finally:
            os.close(file)
            os.unlink(name, dir_fd=directory)
    return True


def set_aside_database(outputs_dir: str, name: str, companions: Sequence[str]) -> str:
    """Give a database of the state that nobody can use another name, and return that.

    So is what SQLite left beside it, called by its name and one of the ``companions``.
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
    """Open a folder of the state, and make it where it is missing."""
    is_new = False
    try:
        folder = reading.open_folder(directory, name, path)
    except FileNotFoundError:
        is_new = _made_folder(directory, name, path)
        folder = reading.open_folder(directory, name, path)
    share(folder, directory, is_new=is_new)
    return folder


def _made_folder(directory: int, name: str, path: str) -> bool:
    """Make a folder of the state and say so; another process may be faster."""
    try:
        os.mkdir(name, PRIVATE, dir_fd=directory)
    except FileExistsError:
        return False
    except PermissionError as error:
        raise error if name == STATE else _not_shared(error, os.path.dirname(path)) from None
    return True


def _not_shared(error: OSError, folder: str) -> reading.StateError:
    return reading.StateError(folder, f"cannot be written: {reading.why_of(error)}", believing.SHARE)


def made(directory: int, name: str, place: str, flags: int) -> int:
    """Make a file of the state.

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
    """Give an open file or folder of the state to those with whom the folder is shared that it lies in.

    A new one gets the group of that folder (by root, its owner as well) and its modes for others, whatever the umask
    says; but not everybody may write to it. An older one of ours lets the group in where it does not yet.
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
    if os.fstat(file).st_gid != folder.st_gid:  # we are not in it, and another group is not meant
        may &= ~0o070
    with contextlib.suppress(OSError):  # FAT, say, knows no modes
        os.fchmod(file, mode | may)
    if is_new and os.fstat(file).st_mode & stat.S_IWOTH:
        believing.NO_MODES.add(status.st_dev)


def clear_work(outputs_dir: str) -> None:
    """Remove what an interrupted run left in the workplace: copies that were not in their place yet. Under the lock.

    A file that has the name of a new link stood in its place when the two were exchanged, just before the crash: it is
    somebody's, and stays.
    """
    with contextlib.suppress(OSError), open_directory(outputs_dir, WORK) as work:
        for name in os.listdir(work):
            with contextlib.suppress(OSError):
                if not (name.startswith(NEW_LINK) and not stat.S_ISLNK(os.lstat(name, dir_fd=work).st_mode)):
                    remove(work, name)


def make_own_state(path: str) -> None:
    """Make a folder in the user's own state, and those above it, for nobody else."""
    os.makedirs(os.path.dirname(os.path.dirname(path)), PRIVATE, exist_ok=True)
    for folder in (os.path.dirname(path), path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, PRIVATE)


@contextlib.contextmanager
def token(outputs_dir: str) -> Iterator[str]:
    """Lay an empty file that nobody can guess into the workplace, and give its path; take it away again.

    Who sees it sees the same folder as this process. What had to be made for it goes as well. Under the lock, another
    run clears the workplace: it may be gone before.
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
                with contextlib.suppress(OSError):  # it holds something by now
                    os.rmdir(os.path.join(outputs_dir, path))
