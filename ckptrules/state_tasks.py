"""``doit fix_state`` and ``doit drop_links``: what keeps old names working, and what ends that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from doit.exceptions import TaskFailed
from doit.task import Task

from ckptrules import scan, stopping, tasks
from ckptrules.apply import after, problems_of, refused, transact
from ckptrules.facts import links_into
from ckptrules.fixing import fix, foresee
from ckptrules.jobs import Job, note_stop
from ckptrules.model import Action, Found, Listing, Plan, Reason, Step, Unit
from ckptrules.naming import named
from ckptrules.options import Options
from ckptrules.plan import is_left_link, link_targets
from ckptrules.progress import stoppable
from ckptrules.report import Style, Tally, numbers
from ckptrules.reporter import Told
from ckptrules.startup import TaskDict


def fix_state(options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, to bring the paths inside the checkpoints up to date."""
    return tasks.experiments("fix_state", options, _each(fix_one), summarise=_summary("fixed", "states"))


def drop_links(options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, to remove the links under old names."""
    return tasks.experiments("drop_links", options, _each(drop_one), summarise=_summary("removed", "links"))


class _each:  # noqa: N801 - a function that can be sent to another process
    def __init__(self, work: Callable[[Job, Listing], Plan]) -> None:
        self.work = work
        self.__name__ = work.__name__

    def __call__(self, job: Job, found: Found, task: Task) -> TaskFailed | None:
        if stopping.stopped():
            note_stop()
            task.meta["told"] = Told("")
            return TaskFailed("stopped", report=False)
        listing = Listing(found.experiment, found.directory, ())
        try:
            listing = scan.scan(job.options.outputs_dir, found)
            done = self.work(job, listing)
        except tasks.FAULTS as fault:
            done = tasks.untouched(found, fault)
        return tasks.tell(job, task, done, listing)


def fix_one(job: Job, listing: Listing) -> Plan:
    """Bring the paths inside the checkpoints of one directory up to date, or say what that would change."""
    if job.options.dry_run:
        return foresee(job.options.outputs_dir, job.rules, listing, Plan(listing.experiment, listing.directory))
    return fix(tasks.workplace(job), job.rules, listing, job.header["started_ns"], stoppable)


def drop_one(job: Job, listing: Listing) -> Plan:
    """Remove the links under old names in one directory, or say which ones that would be."""
    links = [entry for entry in listing.entries if entry.kind == "link"]
    left = sorted(entry for entry in links if is_left_link(entry, named(entry.name, job.rules)))
    actions = [Action("unlink", entry.name, "", 0, (Reason(f"to {entry.link_text}"),)) for entry in left]
    used = link_targets(links, links_into(job.options.outputs_dir, listing.directory)) if left else {}
    problems = tuple(refused(action, used[action.name].text) for action in actions if action.name in used)
    left = [entry for entry in left if entry.name not in used]
    actions = [action for action in actions if action.name not in used]
    plan = Plan(listing.experiment, listing.directory, tuple(actions), problems=problems)
    if job.options.dry_run or not left:
        return plan
    place = tasks.workplace(job)
    steps = [Step("unlink", listing.directory, entry.name, listing.directory, entry.link_text) for entry in left]
    units = [Unit("unlink", 0, (step,)) for step in steps]
    done = transact(place, listing.experiment, listing.directory, units)
    return after(plan, done.failed, problems_of(plan, done))


def _summary(verb: str, field: str) -> Callable[[Tally, Style, Iterable[str]], str]:
    def summarise(total: Tally, style: Style, notes: Iterable[str]) -> str:
        rows = [
            ("processed", total.experiments, "experiments"),
            (f"to {'fix' if verb == 'fixed' else 'remove'}" if style.preview else verb, getattr(total, field), ""),
            ("skipped", total.skipped, ""),
            ("problems", total.problems, "left untouched, see above" if total.problems else ""),
        ]
        title = style.paint("Summary", "bold") + (" (nothing was changed)" if style.preview else "")
        return "\n".join([title, *numbers(rows), *(note for note in notes if note), ""])

    return summarise
