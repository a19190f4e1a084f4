"""What a JSON file tells beyond a plan: read only where one is asked for."""

from __future__ import annotations

from typing import Any

from ckptrules.engine.facts import believed, merged
from ckptrules.engine.retention import assignment, pick_policy
from ckptrules.engine.sorting import sort_entries
from ckptrules.engine.values import Listing, Plan
from ckptrules.outputs import facts
from ckptrules.outputs.evidence import read_metrics, read_pointers
from ckptrules.report.checkpoints import Seen, told_of
from ckptrules.report.data import plan_as_data
from ckptrules.run.deciding import FAULTS, Decided
from ckptrules.run.jobs import Job, was_verified
from ckptrules.storage import reading


def seen_of(job: Job, decided: Decided) -> Seen | None:
    """Look at all checkpoints of a directory, before anything is changed; None where that cannot be."""
    listing, known, path = decided.listing, decided.known, job.options.outputs_dir
    try:
        told = facts.all_facts(path, listing, job.rules)
        sidecars = sort_entries(job.rules, listing).sidecars
        metrics = merged(read_metrics(path, listing, sidecars), told.metrics)
        with reading.open_below(path, listing.directory) as directory:
            pointers = read_pointers(directory, listing, job.rules)[0]
    except FAULTS:
        return None
    return Seen(
        believed(listing, told.times),
        job.rules,
        known._replace(metrics=metrics, pointers=pointers),
        pick_policy(job.rules, assignment(job.rules, listing.experiment), job.options.policy),
        decided.plan.unwhole,
        _verified(job, decided),
        frozenset(one.name for said in told.pointers.values() for one in said),
    )


def data_of(plan: Plan, state: str, listing: Listing, seen: Seen | None) -> dict[str, Any]:
    """Return what is told of a directory, and of its checkpoints as they were ``seen`` before."""
    return plan_as_data(plan, state, listing.entries, told_of(seen, plan) if seen else None)


def _verified(job: Job, decided: Decided) -> frozenset[str]:
    if not was_verified(job.options.outputs_dir, decided.listing.directory):
        return frozenset()
    from ckptrules.verify.check import proved_names

    return proved_names(job.options.outputs_dir, job.rules, decided.listing)
