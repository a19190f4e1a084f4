"""``doit verify``: the task, its progress bar, and what refuses it before anything is read."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules.engine.values import Found
from ckptrules.outputs.listing import scan
from ckptrules.run import deciding, experiments
from ckptrules.run.jobs import Job
from ckptrules.run.options import OptionError, Options
from ckptrules.run.progress import stoppable
from ckptrules.run.reporter import Told
from ckptrules.run.startup import TaskDict
from ckptrules.stopping import StoppedError
from ckptrules.verify.check import How, Report, verify
from ckptrules.verify.report import VerifyTally, block, report_as_data, summary, tally


def verify_tasks(options: Options) -> Iterator[TaskDict]:
    """Make one verifying task for each checkpoint directory.

    Raises:
        OptionError: options that do not go together, or torch is missing for ``load=1``.
    """
    if options.unsafe and not options.load:
        raise OptionError("command line: unsafe=1 says how to load\n    hint: give load=1 as well")
    if options.load and importlib.util.find_spec("torch") is None:
        raise OptionError("command line: load=1 needs torch\n    hint: pip install 'ckptrules[torch]'")
    yield from experiments.experiments(
        "verify", options, verify_one, in_tally, nothing=VerifyTally(), summarise=summary
    )


def in_tally(total: VerifyTally) -> int:
    """Count the directories: what is not understood in one is a problem, which is told."""
    return total.experiments


def verify_one(job: Job, found: Found, task: Task) -> TaskFailed | None:
    """Verify one checkpoint directory and tell what came of it."""
    options = job.options
    how = How(options.quick, options.load, options.unsafe)
    try:
        listing = scan(options.outputs_dir, found)
        report = verify(
            options.outputs_dir, job.rules, listing, how,
            lambda total: stoppable(found.experiment, total), time.time_ns(), writes=not options.dry_run,
        )  # fmt: skip
    except StoppedError:
        task.meta["told"] = Told("", VerifyTally())
        return TaskFailed("stopped", report=False)
    except deciding.FAULTS as fault:
        report = Report(found.experiment, found.directory, (), deciding.untouched(found, fault).problems)
    data = report_as_data(report) if options.json else None
    task.meta["told"] = Told(block(report, job.style), tally(report), data)
    return TaskFailed("problems left", report=False) if report.problems else None
