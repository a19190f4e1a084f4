"""Plan one checkpoint directory: read it, plan by names, look up the evidence that the plan rests on, plan again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import cache, partial
from typing import Any, NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Evidence
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.facts import merged
from ckptrules.engine.leftovers import leftover_of
from ckptrules.engine.names.comparing import NumbersInside
from ckptrules.engine.names.sorting import sort_entries
from ckptrules.engine.pins import Found
from ckptrules.engine.plan import make_plan
from ckptrules.engine.policy import losses
from ckptrules.engine.policy.retention import reads_files
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.state_folder import MANIFEST
from ckptrules.engine.whole.wholeness import unwhole
from ckptrules.outputs import facts, readings
from ckptrules.outputs.beside import newest_beside
from ckptrules.outputs.evidence import (
    Looks,
    look,
    metric_files,
    obstacle,
    read_metrics,
    to_look_at,
)
from ckptrules.outputs.find import backups_around
from ckptrules.outputs.listing import read_directory
from ckptrules.outputs.pointers import ABOVE, one_word_files, pointer_files
from ckptrules.run import hook, pinning
from ckptrules.run.jobs import Job, was_verified
from ckptrules.run.outcome import FAULTS, untouched
from ckptrules.storage import reading


class Local(tzinfo):
    """The local time zone (``TZ``, or that of the machine), in which `date` and `ls` show times."""

    def fromutc(self, time: datetime) -> datetime:
        """Return the local time, with the offset and the zone name of that moment."""
        return time.replace(tzinfo=UTC).astimezone()


LOCAL = Local()  # type: ignore[abstract] # `fromutc` gives each time another zone, so no other method is called


class Decided(NamedTuple):
    """A plan and its input: the ``listing``, and the evidence that is ``known``.

    ``read`` notes what the plan was made from besides names (`readings.read_by`); with None, no later run may skip it.
    """

    plan: Plan
    listing: Listing
    read: Mapping[str, Any] | None = None
    known: Evidence = Evidence()


def decided_of(job: Job, found: Directory) -> Decided:
    """Read one checkpoint directory, and plan what happens in it."""
    listing = Listing(found.experiment, found.directory, ())
    try:
        with reading.open_below(job.options.outputs_dir, found.directory) as directory:
            listing = read_directory(directory, found)
            looks = looks_of(job, listing, directory)
            sources = sources_asked(job, looks)
            contents = readings.marks(directory, [*names_to_read(job, looks), *sources.paths])
            proven = plan_with_evidence(job, looks, sources)
            plan, known = with_losses(proven.job, looks, proven.plan, proven.known), proven.known
            plan = pinning.with_pins(plan, proven.pinned)
            plan = plan._replace(notes=(*plan.notes, *proven.notes))
            if job.options.dry_run and plan.actions and (problem := obstacle(directory, plan)):
                plan = plan._replace(notes=(*plan.notes, Reason(f"nothing could be changed now: it {problem.text}")))
            plan = with_stale_paths(job, listing, directory, plan)
            compared = names_to_compare(job, listing, plan)
            outside = {path for path in known.pointers if path.startswith(ABOVE)}.union(*known.beside.values())
            above = readings.marks(directory, sorted(outside))
            contents = None if contents is None or above is None else {**contents, **above}
            if proven.job is not job:  # a pin or a backup suspends the policy: the next run must plan again
                return Decided(plan, listing, None, known)
            return Decided(plan, listing, readings.read_by(listing, compared, contents, known.links), known)
    except FAULTS as fault:
        return Decided(untouched(found, fault), listing)


def with_stale_paths(job: Job, listing: Listing, directory: int, plan: Plan) -> Plan:
    """Add a note where a rename makes a path inside a checkpoint stale: Lightning resumes by it, without an error."""
    options = job.options
    if options.fix_state or options.leave_links or all(action.kind != "rename" for action in plan.actions):
        return plan
    from ckptrules.changes.fixing import FixContext, stale_name  # not above: only renames need it

    context = FixContext(options.outputs_dir, job.rules, listing, job.header["started_ns"])
    name = stale_name(context, directory, plan)
    text = (
        f"paths inside still tell old names ({name}), and a training resumes by them: after the rename, "
        "'doit fix_state' brings them up to date; what it changes takes its space twice until the trash is emptied"
    )
    return plan._replace(notes=(*plan.notes, Reason(text))) if name else plan


def names_to_read(job: Job, looks: Looks) -> list[str]:
    """Return the files whose content a plan depends on: pointer files, trackers, and sidecars with metrics."""
    metrics = metric_files(looks.found.sidecars) if asks_for_metrics(job) else {}
    pointers = {*pointer_files(looks.listing, job.rules), *one_word_files(looks.listing, job.rules)}
    return [*sorted(pointers), *(name for names in metrics.values() for name in names)]


def names_to_compare(job: Job, listing: Listing, plan: Plan) -> list[str] | None:
    """Return the names whose size, time or link text a plan depends on; None for all names."""
    if job.options.fix_state or (job.policy and reads_files(job.policy)):
        return None
    skipped = {row.name for row in plan.skipped}
    leftovers = {name for name in skipped if job.policy and leftover_of(name, job.rules)}
    return [
        entry.name
        for entry in listing.entries
        if (entry.kind == "directory" and entry.name not in skipped)
        or entry.name in leftovers
        or (entry.kind == "link" and entry.link_text != entry.sibling)
    ]


def looks_of(job: Job, listing: Listing, directory: int) -> Looks:
    """Return the `Looks` of a directory that was listed and is open, for plans by the rules of a job."""
    return Looks(directory, listing, job.rules, job.links, job.header["started_ns"])


class PlanWithEvidence(NamedTuple):
    """A plan with all the evidence that it rests on.

    ``job`` is the job that the ``plan`` was made for: without a policy, where a pin or a backup forbids deletions.
    ``known`` is the evidence, ``notes`` tell what is wrong with files of facts, ``pinned`` are the pins found here.
    """

    job: Job
    plan: Plan
    known: Evidence
    notes: tuple[Reason, ...]
    pinned: Sequence[Found]


def plan_with_evidence(job: Job, looks: Looks, sources: facts.Sources) -> PlanWithEvidence:
    """Plan one directory, look up what the plan rests on, and plan again until all of that is known."""
    listing = looks.listing
    pinned = pinning.pinned_in(job.options.outputs_dir, listing, job.pins, job.strays)
    path, deletes = job.options.outputs_dir, job.policy or job.options.on_conflict != "report"
    backups = backups_around(path, listing.directory) if deletes else []
    if backups or any(pin.fault for pin in pinned):  # a pinned checkpoint may lie here under another name
        job = job._replace(policy=None, options=job.options.but(on_conflict="report"))
    known, notes = with_facts(job, looks, sources, known_at_first(job, looks, pinned))
    looked_at, relied_on = set[str](), set[str]()
    beside = cache(partial(newest_beside, looks))
    for verified in dict.fromkeys((None, verified_names(job, listing))):  # first look at all that could be deleted
        known = known._replace(verified=verified)
        plan = plan_once(job, looks, known)
        while not (looked_at >= (names := to_look_at(plan)) and relied_on.issuperset(plan.rests_on)):
            looked_at |= names  # new evidence may change which names the plan touches
            relied_on.update(plan.rests_on)
            evidence = look(looks, plan, known)._replace(beside=beside() if plan.going else known.beside)
            if (evidence.in_use, evidence.broken) != (known.in_use, known.broken):
                evidence, notes = with_facts(job, looks, sources, evidence)
            if evidence == known:
                break
            known = evidence
            plan = plan_once(job, looks, known)
    text = "lies in '{}', which is a backup by its {}: nothing goes; if it is none any more, remove that file"
    return PlanWithEvidence(
        job, plan, known, (*notes, *(Reason(text.format(path, MANIFEST)) for path in backups)), pinned
    )


def known_at_first(job: Job, looks: Looks, pinned: Iterable[Found]) -> Evidence:
    """Return the evidence that needs no plan: it depends on the job and the directory alone."""
    listing = looks.listing
    return Evidence(
        now_ns=job.header["started_ns"],
        metrics=looks.metrics if asks_for_metrics(job) else {},
        inside=looks.inside,
        zone=LOCAL,
        broken=broken_names(job.options.outputs_dir, listing),
        pins={found.name: found.pin.reason for found in pinned},
        spared=hook.spared(job.options, listing, job.rules),
        holding=job.holding.get(listing.directory, frozenset()),
        tree=job.tree,
    )


def with_facts(job: Job, looks: Looks, sources: facts.Sources, known: Evidence) -> tuple[Evidence, tuple[Reason, ...]]:
    """Add what the files of `facts` tell of checkpoints; the second value are notes of what is wrong with the files."""
    if not (sources.files or sources.inside):
        return known, sources.notes
    listing = looks.listing
    out = frozenset[str]()
    if sources.inside or any(source.owner and source.fact.best for source in sources.files):
        found = looks.found
        marked = unwhole(found, listing, job.rules, known)[0].keys() | known.in_use.keys()
        whole = (checkpoint.names for checkpoint in found.every if marked.isdisjoint(checkpoint.names))
        out = frozenset(looks.names).difference(*whole)
    per = job.policy.per if job.policy else ()
    more, notes = looks.facts_of(sources, metrics=asks_for_metrics(job), out=out, per=per)
    return known._replace(
        metrics=merged(known.metrics, more.metrics),
        times=more.times,
        best_unknown=more.best_unknown,
        pointers={**more.pointers, **known.pointers},
        best_inside=more.best_inside,
    ), notes


def sources_asked(job: Job, looks: Looks) -> facts.Sources:
    """Find the files of `facts` that a plan depends on.

    Files that name the best always count. Files with metrics or times count where the policy asks for these.
    Checkpoints that name the best inside count only where a policy deletes, as no rename depends on them.
    """
    policy, metrics = job.policy, asks_for_metrics(job)
    wanted = [
        fact for fact in job.rules.facts if (fact.best and not fact.inside) or (policy and (fact.time or metrics))
    ]
    inside = [fact for fact in job.rules.facts if fact.inside and policy]
    if not (wanted or inside):
        return facts.Sources()
    found = facts.find_sources(job.options.outputs_dir, looks.listing, wanted, looks.names)
    if not inside:
        return found
    from ckptrules.outputs.inside import rows_of

    return found._replace(inside=rows_of(looks.listing, inside, looks.names, policy.per if policy else ()))


def with_losses(job: Job, looks: Looks, plan: Plan, known: Evidence) -> Plan:
    """Add notes on what the policy deletes, by all that files tell, whether or not the policy asks for it."""
    if not (job.policy and losses.deleted(plan)):
        return plan
    if not asks_for_metrics(job):  # else the metrics are known
        known = known._replace(metrics=all_metrics(job, looks.listing).metrics)
    inside = numbers_inside(job.options.outputs_dir, looks.listing)
    return losses.with_losses(plan, looks.found, job.rules, job.policy, known, inside)


def plan_once(job: Job, looks: Looks, known: Evidence) -> Plan:
    """Plan one directory by the evidence so far."""
    options = job.options
    return make_plan(job.rules, looks.listing, job.policy, options.on_conflict, known, leave_links=options.leave_links)


def all_metrics(job: Job, listing: Listing) -> Evidence:
    """Return all that files of `facts` and sidecars tell of checkpoints, whether or not the policy asks for it.

    Raises:
        OSError: a file of facts cannot be read.
    """
    path, sidecars = job.options.outputs_dir, sort_entries(job.rules, listing).sidecars
    known = facts.all_facts(path, listing, job.rules)
    return known._replace(metrics=merged(read_metrics(path, listing, sidecars), known.metrics))


def asks_for_metrics(job: Job) -> bool:
    """Say whether the policy or the budget depends on a metric.

    The budget is taken from the rules: the first plan of a directory is made by its policy without the budget.
    """
    lines = (*job.policy.lines, *filter(None, [job.rules.budget])) if job.policy else ()
    return any(line.key == "keep_best" or (line.key == "budget" and line.value.order) for line in lines)


def verified_names(job: Job, listing: Listing) -> frozenset[str] | None:
    """Return the names of verified checkpoints; None unless a deletion asks for them (``verified``)."""
    if not (job.policy and job.options.verified):
        return None
    from ckptrules.verify.check import proved_names

    return proved_names(job.options.outputs_dir, job.rules, listing)


def broken_names(outputs_dir: str, listing: Listing) -> Mapping[str, str]:
    """Return by name why `doit verify` found checkpoints broken."""
    if not was_verified(outputs_dir, listing.directory):
        return {}
    from ckptrules.verify import memory

    return memory.broken_names(outputs_dir, listing)


def numbers_inside(outputs_dir: str, listing: Listing) -> Mapping[str, NumbersInside]:
    """Return by name the numbers in checkpoints that `doit verify` has read."""
    if not was_verified(outputs_dir, listing.directory):
        return {}
    from ckptrules.verify import memory

    return {name: known.content.inside for name, known in memory.results_by_name(outputs_dir, listing).items()}
