"""`doit fix_state`: the paths inside the checkpoints, brought up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ckptrules import stopping
from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Directory, Listing
from ckptrules.outputs.listing import scan
from ckptrules.report.style import Style, summary_of
from ckptrules.report.text import Tally
from ckptrules.run import experiments, working
from ckptrules.run.jobs import Job
from ckptrules.run.options import EXPERIMENTS, JSON, WAIT, Planning
from ckptrules.run.outcome import FAULTS, Done, Output, untouched
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict

Words = tuple[str, str, str]  # of a summary: what a preview and a run call the number, and its field in the tally


class Options(Planning):
    """What `doit fix_state` may be told."""

    changes = True
    experiments: str | None = EXPERIMENTS
    json: str | None = JSON
    wait: int = WAIT


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, to bring the paths inside the checkpoints up to date."""
    return changing(session, "fix_state", options, fix_one, ("to fix", "fixed", "states"))


def changing(
    session: Session, base: str, options: Options, change: Callable[[Job, Listing], Plan], words: Words
) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, to change one thing of each checkpoint."""
    work, summarise = partial(change_one, change), partial(summary, words)
    return experiments.experiments(session, base, options, work, summarise=summarise)


def change_one(change: Callable[[Job, Listing], Plan], job: Job, found: Directory) -> Done:
    """Change one checkpoint directory, or say what that would change; tell what came of it."""
    if stopping.stopped():
        return Done(Output(""), failed=True)
    listing = Listing(found.experiment, found.directory, ())
    try:
        listing = scan(job.options.outputs_dir, found)
        done = change(job, listing)
    except FAULTS as fault:
        done = untouched(found, fault)
    return working.report_on(job, done, listing)


def fix_one(job: Job, listing: Listing) -> Plan:
    """Bring the paths inside the checkpoints of one directory up to date, or say what that would change."""
    return working.fixed(job, listing, Plan(listing.experiment, listing.directory))


def summary(words: Words, total: Tally, style: Style, notes: Iterable[str]) -> str:
    """Write the last block of a command that changes one thing of each checkpoint."""
    would, did, field = words
    rows = [
        ("processed", total.experiments, "experiment" + "s" * (total.experiments != 1)),
        (would if style.preview else did, getattr(total, field), ""),
        ("skipped", total.skipped, ""),
        ("problems", total.problems, "left untouched, see above" if total.problems else ""),
    ]
    return summary_of(rows, style, notes)
