"""The values that all readers of files share: what a file holds (`FileContent`), what is wrong (`UnsoundError`)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ckptrules.engine.actions import said_of
from ckptrules.engine.checkpoints import number
from ckptrules.formats.limits import NotReadError

CHUNK = 2**20
BROKEN = ("truncated", "damaged", "incomplete", "does_not_load")  # ids of faults of files that are not whole
ONE_HIGHER_BEFORE = (1, 6)  # versions of Lightning wrote epoch and step one higher

# The errors of a seek to a place that a damaged file names: before its start, or too far
_WRONG_SEEK = (None, errno.EINVAL, errno.EOVERFLOW)

Progress = Callable[[int], object]
"""Takes the number of bytes read since its last call. To end the reading, it raises any exception."""


class UnsoundError(Exception):
    """A file that is not a whole checkpoint: an ``id`` of docs/verify.md, one fact, and a hint or an empty text."""

    def __init__(self, id: str, fact: str, hint: str = "") -> None:  # noqa: A002 - as in `Problem`
        super().__init__(id, fact, hint)  # all three, so that it can be pickled
        self.id = id
        self.fact = fact
        self.hint = hint

    def __str__(self) -> str:
        return self.fact


@contextlib.contextmanager
def errors_as_faults(progress: Progress) -> Iterator[Progress]:
    """Turn whatever the readers of a file raise into an `UnsoundError`.

    Two things are no fault of the file, and pass unchanged: errors of the system, and what ``progress`` raises. To
    tell the latter apart, readers must call the function that this yields in place of ``progress``.

    Raises:
        UnsoundError: the file is not whole; ``not_read`` where nobody knows whether it is.
    """
    passing: list[BaseException] = []

    def guarded(count: int) -> None:
        try:
            progress(count)
        except BaseException as error:
            passing.append(error)
            raise

    try:
        yield guarded
    except UnsoundError:
        raise
    except Exception as error:
        if error in passing or (isinstance(error, OSError) and error.errno not in _WRONG_SEEK):
            raise
        raise _fault(error) from None


def _fault(error: Exception) -> UnsoundError:
    if isinstance(error, NotReadError | MemoryError):
        why = error if isinstance(error, NotReadError) else "it needs more memory than there is"
        return UnsoundError("not_read", f"is not verified: {why}", "load it to see whether it is whole")
    return UnsoundError("damaged", f"makes no sense to its reader ({type(error).__name__})")


@contextlib.contextmanager
def faults_of_part(path: str) -> Iterator[None]:
    """Add to a fault the part of the checkpoint in which it is."""
    try:
        yield
    except (UnsoundError, NotReadError) as error:
        fault = error if isinstance(error, UnsoundError) else _fault(error)
        raise UnsoundError(fault.id, said_of(f"its part '{path}'", str(fault)), fault.hint) from None


class FileContent(NamedTuple):
    """What a checkpoint holds, whatever its name is.

    Attributes:
        kind: the file format, in words.
        epoch, step: the numbers inside (``epoch``, ``global_step``), or None.
        lightning: the version of Lightning that wrote the checkpoint, or an empty text.
        checksums: whether checksums were compared.
        names: what loading would import, beyond torch and plain containers.
        ranks: how many processes saved it, as DeepSpeed notes (``dp_world_size``), or None.
        counts: the iterations that an engine of PyTorch-Ignite has done and, at the end of an epoch, its epochs.
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
        """The numbers that a name may hold as well, by their fields."""
        return {"epoch": self.epoch, "step": self.step}

    @property
    def counts_from_1(self) -> bool:
        """Whether epoch and step inside may be one higher than in the name.

        Lightning before 1.6 added one to both while saving (``dump_checkpoint`` in its checkpoint connector), but not
        to the epoch at the last step.
        """
        major, _, rest = self.lightning.partition(".")
        version = number(major), number(rest.partition(".")[0])
        return None not in version and version < ONE_HIGHER_BEFORE


def combine(kind: str, contents: Iterable[FileContent]) -> FileContent:
    """Combine what several files hold. Of each number, the first file that has it decides."""
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
    """A file format.

    Attributes:
        name: what users call it.
        fits: says by the first 512 bytes of a file whether it has this format.
        check: takes the file, its size in bytes, a `Progress`, and whether to leave checksums out. Raises
            `UnsoundError` if the file is not whole, `NotReadError` if it is beyond the limits of what is read; any
            other exception counts as damage, too.
        glance: takes and raises the same as ``check``, and sees by a few reads whether the file is cut off. None for
            formats that do not show that.
    """

    name: str
    fits: Callable[[bytes], bool]
    check: Callable[..., FileContent]
    glance: Callable[..., object] | None = None


def check_size(kind: str, size: int, expected: int, *, exact: bool = False) -> FileContent:
    """Compare the size of a file with the one that follows from its content.

    Raises:
        UnsoundError: the file is shorter than ``expected``, or longer and ``exact``.
    """
    if size < expected:
        raise UnsoundError("truncated", f"is cut off: it has {size} bytes and should have {expected}")
    if exact and size > expected:
        raise UnsoundError("damaged", f"has {size - expected} bytes too many")
    return FileContent(kind)
