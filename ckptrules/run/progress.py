"""The progress bar of long work, by one process or several at once, and the wish to stop it."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator

from ckptrules.stopping import heed

SHOW_AFTER = 0.5  # seconds; what is done sooner needs no bar


@contextlib.contextmanager
def stoppable(experiment: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar as `bar` does; what tells it how far the work is ends the work where that is wished.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came.
    """
    with bar(experiment, total) as tell:

        def tell_or_stop(count: int) -> None:
            heed()
            tell(count)

        yield tell_or_stop


@contextlib.contextmanager
def bar(experiment: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar in bytes, on a terminal only; under ``doit -n`` each process has its own line.

    doit catches what a task prints, so the bar goes to the terminal itself.
    """
    if not total or not sys.__stderr__ or not sys.__stderr__.isatty():
        yield lambda _: None
        return
    import multiprocessing

    from tqdm import tqdm

    worker = re.search(r"\d+$", multiprocessing.current_process().name)
    with tqdm(
        desc=experiment.encode("ascii", "backslashreplace").decode(), total=total, unit="B", unit_scale=True,
        file=sys.__stderr__, leave=False, delay=SHOW_AFTER, position=int(worker[0]) - 1 if worker else 0,
    ) as shown:  # fmt: skip

        def tell(count: int) -> None:
            shown.update(count)

        yield tell
