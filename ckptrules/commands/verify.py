"""``doit verify``: the task, its progress bar, and what refuses it before anything is read."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial

from ckptrules.engine.values import Directory
from ckptrules.outputs.listing import scan
from ckptrules.run import deciding, experiments
from ckptrules.run.experiments import Apart, Done
from ckptrules.run.jobs import Job
from ckptrules.run.options import EXECUTOR, EXPERIMENTS, HTML, JSON, OptionError, Planning, flag
from ckptrules.run.reporter import Output
from ckptrules.run.session import Session
from ckptrules.run.startup import TaskDict
from ckptrules.stopping import StoppedError, heed
from ckptrules.verify import check, memory
from ckptrules.verify.check import Begun, Desk, How, Read, Report
from ckptrules.verify.report import VerifyTally, block, report_as_data, summary, tally
from ckptrules.workers.pieces import SMALL, Lost, weight

STOPPED = Done(Output("", VerifyTally()), "stopped")


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


def verify_one(how: How, job: Job, found: Directory) -> Done | Apart:
    """Look at one checkpoint directory; read it here where that is little, else say what is to be read."""
    options = job.options
    try:
        begun = check.begin(options.outputs_dir, job.rules, scan(options.outputs_dir, found), how, time.time_ns())
    except deciding.FAULTS as fault:
        return told(job, Report(found.experiment, found.directory, (), deciding.untouched(found, fault).problems))
    desk = begun.desk
    if weight(begun.new) >= SMALL and (how.load or not how.quick):
        return Apart(partial(check.read_one, desk), begun.new, partial(conclude, job, begun), STOPPED)
    every: list[Read] = []
    try:
        for entry in begun.new:
            heed()
            every.append(check.read_one(desk, entry, lambda _: heed()))
        report, unlike = check.end(begun, job.rules, every)
        done = told(job, report)
        every += unlike
    except StoppedError:
        done = STOPPED
    if options.dry_run or not (every or memory.is_mostly_gone(desk.known, begun.living)):
        return done
    return Apart(None, (), partial(noted, desk, begun.living, every, done), STOPPED)


def noted(desk: Desk, living: Collection[str], every: Sequence[Read], done: Done, _: Iterable[object]) -> Done:
    """Remember what was read: only the process with the journal writes into the state."""
    check.remember(desk, every)
    check.forget(desk, living, every)
    return done


def conclude(job: Job, begun: Begun, answers: Iterable[Read | Lost]) -> Done:
    """Tell what came of a directory; what was read is remembered at once, so that an interrupted run is not lost."""
    every: list[Read] = []
    for entry, answer in zip(begun.new, answers, strict=True):
        every.append(check.not_read(entry, answer.why) if isinstance(answer, Lost) else answer)
        if not job.options.dry_run:
            check.remember(begun.desk, every[-1:])
    report, unlike = check.end(begun, job.rules, every)
    if not job.options.dry_run:
        check.remember(begun.desk, unlike)
        check.forget(begun.desk, begun.living, [*every, *unlike])
    return told(job, report)


def told(job: Job, report: Report) -> Done:
    """Tell what came of one directory."""
    data = report_as_data(report) if job.options.tells_data else None
    output = Output(block(report, job.style), tally(report), data)
    return Done(output, "problems left" if report.problems else "")
