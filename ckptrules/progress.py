"""The progress bar of work that is done by several processes at once."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator

SHOW_AFTER = 0.5  # seconds; what is done sooner needs no bar


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
