"""Pure: what is decided over all directories together: the best across experiments, and what fits in the budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ckptrules.engine.actions import OnConflict, Plan
from ckptrules.engine.checkpoints import Checkpoint, Evidence, order_of
from ckptrules.engine.entries import Listing, Spot
from ckptrules.engine.judging import Judged, Opinion, Others, is_misdated, yes
from ckptrules.engine.lines.keep_best import best_of, goodness, metric_of
from ckptrules.engine.lines.max_total_size import fitting
from ckptrules.engine.measures import human_size, taken
from ckptrules.engine.plan import make_plan
from ckptrules.engine.retention import by_tree
from ckptrules.engine.ruleset import Best, Budget, Policy, RuleSet
from ckptrules.engine.sorting import by_heads, sort_entries, with_metrics

Rank = tuple[float | int | str, ...]  # the higher stays


class OwnPlan(NamedTuple):
    """The checkpoints of one directory, as a plan has them that goes by its own lines alone.

    ``rest`` may go, the others stay. ``whole`` are the names of those that are whole, but for protected ones that tell
    no number: only these are ranked among others. ``live`` says why all of it stays where a run may go on.
    """

    directory: str
    rest: tuple[Checkpoint, ...] = ()
    stays: tuple[Checkpoint, ...] = ()
    whole: frozenset[str] = frozenset()
    live: str = ""


class SharedOut(NamedTuple):
    """What a budget says of each name, by directory, and bytes: of all, of what must stay, of what stays by it."""

    says: Mapping[str, Judged]
    every: int
    must: int
    stays: int


def part_of(rules: RuleSet, listing: Listing, plan: Plan, evidence: Evidence) -> OwnPlan:
    """Take from a plan what the decisions over the tree go by.

    It was made without a budget, from this evidence: what no line keeps goes. The listing has times that are believed.
    """
    found = sort_entries(rules, listing)
    evidence = by_heads(evidence, found)
    goes = {action.name for action in plan.actions if action.kind == "trash" and not action.keep_in_trash}
    lost = {action.name for action in plan.actions if action.kind == "trash"} - goes
    there = [with_metrics(one, evidence) for one in found.every]
    there = [one for one in there if one.entry.name not in lost]
    out = {name for problem in plan.problems for name in problem.names}.union(plan.unwhole)
    out |= {one.entry.name for one in found.protected if not one.series[1]}
    return OwnPlan(
        plan.directory,
        tuple(one for one in there if one.entry.name in goes),
        tuple(one for one in there if one.entry.name not in goes),
        frozenset(one.entry.name for one in there if one.rule and out.isdisjoint(one.names)),
        next((f"{one.text}\n    hint: {one.hint}" for one in plan.problems if one.id == "live_run"), ""),
    )


def of_one(
    rules: RuleSet, listing: Listing, policy: Policy, on_conflict: OnConflict, evidence: Evidence
) -> dict[Any, Judged]:
    """Work out what the lines that go by the whole tree say where it is one directory, which ``across`` fits."""
    said: dict[Any, Judged] = {}
    alone = policy._replace(lines=tuple(line for line in policy.lines if line.key != "budget"))
    for line in sorted(by_tree(policy), key=lambda line: line.key == "budget"):
        known = evidence._replace(tree=said)
        parts = [part_of(rules, listing, make_plan(rules, listing, alone, on_conflict, known), known)]
        is_budget = line.key == "budget"
        judged = share_out(line.value, parts, known.now_ns).says if is_budget else best_across(line.value, parts)
        said = {**said, line.value: judged.get(listing.directory, {})}
    return said


def best_across(best: Best, parts: Iterable[OwnPlan]) -> dict[str, Judged]:
    """Rank what is whole and stays in all directories, and say of each name whether it is among the best.

    What goes by another policy would cost the best of those that stay. Where the line is asked, nothing goes yet.
    """
    ranked = {
        Spot(part.directory, one.entry.name): one
        for part in parts
        for one in part.stays
        if one.entry.name in part.whole
    }
    return by_directory(best_of(best, ranked))


def share_out(budget: Budget, parts: Sequence[OwnPlan], now_ns: int) -> SharedOut:
    """Say of all that no line keeps whether it fits beside what stays in any case: the best or newest first.

    Each is judged by the first entry of the order that it tells, and ranked among those that are judged by the same.
    What tells none stays, as with `keep_best`: a rename may have dropped the metric of the best.
    Where there are several such lists, they are gone through in step: the best tenth of each before the second.
    """
    rest = {Spot(part.directory, one.entry.name): one for part in parts for one in part.rest}
    lists = ranked_lists(budget, parts, now_ns)
    unjudged = [] if budget.by_age else lists.pop(len(budget.order), [])
    must = [*(one.entry for part in parts for one in part.stays), *(rest[spot].entry for spot in unjudged)]
    stays = Others().and_also(must)
    places = {spot: (place, number, len(spots)) for number, spots in lists.items() for place, spot in enumerate(spots)}
    order = sorted(places, key=lambda spot: (places[spot][0] / places[spot][2], places[spot][1], spot))
    entries = {spot: rest[spot].entry for spot in order}
    said = fitting(budget.total, entries, stays, f"the budget of {budget.total}")
    left = [rest[spot].entry for spot in order if said[spot].keeps]
    kept = [*must, *left]
    judged = {spot: explained(said[spot], budget, rest[spot], *places[spot]) for spot in order}
    return SharedOut(
        by_directory({**judged, **dict.fromkeys(unjudged, unknown(budget))}),
        *(
            taken(sum(one.size for one in some), [link for one in some for link in one.shared])
            for some in ([*must, *entries.values()], must, kept)
        ),
    )


def unknown(budget: Budget) -> Opinion:
    """Keep what tells no metric of the order, and say what would judge it."""
    metrics = " or ".join(metric for metric, _ in budget.order)
    note = f"a checkpoint that tells no {metrics} stays whatever the budget: its order has no 'oldest' at the end"
    return yes(f"tells no {metrics}, and the order of the budget does not end with 'oldest'", note)


def explained(opinion: Opinion, budget: Budget, checkpoint: Checkpoint, place: int, number: int, count: int) -> Opinion:
    """Add by what a checkpoint was judged, and as which of how many."""
    by = "age"
    if number < len(budget.order):
        metric = budget.order[number][0]
        by = f"{metric} ({metric_of(checkpoint, metric)})"
    would = opinion.would and budget._replace(total=opinion.would)
    return opinion._replace(why=f"{opinion.why}: {place + 1} of {count} by {by}", would=would)


def ranked_lists(budget: Budget, parts: Iterable[OwnPlan], now_ns: int) -> dict[int, list[Spot]]:
    """Sort what may go into lists by the entry of the order that judges it, what is to stay first in each."""
    ranks: dict[int, list[tuple[Rank, Spot]]] = defaultdict(list)
    for part in parts:
        times = times_of(part.rest, now_ns)
        for one in part.rest:
            number, value = judged_by(budget, one)
            age = (times[one.entry.name], *order_of(one.fields))
            ranks[number].append(((value, *age), Spot(part.directory, one.entry.name)))
    return {number: [spot for _, spot in sorted(rows, reverse=True)] for number, rows in ranks.items()}


def judged_by(budget: Budget, checkpoint: Checkpoint) -> tuple[int, float]:
    """Return the number of the entry that judges a checkpoint, and how good it is; by age all are equally good."""
    for number, (metric, mode) in enumerate(budget.order):
        if (value := goodness(metric_of(checkpoint, metric), mode)) is not None:
            return number, value
    return len(budget.order), 0.0


def times_of(checkpoints: Sequence[Checkpoint], now_ns: int) -> dict[str, int]:
    """Map names to times, none older than that of what comes before it by its numbers: a copy may have any times.

    A time that cannot be counts as now: nobody knows how old that is.
    """
    times = {
        one.entry.name: now_ns if is_misdated(one.entry.mtime_ns, now_ns) else one.entry.mtime_ns for one in checkpoints
    }
    newest: dict[tuple[str, str], int] = {}
    for one in sorted(checkpoints, key=lambda one: (order_of(one.fields), times[one.entry.name])):
        newest[one.series] = max(newest.get(one.series, 0), times[one.entry.name])
        times[one.entry.name] = newest[one.series]
    return times


def by_directory(said: Mapping[Spot, Opinion]) -> dict[str, Judged]:
    """Sort what is said of names by directory."""
    found: dict[str, dict[str, Opinion]] = defaultdict(dict)
    for (directory, name), opinion in said.items():
        found[directory][name] = opinion
    return dict(found)


def budget_note(budget: Budget, shared: SharedOut) -> str:
    """Say what a budget comes to; it goes by the whole tree, whatever was selected."""
    if shared.must > budget.total.size:
        return (
            f"What must stay takes {human_size(shared.must)}, more than the budget of {budget.total}: "
            f"of {human_size(shared.every)} in all experiments nothing else stays. The trash is not counted."
        )
    kept = f"{human_size(shared.stays)} of {human_size(shared.every)} in all experiments"
    return f"The budget of {budget.total} keeps {kept}. The trash is not counted."
