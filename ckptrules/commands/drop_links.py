"""`doit drop_links`: remove the links that were left under old names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckptrules.changes.transaction import transact
from ckptrules.changes.units import after, refused
from ckptrules.commands import fix_state
from ckptrules.engine.actions import Action, Plan, Step, Unit
from ckptrules.engine.entries import Entry, Listing
from ckptrules.engine.holding import link_targets
from ckptrules.engine.names.naming import named
from ckptrules.engine.names.sorting import is_left_link
from ckptrules.engine.ruleset import Reason
from ckptrules.outputs.pointers import read_pointers
from ckptrules.run import working
from ckptrules.run.jobs import Job
from ckptrules.run.session import Session
from ckptrules.run.tasks import TaskDict
from ckptrules.storage import reading


class Options(fix_state.Options):
    """The options of `doit drop_links`."""


def tasks(session: Session, options: Options) -> Iterator[TaskDict]:
    """Make one task for each checkpoint directory, to remove the links under old names."""
    return fix_state.changing(session, "drop_links", options, drop_one, ("to remove", "removed", "links"))


def named_in_files(job: Job, listing: Listing, left: Iterable[Entry]) -> dict[str, Reason]:
    """Map links under old names to the file that names them; one that fits both names (a number) leads there as well.

    Raises:
        OSError: a pointer file cannot be read.
    """
    above = job.links.above(listing.directory)
    with reading.open_below(job.options.outputs_dir, listing.directory) as directory:
        pointers, _ = read_pointers(directory, listing, job.rules, above)
    names = {pointer: {mention.name for mention in mentions} for pointer, mentions in pointers.items()}
    rows = [
        (link, pointer) for link in left if not link.dangling for pointer, said in names.items() if link.name in said
    ]
    return {link.name: Reason(f"{pointer} names it") for link, pointer in rows if link.sibling not in names[pointer]}


def drop_one(job: Job, listing: Listing) -> Plan:
    """Remove the links under old names in one directory; in a dry run, only plan it."""
    links = [entry for entry in listing.entries if entry.kind == "link"]
    left = sorted(entry for entry in links if is_left_link(entry, named(entry.name, job.rules)))
    actions = [Action("unlink", entry.name, "", 0, (Reason(f"to {entry.link_text}"),)) for entry in left]
    used = (
        {**named_in_files(job, listing, left), **link_targets(links, job.links.into(listing.directory))} if left else {}
    )
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
