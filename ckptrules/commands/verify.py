"""``doit verify``: the task, its progress bar, and what refuses it before anything is read."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from functools import partial

from ckptrules.engine.values import Directory
from ckptrules.outputs.listing import scan
from ckptrules.run import deciding, experiments
from ckptrules.run.experiments import Done
from ckptrules.run.jobs import Job
from ckptrules.run.options import EXPERIMENTS, HTML, JSON, OptionError, Planning, flag
from ckptrules.run.progress import stoppable
from ckptrules.run.reporter import Output
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict
from ckptrules.stopping import StoppedError
from ckptrules.verify.check import How, Report, verify
from ckptrules.verify.report import VerifyTally, block, report_as_data, summary, tally


class Options(Planning):
    """What `doit verify` may be told."""

    shares = True
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    html: str | None = HTML
    quick: bool = flag("leave the checksums out, so that little of a file is read")
    load: bool = flag("really load each with torch, running no code of it")
    unsafe: bool = flag("with load=1: RUN the code that a checkpoint names where it needs that to load")


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one verifying task for each checkpoint directory.

    Raises:
        OptionError: options that do not go together, or torch is missing for ``load=1``.
    """
    if options.unsafe and not options.load:
        raise OptionError("command line: unsafe=1 says how to load\n    hint: give load=1 as well")
    if options.load and importlib.util.find_spec("torch") is None:
        raise OptionError("command line: load=1 needs torch\n    hint: pip install 'ckptrules[torch]'")
    how = How(options.quick, options.load, options.unsafe)
    yield from experiments.experiments(
        session, "verify", options, partial(verify_one, how), in_tally, nothing=VerifyTally(), summarise=summary
    )


def in_tally(total: VerifyTally) -> int:
    """Count the directories: what is not understood in one is a problem, which is told."""
    return total.experiments


def verify_one(how: How, job: Job, found: Directory) -> Done:
    """Verify one checkpoint directory and tell what came of it."""
    options = job.options
    try:
        listing = scan(options.outputs_dir, found)
        report = verify(
            options.outputs_dir, job.rules, listing, how,
            lambda total: stoppable(found.experiment, total), time.time_ns(), writes=not options.dry_run,
        )  # fmt: skip
    except StoppedError:
        return Done(Output("", VerifyTally()), "stopped")
    except deciding.FAULTS as fault:
        report = Report(found.experiment, found.directory, (), deciding.untouched(found, fault).problems)
    data = report_as_data(report) if options.tells_data else None
    told = Output(block(report, job.style), tally(report), data)
    return Done(told, "problems left" if report.problems else "")
