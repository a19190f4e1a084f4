"""What a plan would come to with other options, and with one line of the rules less."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.entries import Directory, Listing, in_part_folder
from ckptrules.engine.retention import assignment, pick_policy
from ckptrules.engine.ruleset import Assignment, Policy, PolicyLine
from ckptrules.engine.what_if import (
    COUNTS,
    PINS,
    POINTERS,
    PROTECTED,
    InUse,
    Other,
    WhatIf,
    in_use,
    unprotected,
    with_more,
    without,
)
from ckptrules.outputs.evidence import Looks
from ckptrules.outputs.pointers import ABOVE
from ckptrules.report.text import several, tally
from ckptrules.report.what_if import Used, Weighed, Weight
from ckptrules.rules.shipped import pins_file
from ckptrules.run.deciding import Decided, looks_of, plan_with_evidence, sources_asked
from ckptrules.run.jobs import Job, Pairs, as_asked
from ckptrules.run.options import Planning
from ckptrules.run.outcome import FAULTS, untouched
from ckptrules.run.pinning import pinned_in
from ckptrules.run.session import Session
from ckptrules.run.whole_tree import told_by_tree
from ckptrules.storage import reading

Change = Callable[[Policy], Policy]


class Asked(NamedTuple):
    """What one may ask for: a policy, or a value of ``keep_last``, and all the options with it."""

    policy: str | None
    keep_last: int | None
    options: Planning


def asked(options: Planning, policies: Iterable[str]) -> Iterator[Asked]:
    """Yield what one may ask for: each policy, values of ``keep_last``, and first what is asked for, if it is none."""
    names = list(policies)
    plain = options.but(delete_old=True, keep_min_epoch=None, keep_last=None)
    rows = [Asked(name, None, plain.but(policy=name)) for name in names]
    if options.policy in names:
        rows += [Asked(None, count, plain.but(keep_last=count)) for count in COUNTS]
    if options.delete_old and all(row.options != options for row in rows):
        yield Asked(options.policy, options.keep_last, options)
    yield from rows


def with_others(
    session: Session, base: str, job: Job, pairs: Pairs
) -> tuple[list[tuple[Job, Directory]], tuple[dict[str, Any], ...]]:
    """Tell each job by what its directory is planned as well; the second value says what the rows are, as data."""
    rows = tuple(asked(job.options, job.rules.policies))
    deleting = job.options.but(delete_old=True)
    by_deleting = others_of(session, job, pairs, deleting)
    asked_for = (row.options for row in rows)
    columns = [by_deleting if one == deleting else others_of(session, job, pairs, one) for one in asked_for]
    policies = {id(other.policy): other.policy for other in by_deleting}.values()
    uses = dict.fromkeys(use for policy in policies for use in in_use(policy))
    less = [(use, others_of(session, job, pairs, deleting, partial(less_one, use))) for use in uses]
    made: dict[tuple[int, ...], Job] = {}
    told = []
    for number, (own, found) in enumerate(pairs):
        here = in_use(by_deleting[number].policy)
        lines = tuple((use, column[number]) for use, column in less if use in here)
        others = WhatIf(by_deleting[number], tuple(column[number] for column in columns), lines)
        key = (id(own), *map(id, (others.base, *others.rows, *(other for _, other in lines))))
        told.append((made.setdefault(key, own._replace(others=others)), found))
    said = (
        {
            "policy": row.policy,
            "keep_last": row.keep_last,
            "current": row.options == job.options,
            "command": session.command("plan", row.options, base),
        }
        for row in rows
    )
    return told, tuple(said)


def less_one(use: InUse, policy: Policy) -> Policy:
    """Return a policy without a line, if it has it."""
    return without(policy, use.line) if use in in_use(policy) else policy


def others_of(
    session: Session, job: Job, pairs: Pairs, options: Planning, change: Change = lambda policy: policy
) -> list[Other]:
    """Return by what each directory is planned with other options, and with a change to every policy."""
    made: dict[Assignment | None, Other] = {}

    def other(found: Directory) -> Other:
        assigned = assignment(job.rules, found.experiment)
        if assigned not in made:
            policy = pick_policy(job.rules, assigned, options.policy)
            made[assigned] = Other(policy and change(as_asked(policy, options)))
        return made[assigned]

    def changed(own: Job, found: Directory) -> Job:
        return own._replace(policy=other(found).policy, tree={})

    told = told_by_tree(session, job, [(changed(*pair), pair[1]) for pair in pairs], changed)[0]
    return [Other(own.policy, own.tree) if own.tree else other(found) for own, found in told]


def weigh(job: Job, others: WhatIf, decided: Decided) -> Weighed | None:
    """Plan a directory that was read by all the rest that its job says; None where it cannot be planned at all."""
    try:
        with reading.open_below(job.options.outputs_dir, decided.listing.directory) as directory:
            return weighed(job, looks_of(job, decided.listing, directory), decided.plan, others)
    except FAULTS:  # the plan tells of it
        return None


def weighed(job: Job, looks: Looks, own: Plan, others: WhatIf) -> Weighed:
    """Say what goes in a directory by each of the others; its ``own`` plan may be by one of them."""
    listing, made = looks.listing, [(Other(job.policy, job.tree), own)]

    def plan(other: Other) -> Plan:
        """Plan it, unless there is a plan by the same; what stops it would stop the command, too."""
        known = next((one for by, one in made if by == other), None)
        if known is None:
            try:
                known = plan_by(job, looks, other)
            except FAULTS as fault:
                known = untouched(Directory(listing.experiment, listing.directory), fault)
            made.append((other, known))
        return known

    base = plan(others.base)
    lines = [(use, base.keeps.get(use.line, 0), plan(other)) for use, other in others.lines]
    for use, count, without_it in held(job, looks):
        lines.append((use, count, plan_by(without_it, looks_of(without_it, listing, looks.directory), others.base)))
    for pattern in (job.rules.user or job.rules).protected:
        shielded, less = [one for one in looks.found.protected if one.named_by.place == pattern.place], base
        if any(one.rule for one in shielded):  # what no rule reads would stay
            less_job = job._replace(rules=unprotected(job.rules, pattern))
            less = plan_by(less_job, looks_of(less_job, listing, looks.directory), others.base)
        lines.append((InUse(None, PolicyLine(PROTECTED, pattern.text, pattern.place)), len(shielded), less))
    return Weighed(
        weight(base, listing),
        tuple(weight(plan(other), listing) for other in others.rows),
        {use: Used(count, weight(with_more(base, less), listing)) for use, count, less in lines},
    )


def held(job: Job, looks: Looks) -> Iterator[tuple[InUse, int, Job]]:
    """Yield what keeps checkpoints beside the lines of policies: the pins, and each pattern of pointer files.

    With each comes how many checkpoints of the directory it keeps, and the job without it.
    """
    found_pins = pinned_in(job.options.outputs_dir, looks.listing, job.pins, job.strays)
    pinned = {one.name for one in found_pins if not one.fault}
    if pinned:
        line = PolicyLine(PINS, pins_file(job.options.rules_dir), None)
        yield InUse(None, line), len(pinned), job._replace(pins=(), strays=())
    said = looks.pointers[0]
    for pattern in dict.fromkeys(one for one in job.rules.pointers if one.protects):
        beside = [name for name in said if not name.startswith(ABOVE)]
        files = [name for name in beside if fnmatchcase(in_part_folder(name)[1], pattern.text)]
        named = {looks.found.heads.get(one.name, one.name) for name in files for one in said[name] if one.protects}
        if named:
            line = PolicyLine(POINTERS, pattern.text, pattern.place)
            left = tuple(one for one in job.rules.pointers if one != pattern)
            yield InUse(None, line), len(named), job._replace(rules=job.rules._replace(pointers=left))


def plan_by(job: Job, looks: Looks, other: Other) -> Plan:
    """Plan a directory by another policy, as its command would, without what is told beside a plan."""
    job = job._replace(policy=other.policy, tree=other.tree, others=None)
    return plan_with_evidence(job, looks, sources_asked(job, looks.listing)).plan


def weight(plan: Plan, listing: Listing) -> Weight:
    """Say what goes by a plan."""
    total = tally(plan)
    return Weight(total.deleted, total.bytes_deleted, several(plan, listing.entries).gone)
