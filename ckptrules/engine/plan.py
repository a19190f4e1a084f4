"""Make the plan for one checkpoint directory from rules, listing, policy and evidence. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ckptrules.engine import holding, rows
from ckptrules.engine.actions import Action, Kept, OnConflict, Plan, Problem, Skipped
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.companions import Pairs, by_name_only, kept_sidecars, line_for, new_names, take_along, too_long
from ckptrules.engine.conflicts import Known, Resolved, resolve
from ckptrules.engine.entries import Listing
from ckptrules.engine.facts import believed
from ckptrules.engine.leftovers import Swept, sweep
from ckptrules.engine.lines.keep_best import metric_of
from ckptrules.engine.living import live_run
from ckptrules.engine.naming import reader
from ckptrules.engine.packs import is_undecided
from ckptrules.engine.pointers import by_name
from ckptrules.engine.retention import NOTHING, Verdict, keep_one_of_each
from ckptrules.engine.ruleset import Policy, Reason, RuleSet
from ckptrules.engine.series import fields_that_differ, judge, runs_of_one
from ckptrules.engine.sorting import Sorted, all_names, by_heads, sort_entries, stray_logs, with_metrics
from ckptrules.engine.wholeness import complete_lines, unwhole, witnesses


class Case(NamedTuple):
    """The input of a plan; ``leave_links`` asks for a link under each old name."""

    rules: RuleSet
    listing: Listing
    on_conflict: OnConflict
    evidence: Evidence
    leave_links: bool = False
    policy: Policy | None = None


class Basis(NamedTuple):
    """The part of a decision that is the same for every policy.

    ``asked`` is the case as the caller gave it. ``case`` is the same with believed times, and with the evidence of
    each part under the name of its checkpoint. ``found`` are the sorted names, ``known`` what is known of them, and
    ``resolved`` the outcome of conflicts.
    """

    asked: Case
    case: Case
    found: Sorted
    known: Known
    resolved: Resolved


class Cleared(NamedTuple):
    """A directory after its conflicts are resolved and what may not be touched is set aside.

    ``found`` are the sorted names that are left. ``sound`` are the candidates of the policy. ``losers`` lost a
    conflict and are deleted, ``winners`` are the names that won. ``stays`` are rows of what was set aside, ``problems``
    what a person must solve. ``disputed`` are the names in conflict or in a problem: they need no other row.
    """

    found: Sorted
    sound: tuple[Checkpoint, ...]
    losers: tuple[tuple[Checkpoint, Reason], ...]
    winners: tuple[str, ...]
    stays: tuple[Kept, ...]
    problems: tuple[Problem, ...]
    disputed: Collection[str]


def make_plan(
    rules: RuleSet,
    listing: Listing,
    policy: Policy | None = None,
    on_conflict: OnConflict = "report",
    evidence: Evidence = Evidence(),  # noqa: B008 - a value, never changed
) -> Plan:
    """Decide what happens in one checkpoint directory.

    The order of the entries changes nothing. Without a policy, only losers of a conflict are deleted. ``on_conflict``
    decides between checkpoints that want one name.
    """
    return plan_on(basis_of(Case(rules, listing, on_conflict, evidence)), policy)


def basis_of(asked: Case) -> Basis:
    """Decide what is the same for every policy."""
    case, found, pairs = sorted_out(asked._replace(listing=believed(asked.listing, asked.evidence.times)))
    known = known_of(case, found, pairs)
    resolved = resolve(found.checkpoints, case.listing.entries, case.on_conflict, case.evidence, known)
    return Basis(asked, case, found, known, resolved)


def plan_on(basis: Basis, policy: Policy | None) -> Plan:
    """Make the plan for one policy, or for none.

    Where a training may still run that would miss what the plan changes, the plan changes nothing.
    """
    plan, asked = _planned(basis, policy), basis.asked
    live = live_run(plan, asked.listing, asked.rules, asked.evidence.now_ns)
    if live is None:
        return plan
    problem, why = live
    spared = {**{entry.name: why for entry in asked.listing.entries}, **asked.evidence.spared}
    evidence = asked.evidence._replace(spared=spared)
    unchanged = _planned(basis_of(asked._replace(on_conflict="report", evidence=evidence)), None)
    touched = {action.name for action in plan.actions}
    kept = tuple(row._replace(reasons=(*row.reasons, why)) if row.name in touched else row for row in unchanged.kept)
    return unchanged._replace(kept=kept, problems=(*unchanged.problems, problem))


def _planned(basis: Basis, policy: Policy | None) -> Plan:
    """Make the plan as if no training were running."""
    case, known = basis.case, basis.known
    unknown = case.evidence.best_unknown if policy else ()
    case = case._replace(policy=None if unknown else policy)
    cleared = clear(case, basis)
    verdict = judged(case, cleared, known)
    actions = actions_on(case, cleared, known, verdict)
    relinks = followers(case, cleared, actions)
    stays = names_that_stay(case, cleared, known, verdict, actions, relinks)
    swept = sweep(cleared.found, case.listing, case.rules, case.evidence, known.linked, deletes=case.policy is not None)
    found, behind = left_behind(swept_out(cleared.found, swept), actions, case.rules.sidecars)
    trashed = sum(action.kind == "trash" for action in actions)
    return Plan(
        experiment=case.listing.experiment,
        directory=case.listing.directory,
        actions=(*actions, *swept.actions, *relinks),
        kept=tuple(sorted(stays)),
        skipped=left_alone(found, case.listing, case.rules),
        problems=(
            *found.problems,
            *cleared.problems,
            *nothing_goes(case.listing.directory, verdict.withheld, unknown),
        ),
        notes=(*notes_of(case, cleared, known, verdict, swept), *behind),
        policy=case.policy.picked if case.policy else None,
        remaining=sum(checkpoint.entry.name not in known.busy for checkpoint in found.every) - trashed,
        rests_on=all_names(found, rested_on(case, cleared, verdict, actions)),
        unwhole=tuple(sorted(known.busy)),
        keeps=verdict.keeps,
    )


def sorted_out(case: Case) -> tuple[Case, Sorted, Pairs]:
    """Sort the names, attach the evidence to checkpoints, and find the sidecars of each."""
    found = sort_entries(case.rules, case.listing)
    spared = {
        **holding.twins(found),
        **holding.unfollowed(case.listing, case.evidence.links),
        **case.evidence.spared,
    }
    found = holding.under_their_names(found, spared) if spared else found
    evidence = by_heads(case.evidence._replace(spared=spared), found)
    pairs = new_names(found.checkpoints, found.sidecars)
    unfit = too_long(pairs)
    if unfit or evidence.metrics:
        found = found._replace(
            checkpoints=tuple(with_metrics(c, evidence) for c in found.checkpoints if c.entry.name not in unfit),
            problems=(*found.problems, *unfit.values()),
        )
    return case._replace(evidence=evidence), found, pairs


def known_of(case: Case, found: Sorted, pairs: Pairs) -> Known:
    """Find which checkpoints are held, and which are not whole."""
    marked, showing = unwhole(found, case.listing, case.rules, case.evidence)
    busy = {name: Reason(why) for name, why in case.evidence.in_use.items()} | marked
    linked = showing | holding.holders(found, case.evidence)
    return Known(pairs, linked, marked, busy)


def clear(case: Case, basis: Basis) -> Cleared:
    """Set aside what may not be touched: what is not whole, in conflict, or needed by a file that cannot follow."""
    evidence, found, known = case.evidence, basis.found, basis.known
    sound, losers, skipped, problems, winners = basis.resolved
    left: tuple[Kept, ...] = ()
    if known.busy:
        deletable = holding.would_go(case.policy, sound, found, evidence, known)
        sound, left, in_use = holding.set_aside(sound, known.busy, known.marked, deletable)
        problems = (*problems, *in_use, *holding.broken_ones(found, known.marked, problems))
    if foreign := holding.held_by_foreign(sound, found, evidence):
        problems = (*problems, *foreign.values())
        sound = tuple(c for c in sound if c.entry.name not in foreign)
    disputed = {name for problem in problems for name in problem.names} | {row.name for row in skipped}
    stays = (*skipped, *(row for row in left if row.name not in disputed))
    if disputed:
        sound, found = holding.hold_for_links(sound, found, disputed), holding.without(found, disputed)
    if texts := by_name(evidence.pointers):
        sound = tuple(holding.unless_unfollowed(c, known.pairs, texts) for c in sound)
    return Cleared(found, sound, losers, winners, stays, problems, disputed)


def judged(case: Case, cleared: Cleared, known: Known) -> Verdict:
    """Apply the policy, if there is one."""
    if case.policy is None:
        return NOTHING
    lost = [checkpoint.entry.name for checkpoint, _ in cleared.losers]
    verdict = judge(case.policy, cleared.sound, cleared.found, case.evidence, known, lost)
    by_reason = witnesses(cleared.found.every, known.marked, case.rules) if verdict.remove else {}
    groups = {why: [name for name in names if name not in lost] for why, names in by_reason.items()}
    return keep_one_of_each(verdict, groups)


def actions_on(case: Case, cleared: Cleared, known: Known, verdict: Verdict) -> list[Action]:
    """List the deletions and renames of checkpoints, each with its other parts and sidecars."""
    actions = [
        Action("trash", loser.entry.name, "", loser.entry.size, (why,), keep_in_trash=True)
        for loser, why in cleared.losers
    ]
    renames = []
    for checkpoint in cleared.sound:
        name, size = checkpoint.entry.name, checkpoint.entry.size
        if name in verdict.remove:
            actions.append(Action("trash", name, "", size, verdict.remove[name], saves=verdict.saves[name]))
        elif checkpoint.target != name:
            why = rows.why_it_stays(checkpoint, verdict)
            renames.append(Action("rename", name, checkpoint.target, size, why, leaves_link=case.leave_links))
    actions += renames  # after the deletions, which free the names that renames want
    if not known.pairs:
        return actions
    pairs, own = known.pairs, cleared.found.sidecars
    return [take_along(a, pairs.get(a.name, ()), own.get(a.name, ()), case.listing) for a in actions]


def followers(case: Case, cleared: Cleared, actions: Sequence[Action]) -> list[Action]:
    """List the links and pointer files that follow a renamed checkpoint."""
    links = rows.relink_actions(actions, cleared.found.links, case.evidence.links, case.rules)
    return [*links, *rows.repoint_actions(actions, case.evidence.pointers)]


def names_that_stay(
    case: Case, cleared: Cleared, known: Known, verdict: Verdict, actions: Sequence[Action], relinks: Sequence[Action]
) -> list[Kept]:
    """List what stays as it is: one row for each checkpoint, link and sidecar."""
    relinked = {action.name for action in relinks if not action.directory}
    have_rows = {name for action in actions for name, _ in action.with_it}.union(cleared.disputed)
    stays = [*rows.kept(cleared.sound, verdict, cleared.found, relinked, known.busy), *cleared.stays]
    stays += kept_sidecars(cleared.found.sidecars, case.listing, have_rows)
    if cleared.found.has_parts:
        have_rows |= {name for row in stays for name in row.names}
        stays += rows.kept_parts(cleared.found, have_rows)
    return stays


def rested_on(case: Case, cleared: Cleared, verdict: Verdict, actions: Sequence[Action]) -> Iterator[str]:
    """Yield the checkpoints that must be whole for this plan: those that let others be deleted, and the last renamed.

    A training that is killed while it saves leaves a broken file: the renamed one that was written last may be that.
    """
    renamed = {action.name for action in actions if action.kind == "rename"}
    written = ((c.entry.mtime_ns, c.entry.name) for c in cleared.sound if c.entry.name in renamed)
    yield from [max(written)[1]] if renamed else ()
    if not any(action.kind == "trash" for action in actions):
        return
    yield from cleared.winners
    yield from verdict.rests_on
    stays = [c.entry.name for c in cleared.sound if c.entry.name not in verdict.remove]
    # Files inside checkpoints that say which checkpoint is the best:
    pointers, states = case.evidence.pointers, set(case.evidence.best_inside.values())
    yield from (name for name in stays if any(pointer.startswith(f"{name}/") for pointer in pointers))
    yield from (name for name in stays if name in states)


def swept_out(found: Sorted, swept: Swept) -> Sorted:
    """Leave out the deleted leftovers, and give the others the reason why they stay."""
    leftovers = swept.names
    others = [row for row in found.skipped if row.name not in leftovers]
    return found._replace(skipped=tuple(sorted([*others, *swept.skipped])))


def notes_of(case: Case, cleared: Cleared, known: Known, verdict: Verdict, swept: Swept) -> Iterator[Reason]:
    """Yield the notes on the directory as a whole."""
    have_rows = swept.names.union(*(problem.names for problem in cleared.problems))
    marked = {name: why for name, why in known.marked.items() if name not in cleared.disputed}
    yield from verdict.notes
    yield from fields_that_differ(cleared.sound, case.policy)
    yield from runs_of_one(cleared.sound) if case.policy else ()
    yield from unwhole_notes(cleared.found, known.busy, have_rows)
    yield from undecided_notes(cleared.sound) if case.policy else ()
    yield from forgotten_notes([c for c in cleared.sound if c.entry.name not in verdict.remove], case.rules)
    yield from holding.twin_notes(cleared.found)
    yield from complete_lines(cleared.found, marked, case.rules)
    yield from case.evidence.notes


def left_alone(found: Sorted, listing: Listing, rules: RuleSet) -> tuple[Skipped, ...]:
    """Return the names that are no checkpoints; logs and the like count as ignored, so the plan does not name them."""
    logs = stray_logs(found, listing, rules)
    return tuple(row._replace(kind="ignored") if row.name in logs else row for row in found.skipped)


def left_behind(
    found: Sorted, actions: Sequence[Action], suffixes: Collection[str]
) -> tuple[Sorted, tuple[Reason, ...]]:
    """Mark and note the names that look like sidecars of a renamed or deleted checkpoint, but are none by the rules."""
    unknown = [row.name for row in found.skipped if row.kind == "unrecognised"]
    owned = by_name_only((a.name for a in actions if a.kind in ("rename", "trash")), unknown) if unknown else {}
    if not owned:
        return found, ()
    skipped = tuple(
        row._replace(kind="ignored", reason=Reason(f"belongs to {owned[row.name][0]} by its name only"))
        if row.name in owned
        else row
        for row in found.skipped
    )
    stay = f" and {len(owned) - 1} more stay" if len(owned) > 1 else " stays"
    line = line_for({*suffixes, *(suffix for _, suffix in owned.values())})
    text = (
        f"{min(owned)}{stay} behind, although a checkpoint of that name is renamed or deleted; {line} takes them along"
    )
    return found._replace(skipped=skipped), (Reason(text),)


def nothing_goes(directory: str, withheld: Iterable[str], unknown: Iterable[str]) -> Iterator[Problem]:
    """Yield why nothing is deleted: no verified checkpoint stays, or a file that names the best is not understood."""
    for text in withheld:
        yield Problem("unverified", (directory,), text, "run 'doit verify', then this again")
    for file in unknown:
        text = f"loses nothing: {file}, which names the best, is not understood"
        yield Problem("unreadable", (directory,), text, "repair it, or remove it if what it names is no longer wanted")


def unwhole_notes(found: Sorted, busy: Mapping[str, Reason], have_rows: Collection[str]) -> Iterator[Reason]:
    """Yield a note on each checkpoint that is not whole and has no row elsewhere."""
    places = {checkpoint.entry.name: checkpoint.named_by.place for checkpoint in found.every}
    for name in sorted(busy.keys() - have_rows):
        why = busy[name]
        yield Reason(f"{name} {why.text}: it is left alone and does not count", why.place or places.get(name))


def undecided_notes(sound: Iterable[Checkpoint]) -> Iterator[Reason]:
    """Yield one note for all names whose number is an epoch in one pack and a step in another."""
    alike: dict[Reason, list[str]] = {}
    for checkpoint in sound:
        if is_undecided(checkpoint.rule):
            alike.setdefault(checkpoint.named_by, []).append(checkpoint.entry.name)
    for reason, names in alike.items():
        more = f" and {len(names) - 1} more" if names[1:] else ""
        yield Reason(f"of {names[0]}{more} only the order counts: {reason.text}", reason.place)


def forgotten_notes(stays: Sequence[Checkpoint], rules: RuleSet) -> Iterator[Reason]:
    """Yield the metrics of the budget that new names lose: the next run would judge these checkpoints by age.

    Only a budget that ends with ``oldest`` judges by age. `keep_best`, and any other budget, keeps a checkpoint
    without the metric.
    """
    renamed = [checkpoint for checkpoint in stays if checkpoint.target != checkpoint.entry.name]
    if not (rules.budget and rules.budget.value.by_age and renamed):
        return
    read = reader(rules, len(stays))
    for metric, _ in rules.budget.value.order:
        as_new = [(c, c._replace(fields=read(c.target, c.entry.kind == "directory").claim.fields)) for c in renamed]
        drops = [old for old, new in as_new if metric_of(old, metric) and not metric_of(new, metric)]
        if drops:
            more = f", nor will {len(drops) - 1} more" if drops[1:] else ""
            text = f"{drops[0].target} will not tell {metric}, as {drops[0].entry.name} does{more}"
            why = "the budget goes by age where nothing tells it; a template that carries it keeps it"
            yield Reason(f"{text}: {why}", rules.budget.place)
