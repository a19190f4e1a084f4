"""Decide over all directories together: the best across experiments, and what fits in the budget. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.actions import OnConflict, Plan
from ckptrules.engine.checkpoints import Checkpoint, Evidence, order_of
from ckptrules.engine.entries import Listing, Spot
from ckptrules.engine.measures import human_size, taken
from ckptrules.engine.names.sorting import by_heads, sort_entries, with_metrics
from ckptrules.engine.plan import make_plan
from ckptrules.engine.policy.judging import Judged, Opinion, Others, is_misdated, yes
from ckptrules.engine.policy.lines.keep_best import best_of, goodness, metric_of
from ckptrules.engine.policy.lines.max_total_size import fitting
from ckptrules.engine.policy.retention import budget_last, by_tree, without_budget
from ckptrules.engine.ruleset import Best, Budget, Policy, RuleSet

Rank = tuple[float | int | str, ...]  # the higher stays


class OwnPlan(NamedTuple):
    """The checkpoints of one directory, by a plan without the lines for the whole tree.

    ``rest`` are those that no other line keeps, ``stays`` all others. ``whole`` are the names that are ranked: those
    that are whole, except protected ones without a number. ``live`` is why the directory is left alone where a training
    may still run, else empty.
    """

    directory: str
    rest: tuple[Checkpoint, ...] = ()
    stays: tuple[Checkpoint, ...] = ()
    whole: frozenset[str] = frozenset()
    live: str = ""


class SharedOut(NamedTuple):
    """The decision of a budget: its opinions by directory, and the bytes of all, of what must stay, of what stays."""

    says: Mapping[str, Judged]
    every: int
    must: int
    stays: int


def part_of(rules: RuleSet, listing: Listing, plan: Plan, evidence: Evidence) -> OwnPlan:
    """Return what the decisions over the tree need from the plan of one directory.

    The plan was made from this evidence and without a budget, so it deletes what no other line keeps. ``listing`` has
    believed times.
    """
    found = sort_entries(rules, listing)
    evidence = by_heads(evidence, found)
    goes = {action.name: action.keep_in_trash for action in plan.actions if action.kind == "trash"}  # True: lost a name
    checkpoints = [with_metrics(one, evidence) for one in found.every if not goes.get(one.entry.name)]
    unranked = {name for problem in plan.problems for name in problem.names}.union(plan.unwhole)
    unranked |= {one.entry.name for one in found.protected if not one.series[1]}
    return OwnPlan(
        plan.directory,
        tuple(one for one in checkpoints if one.entry.name in goes),
        tuple(one for one in checkpoints if one.entry.name not in goes),
        frozenset(one.entry.name for one in checkpoints if unranked.isdisjoint(one.names)),
        next((f"{one.text}\n    hint: {one.hint}" for one in plan.problems if one.id == "live_run"), ""),
    )


def of_one(
    rules: RuleSet, listing: Listing, policy: Policy, on_conflict: OnConflict, evidence: Evidence
) -> dict[Any, Judged]:
    """Return the opinions of the lines for the whole tree, by value of the line, for a tree of one directory."""
    by_value: dict[Any, Judged] = {}
    alone = without_budget(policy)
    for line in budget_last(by_tree(policy)):
        known = evidence._replace(tree=by_value)
        parts = [part_of(rules, listing, make_plan(rules, listing, alone, on_conflict, known), known)]
        is_budget = line.key == "budget"
        judged = share_out(line.value, parts, known.now_ns).says if is_budget else best_across(line.value, parts)
        by_value = {**by_value, line.value: judged.get(listing.directory, {})}
    return by_value


def best_across(best: Best, parts: Iterable[OwnPlan]) -> dict[str, Judged]:
    """Rank the whole checkpoints that stay in all directories, and return opinions by directory and name.

    Checkpoints that another policy deletes are not ranked: one of them could take the place of the best that stays.
    """
    ranked = {
        Spot(part.directory, one.entry.name): one
        for part in parts
        for one in part.stays
        if one.entry.name in part.whole
    }
    return by_directory(best_of(best, ranked))


def share_out(budget: Budget, parts: Sequence[OwnPlan], now_ns: int) -> SharedOut:
    """Decide which checkpoints that no line keeps fit beside all others, the best or newest first.

    The first entry of the order that a checkpoint has a value for puts it into the list of that entry. Several lists
    are filled in step: the best tenth of each before the second tenth of any. A checkpoint without any value stays, as
    with `keep_best`: a rename may have dropped the metric of the best.
    """
    rest = {Spot(part.directory, one.entry.name): one for part in parts for one in part.rest}
    lists = ranked_lists(budget, parts, now_ns)
    unjudged = [] if budget.by_age else lists.pop(len(budget.order), [])
    must = [*(one.entry for part in parts for one in part.stays), *(rest[spot].entry for spot in unjudged)]
    stays = Others().and_also(must)
    places = {spot: (place, number, len(spots)) for number, spots in lists.items() for place, spot in enumerate(spots)}
    order = sorted(places, key=lambda spot: (places[spot][0] / places[spot][2], places[spot][1], spot))
    entries = {spot: rest[spot].entry for spot in order}
    opinions = fitting(budget.total, entries, stays, f"the budget of {budget.total}")
    kept = [*must, *(rest[spot].entry for spot in order if opinions[spot].keeps)]
    judged = {spot: explained(opinions[spot], budget, rest[spot], *places[spot]) for spot in order}
    return SharedOut(
        by_directory({**judged, **dict.fromkeys(unjudged, unknown(budget))}),
        *(
            taken(sum(one.size for one in some), [link for one in some for link in one.shared])
            for some in ([*must, *entries.values()], must, kept)
        ),
    )


def unknown(budget: Budget) -> Opinion:
    """Return the opinion on a checkpoint without any metric of the order: it stays."""
    metrics = " or ".join(metric for metric, _ in budget.order)
    note = f"a checkpoint that tells no {metrics} stays whatever the budget: its order has no 'oldest' at the end"
    return yes(f"tells no {metrics}, and the order of the budget does not end with 'oldest'", note)


def explained(opinion: Opinion, budget: Budget, checkpoint: Checkpoint, place: int, number: int, count: int) -> Opinion:
    """Return the opinion with the metric that judged the checkpoint, and its place among how many."""
    by = "age"
    if number < len(budget.order):
        metric = budget.order[number][0]
        by = f"{metric} ({metric_of(checkpoint, metric)})"
    would = opinion.would and budget._replace(total=opinion.would)
    return opinion._replace(why=f"{opinion.why}: {place + 1} of {count} by {by}", would=would)


def ranked_lists(budget: Budget, parts: Iterable[OwnPlan], now_ns: int) -> dict[int, list[Spot]]:
    """Return what no line keeps, the best first, by the number of the entry of the order that judges it."""
    ranks: dict[int, list[tuple[Rank, Spot]]] = defaultdict(list)
    for part in parts:
        times = times_of(part.rest, now_ns)
        for one in part.rest:
            number, value = judged_by(budget, one)
            age = (times[one.entry.name], *order_of(one.fields))
            ranks[number].append(((value, *age), Spot(part.directory, one.entry.name)))
    return {number: [spot for _, spot in sorted(rows, reverse=True)] for number, rows in ranks.items()}


def judged_by(budget: Budget, checkpoint: Checkpoint) -> tuple[int, float]:
    """Return the number of the entry that judges a checkpoint, and its value, more is better; by age, all have 0."""
    for number, (metric, mode) in enumerate(budget.order):
        if (value := goodness(metric_of(checkpoint, metric), mode)) is not None:
            return number, value
    return len(budget.order), 0.0


def times_of(checkpoints: Sequence[Checkpoint], now_ns: int) -> dict[str, int]:
    """Map names to times in nanoseconds; none is older than that of a checkpoint with lower numbers in its series.

    File times alone would not do: a copy may have any. An impossible time counts as now, as nobody knows the age.
    """
    times = {
        one.entry.name: now_ns if is_misdated(one.entry.mtime_ns, now_ns) else one.entry.mtime_ns for one in checkpoints
    }
    newest: dict[tuple[str, str], int] = {}
    for one in sorted(checkpoints, key=lambda one: (order_of(one.fields), times[one.entry.name])):
        newest[one.series] = max(newest.get(one.series, 0), times[one.entry.name])
        times[one.entry.name] = newest[one.series]
    return times


def by_directory(opinions: Mapping[Spot, Opinion]) -> dict[str, Judged]:
    """Return opinions by directory and name."""
    judged: dict[str, dict[str, Opinion]] = defaultdict(dict)
    for (directory, name), opinion in opinions.items():
        judged[directory][name] = opinion
    return dict(judged)


def budget_note(budget: Budget, shared: SharedOut) -> str:
    """Return a sentence on what the budget keeps of the whole tree, whatever experiments were selected."""
    if shared.must > budget.total.size:
        return (
            f"What must stay takes {human_size(shared.must)}, more than the budget of {budget.total}: "
            f"of {human_size(shared.every)} in all experiments nothing else stays. The trash is not counted."
        )
    kept = f"{human_size(shared.stays)} of {human_size(shared.every)} in all experiments"
    return f"The budget of {budget.total} keeps {kept}. The trash is not counted."
