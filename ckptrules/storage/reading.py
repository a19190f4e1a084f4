"""Opens files and folders below a root, through no link, and puts the system's refusals into words."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from ckptrules.engine.measures import visible
from ckptrules.engine.state_folder import STATE

OPEN = "everybody may write to it, so it is not believed"
AWAY = "look at it (ls -la), then move it away: nothing is read or written through it"
FILE_MODES = 0o777  # without set-user-ID: a backup must not hold programs that run as somebody else
DIRECTORY_MODES = 0o3777
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NO_TRICKS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # refuses links, and does not wait for a named pipe
Progress = Callable[[int], object]  # takes the bytes done since the last call; an error that it raises ends the work
Opener = Callable[[int, str, str], int]  # opens a folder: (open parent directory, name, whole path for messages)
Bar = Callable[[int], contextlib.AbstractContextManager[Progress]]  # a progress bar for so many bytes


class SourceError(OSError):
    """A file cannot be read; where it was to be copied to, all is in order."""


class StateError(OSError):
    """A part of the state is not believed or not accessible; ``strerror`` is its path and one fact.

    Args:
        path: the file or folder.
        fact: what is wrong with it.
        hint: what the user can do; ``{path}`` and ``{state}`` are replaced by the path and the state folder, quoted
            for a shell.
    """

    def __init__(self, path: str, fact: str, hint: str) -> None:
        import shlex

        super().__init__(errno.EPERM, f"{visible(path)}: {fact}")
        before, _, _ = f"{path}/".rpartition(f"/{STATE}/")
        state = os.path.join(before, STATE)
        self.is_open = fact == OPEN
        self._made_of = path, fact, hint
        self.hint = hint.format(path=visible(shlex.quote(path)), state=visible(shlex.quote(state)))

    def __reduce__(self) -> tuple[type[StateError], tuple[str, str, str]]:
        return StateError, self._made_of


def open_inner(directory: int, name: str, path: str = "") -> int:  # noqa: ARG001 - other openers need the path
    """Open a folder in an open directory; refuse a link."""
    return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=directory)


@contextlib.contextmanager
def open_below(outputs_dir: str, path: str, opener: Opener = open_inner) -> Iterator[int]:
    """Open a directory below ``outputs_dir`` (``""`` is ``outputs_dir`` itself) part by part; give its descriptor.

    Raises:
        OSError: it is not there, is no directory, or a part of its path is a link or leads upwards.
    """
    place, directory = outputs_dir, os.open(outputs_dir, FOLDER)
    try:
        for part in path.split("/") if path not in ("", ".") else ():
            refuse_path(part)
            place = os.path.join(place, part)
            inner = opener(directory, part, place)
            close(directory)
            directory = inner
        yield directory
    finally:
        close(directory)


def close(directory: int) -> None:
    """Close a directory; an error here says nothing of what was done in it before."""
    with contextlib.suppress(OSError):
        os.close(directory)


def why_of(error: OSError) -> str:
    """Return the reason of an error in words."""
    return error.strerror or str(error)


def refuse_path(name: str) -> None:
    """Raise EINVAL for anything but a plain name."""
    if name in ("", ".", "..") or "/" in name:
        raise OSError(errno.EINVAL, "is no name in a directory", name)


@contextlib.contextmanager
def open_file(root: str, path: str) -> Iterator[int]:
    """Open a plain file below a folder and give its descriptor.

    Raises:
        SourceError: it cannot be opened or read, or is no plain file; ``filename`` is the path.
    """
    folder, name = os.path.split(path)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_file_in(stack.enter_context(open_below(root, folder)), name))
        except OSError as error:
            raise SourceError(error.errno, error.strerror, path) from None
        try:
            yield file
        except SourceError as error:
            error.filename = path
            raise


@contextlib.contextmanager
def open_file_in(directory: int, name: str) -> Iterator[int]:
    """Open a file as `open_plain_in`, and close it at the end."""
    file = open_plain_in(directory, name)
    try:
        yield file
    finally:
        os.close(file)


def open_plain_in(directory: int, name: str) -> int:
    """Open a plain file in an open directory and return its descriptor; OSError for anything else."""
    file = os.open(name, os.O_RDONLY | NO_TRICKS, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "is not a plain file", name)
    return file


def owner_name(uid: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def open_folder(directory: int, name: str, path: str) -> int:
    """Open a folder of the state in an open directory; for a link or a file, raise StateError."""
    try:
        return open_inner(directory, name)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise StateError(path, os.strerror(errno.ENOTDIR), AWAY) from None
        raise
