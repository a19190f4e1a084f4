"""`doit verify`: check the checkpoints of each directory, and remember the results.

The files of a small directory are read by the process that has the task, those of a large one by all workers.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from ckptrules.engine.actions import Problem
from ckptrules.engine.entries import Directory
from ckptrules.outputs.listing import scan
from ckptrules.report.style import Style
from ckptrules.run import experiments
from ckptrules.run.jobs import Job
from ckptrules.run.options import OptionError, Planning, flag
from ckptrules.run.outcome import FAULTS, Apart, Done, untouched
from ckptrules.run.records import expected_time
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict
from ckptrules.stopping import KilledError, StoppedError, heed
from ckptrules.verify import check
from ckptrules.verify.check import Report, ToVerify
from ckptrules.verify.portion import (
    Answer,
    Context,
    Depth,
    Portion,
    Read,
    of_portions,
    portions_of,
    read_one,
    read_portion,
)
from ckptrules.verify.report import VerifyTally, block, report_as_data, summary, tally
from ckptrules.workers.pieces import SMALL, weight


class Options(Planning, takes="experiments json html executor max_rate"):
    """The options of `doit verify`."""

    shares = True
    quick: bool = flag("leave the checksums out, so that little of a file is read")
    load: bool = flag("really load each with torch, running no code of it")
    unsafe: bool = flag("with load=1: RUN the code that a checkpoint names where it needs that to load")


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, which verifies it.

    Raises:
        OptionError: ``unsafe`` without ``load``, or ``load`` without torch.
    """
    if options.unsafe and not options.load:
        raise OptionError("unsafe=1 says how to load", "give load=1 as well")
    if options.load and importlib.util.find_spec("torch") is None:
        raise OptionError("load=1 needs torch", "pip install 'ckptrules[torch]'")
    depth = Depth(options.quick, options.load, options.unsafe)
    yield from experiments.experiments(
        session,
        "verify",
        options,
        partial(verify_one, depth),
        lambda total: total.checkpoints + total.failed,
        nothing=VerifyTally(),
        summarise=partial(summarise, options),
        reads=True,
    )


def summarise(options: Options, total: VerifyTally, style: Style, notes: Iterable[str]) -> str:
    """Return the summary; in a preview with the expected time, unless ``quick`` reads only parts of files.

    After a quick look, it says that this proves nothing to ``verified=1``.
    """
    can_expect = style.preview and (options.load or not options.quick)
    expected = expected_time("verify", options, total.bytes_expected) if can_expect else []
    quick = ["quick=1 compares no checksums: 'verified=1' counts only what 'doit verify' read without it."]
    return summary(total, style, [*expected, *quick * (options.quick and not style.preview), *notes])


# --- the work on one directory ----------------------------------------------------------------------------------------


def verify_one(depth: Depth, job: Job, found: Directory) -> Done | Apart:
    """Verify one checkpoint directory: here if it is small, else return the portions for all workers.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came before there was a result.
    """
    heed()
    options = job.options
    try:
        begun = check.begin(options.outputs_dir, job.rules, scan(options.outputs_dir, found), depth, time.time_ns())
    except FAULTS as fault:
        return as_done(job, Report(found.experiment, found.directory, (), untouched(found, fault).problems))
    if options.dry_run:
        return as_done(job, check.end(begun, job.rules, ())[0])
    context = begun.context
    if weight(begun.new) >= SMALL and (depth.load or not depth.quick):
        portions = [portion for entry in begun.new for portion in portions_of(context, entry)]
        return Apart(partial(read_portion, context), portions, partial(conclude, job, begun, portions))
    results: list[Read] = []
    passed, stop = 0, None

    def progress(count: int) -> None:
        nonlocal passed
        heed()
        passed += count

    try:
        for entry in begun.new:
            heed()
            results.append(read_one(context, entry, progress))
    except StoppedError as error:
        stop = error
    done, unlike = judged(job, begun, results, stop)
    done = done._replace(moved=passed if depth.quick else sum(result.entry.size for result in results), passed=passed)
    return Apart(None, (), partial(remembered, context, [*results, *unlike], done)) if results else done


def remembered(context: Context, results: Sequence[Read], done: Done, _: Iterable[object]) -> Done:
    """Remember the results. This runs in the main process, which alone writes into the state folder."""
    check.remember(context, results)
    return done


def conclude(job: Job, begun: ToVerify, portions: Sequence[Portion], answers: Iterable[Answer]) -> Done:
    """Return the outcome of a directory from the answers of workers; remember each checkpoint as soon as it is read.

    Raises:
        StoppedError, KilledError: the work ended before there was a result.
    """
    results: list[Read] = []
    of_one: list[tuple[Portion, Answer]] = []
    stop = None
    try:
        for portion, answer in zip(portions, answers, strict=True):
            of_one.append((portion, answer))
            if len(of_one) == portion.of:
                results.append(of_portions(begun.context, of_one, lambda _: heed()))
                check.remember(begun.context, results[-1:])
                of_one = []
    except (StoppedError, KilledError) as error:
        stop = error
    done, unlike = judged(job, begun, results, stop)
    check.remember(begun.context, unlike)
    return done


def judged(
    job: Job, begun: ToVerify, results: Sequence[Read], stop: StoppedError | KilledError | None
) -> tuple[Done, list[Read]]:
    """Return the outcome of a directory, also of one that was not read to its end, and further results to remember.

    Raises:
        StoppedError, KilledError: the ``stop``, if there is no result.
    """
    if stop and not (results or begun.known):
        raise stop
    report, unlike = check.end(begun, job.rules, results)
    if stop:
        left = Problem("stopped", (report.directory,), "was not read to its end", "run again to go on")
        report = report._replace(problems=(left, *report.problems))
    return as_done(job, report)._replace(killed=stop if isinstance(stop, KilledError) else None), unlike


def as_done(job: Job, report: Report) -> Done:
    """Return the outcome with this report."""
    data = report_as_data(report) if job.options.tells_data else None
    return Done(block(report, job.style), tally(report), data, failed=bool(report.problems))
