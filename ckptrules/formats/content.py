"""What reading a checkpoint's bytes comes to: the words that all readers of files share."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, NamedTuple

from ckptrules.engine.actions import said_of
from ckptrules.engine.checkpoints import number
from ckptrules.formats.machine import TooLongError, UnreadableError, entries_of, is_count
from ckptrules.formats.pickled import Contents

CHUNK = 2**20
USUAL = ("torch.", "collections.OrderedDict")  # what any checkpoint of torch imports
BROKEN = ("truncated", "damaged", "incomplete", "does_not_load")  # ids of faults of a content that is not whole
NAMED_FROM_0 = (1, 6)
MODULES_THAT_ACT = frozenset("os posix nt sys subprocess shutil socket importlib runpy pty ctypes".split())
ROOTS_THAT_ACT = MODULES_THAT_ACT | {"pdb", "pickle", "webbrowser", "urllib", "requests"}
BUILTINS_THAT_ACT = frozenset("eval exec compile open __import__ input breakpoint execfile apply".split())

_OF_A_WRONG_PLACE = (None, errno.EINVAL, errno.EOVERFLOW)  # where a file says to look: before its start, or too far

Tell = Callable[[int], object]
"""Takes the number of bytes read since the last call: the progress bar. What it raises ends the reading."""


class UnsoundError(Exception):
    """A file that is no whole checkpoint: ``id`` as in docs/verify.md, one fact, a hint or nothing."""

    def __init__(self, id: str, fact: str, hint: str = "") -> None:  # noqa: A002 - as in model.Problem
        super().__init__(id, fact, hint)  # all of it: it may come from another process
        self.id = id
        self.fact = fact
        self.hint = hint

    def __str__(self) -> str:
        return self.fact


@contextlib.contextmanager
def told_as_fault(tell: Tell) -> Iterator[Tell]:
    """Make a fault of the file of whatever its readers raise. No other place turns exceptions into `UnsoundError`.

    What the system refuses is no fault of the file, nor what ``tell`` raises; both pass as they are. Use the ``tell``
    that this gives in its place.

    Raises:
        UnsoundError: see there; ``not_read`` where nothing is known against the file.
    """
    passing: list[BaseException] = []

    def heard(count: int) -> None:
        try:
            tell(count)
        except BaseException as error:
            passing.append(error)
            raise

    try:
        yield heard
    except UnsoundError:
        raise
    except Exception as error:
        if error in passing or (isinstance(error, OSError) and error.errno not in _OF_A_WRONG_PLACE):
            raise
        raise _fault(error) from None


def _fault(error: Exception) -> UnsoundError:
    if isinstance(error, TooLongError):
        return not_read(str(error))
    if isinstance(error, MemoryError):
        return not_read("it needs more memory than there is")
    if isinstance(error, UnreadableError):
        return UnsoundError("damaged", str(error))
    return UnsoundError("damaged", f"makes no sense to its reader ({type(error).__name__})")


def not_read(why: str) -> UnsoundError:
    """Tell of what is not read to its end: nobody knows whether it is whole."""
    return UnsoundError("not_read", f"is not verified: {why}", "load it to see whether it is whole")


@contextlib.contextmanager
def of_part(path: str) -> Iterator[None]:
    """Say of which part of a checkpoint a fault is."""
    try:
        yield
    except UnsoundError as fault:
        raise UnsoundError(fault.id, said_of(f"its part '{path}'", str(fault)), fault.hint) from None


class FileContent(NamedTuple):
    """What is known of a checkpoint's content, whatever its name is.

    ``kind`` is the file format, in words. ``epoch`` and ``step`` (``global_step``) are what stands inside, or None.
    ``lightning`` is the version that wrote it, or empty. ``checksums`` says whether there were any to go by.
    ``names`` are what loading would import, beyond torch and plain containers. ``ranks`` is the number of processes
    that DeepSpeed says took part (``dp_world_size``). ``counts`` are the iterations and, where one has just ended, the
    epochs that an engine of PyTorch-Ignite has done.
    """

    kind: str
    epoch: int | None = None
    step: int | None = None
    lightning: str = ""
    checksums: bool = False
    names: tuple[str, ...] = ()
    ranks: int | None = None
    counts: tuple[int, ...] = ()

    @property
    def inside(self) -> dict[str, int | None]:
        """The numbers that names tell, too."""
        return {"epoch": self.epoch, "step": self.step}

    @property
    def counts_from_1(self) -> bool:
        """Say whether epoch and step may stand inside one higher than in the name.

        Lightning before 1.6 added one to both while saving (``dump_checkpoint`` in its checkpoint connector), and not
        to the epoch at the last step.
        """
        major, _, rest = self.lightning.partition(".")
        version = number(major), number(rest.partition(".")[0])
        return None not in version and version < NAMED_FROM_0


def together(kind: str, contents: Iterable[FileContent]) -> FileContent:
    """Say what is known of several files: each number as the first of them says that says any."""
    every = list(contents)
    return FileContent(
        kind,
        epoch=next((one.epoch for one in every if one.epoch is not None), None),
        step=next((one.step for one in every if one.step is not None), None),
        lightning=next((one.lightning for one in every if one.lightning), ""),
        checksums=all(one.checksums for one in every),
        names=tuple(sorted({name for one in every for name in one.names})),
        ranks=next((one.ranks for one in every if one.ranks is not None), None),
    )


class Format(NamedTuple):
    """A format of files: how it is told by the first 512 bytes, and checked.

    ``check`` takes the file, its size in bytes, `Tell`, and whether checksums are left out. It raises `UnsoundError`
    where the file is not whole, and may raise anything else over damaged content. ``glance`` takes the first two, and
    sees by a few reads, whatever the size, that nothing is cut off; None where that cannot be seen.
    """

    name: str
    fits: Callable[[bytes], bool]
    check: Callable[..., FileContent]
    glance: Callable[[BinaryIO, int], object] | None = None


def facts_of(kind: str, contents: Contents | None, *, checksums: bool = False) -> FileContent:
    """Take from a pickle what is compared and remembered.

    Raises:
        UnsoundError: loading it would run what no checkpoint needs.
    """
    if contents is None:
        return FileContent(kind, checksums=checksums)
    refuse_code(contents.names)
    version = contents.fields.get("pytorch-lightning_version")
    return FileContent(
        kind,
        contents.number("epoch"),
        contents.number("global_step"),
        version[:20] if isinstance(version, str) else "",
        checksums,
        tuple(sorted(name[:200] for name in contents.names if not name.startswith(USUAL))),
        contents.number("dp_world_size"),
        next(_counts_of_engines(contents), ()),
    )


def _counts_of_engines(contents: Contents) -> Iterator[tuple[int, ...]]:
    """Yield what engines of PyTorch-Ignite have counted; their states stand under keys of the user's choice."""
    for value in contents.fields.values():
        state = entries_of(value)
        if not state.keys().isdisjoint(("max_epochs", "max_iters")):
            done, length = state.get("iteration"), state.get("epoch_length")
            if is_count(done):
                yield (done, done // length) if is_count(length) and length and done % length == 0 else (done,)


def refuse_code(names: Iterable[str]) -> None:
    """Refuse pickles that name what acts on the machine. The list is a help, no proof: many roads lead to a call.

    Raises:
        UnsoundError: with the first such name.
    """
    for name in sorted(names):
        root, *rest = name.split(".")
        by_builtin = root in ("builtins", "__builtin__") and not BUILTINS_THAT_ACT.isdisjoint(rest)
        if root in ROOTS_THAT_ACT or by_builtin or not MODULES_THAT_ACT.isdisjoint(rest):
            hint = "do not load it, and find out where it comes from; reading it here has run nothing"
            raise UnsoundError("runs_code", f"would run '{name[:80]}' when it is loaded", hint)


def of_size(kind: str, size: int, expected: int, *, exact: bool = False) -> FileContent:
    """Compare the bytes that are there with those that the file speaks of.

    Raises:
        UnsoundError: there are too few, or too many where it must be ``exact``.
    """
    if size < expected:
        raise UnsoundError("truncated", f"is cut off: it has {size} bytes and should have {expected}")
    if exact and size > expected:
        raise UnsoundError("damaged", f"has {size - expected} bytes too many")
    return FileContent(kind)
