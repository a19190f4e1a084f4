"""`doit drop_links`: remove the links that were left under old names."""

from __future__ import annotations

from collections.abc import Iterator

from ckptrules.changes.transaction import transact
from ckptrules.changes.units import after, refused
from ckptrules.commands import fix_state
from ckptrules.engine.actions import Action, Plan, Step, Unit
from ckptrules.engine.entries import Listing
from ckptrules.engine.holding import link_targets
from ckptrules.engine.naming import named
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.sorting import is_left_link
from ckptrules.run import working
from ckptrules.run.jobs import Job
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict


class Options(fix_state.Options):
    """The options of `doit drop_links`."""


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, to remove the links under old names."""
    return fix_state.changing(session, "drop_links", options, drop_one, ("to remove", "removed", "links"))


def drop_one(job: Job, listing: Listing) -> Plan:
    """Remove the links under old names in one directory; in a dry run, only plan it."""
    links = [entry for entry in listing.entries if entry.kind == "link"]
    left = sorted(entry for entry in links if is_left_link(entry, named(entry.name, job.rules)))
    actions = [Action("unlink", entry.name, "", 0, (Reason(f"to {entry.link_text}"),)) for entry in left]
    used = link_targets(links, job.links.into(listing.directory)) if left else {}
    problems = tuple(refused(action, used[action.name].text) for action in actions if action.name in used)
    left = [entry for entry in left if entry.name not in used]
    actions = [action for action in actions if action.name not in used]
    plan = Plan(listing.experiment, listing.directory, tuple(actions), problems=problems)
    if job.options.dry_run or not left:
        return plan
    tree = working.journalled_tree(job)
    steps = [Step("unlink", listing.directory, entry.name, listing.directory, entry.link_text) for entry in left]
    units = [Unit("unlink", 0, (step,)) for step in steps]
    done = transact(tree, listing.experiment, listing.directory, units)
    return after(plan, done)
