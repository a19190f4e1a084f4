"""Opens what lies below a folder, through no link, and tells what the system refused."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from ckptrules.engine.state_folder import STATE

OPEN = "everybody may write to it, so it is not believed"
AWAY = "look at it (ls -la), then move it away: nothing is read or written through it"
FILE_MODES = 0o777  # without set-user-ID: a backup makes no program that runs as somebody else
DIRECTORY_MODES = 0o3777
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NO_TRICKS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a link is refused, a named pipe does not hold us up
Progress = Callable[[int], object]
"""Takes the bytes done since the last call; what it raises ends the work."""
Opener = Callable[[int, str, str], int]  # opens a name in an open directory, given the whole path for what it tells
Bar = Callable[[int], contextlib.AbstractContextManager[Progress]]  # given the bytes to come, shows how far it is


class SourceError(OSError):
    """A file cannot be read; the place that it was to be copied to is in order."""


class StateError(OSError):
    """A part of the state that is not believed, or not to be had; ``strerror`` is its place and one fact.

    Args:
        path: the file or folder.
        fact: what is wrong with it.
        hint: what helps; ``{path}`` and ``{state}`` stand for the path and for the state folder, quoted for a shell.
    """

    def __init__(self, path: str, fact: str, hint: str) -> None:
        import shlex

        super().__init__(errno.EPERM, f"{printable(path)}: {fact}")
        before, _, _ = f"{path}/".rpartition(f"/{STATE}/")
        state = os.path.join(before, STATE)
        self.is_open = fact == OPEN
        self.hint = hint.format(path=printable(shlex.quote(path)), state=printable(shlex.quote(state)))


def open_inner(directory: int, name: str, path: str = "") -> int:  # noqa: ARG001 - what other openers tell of
    """Open a folder in an open directory; a link is refused."""
    return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=directory)


@contextlib.contextmanager
def open_below(outputs_dir: str, path: str, opener: Opener = open_inner) -> Iterator[int]:
    """Open a directory below ``outputs_dir`` part by part (or that itself) and give its descriptor.

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
    """Close a directory; what was done in it is done, whatever the system says now."""
    with contextlib.suppress(OSError):
        os.close(directory)


def why_of(error: OSError) -> str:
    """Say in words what the system refused."""
    return error.strerror or str(error)


def refuse_path(name: str) -> None:
    """Refuse, with EINVAL, what is no plain name."""
    if name in ("", ".", "..") or "/" in name:
        raise OSError(errno.EINVAL, "is no name in a directory", name)


@contextlib.contextmanager
def open_file(root: str, path: str) -> Iterator[int]:
    """Open a plain file below a folder and give its descriptor; a named pipe under its name does not hold us up.

    Raises:
        SourceError: it cannot be opened or read, or is no plain file; its ``filename`` is the path.
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
    """Open a plain file in an open directory and give its descriptor; as `open_file`.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    file = os.open(name, os.O_RDONLY | NO_TRICKS, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "is not a plain file", name)
        yield file
    finally:
        os.close(file)


def owner_name(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def open_folder(directory: int, name: str, path: str) -> int:
    """Open a folder of the state in an open directory; a link is refused."""
    try:
        return open_inner(directory, name)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise StateError(path, os.strerror(errno.ENOTDIR), AWAY) from None
        raise


def printable(text: str) -> str:
    """Write a text that others could have written so that a terminal shows it and does nothing else."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
