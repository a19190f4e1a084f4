"""Plan one checkpoint directory, carry the plan out, and report it. Imported only when a directory has changed."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from ckptrules import stopping
from ckptrules.changes.transaction import JournalledTree, Outcome, carry_out, stamp_after
from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.facts import believed
from ckptrules.engine.leftovers import leftovers_until
from ckptrules.engine.policy.retention import by_tree, holds_until, reads_files
from ckptrules.outputs.listing import scan
from ckptrules.report.text import experiment_block, outlook, shared_files, tally
from ckptrules.run import pinning
from ckptrules.run.deciding import Decided, decided_of
from ckptrules.run.jobs import Job
from ckptrules.run.outcome import FAULTS, Done, untouched
from ckptrules.run.progress import stoppable
from ckptrules.storage.state import Folders

if TYPE_CHECKING:
    from ckptrules.engine.names.drafting import Unread
    from ckptrules.report.checkpoints import Before


def work_on(job: Job, found: Directory) -> Done:
    """Plan one checkpoint directory and, unless it is a dry run, carry the plan out."""
    if stopping.stopped():
        return Done("", failed=True)
    decided = decided_of(job, found)
    plan, listing = decided.plan, decided.listing
    outcome = Outcome(plan, None)
    before = None
    if job.options.tells_data:
        from ckptrules.run.json_file import look_before  # not above: nothing else needs it

        before = look_before(job, decided)
    try:
        if not job.options.dry_run:
            outcome = carry_out(plan, listing, journalled_tree(job), job.rules.trash_days)
        if job.options.fix_state:
            outcome = fix_as_well(job, found, outcome, listing)
    except OSError as error:
        outcome = Outcome(untouched(found, error), None)
    done = report_on(job, outcome.plan, listing, before)
    if job.options.dry_run:
        preview = outlook(plan, listing.entries, done.tally, done.links)
        done = done._replace(outlook=preview._replace(unread=unread_of(plan, listing)))
    if job.others:
        from ckptrules.run.what_if import weigh  # not above: nothing else needs it

        done = done._replace(weighed=weigh(job, job.others, decided))
    if done.failed or not outcome.stamp or not job.options.remembers:
        return done
    return done._replace(values=what_to_remember(job, found, decided, outcome))


def what_to_remember(job: Job, found: Directory, decided: Decided, outcome: Outcome) -> dict[str, Any]:
    """Return the values by which the next run knows that a directory is up to date; empty if it must plan again."""
    if job.policy and by_tree(job.policy):
        return {}  # a change in another directory may change this plan
    if outcome.plan.actions and (job.policy or decided.read):
        decided = decided_of(job, found)
        if decided.plan.actions or decided.plan.problems:
            return {}
    understood = outcome.plan.actions or any(row.is_checkpoint for row in outcome.plan.kept)
    if not understood and any(row.kind == "unrecognised" for row in outcome.plan.skipped):
        return {}
    in_part_folders = any(
        "/" in entry.name for entry in decided.listing.entries
    )  # the stamp does not show changes in these
    if in_part_folders or decided.plan.unwhole or decided.read is None:
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


def report_on(job: Job, plan: Plan, listing: Listing, before: Before | None = None) -> Done:
    """Report a directory as text, numbers and, if asked for, data.

    ``plan`` is what was done, or would be. ``before`` are the checkpoints as they were before the run, for the data.
    """
    state = "problems" if plan.problems else "planned" if job.options.dry_run else "done"
    data, space = None, None
    if job.options.tells_data:
        from ckptrules.report.checkpoints import details_of
        from ckptrules.report.data import plan_as_data

        checkpoints = details_of(before, plan) if before else None
        data, space = plan_as_data(plan, state, listing.entries, checkpoints), checkpoints and checkpoints.space
    text = experiment_block(plan, listing.entries, job.style)
    links = shared_files(plan, listing.entries)
    return Done(text, tally(plan), data, failed=bool(plan.problems), links=links, space=space)


def unread_of(plan: Plan, listing: Listing) -> tuple[Unread, ...]:
    """Return the kinds of names that no rule knows and that look like checkpoints."""
    names = [row.name for row in plan.skipped if row.kind == "unrecognised"]
    if not names:
        return ()
    from ckptrules.engine.names.drafting import unread  # not above: few plans need it

    folders = {entry.name for entry in listing.entries if entry.kind == "directory"}
    return unread((name, name in folders) for name in names)


def fix_as_well(job: Job, found: Directory, outcome: Outcome, listing: Listing) -> Outcome:
    """Update the paths inside checkpoints after their renames, and add that to the outcome."""
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


def fixed(job: Job, listing: Listing, migrated: Plan) -> Plan:
    """Update the paths inside the checkpoints of a directory, or in a dry run plan these updates.

    ``migrated`` is the plan of the renames before, which in a dry run are still to come.
    """
    from ckptrules.changes.fixing import FixContext, fix, foresee  # not above: few plans need it

    found = pinning.pinned_in(job.options.outputs_dir, listing, job.pins, job.strays)
    pinned = {checkpoint.name: checkpoint.pin.reason.text for checkpoint in found}
    context = FixContext(job.options.outputs_dir, job.rules, listing, job.header["started_ns"], pinned)
    if job.options.dry_run:
        return foresee(context, migrated)
    return fix(context, journalled_tree(job), stoppable, len(migrated.staying))


def journalled_tree(job: Job) -> JournalledTree:
    """Return where this thread makes changes: the folder of the outputs, and a journal of its own.

    Raises:
        OSError: the run has no number, so it has not taken the lock.
    """
    if job.number is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    journal = job.journals.of_this_thread(job.options.outputs_dir, {**job.header, "number": job.number})
    return JournalledTree(job.options.outputs_dir, journal)
