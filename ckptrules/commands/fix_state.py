"""`doit fix_state`: update the paths that Lightning stores inside checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from ckptrules import stopping
from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.measures import noun_of
from ckptrules.outputs.listing import scan
from ckptrules.report.style import Style, summary_of
from ckptrules.report.text import Tally
from ckptrules.run import experiments, working
from ckptrules.run.jobs import Job
from ckptrules.run.options import Planning
from ckptrules.run.outcome import FAULTS, Done, untouched
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict

Words = tuple[str, str, str]  # of a summary: the label in a preview, the label after a run, the field of the tally


class Options(Planning, takes="experiments json wait"):
    """The options of `doit fix_state`."""

    changes = True


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, to update the paths inside its checkpoints."""
    return changing(session, "fix_state", options, fix_one, ("to fix", "fixed", "states"))


def changing(
    session: Session, base: str, options: Options, change: Callable[[Job, Listing], Plan], words: Words
) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, with a ``change`` of one kind."""
    work, summarise = partial(change_one, change), partial(summary, words)
    return experiments.experiments(session, base, options, work, summarise=summarise)


def change_one(change: Callable[[Job, Listing], Plan], job: Job, found: Directory) -> Done:
    """Change one checkpoint directory, or plan that, and report it."""
    if stopping.stopped():
        return Done("", failed=True)
    listing = Listing(found.experiment, found.directory, ())
    try:
        listing = scan(job.options.outputs_dir, found)
        done = change(job, listing)
    except FAULTS as fault:
        done = untouched(found, fault)
    return working.report_on(job, done, listing)


def fix_one(job: Job, listing: Listing) -> Plan:
    """Update the paths inside the checkpoints of one directory; in a dry run, only plan it."""
    return working.fixed(job, listing, Plan(listing.experiment, listing.directory))


def summary(words: Words, total: Tally, style: Style, notes: Iterable[str]) -> str:
    """Return the summary of a command with one kind of change."""
    would, did, field = words
    rows = [
        ("processed", total.experiments, noun_of(total.experiments, "experiment")),
        (would if style.preview else did, getattr(total, field), ""),
        ("skipped", total.skipped, ""),
        ("problems", total.problems, "left untouched, see above" if total.problems else ""),
    ]
    return summary_of(rows, style, notes)
