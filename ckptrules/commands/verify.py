"""``doit verify``: the task, what refuses it before anything is read, and the work on one checkpoint directory.

A directory is looked at, read here or by many workers, and told.
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
from ckptrules.run.options import EXECUTOR, EXPERIMENTS, HTML, JSON, MAX_RATE, OptionError, Planning, flag
from ckptrules.run.outcome import FAULTS, Apart, Done, Output, untouched
from ckptrules.run.records import expected_time
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict
from ckptrules.stopping import KilledError, StoppedError, heed
from ckptrules.verify import check
from ckptrules.verify.check import Report, ToVerify
from ckptrules.verify.portion import Answer, Desk, How, Portion, Read, of_portions, portions_of, read_one, read_portion
from ckptrules.verify.report import VerifyTally, block, report_as_data, summary, tally
from ckptrules.workers.pieces import SMALL, weight


class Options(Planning):
    """The options of `doit verify`."""

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
        partial(verify_one, how),
        lambda total: total.experiments,  # what is not understood in one is a problem, which is told
        nothing=VerifyTally(),
        summarise=partial(summarise, options),
        reads=True,
    )


def summarise(options: Options, total: VerifyTally, style: Style, notes: Iterable[str]) -> str:
    """Show the numbers, and in a preview how long it takes; of ``quick`` nobody knows, as it reads little of a file."""
    knows = style.preview and (options.load or not options.quick)
    expected = expected_time("verify", options, total.bytes_expected) if knows else []
    return summary(total, style, [*expected, *notes])


# --- the work on one directory ----------------------------------------------------------------------------------------


def verify_one(how: How, job: Job, found: Directory) -> Done | Apart:
    """Look at one checkpoint directory; read it here where that is little, else say what is to be read.

    Raises:
        StoppedError: Ctrl-C or SIGTERM came, and nothing is known of the directory.
    """
    heed()
    options = job.options
    try:
        begun = check.begin(options.outputs_dir, job.rules, scan(options.outputs_dir, found), how, time.time_ns())
    except FAULTS as fault:
        return told(job, Report(found.experiment, found.directory, (), untouched(found, fault).problems))
    if options.dry_run:
        return told(job, check.end(begun, job.rules, ())[0])
    desk = begun.desk
    if weight(begun.new) >= SMALL and (how.load or not how.quick):
        portions = [portion for entry in begun.new for portion in portions_of(desk, entry)]
        return Apart(partial(read_portion, desk), portions, partial(conclude, job, begun, portions))
    every: list[Read] = []
    passed, stop = 0, None

    def progress(count: int) -> None:
        nonlocal passed
        heed()
        passed += count

    try:
        for entry in begun.new:
            heed()
            every.append(read_one(desk, entry, progress))
    except StoppedError as error:
        stop = error
    done, unlike = judged(job, begun, every, stop)
    done = done._replace(moved=passed if how.quick else sum(one.entry.size for one in every), passed=passed)
    return Apart(None, (), partial(noted, desk, [*every, *unlike], done)) if every else done


def noted(desk: Desk, every: Sequence[Read], done: Done, _: Iterable[object]) -> Done:
    """Remember what was read: only the process with the journal writes into the state."""
    check.remember(desk, every)
    return done


def conclude(job: Job, begun: ToVerify, portions: Sequence[Portion], answers: Iterable[Answer]) -> Done:
    """Tell what came of a directory; what was read is remembered at once, so that an interrupted run is not lost.

    Raises:
        StoppedError, KilledError: all ends before its time, and nothing is known of the directory.
    """
    every: list[Read] = []
    of_one: list[tuple[Portion, Answer]] = []
    stop = None
    try:
        for portion, answer in zip(portions, answers, strict=True):
            of_one.append((portion, answer))
            if len(of_one) == portion.of:
                every.append(of_portions(begun.desk, of_one, lambda _: heed()))
                check.remember(begun.desk, every[-1:])
                of_one = []
    except (StoppedError, KilledError) as error:
        stop = error
    done, unlike = judged(job, begun, every, stop)
    check.remember(begun.desk, unlike)
    return done


def judged(
    job: Job, begun: ToVerify, every: Sequence[Read], stop: StoppedError | KilledError | None
) -> tuple[Done, list[Read]]:
    """Tell what came of a directory, also where it was not read to its end; return what is to be remembered besides.

    Raises:
        StoppedError, KilledError: that was the ``stop``, and nothing is known of the directory.
    """
    if stop and not (every or begun.rows):
        raise stop
    report, unlike = check.end(begun, job.rules, every)
    if stop:
        left = Problem("stopped", (report.directory,), "was not read to its end", "run again to go on")
        report = report._replace(problems=(left, *report.problems))
    return told(job, report)._replace(killed=stop if isinstance(stop, KilledError) else None), unlike


def told(job: Job, report: Report) -> Done:
    """Tell what came of one directory."""
    data = report_as_data(report) if job.options.tells_data else None
    output = Output(block(report, job.style), tally(report), data)
    return Done(output, failed=bool(report.problems))
