"""One checkpoint directory: read, planned, and planned again with what must be known beyond names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.comparing import misleading
from ckptrules.engine.entries import Directory, Listing
from ckptrules.engine.facts import merged
from ckptrules.engine.leftovers import leftover_of
from ckptrules.engine.losses import is_blind, losses
from ckptrules.engine.pins import Found
from ckptrules.engine.plan import Case, basis_of, plan_on
from ckptrules.engine.retention import reads_files
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.series import Series, called, counts_in, series_of
from ckptrules.engine.sorting import Sorted, sort_entries, with_metrics
from ckptrules.engine.state_folder import MANIFEST
from ckptrules.engine.wholeness import unwhole
from ckptrules.outputs import facts, readings
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
    """The zone that `date` and `ls` show times in (``TZ``, or that of the machine), for `datetime.fromtimestamp`."""

    def fromutc(self, time: datetime) -> datetime:
        """Return the local time, in a zone of the offset and the name that hold then."""
        return time.replace(tzinfo=UTC).astimezone()


LOCAL = Local()  # type: ignore[abstract] # no time keeps this zone, so nobody asks it for more


class Decided(NamedTuple):
    """A plan, what it was made from, and what it read beyond names (`readings.read_by`).

    ``known`` is what was found out besides.
    """

    plan: Plan
    listing: Listing
    read: Mapping[str, Any] | None = None
    known: Evidence = Evidence()


def decided_of(job: Job, found: Directory) -> Decided:
    """Read one checkpoint directory and plan what is to happen in it; say what it was read from."""
    listing = Listing(found.experiment, found.directory, ())
    try:
        with reading.open_below(job.options.outputs_dir, found.directory) as directory:
            listing = read_directory(directory, found)
            looks, sources = looks_of(job, listing, directory), sources_asked(job, listing)
            contents = readings.marks(directory, [*names_to_read(job, looks), *sources.paths])
            settled = settle(job, looks, sources)
            plan, known = with_losses(settled.job, looks, settled.plan, settled.known), settled.known
            plan = pinning.told(plan, settled.pinned)
            plan = plan._replace(notes=(*plan.notes, *settled.notes))
            if job.options.dry_run and plan.actions and (problem := obstacle(directory, plan)):
                plan = plan._replace(notes=(*plan.notes, Reason(f"nothing could be changed now: it {problem.text}")))
            plan = with_stale_paths(job, listing, directory, plan)
            looked_at = names_to_compare(job, listing, plan)
            above = readings.marks(directory, (one for one in known.pointers if one.startswith(ABOVE)))
            contents = None if contents is None or above is None else {**contents, **above}
            if settled.job is not job:  # it goes by less than the policy for now: not to be remembered
                return Decided(plan, listing, None, known)
            return Decided(plan, listing, readings.read_by(listing, looked_at, contents, known.links), known)
    except FAULTS as fault:
        return Decided(untouched(found, fault), listing)


def with_stale_paths(job: Job, listing: Listing, directory: int, plan: Plan) -> Plan:
    """Tell of paths inside that a rename makes stale: Lightning goes by them on resume, and nothing complains."""
    options = job.options
    if options.fix_state or options.leave_links or all(action.kind != "rename" for action in plan.actions):
        return plan
    from ckptrules.changes.fixing import Ground, stale_name  # not above: it is asked where something gets another name

    here = Ground(options.outputs_dir, job.rules, listing, job.header["started_ns"])
    name = stale_name(here, directory, plan)
    text = (
        f"paths inside still tell old names ({name}), and a training resumes by them: after the rename, "
        "'doit fix_state' brings them up to date; what it changes takes its space twice until the trash is emptied"
    )
    return plan._replace(notes=(*plan.notes, Reason(text))) if name else plan


def names_to_read(job: Job, looks: Looks) -> list[str]:
    """Return the files whose content a plan goes by: what names a checkpoint, and what tells a metric."""
    files = metric_files(looks.found.sidecars) if asks_for_metrics(job) else {}
    named = {*pointer_files(looks.listing, job.rules), *one_word_files(looks.listing, job.rules)}
    return [*sorted(named), *(name for names in files.values() for name in names)]


def names_to_compare(job: Job, listing: Listing, plan: Plan) -> list[str] | None:
    """Return the names of which a plan goes by more than that they are there; None for all."""
    if job.options.fix_state or (job.policy and reads_files(job.policy)):
        return None
    skipped = {row.name for row in plan.skipped}
    old = {name for name in skipped if job.policy and leftover_of(name, job.rules)}
    return [
        entry.name
        for entry in listing.entries
        if (entry.kind == "directory" and entry.name not in skipped)
        or entry.name in old
        or (entry.kind == "link" and entry.link_text != entry.sibling)
    ]


def looks_of(job: Job, listing: Listing, directory: int) -> Looks:
    """Return what looks at a directory that was read, by its descriptor, for plans by the rules of a job."""
    return Looks(directory, listing, job.rules, job.links, job.header["started_ns"])


def read_files(
    job: Job, looks: Looks, sources: facts.Sources, out: frozenset[str]
) -> tuple[Evidence, tuple[Reason, ...]]:
    """Read what files tell of checkpoints, and what the newest of these call the best inside, once."""
    listing, told = looks.listing, looks.told
    metrics = asks_for_metrics(job)
    per = job.policy.per if job.policy else ()
    key = sources, metrics, out, per
    if key not in told:
        path, names = job.options.outputs_dir, facts.names_of(listing, job.rules)
        found, notes = facts.read_facts(path, listing, sources, names, metrics=metrics, out=out, per=per)
        if sources.inside:
            from ckptrules.outputs.inside import best_inside

            best, more = best_inside(path, listing, sources.inside, job.rules, names, out)
            found, notes = found._replace(best_inside=best), (*notes, *more)
        told[key] = found, notes
    return told[key]


class Settled(NamedTuple):
    """A plan before anything is told beside it: by which job it was made, from what, and what is wrong with files."""

    job: Job
    plan: Plan
    known: Evidence
    notes: tuple[Reason, ...]
    pinned: Sequence[Found]


def settle(job: Job, looks: Looks, sources: facts.Sources) -> Settled:
    """Plan one directory; where more than names must be known, find that out and plan again."""
    listing = looks.listing
    pinned = pinning.pinned_in(job.options.outputs_dir, listing, job.pins, job.strays)
    path, deletes = job.options.outputs_dir, job.policy or job.options.on_conflict != "report"
    backups = backups_around(path, listing.directory) if deletes else []
    if backups or any(one.fault for one in pinned):  # what was pinned may have got another name
        job = job._replace(policy=None, options=job.options.but(on_conflict="report"))
    known, notes = with_facts(job, looks, sources, known_at_first(job, looks, pinned))
    looked_at, relied_on = set[str](), set[str]()
    for proved in dict.fromkeys((None, verified_names(job, listing))):  # first what would go without a proof
        known = known._replace(verified=proved)
        plan = planned(job, looks, known)
        while not (looked_at >= (names := to_look_at(plan)) and relied_on.issuperset(plan.rests_on)):
            looked_at |= names  # what is found out may bring other names into play
            relied_on.update(plan.rests_on)
            evidence = look(looks, plan, known)
            if (evidence.in_use, evidence.broken) != (known.in_use, known.broken):
                evidence, notes = with_facts(job, looks, sources, evidence)
            if evidence == known:
                break
            known = evidence
            plan = planned(job, looks, known)
    text = "lies in '{}', which is a backup by its {}: nothing goes; if it is none any more, remove that file"
    return Settled(job, plan, known, (*notes, *(Reason(text.format(one, MANIFEST)) for one in backups)), pinned)


def known_at_first(job: Job, looks: Looks, pinned: Iterable[Found]) -> Evidence:
    """Return what is known of a directory before any plan of it."""
    listing = looks.listing
    return Evidence(
        now_ns=job.header["started_ns"],
        metrics=looks.metrics if asks_for_metrics(job) else {},
        inside=looks.inside,
        zone=LOCAL,
        broken=broken_names(job.options.outputs_dir, listing),
        pins={one.name: one.pin.reason for one in pinned},
        spared=hook.spared(job.options, listing, job.rules),
        holding=job.holding.get(listing.directory, frozenset()),
        tree=job.tree,
    )


def with_facts(job: Job, looks: Looks, sources: facts.Sources, known: Evidence) -> tuple[Evidence, tuple[Reason, ...]]:
    """Add what files tell of checkpoints, and say what is wrong with the files."""
    if not (sources.files or sources.inside):
        return known, sources.notes
    listing = looks.listing
    out = frozenset[str]()
    if sources.inside or any(source.owner and source.fact.best for source in sources.files):
        found = looks.found
        marked = unwhole(found, listing, job.rules, known)[0].keys() | known.in_use.keys()
        every = (one for one in found.every if marked.isdisjoint(one.names))
        out = frozenset(facts.names_of(listing, job.rules)).difference(name for one in every for name in one.names)
    more, notes = read_files(job, looks, sources, out)
    return known._replace(
        metrics=merged(known.metrics, more.metrics),
        times=more.times,
        best_unknown=more.best_unknown,
        pointers={**more.pointers, **known.pointers},
        best_inside=more.best_inside,
    ), notes


def sources_asked(job: Job, listing: Listing) -> facts.Sources:
    """Find the files whose facts a plan goes by: what names the best always, the rest where the policy asks for it.

    The checkpoints themselves are read only where a policy deletes: no name hangs on what they say.
    """
    policy, metrics = job.policy, asks_for_metrics(job)
    wanted = [
        fact for fact in job.rules.facts if (fact.best and not fact.inside) or (policy and (fact.time or metrics))
    ]
    inside = [fact for fact in job.rules.facts if fact.inside and policy]
    if not (wanted or inside):
        return facts.Sources()
    names = facts.names_of(listing, job.rules)
    found = facts.find_sources(job.options.outputs_dir, listing, wanted, names)
    if not inside:
        return found
    from ckptrules.outputs.inside import rows_of

    return found._replace(inside=rows_of(listing, inside, names, policy.per if policy else ()))


def with_losses(job: Job, looks: Looks, plan: Plan, known: Evidence) -> Plan:
    """Add notes of what goes by the policy that a person may miss."""
    goes = {action.name for action in plan.actions if action.kind == "trash" and not action.keep_in_trash}
    if not (job.policy and goes):
        return plan
    listing, found = looks.listing, looks.found
    out = {name for problem in plan.problems for name in problem.names}.union(plan.unwhole)
    out |= {action.name for action in plan.actions if action.keep_in_trash}
    named = names_of_the_best(job, found, known)
    if not asks_for_metrics(job):  # else they are known
        known = all_told(job, listing)
    by_series: dict[Series, list[Checkpoint]] = defaultdict(list)
    for one in found.checkpoints:
        if one.entry.name not in out:
            by_series[series_of(one, job.policy)].append(with_metrics(one, known))
    shields = [one for one in found.protected if one.entry.name not in out]
    missed = [
        losses(job.policy, members, beside, goes, called(series, by_series))
        for series, members in by_series.items()
        for beside in [[one for one in shields if counts_in(one, series, by_series, job.policy)]]
    ]
    notes = [note for one in missed for note in one.notes]
    return plan._replace(
        notes=(*plan.notes, *notes, *misleading_names(job, listing, by_series)),
        best_goes=tuple(sorted({metric for one in missed for metric in one.metrics})),
        blind=is_blind(job.policy, (one for members in by_series.values() for one in members), named),
    )


def names_of_the_best(job: Job, found: Sorted, known: Evidence) -> list[str]:
    """Return what may say by its name which checkpoint is the best: what is protected, links, pointer files.

    A file of which a fact says that it names the best is called so here, and so is a pin.
    """
    links = [*(entry.name for entry in found.links), *(link.entry.name for link in known.links)]
    files = [fact.file for fact in job.rules.facts if fact.best]
    others = ["best" for path in known.pointers if any(fnmatchcase(path, f"*{file}") for file in files)]
    return [
        *(one.entry.name for one in found.protected),
        *links,
        *known.pointers,
        *others,
        *(["best"] * bool(known.pins)),
    ]


def misleading_names(job: Job, listing: Listing, by_series: Mapping[Series, Sequence[Checkpoint]]) -> Iterator[Reason]:
    """Tell of names that order a series otherwise than what stands inside, as far as `doit verify` has looked."""
    if not was_verified(job.options.outputs_dir, listing.directory):
        return
    from ckptrules.verify import memory

    known = memory.known_names(job.options.outputs_dir, listing)
    inside = {name: this.facts.inside for name, this in known.items()}
    for members in by_series.values():
        if text := misleading(members, inside):
            yield Reason(f"a name misleads: {text}, as verify found; what goes was decided by names")


def planned(job: Job, looks: Looks, known: Evidence) -> Plan:
    """Plan one directory by what is known."""
    asked = Case(job.rules, looks.listing, job.options.on_conflict, known, job.options.leave_links)
    basis = next((one for one in looks.bases if one.asked == asked), None)
    if basis is None:
        basis = basis_of(asked)
        looks.bases = [*looks.bases[-1:], basis]  # a plan goes back and forth between two of them
    return plan_on(basis, job.policy)


def all_told(job: Job, listing: Listing) -> Evidence:
    """Return what facts tell, and the metrics of sidecars with it, whether or not the policy asks for any.

    Raises:
        OSError: a file of facts cannot be read.
    """
    path, sidecars = job.options.outputs_dir, sort_entries(job.rules, listing).sidecars
    told = facts.all_facts(path, listing, job.rules)
    return told._replace(metrics=merged(read_metrics(path, listing, sidecars), told.metrics))


def asks_for_metrics(job: Job) -> bool:
    """Say whether the policy goes by a metric, or the budget, which may be left out of it for now."""
    lines = (*job.policy.lines, *filter(None, [job.rules.budget])) if job.policy else ()
    return any(line.key == "keep_best" or (line.key == "budget" and line.value.order) for line in lines)


def verified_names(job: Job, listing: Listing) -> frozenset[str] | None:
    """Return which checkpoints were verified; None where nothing depends on it."""
    if not (job.policy and job.options.verified):
        return None
    from ckptrules.verify.check import proved_names

    return proved_names(job.options.outputs_dir, job.rules, listing)


def broken_names(outputs_dir: str, listing: Listing) -> Mapping[str, str]:
    """Say what `doit verify` found broken, by name; nothing is imported or read where it was never run."""
    if not was_verified(outputs_dir, listing.directory):
        return {}
    from ckptrules.verify import memory

    return memory.broken_names(outputs_dir, listing)
