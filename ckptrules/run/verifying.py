"""The work of ``doit verify`` on one checkpoint directory: looked at, read here or by many workers, told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial

from ckptrules.engine.entries import Directory
from ckptrules.outputs.listing import scan
from ckptrules.run import deciding
from ckptrules.run.jobs import Job
from ckptrules.run.outcome import Apart, Done, Output
from ckptrules.stopping import StoppedError, heed
from ckptrules.verify import check
from ckptrules.verify.check import Begun, Report
from ckptrules.verify.portion import Answer, Desk, How, Portion, Read, of_portions, portions_of, read_one, read_portion
from ckptrules.verify.report import VerifyTally, block, report_as_data, tally
from ckptrules.workers.pieces import SMALL, weight

STOPPED = Done(Output("", VerifyTally()), failed=True)


def verify_one(how: How, job: Job, found: Directory) -> Done | Apart:
    """Look at one checkpoint directory; read it here where that is little, else say what is to be read."""
    options = job.options
    try:
        begun = check.begin(options.outputs_dir, job.rules, scan(options.outputs_dir, found), how, time.time_ns())
    except deciding.FAULTS as fault:
        return told(job, Report(found.experiment, found.directory, (), deciding.untouched(found, fault).problems))
    if options.dry_run:
        return told(job, check.end(begun, job.rules, ())[0])
    desk = begun.desk
    if weight(begun.new) >= SMALL and (how.load or not how.quick):
        portions = [portion for entry in begun.new for portion in portions_of(desk, entry)]
        return Apart(partial(read_portion, desk), portions, partial(conclude, job, begun, portions), STOPPED)
    every: list[Read] = []
    passed = 0

    def progress(count: int) -> None:
        nonlocal passed
        heed()
        passed += count

    try:
        for entry in begun.new:
            heed()
            every.append(read_one(desk, entry, progress))
        report, unlike = check.end(begun, job.rules, every)
        done = told(job, report)._replace(
            moved=passed if how.quick else sum(one.size for one in begun.new), passed=passed
        )
        every += unlike
    except StoppedError:
        done = STOPPED
    return Apart(None, (), partial(noted, desk, every, done), STOPPED) if every else done


def noted(desk: Desk, every: Sequence[Read], done: Done, _: Iterable[object]) -> Done:
    """Remember what was read: only the process with the journal writes into the state."""
    check.remember(desk, every)
    return done


def conclude(job: Job, begun: Begun, portions: Sequence[Portion], answers: Iterable[Answer]) -> Done:
    """Tell what came of a directory; what was read is remembered at once, so that an interrupted run is not lost."""
    every: list[Read] = []
    of_one: list[tuple[Portion, Answer]] = []
    for portion, answer in zip(portions, answers, strict=True):
        of_one.append((portion, answer))
        if len(of_one) == portion.of:
            every.append(of_portions(begun.desk, of_one, lambda _: heed()))
            check.remember(begun.desk, every[-1:])
            of_one = []
    report, unlike = check.end(begun, job.rules, every)
    check.remember(begun.desk, unlike)
    return told(job, report)


def told(job: Job, report: Report) -> Done:
    """Tell what came of one directory."""
    data = report_as_data(report) if job.options.tells_data else None
    output = Output(block(report, job.style), tally(report), data)
    return Done(output, failed=bool(report.problems))
