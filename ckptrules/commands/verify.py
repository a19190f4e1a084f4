"""``doit verify``: the task, its progress bar, and what refuses it before anything is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from functools import partial

from ckptrules.report.style import Style
from ckptrules.run import experiments
from ckptrules.run.expecting import expected_time
from ckptrules.run.options import EXECUTOR, EXPERIMENTS, HTML, JSON, MAX_RATE, OptionError, Planning, flag
from ckptrules.run.outcome import later
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict
from ckptrules.verify.portion import How
from ckptrules.verify.report import VerifyTally, summary

WORK = later("ckptrules.run.verifying", "verify_one")


class Options(Planning):
    """What `doit verify` may be told."""

    shares = True
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    html: str | None = HTML
    quick: bool = flag("leave the checksums out, so that little of a file is read")
    load: bool = flag("really load each with torch, running no code of it")
    unsafe: bool = flag("with load=1: RUN the code that a checkpoint names where it needs that to load")
    executor: str | None = EXECUTOR
    max_rate: str | None = MAX_RATE


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one verifying task for each checkpoint directory.

    Raises:
        OptionError: options that do not go together, or torch is missing for ``load=1``.
    """
    if options.unsafe and not options.load:
        raise OptionError("unsafe=1 says how to load", "give load=1 as well")
    if options.load and importlib.util.find_spec("torch") is None:
        raise OptionError("load=1 needs torch", "pip install 'ckptrules[torch]'")
    how = How(options.quick, options.load, options.unsafe)
    yield from experiments.experiments(
        session,
        "verify",
        options,
        partial(WORK, how),
        in_tally,
        nothing=VerifyTally(),
        summarise=partial(summarise, options),
        reads=True,
    )


def summarise(options: Options, total: VerifyTally, style: Style, notes: Iterable[str]) -> str:
    """Show the numbers, and in a preview how long it takes; of ``quick`` nobody knows, as it reads little of a file."""
    expected = [] if options.quick and not options.load else expected_time("verify", options, total.bytes_expected)
    return summary(total, style, [*expected, *notes])


def in_tally(total: VerifyTally) -> int:
    """Count the directories: what is not understood in one is a problem, which is told."""
    return total.experiments
