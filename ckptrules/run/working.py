"""The work on one checkpoint directory: planned, carried out, told. A run that has nothing to do needs none of it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from ckptrules import stopping
from ckptrules.changes.transaction import Outcome, Workplace, carry_out, stamp_after
from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.facts import believed
from ckptrules.engine.leftovers import leftovers_until
from ckptrules.engine.retention import by_tree, holds_until, reads_files
from ckptrules.outputs.listing import scan
from ckptrules.report.text import experiment_block, outlook, several, tally
from ckptrules.run import pinning
from ckptrules.run.deciding import Decided, decided_of
from ckptrules.run.jobs import Job
from ckptrules.run.outcome import FAULTS, Done, Output, untouched
from ckptrules.run.progress import stoppable
from ckptrules.storage.state import Folders

if TYPE_CHECKING:
    from ckptrules.engine.drafting import Unread
    from ckptrules.report.checkpoints import Before


def work_on(job: Job, found: Directory) -> Done:
    """Plan one checkpoint directory and, unless it is a dry run, carry the plan out; note what to remember of it."""
    if stopping.stopped():
        return Done(Output(""), failed=True)
    decided = decided_of(job, found)
    plan, listing = decided.plan, decided.listing
    outcome = Outcome(plan, None)
    seen = None
    if job.options.tells_data:
        from ckptrules.run.json_file import seen_of  # not above: nothing else needs it

        seen = seen_of(job, decided)
    try:
        if not job.options.dry_run:
            outcome = carry_out(plan, listing, workplace(job), job.rules.trash_days)
        if job.options.fix_state:
            outcome = fix_as_well(job, found, outcome, listing)
    except OSError as error:
        outcome = Outcome(untouched(found, error), None)
    done = tell(job, outcome.plan, listing, seen)
    if job.options.dry_run:
        ahead = outlook(plan, listing.entries, done.output.tally, done.output.links)
        ahead = ahead._replace(unread=unread_of(plan, listing))
        done = done._replace(output=done.output._replace(outlook=ahead))
    if job.others:
        from ckptrules.run.what_if import weigh  # not above: nothing else needs it

        done = done._replace(output=done.output._replace(weighed=weigh(job, job.others, decided)))
    if done.failed or not outcome.stamp or not job.options.remembers:
        return done
    return done._replace(values=what_to_remember(job, found, decided, outcome))


def what_to_remember(job: Job, found: Directory, decided: Decided, outcome: Outcome) -> dict[str, Any]:
    """Return by what the next run knows that there is nothing to do; nothing where a plan would not say so now."""
    if job.policy and by_tree(job.policy):
        return {}  # what another directory holds tomorrow may decide otherwise here
    if outcome.plan.actions and (job.policy or decided.read):
        decided = decided_of(job, found)
        if decided.plan.actions or decided.plan.problems:
            return {}
    understood = outcome.plan.kept or outcome.plan.actions
    if not understood and any(row.kind == "unrecognised" for row in outcome.plan.skipped):
        return {}
    in_folders = any("/" in entry.name for entry in decided.listing.entries)  # whose stamps nobody notes
    if in_folders or decided.plan.unwhole or decided.read is None:
        return {}
    now_ns = job.header["started_ns"]
    values: dict[str, Any] = {"fingerprint": job.fingerprint, "stamp": outcome.stamp}
    if job.policy and (reads_files(job.policy) or job.rules.leftovers):
        times = (entry.mtime_ns for entry in believed(decided.listing, decided.known.times).entries)
        ends = [holds_until(job.policy, times, now_ns), *leftovers_until(job.rules, decided.listing, now_ns)]
        until = min((end for end in ends if end is not None and end >= now_ns), default=None)
        values |= {"holds_since_ns": now_ns, "holds_until_ns": until}
    if decided.read:
        values["read"] = decided.read
    return values if understood else {**values, "not_understood": True}


def tell(job: Job, done: Plan, listing: Listing, seen: Before | None = None) -> Done:
    """Tell what came of one directory, and of its checkpoints as they were ``seen`` before."""
    state = "problems" if done.problems else "planned" if job.options.dry_run else "done"
    data, room = None, None
    if job.options.tells_data:
        from ckptrules.report.checkpoints import told_of
        from ckptrules.report.data import plan_as_data

        told = told_of(seen, done) if seen else None
        data, room = plan_as_data(done, state, listing.entries, told), told and told.room
    text = experiment_block(done, listing.entries, job.style)
    output = Output(text, tally(done), data, links=several(done, listing.entries), room=room)
    return Done(output, failed=bool(done.problems))


def unread_of(plan: Plan, listing: Listing) -> tuple[Unread, ...]:
    """Return the kinds of names that no rule knows and that look like checkpoints."""
    names = [row.name for row in plan.skipped if row.kind == "unrecognised"]
    if not names:
        return ()
    from ckptrules.engine.drafting import unread  # not above: most plans need it not

    folders = {entry.name for entry in listing.entries if entry.kind == "directory"}
    return unread((name, name in folders) for name in names)


def fix_as_well(job: Job, found: Directory, outcome: Outcome, listing: Listing) -> Outcome:
    """Bring the paths inside the checkpoints up to date, after the renames; in a preview by the names to come."""
    options = job.options
    try:
        more = fixed(job, listing if options.dry_run else scan(options.outputs_dir, found), outcome.plan)
    except FAULTS as fault:
        more = untouched(found, fault)
    plan = outcome.plan._replace(
        actions=(*outcome.plan.actions, *more.actions),
        skipped=(*outcome.plan.skipped, *more.skipped),
        problems=(*outcome.plan.problems, *more.problems),
    )
    if options.dry_run or plan.problems or not more.actions:
        return Outcome(plan, None if plan.problems else outcome.stamp)
    with Folders(options.outputs_dir) as folders:
        return Outcome(plan, stamp_after(folders.descriptor(found.directory), plan, listing, changed=True))


def fixed(job: Job, listing: Listing, done: Plan) -> Plan:
    """Bring the paths inside the checkpoints of a directory up to date, or say what that would change.

    ``done`` is the plan that was carried out before, or in a preview that would be.
    """
    from ckptrules.changes.fixing import Ground, fix, foresee  # not above: most plans need it not

    found = pinning.pinned_in(job.options.outputs_dir, listing, job.pins, job.strays)
    pinned = {one.name: one.pin.reason.text for one in found}
    here = Ground(job.options.outputs_dir, job.rules, listing, job.header["started_ns"], pinned)
    if job.options.dry_run:
        return foresee(here, done)
    return fix(here, workplace(job), stoppable, len(done.staying))


def workplace(job: Job) -> Workplace:
    """Return where this thread works.

    Raises:
        OSError: the run was not begun, with lock and number.
    """
    if job.number is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    journal = job.journals.of_this_thread(job.options.outputs_dir, {**job.header, "number": job.number})
    return Workplace(job.options.outputs_dir, journal)
