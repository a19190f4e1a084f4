"""Make the plan for one checkpoint directory from rules, listing, policy and evidence. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ckptrules.engine import holding, rows
from ckptrules.engine.actions import Action, OnConflict, Plan, Problem, Skipped
from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.conflicts import resolve
from ckptrules.engine.entries import Listing
from ckptrules.engine.facts import believed
from ckptrules.engine.leftovers import sweep
from ckptrules.engine.living import live_run
from ckptrules.engine.measures import and_more
from ckptrules.engine.names.case import Case, Cleared
from ckptrules.engine.names.companions import by_name_only, line_for, new_names, take_along, too_long
from ckptrules.engine.names.naming import reader
from ckptrules.engine.names.packs import is_undecided
from ckptrules.engine.names.sorting import all_names, by_heads, sort_entries, stray_logs, with_metrics
from ckptrules.engine.pointers import by_name
from ckptrules.engine.policy.lines.keep_best import metric_of
from ckptrules.engine.policy.retention import NOTHING, Verdict, keep_one_of_each
from ckptrules.engine.policy.series import fields_that_differ, judge, runs_of_one
from ckptrules.engine.ruleset import Policy, Reason, RuleSet
from ckptrules.engine.whole.alongside import missed
from ckptrules.engine.whole.wholeness import complete_lines, unwhole, witnesses


def make_plan(
    rules: RuleSet,
    listing: Listing,
    policy: Policy | None = None,
    on_conflict: OnConflict = "report",
    evidence: Evidence = Evidence(),  # noqa: B008 - a value, never changed
    *,
    leave_links: bool = False,
) -> Plan:
    """Decide what happens in one checkpoint directory.

    The order of the entries changes nothing. Without a policy, only losers of a conflict are deleted. ``on_conflict``
    decides between checkpoints that want one name. ``leave_links`` asks for a link under each old name.

    Where a training may still run that would miss what the plan changes, the plan changes nothing.
    """
    plan = _planned(case_of(rules, listing, policy, on_conflict, evidence, leave_links=leave_links))
    live = live_run(plan, listing, rules, evidence.now_ns)
    if live is None:
        return plan
    problem, why = live
    spared = {**{entry.name: why for entry in listing.entries}, **evidence.spared}
    unchanged = _planned(case_of(rules, listing, None, "report", evidence._replace(spared=spared)))
    touched = {action.name for action in plan.actions}
    kept = tuple(row._replace(reasons=(*row.reasons, why)) if row.name in touched else row for row in unchanged.kept)
    return unchanged._replace(kept=kept, problems=(*unchanged.problems, problem))


def _planned(case: Case) -> Plan:
    """Make the plan as if no training were running."""
    unknown = case.evidence.best_unknown if case.policy else ()
    case, cleared = clear(case._replace(policy=None) if unknown else case)
    verdict = judged(case, cleared)
    actions = actions_on(case, cleared, verdict)
    followers = [
        *rows.relink_actions(actions, case.found.links, case.evidence.links, case.rules),
        *rows.repoint_actions(actions, case.evidence.pointers),
    ]
    swept = sweep(case)
    skipped, behind = skipped_of(case, swept, actions)
    trashed = sum(action.kind == "trash" for action in actions)
    return Plan(
        experiment=case.listing.experiment,
        directory=case.listing.directory,
        actions=(*actions, *(row for row in swept.values() if isinstance(row, Action)), *followers),
        kept=tuple(sorted(rows.names_that_stay(case, cleared, verdict, [*actions, *followers]))),
        skipped=skipped,
        problems=(
            *case.found.problems,
            *cleared.problems,
            *nothing_goes(case.listing.directory, verdict.withheld, unknown),
        ),
        notes=(*notes_of(case, cleared, verdict, swept), *behind),
        policy=case.policy.picked if case.policy else None,
        remaining=sum(checkpoint.entry.name not in case.busy for checkpoint in case.found.every) - trashed,
        rests_on=all_names(case.found, rested_on(case, cleared, verdict, actions)),
        unwhole=tuple(sorted(case.busy)),
        keeps=verdict.keeps,
    )


def case_of(
    rules: RuleSet,
    listing: Listing,
    policy: Policy | None,
    on_conflict: OnConflict,
    evidence: Evidence,
    *,
    leave_links: bool = False,
) -> Case:
    """Sort the names, attach the evidence and the sidecars to checkpoints, and find what is held and what not whole."""
    listing = believed(listing, evidence.times)
    found = sort_entries(rules, listing)
    spared = {**holding.twins(found), **holding.unfollowed(listing, evidence.links), **evidence.spared}
    found = holding.under_their_names(found, spared) if spared else found
    evidence = by_heads(evidence._replace(spared=spared), found)
    pairs = new_names(found.checkpoints, found.sidecars)
    unfit = too_long(pairs)
    if unfit or evidence.metrics:
        found = found._replace(
            checkpoints=tuple(with_metrics(c, evidence) for c in found.checkpoints if c.entry.name not in unfit),
            problems=(*found.problems, *unfit.values()),
        )
    marked, showing = unwhole(found, listing, rules, evidence)
    busy = {name: Reason(why) for name, why in evidence.in_use.items()} | marked
    sound = (one for one in found.checkpoints if one.entry.name not in busy)
    held = missed(sound, found.others) | showing | holding.holders(found, evidence)
    return Case(rules, listing, policy, on_conflict, evidence, leave_links, found, pairs, held, marked, busy)


def clear(case: Case) -> tuple[Case, Cleared]:
    """Set aside what may not be touched: what is in conflict, not whole, or needed by a file that cannot follow.

    The case that is returned has no names any more that are in conflict or in a problem, except for checkpoints.
    """
    found = case.found
    sound, losers, winners, stays, problems, disputed = resolve(case)
    left = [rows.stay(c, c.named_by, case.busy[c.entry.name]) for c in sound if c.entry.name in case.busy]
    if case.busy:
        problems = (*problems, *holding.in_use(case, sound), *holding.broken_ones(case, problems))
        sound = tuple(c for c in sound if c.entry.name not in case.busy)
    if foreign := holding.held_by_foreign(case, sound):
        problems = (*problems, *foreign.values())
        sound = tuple(c for c in sound if c.entry.name not in foreign)
    disputed = {name for problem in problems for name in problem.names}.union(disputed)
    stays = (*stays, *(row for row in left if row.name not in disputed))
    if disputed:
        sound, found = holding.hold_for_links(sound, found, disputed), holding.without(found, disputed)
    if texts := by_name(case.evidence.pointers):
        sound = tuple(holding.unless_unfollowed(c, case.pairs, texts) for c in sound)
    return case._replace(found=found), Cleared(sound, losers, winners, stays, problems, disputed)


def judged(case: Case, cleared: Cleared) -> Verdict:
    """Apply the policy, if there is one."""
    if case.policy is None:
        return NOTHING
    lost = [checkpoint.entry.name for checkpoint, _ in cleared.losers]
    verdict = judge(case, case.policy, cleared.sound, lost)
    by_reason = witnesses(case.found.every, case.marked, case.rules) if verdict.remove else {}
    groups = {why: [name for name in names if name not in lost] for why, names in by_reason.items()}
    return keep_one_of_each(verdict, groups)


def actions_on(case: Case, cleared: Cleared, verdict: Verdict) -> list[Action]:
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
    pairs, own = case.pairs, case.found.sidecars
    return [take_along(a, pairs.get(a.name, ()), own.get(a.name, ()), case.listing) for a in actions]


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


def notes_of(case: Case, cleared: Cleared, verdict: Verdict, swept: Collection[str]) -> Iterator[Reason]:
    """Yield the notes on the directory as a whole."""
    have_rows = {name for problem in cleared.problems for name in problem.names}.union(swept)
    marked = {name: why for name, why in case.marked.items() if name not in cleared.disputed}
    yield from verdict.notes
    yield from fields_that_differ(cleared.sound, case.policy)
    yield from runs_of_one(cleared.sound) if case.policy else ()
    yield from unwhole_notes(case, have_rows)
    yield from undecided_notes(cleared.sound) if case.policy else ()
    yield from forgotten_notes([c for c in cleared.sound if c.entry.name not in verdict.remove], case.rules)
    yield from holding.twin_notes(case.found)
    yield from complete_lines(case.found, marked, case.rules)
    yield from case.evidence.notes


def skipped_of(
    case: Case, swept: Mapping[str, Action | Skipped], actions: Sequence[Action]
) -> tuple[tuple[Skipped, ...], list[Reason]]:
    """Return the names that are no checkpoints and stay, and a note on those that only look like sidecars of a change.

    These, and logs and the like, count as ignored, so the plan does not name them.
    """
    others = (row for row in case.found.skipped if row.name not in swept)
    rows = sorted([*others, *(row for row in swept.values() if isinstance(row, Skipped))])
    unknown = [row.name for row in rows if row.kind == "unrecognised"]
    owned = by_name_only((a.name for a in actions if a.kind in ("rename", "trash")), unknown)
    why = {name: Reason(f"belongs to {owner} by its name only") for name, (owner, _) in owned.items()}
    logs = stray_logs(rows, case.listing, case.rules)
    skipped = (
        Skipped(row.name, "ignored", why.get(row.name, row.reason)) if row.name in logs or row.name in why else row
        for row in rows
    )
    return tuple(skipped), left_behind(owned, case.rules.sidecars)


def left_behind(owned: Mapping[str, tuple[str, str]], suffixes: Iterable[str]) -> list[Reason]:
    """Return a note on names that belong to a renamed or deleted checkpoint by their name only, as `by_name_only`."""
    if not owned:
        return []
    stay = f" and {len(owned) - 1} more stay" if len(owned) > 1 else " stays"
    line = line_for({*suffixes, *(suffix for _, suffix in owned.values())})
    what = "behind, although a checkpoint of that name is renamed or deleted"
    return [Reason(f"{min(owned)}{stay} {what}; {line} takes them along")]


def nothing_goes(directory: str, withheld: Iterable[str], unknown: Iterable[str]) -> Iterator[Problem]:
    """Yield why nothing is deleted: no verified checkpoint stays, or a file that names the best is not understood."""
    for text in withheld:
        yield Problem("unverified", (directory,), text, "run 'doit verify', then this again")
    for file in unknown:
        text = f"loses nothing: {file}, which names the best, is not understood"
        yield Problem("unreadable", (directory,), text, "repair it, or remove it if what it names is no longer wanted")


def unwhole_notes(case: Case, have_rows: Collection[str]) -> Iterator[Reason]:
    """Yield a note on each checkpoint that is not whole and has no row elsewhere."""
    places = {checkpoint.entry.name: checkpoint.named_by.place for checkpoint in case.found.every}
    for name in sorted(case.busy.keys() - have_rows):
        why = case.busy[name]
        yield Reason(f"{name} {why.text}: it is left alone and does not count", why.place or places.get(name))


def undecided_notes(sound: Iterable[Checkpoint]) -> Iterator[Reason]:
    """Yield one note for all names whose number is an epoch in one pack and a step in another."""
    alike: dict[Reason, list[str]] = {}
    for checkpoint in sound:
        if is_undecided(checkpoint.rule):
            alike.setdefault(checkpoint.named_by, []).append(checkpoint.entry.name)
    for reason, names in alike.items():
        yield Reason(f"of {and_more(names)} only the order counts: {reason.text}", reason.place)


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
