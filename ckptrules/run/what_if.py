"""Count what plans with other options would delete, or plans without one line of the rules: for JSON and pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Directory, Listing, in_part_folder
from ckptrules.engine.policy.retention import assignment, pick_policy
from ckptrules.engine.ruleset import Assignment, Policy, PolicyLine
from ckptrules.engine.what_if import (
    COUNTS,
    PINS,
    POINTERS,
    PROTECTED,
    LineInUse,
    Other,
    WhatIf,
    lines_in_use,
    unprotected,
    with_more,
    without,
)
from ckptrules.outputs.evidence import Looks
from ckptrules.outputs.pointers import ABOVE
from ckptrules.report.text import shared_files, tally
from ckptrules.report.what_if import Used, Weighed, Weight
from ckptrules.rules.shipped import pins_file
from ckptrules.run.deciding import Decided, looks_of, plan_with_evidence, sources_asked
from ckptrules.run.jobs import Job, OwnJobs, policy_with_options
from ckptrules.run.options import Planning
from ckptrules.run.outcome import FAULTS, untouched
from ckptrules.run.pinning import pinned_in
from ckptrules.run.session import Session
from ckptrules.run.whole_tree import with_tree
from ckptrules.storage import reading

Change = Callable[[Policy], Policy]


def alternatives(options: Planning, policies: Iterable[str]) -> list[tuple[dict[str, Any], Planning]]:
    """Return each policy and each of `COUNTS` as ``keep_last``; before them the options of this run, if they differ.

    Each is the one that differs, as data, with all options.
    """
    names = list(policies)
    plain = options.but(delete_old=True, keep_min_epoch=None, keep_last=None)
    rows: list[tuple[dict[str, Any], Planning]]
    rows = [({"policy": name, "keep_last": None}, plain.but(policy=name)) for name in names]
    if options.policy in names:
        rows += [({"policy": None, "keep_last": count}, plain.but(keep_last=count)) for count in COUNTS]
    if options.delete_old and all(other != options for _, other in rows):
        rows.insert(0, ({"policy": options.policy, "keep_last": options.keep_last}, options))
    return rows


def with_others(
    session: Session, base: str, job: Job, pairs: OwnJobs
) -> tuple[list[tuple[Job, Directory]], tuple[dict[str, Any], ...]]:
    """Add to each job the other policies for its directory; the second value describes the rows, as data.

    Each column of policies has one for each directory: as this run would delete (the base), by each alternative,
    and by the base without one of its lines. Directories with the same policies share one job.
    """
    rows = alternatives(job.options, job.rules.policies)
    deleting = job.options.but(delete_old=True)
    base_column = others_of(session, job, pairs, deleting)
    columns = [base_column if other == deleting else others_of(session, job, pairs, other) for _, other in rows]
    policies = {id(other.policy): other.policy for other in base_column}.values()
    uses = dict.fromkeys(use for policy in policies for use in lines_in_use(policy))
    without_line = [(use, others_of(session, job, pairs, deleting, partial(less_one, use))) for use in uses]
    made: dict[tuple[int, ...], Job] = {}
    jobs = []
    for number, (own, found) in enumerate(pairs):
        own_uses = lines_in_use(base_column[number].policy)
        lines = tuple((use, column[number]) for use, column in without_line if use in own_uses)
        others = WhatIf(base_column[number], tuple(column[number] for column in columns), lines)
        key = (id(own), *map(id, (others.base, *others.rows, *(other for _, other in lines))))
        jobs.append((made.setdefault(key, own._replace(others=others)), found))
    described = (
        {**what, "current": other == job.options, "command": session.command("plan", other, base)}
        for what, other in rows
    )
    return jobs, tuple(described)


def less_one(use: LineInUse, policy: Policy) -> Policy:
    """Return a policy without one line; a policy that does not have the line is returned as it is."""
    return without(policy, use.line) if use in lines_in_use(policy) else policy


def others_of(
    session: Session, job: Job, pairs: OwnJobs, options: Planning, change: Change = lambda policy: policy
) -> list[Other]:
    """Return the policy of each directory with other options, and with a ``change`` to every policy."""
    made: dict[Assignment | None, Other] = {}

    def other(found: Directory) -> Other:
        assigned = assignment(job.rules, found.experiment)
        if assigned not in made:
            policy = pick_policy(job.rules, assigned, options.policy)
            made[assigned] = Other(policy and change(policy_with_options(policy, options)))
        return made[assigned]

    def changed(own: Job, found: Directory) -> Job:
        return own._replace(policy=other(found).policy, tree={})

    jobs = with_tree(session, job, [(changed(*pair), pair[1]) for pair in pairs], changed)[0]
    return [Other(own.policy, own.tree) if own.tree else other(found) for own, found in jobs]


def weigh(job: Job, others: WhatIf, decided: Decided) -> Weighed | None:
    """Plan a directory by other policies, and count what goes; None where it cannot be read."""
    try:
        with reading.open_below(job.options.outputs_dir, decided.listing.directory) as directory:
            return weighed(job, looks_of(job, decided.listing, directory), decided.plan, others)
    except FAULTS:  # the plan of this run has a problem for it
        return None


def weighed(job: Job, looks: Looks, own: Plan, others: WhatIf) -> Weighed:
    """Count what goes in a directory by each of the other policies; ``own`` is its plan in this run."""
    listing, made = looks.listing, [(Other(job.policy, job.tree), own)]

    def plan(other: Other) -> Plan:
        """Plan the directory by a policy, once; a fault becomes a problem, as in a run with that policy."""
        known = next((earlier for by, earlier in made if by == other), None)
        if known is None:
            try:
                known = plan_by(job, looks, other)
            except FAULTS as fault:
                known = untouched(Directory(listing.experiment, listing.directory), fault)
            made.append((other, known))
        return known

    base = plan(others.base)
    lines = [(use, base.keeps.get(use.line, 0), plan(other)) for use, other in others.lines]
    for use, count, less in other_keepers(job, looks):
        goes = base if less is job else plan_by(less, looks_of(less, listing, looks.directory), others.base)
        lines.append((use, count, goes))
    return Weighed(
        weight(base, listing),
        tuple(weight(plan(other), listing) for other in others.rows),
        {use: Used(count, weight(with_more(base, less), listing)) for use, count, less in lines},
    )


def other_keepers(job: Job, looks: Looks) -> Iterator[tuple[LineInUse, int, Job]]:
    """Yield what keeps checkpoints besides policies: the pins, and each pattern of pointer files or protected names.

    The number is that of the checkpoints that it keeps in the directory; the job is the same without it.
    """
    found_pins = pinned_in(job.options.outputs_dir, looks.listing, job.pins, job.strays)
    pinned = {pin.name for pin in found_pins if not pin.fault}
    if pinned:
        line = PolicyLine(PINS, pins_file(job.options.rules_dir), None)
        yield LineInUse(None, line), len(pinned), job._replace(pins=(), strays=())
    mentions, heads = looks.pointers[0], looks.found.heads
    for pattern in dict.fromkeys(pattern for pattern in job.rules.pointers if pattern.protects):
        here = [name for name in mentions if not name.startswith(ABOVE)]
        files = [name for name in here if fnmatchcase(in_part_folder(name)[1], pattern.text)]
        protecting = [mention for name in files for mention in mentions[name] if mention.protects]
        named = {heads.get(mention.name, mention.name) for mention in protecting}
        if named:
            line = PolicyLine(POINTERS, pattern.text, pattern.place)
            left = tuple(other for other in job.rules.pointers if other != pattern)
            yield LineInUse(None, line), len(named), job._replace(rules=job.rules._replace(pointers=left))
    for pattern in (job.rules.user or job.rules).protected:
        protected, less = [c for c in looks.found.protected if c.named_by.place == pattern.place], job
        if any(checkpoint.rule for checkpoint in protected):  # names that no rule reads stay also without protection
            less = job._replace(rules=unprotected(job.rules, pattern))
        yield LineInUse(None, PolicyLine(PROTECTED, pattern.text, pattern.place)), len(protected), less


def plan_by(job: Job, looks: Looks, other: Other) -> Plan:
    """Plan a directory by another policy; pins and notes on losses are not added, as only the deletions count."""
    job = job._replace(policy=other.policy, tree=other.tree, others=None)
    return plan_with_evidence(job, looks, sources_asked(job, looks)).plan


def weight(plan: Plan, listing: Listing) -> Weight:
    """Count the checkpoints and bytes that a plan deletes."""
    total = tally(plan)
    return Weight(total.deleted, total.bytes_deleted, shared_files(plan, listing.entries).gone)
