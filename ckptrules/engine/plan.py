"""Pure: rules + one listing → the plan. What this file decides, nothing else may change."""

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
from ckptrules.engine.sorting import Sorted, all_names, beside, by_heads, sort_entries, with_metrics
from ckptrules.engine.wholeness import complete_lines, lacks_shown, unwhole


class Case(NamedTuple):
    """What a plan is made of; ``leave_links`` says that a link stays under each old name."""

    rules: RuleSet
    listing: Listing
    on_conflict: OnConflict
    evidence: Evidence
    leave_links: bool = False
    policy: Policy | None = None


class Basis(NamedTuple):
    """What no policy changes in what was ``asked``: the names sorted, what is known of them, conflicts resolved.

    ``case`` has the times that are believed, and what is known of parts under the names that checkpoints go by.
    """

    asked: Case
    case: Case
    found: Sorted
    known: Known
    resolved: Resolved


class Cleared(NamedTuple):
    """What is left to the policy when conflicts are resolved, and what may not be touched is set aside.

    ``sound`` are its candidates. ``losers`` go, and ``winners`` are whom they lost to. ``stays`` are rows of what is
    set aside, and ``problems`` tell of what a person must solve. ``disputed`` are the names that need no other row.
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
    """Decide everything that is to happen in one checkpoint directory.

    The order of its entries changes nothing. Without a policy nothing may be deleted. ``on_conflict`` says what becomes
    of checkpoints that want one name.
    """
    return plan_on(basis_of(Case(rules, listing, on_conflict, evidence)), policy)


def basis_of(asked: Case) -> Basis:
    """Find out what no policy changes."""
    case, found, pairs = sorted_out(asked._replace(listing=believed(asked.listing, asked.evidence.times)))
    known = known_before(case, found, pairs)
    resolved = resolve(found.checkpoints, case.listing.entries, case.on_conflict, case.evidence, known)
    return Basis(asked, case, found, known, resolved)


def plan_on(basis: Basis, policy: Policy | None) -> Plan:
    """Decide by one policy, or by none; as `make_plan`."""
    plan, asked = _planned(basis, policy), basis.asked
    live = live_run(plan, asked.listing, asked.rules, asked.evidence.now_ns)
    if live is None:
        return plan
    problem, why = live
    spared = {**{entry.name: why for entry in asked.listing.entries}, **asked.evidence.spared}
    evidence = asked.evidence._replace(spared=spared)
    still = _planned(basis_of(asked._replace(on_conflict="report", evidence=evidence)), None)
    touched = {action.name for action in plan.actions}
    kept = tuple(row._replace(reasons=(*row.reasons, why)) if row.name in touched else row for row in still.kept)
    return still._replace(kept=kept, problems=(*still.problems, problem))


def _planned(basis: Basis, policy: Policy | None) -> Plan:
    """Decide it as if no run went on."""
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
        remaining=sum(one.entry.name not in known.busy for one in found.every) - trashed,
        rests_on=all_names(found, rested_on(case, cleared, verdict, actions)),
        unwhole=tuple(sorted(known.busy)),
        keeps=verdict.keeps,
    )


def sorted_out(case: Case) -> tuple[Case, Sorted, Pairs]:
    """Sort the names, give what is known of them to the checkpoints, and find what goes with each."""
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


def known_before(case: Case, found: Sorted, pairs: Pairs) -> Known:
    """Find what holds checkpoints, and which are not whole."""
    marked, showing = unwhole(found, case.listing, case.rules, case.evidence)
    busy = {name: Reason(why) for name, why in case.evidence.in_use.items()} | marked
    linked = showing | holding.holders(found, case.evidence)
    return Known(pairs, linked, marked, busy)


def clear(case: Case, basis: Basis) -> Cleared:
    """Set aside what may not be touched."""
    evidence, found, known = case.evidence, basis.found, basis.known
    sound, losers, skipped, problems, winners = basis.resolved
    left: tuple[Kept, ...] = ()
    if known.busy:
        wanted = holding.would_go(case.policy, sound, found, evidence, known)
        sound, left, refused = holding.set_aside(sound, known.busy, known.marked, wanted)
        problems = (*problems, *refused, *holding.broken_ones(found, known.marked, problems))
    if stuck := holding.held_by_foreign(sound, found, evidence):
        problems = (*problems, *stuck.values())
        sound = tuple(c for c in sound if c.entry.name not in stuck)
    disputed = {name for problem in problems for name in problem.names} | {row.name for row in skipped}
    stays = (*skipped, *(row for row in left if row.name not in disputed))
    if disputed:
        sound, found = holding.hold_for_links(sound, found, disputed), holding.without(found, disputed)
    if texts := by_name(evidence.pointers):
        sound = tuple(holding.unless_unfollowed(c, known.pairs, texts) for c in sound)
    return Cleared(found, sound, losers, winners, stays, problems, disputed)


def judged(case: Case, cleared: Cleared, known: Known) -> Verdict:
    """Let the policy decide, where there is one."""
    if case.policy is None:
        return NOTHING
    lost = [checkpoint.entry.name for checkpoint, _ in cleared.losers]
    verdict = judge(case.policy, cleared.sound, cleared.found, case.evidence, known, lost)
    shown = lacks_shown(cleared.found.every, known.marked, case.rules) if verdict.remove else {}
    return keep_one_of_each(verdict, {why: [one for one in names if one not in lost] for why, names in shown.items()})


def actions_on(case: Case, cleared: Cleared, known: Known, verdict: Verdict) -> list[Action]:
    """List what is done with checkpoints, each with what goes along."""
    actions = [
        Action("trash", one.entry.name, "", one.entry.size, (why,), keep_in_trash=True) for one, why in cleared.losers
    ]
    renames = []
    for one in cleared.sound:
        name, size = one.entry.name, one.entry.size
        if name in verdict.remove:
            actions.append(Action("trash", name, "", size, verdict.remove[name], saves=verdict.saves[name]))
        elif one.target != name:
            why = rows.why_it_stays(one, verdict)
            renames.append(Action("rename", name, one.target, size, why, leaves_link=case.leave_links))
    actions += renames  # last, so that a name is free before it is wanted
    if not known.pairs:
        return actions
    pairs, own = known.pairs, cleared.found.sidecars
    return [take_along(a, pairs.get(a.name, ()), own.get(a.name, ()), case.listing) for a in actions]


def followers(case: Case, cleared: Cleared, actions: Sequence[Action]) -> list[Action]:
    """List the links and pointer files that follow what gets another name."""
    links = rows.relink_actions(actions, cleared.found.links, case.evidence.links, case.rules)
    return [*links, *rows.repoint_actions(actions, case.evidence.pointers)]


def names_that_stay(
    case: Case, cleared: Cleared, known: Known, verdict: Verdict, actions: Sequence[Action], relinks: Sequence[Action]
) -> list[Kept]:
    """List what stays as it is, one row for each name, or for all names of one checkpoint."""
    here = {action.name for action in relinks if not action.directory}
    told = {name for action in actions for name, _ in action.with_it}.union(cleared.disputed)
    stays = [*rows.kept(cleared.sound, verdict, cleared.found, here, known.busy), *cleared.stays]
    stays += kept_sidecars(cleared.found.sidecars, case.listing, told)
    if cleared.found.has_parts:
        shown = {name for row in stays for name in row.names}
        stays += rows.kept_parts(cleared.found, told | shown)
    return stays


def rested_on(case: Case, cleared: Cleared, verdict: Verdict, actions: Sequence[Action]) -> Iterator[str]:
    """Yield what must be whole: without which less would go, and of what is renamed the one that was written last."""
    new = {action.name for action in actions if action.kind == "rename"}
    written = ((one.entry.mtime_ns, one.entry.name) for one in cleared.sound if one.entry.name in new)
    yield from [max(written)[1]] if new else ()  # whoever is killed while saving leaves this one
    if not any(action.kind == "trash" for action in actions):
        return
    yield from cleared.winners
    yield from verdict.rests_on
    stays = [one.entry.name for one in cleared.sound if one.entry.name not in verdict.remove]
    files, inside = case.evidence.pointers, set(case.evidence.best_inside.values())  # which say which one is the best
    yield from (name for name in stays if any(file.startswith(f"{name}/") for file in files))
    yield from (name for name in stays if name in inside)


def swept_out(found: Sorted, swept: Swept) -> Sorted:
    """Leave out the leftovers that go, and say why the others stay."""
    leftovers = swept.names
    others = [row for row in found.skipped if row.name not in leftovers]
    return found._replace(skipped=tuple(sorted([*others, *swept.skipped])))


def notes_of(case: Case, cleared: Cleared, known: Known, verdict: Verdict, swept: Swept) -> Iterator[Reason]:
    """Yield what is to be said of the directory as a whole."""
    told = swept.names.union(*(problem.names for problem in cleared.problems))
    marked = {name: why for name, why in known.marked.items() if name not in cleared.disputed}
    yield from verdict.notes
    yield from fields_that_differ(cleared.sound, case.policy)
    yield from runs_of_one(cleared.sound) if case.policy else ()
    yield from unwhole_notes(cleared.found, known.busy, told)
    yield from undecided_notes(cleared.sound) if case.policy else ()
    yield from forgotten_notes([one for one in cleared.sound if one.entry.name not in verdict.remove], case.rules)
    yield from holding.twin_notes(cleared.found)
    yield from complete_lines(cleared.found, marked, case.rules)
    yield from case.evidence.notes


def left_alone(found: Sorted, listing: Listing, rules: RuleSet) -> tuple[Skipped, ...]:
    """Return what is no checkpoint; a log that stands beside is not worth a word of the plan."""
    logs = beside(found, listing, rules)
    return tuple(row._replace(kind="ignored") if row.name in logs else row for row in found.skipped)


def left_behind(
    found: Sorted, actions: Sequence[Action], suffixes: Collection[str]
) -> tuple[Sorted, tuple[Reason, ...]]:
    """Tell of names that belong to what is renamed or deleted, but are no sidecars by the rules: they stay behind."""
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
    what = min(owned) + f" and {len(owned) - 1} more" * (len(owned) > 1)
    line = line_for({*suffixes, *(suffix for _, suffix in owned.values())})
    text = f"{what} stay behind, although a checkpoint of that name is renamed or deleted; {line} takes them along"
    return found._replace(skipped=skipped), (Reason(text.replace(" stay ", " stays ") if len(owned) == 1 else text),)


def nothing_goes(directory: str, withheld: Iterable[str], unknown: Iterable[str]) -> Iterator[Problem]:
    """Tell that nothing goes: deletion depends on what is verified, or nobody knows which one is the best."""
    for text in withheld:
        yield Problem("unverified", (directory,), text, "run 'doit verify', then this again")
    for file in unknown:
        text = f"loses nothing: {file}, which names the best, is not understood"
        yield Problem("unreadable", (directory,), text, "repair it, or remove it if what it names is no longer wanted")


def unwhole_notes(found: Sorted, busy: Mapping[str, Reason], told: Collection[str]) -> Iterator[Reason]:
    """Yield what does not count, unless it is ``told`` of elsewhere."""
    places = {one.entry.name: one.named_by.place for one in found.every}
    for name in sorted(busy.keys() - told):
        why = busy[name]
        yield Reason(f"{name} {why.text}: it is left alone and does not count", why.place or places.get(name))


def undecided_notes(sound: Iterable[Checkpoint]) -> Iterator[Reason]:
    """Tell once what packs count otherwise, with the lines that decide: no line of a policy knows its unit."""
    alike: dict[Reason, list[str]] = {}
    for one in sound:
        if is_undecided(one.rule):
            alike.setdefault(one.named_by, []).append(one.entry.name)
    for reason, names in alike.items():
        more = f" and {len(names) - 1} more" if names[1:] else ""
        yield Reason(f"of {names[0]}{more} only the order counts: {reason.text}", reason.place)


def forgotten_notes(stays: Sequence[Checkpoint], rules: RuleSet) -> Iterator[Reason]:
    """Tell of metrics that a rename drops, and by which the budget judges before age: then the best may be the oldest.

    What `keep_best` asks for, or a budget without ``oldest``, may be dropped: what tells none stays.
    """
    renamed = [one for one in stays if one.target != one.entry.name]
    if not (rules.budget and rules.budget.value.by_age and renamed):
        return
    read = reader(rules, len(stays))
    for metric, _ in rules.budget.value.order:
        as_new = [
            (one, one._replace(fields=read(one.target, one.entry.kind == "directory").claim.fields)) for one in renamed
        ]
        drops = [one for one, new in as_new if metric_of(one, metric) and not metric_of(new, metric)]
        if drops:
            more = f", nor will {len(drops) - 1} more" if drops[1:] else ""
            text = f"{drops[0].target} will not tell {metric}, as {drops[0].entry.name} does{more}"
            why = "the budget goes by age where nothing tells it; a template that carries it keeps it"
            yield Reason(f"{text}: {why}", rules.budget.place)
