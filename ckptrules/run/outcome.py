"""What comes of the work on a directory, or of a whole command: values, which another process may have made."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptrules.report.text import Going, Several, Tally
from ckptrules.stopping import KilledError
from ckptrules.workers.pieces import Work

if TYPE_CHECKING:
    from ckptrules.engine.drafting import Unread
    from ckptrules.report.checkpoints import Room
    from ckptrules.report.overview import Row
    from ckptrules.report.what_if import Weighed

NOTHING = Tally()
NONE = Several()


class Output(NamedTuple):
    """What a task's action has to say; it stands in ``task.meta["output"]``.

    Args:
        text: what is printed.
        tally: the numbers that are added up.
        data: what is written to the JSON file.
        going: what an experiment that loses something keeps and loses.
        links: the files with several names, which count once in the whole run.
        as_it_is: the text quotes what others wrote, so commands in it are not completed.
        weighed: what would go otherwise, where that was asked for.
        room: bytes that only a JSON file tells of.
        row: what stands in place of the text, where a line an experiment was asked for.
        unread: names that no rule knows and that look like checkpoints.
        blind: a checkpoint that would go, where nothing tells which one is the best.
    """

    text: str
    tally: Any = NOTHING
    data: Mapping[str, Any] | None = None
    going: Going | None = None
    links: Several = NONE
    as_it_is: bool = False
    weighed: Weighed | None = None
    room: Room | None = None
    row: Row | None = None
    unread: tuple[Unread, ...] = ()
    blind: str = ""


class Done(NamedTuple):
    """What came of the work on one directory, or of a command: what is shown of it, and what doit is to remember.

    ``failed`` says that problems are left. ``moved`` are the bytes of the files that were worked on, if nobody was told
    of them yet. ``passed`` are those that were read for it: of some formats a part tells that a file is whole.
    ``killed`` says why no worker is left.
    """

    output: Output
    failed: bool = False
    values: Mapping[str, Any] = {}
    moved: int = 0
    passed: int = 0
    killed: KilledError | None = None


class Apart(NamedTuple):
    """Work on one directory of which the files are still to be worked on, by whoever is free.

    ``work`` is what is done with each of the ``files``, ``then`` makes the whole of the answers, in the process with
    the journal; where Ctrl-C ends it before, ``stopped`` is what came of it. With no files, ``then`` alone is left.
    """

    work: Work[Any, Any] | None
    files: Sequence[Any]
    then: Callable[[Iterable[Any]], Done]
    stopped: Done


def later(module: str, function: str) -> Callable[..., Any]:
    """Stand for a function by its place: it is imported where, and when, it is called, which may need much."""
    return functools.partial(_call, module, function)


def _call(module: str, function: str, *values: Any) -> Any:
    return getattr(importlib.import_module(module), function)(*values)
