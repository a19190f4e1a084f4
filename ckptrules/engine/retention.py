"""Pure: a policy → which checkpoints stay, with the reason of every line, never just yes or no."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.judging import SKEW_NS, Around, Judged, Others, both_ranks, is_misdated, misdated_of, yes
from ckptrules.engine.lines import LINES
from ckptrules.engine.measures import NS, human_size, human_time, taken
from ckptrules.engine.ruleset import Assignment, Location, MaxDelete, Policy, PolicyLine, Reason, RuleSet

SERIES = 3  # of so many checkpoints it is news that a line keeps all or none


class Verdict(NamedTuple):
    """What a policy decides: every name stands in exactly one of the first two, with at least one reason.

    ``saves`` are, for a name that goes, the lines each of which would keep it; ``notes`` are for the whole directory.
    ``rests_on`` are names that stay, each of which has others go: were it not there, one of these would stay.
    ``withheld`` say that nothing goes, as nothing that stays is verified. ``keeps`` counts what each line keeps.
    """

    keep: Mapping[str, tuple[Reason, ...]]
    remove: Mapping[str, tuple[Reason, ...]]
    saves: Mapping[str, tuple[PolicyLine, ...]] = {}
    notes: tuple[Reason, ...] = ()
    rests_on: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    keeps: Mapping[PolicyLine, int] = {}


NOTHING = Verdict({}, {})


def floor(count: int, checkpoints: Sequence[Checkpoint], others: Others, now_ns: int = 0) -> Judged:
    """Keep the newest by their numbers, so many that with those of the others that have none there are ``count``.

    What stays for another reason takes its rank and no more: else an old one in conflict would cost the newest. Those
    that only their names tell apart share the best rank of theirs: a run gives them other names.
    """
    newest = yes(f"keep_at_least: {count} (nothing newer remains)")
    ranked = [*checkpoints, *others.disputed]
    order = {c.entry.name: (*c.age_order[:-1], c.time) for c in ranked}
    best: dict[tuple[int | None, ...], int] = {}
    for name, rank in sorted(both_ranks(ranked, now_ns)[0].items(), key=itemgetter(1)):
        best.setdefault(order[name], rank)
    names = [checkpoint.entry.name for checkpoint in checkpoints]
    return {name: newest for name in names if best[order[name]] <= count - len(others.names)}


# --- a whole policy ---------------------------------------------------------------------------------------------------


def apply_policy(
    policy: Policy,
    checkpoints: Sequence[Checkpoint],
    around: Around,
    held: Mapping[str, Reason] = {},
) -> Verdict:
    """Decide which checkpoints stay: those that any line keeps, the newest up to the floor, and then what fits.

    The candidates come in any order and have distinct names. Those of them that are ``held`` stay in any case; they
    take their rank among the others.
    """
    others, now_ns = around.stays, around.now_ns
    first = [line for line in policy.lines if not LINES[line.key].is_last]
    said = [(line, LINES[line.key].judge(line.value, checkpoints, around)) for line in first]
    kept = _kept(said)
    lowest = floor(policy.keep_at_least, checkpoints, others, now_ns)
    ranked = [LINES[line.key].ranked(line.value, judged, checkpoints, now_ns) for line, judged in said]
    rests_on = {*lowest, *held, *(name for names in ranked for name in names)}
    floor_line = PolicyLine("keep_at_least", policy.keep_at_least, policy.floor_place)
    said.append((floor_line, {name: lowest[name] for name in lowest if name not in kept}))
    kept = _kept(said) | held.keys()
    stays = others.and_also([c.entry for c in checkpoints if c.entry.name in kept])
    for line in [line for line in policy.lines if LINES[line.key].is_last]:  # the budget comes after all of the policy
        rest = [c for c in checkpoints if c.entry.name not in kept]
        said.append((line, LINES[line.key].judge(line.value, rest, around._replace(stays=stays))))
        kept |= _kept(said)
    stay = [c.entry.name for c in checkpoints if c.entry.name in kept]
    go = [c.entry.name for c in checkpoints if c.entry.name not in kept]
    ranking = both_ranks([c for c in checkpoints if c.entry.name in rests_on])[0]
    return Verdict(
        {name: (held[name],) if name in held else _reasons(name, said, keeps=True) for name in stay},
        {name: _reasons(name, said, keeps=False) for name in go},
        {name: _saves(name, said) for name in go},
        tuple(_notes(policy, checkpoints, said, stays, now_ns)),
        (*others.names[: policy.keep_at_least], *(c.entry.name for c in others.disputed), *ranking),
        keeps={line: sum(one.keeps for one in judged.values()) for line, judged in said} | {floor_line: len(lowest)},
    )


def assignment(rules: RuleSet, experiment: str) -> Assignment | None:
    """Find the first pattern in ``experiments`` that fits an experiment."""
    return next((one for one in rules.experiments if one.pattern.fits(experiment)), None)


def pick_policy(rules: RuleSet, assigned: Assignment | None, asked: str) -> Policy | None:
    """Find the policy of an experiment: the one that is assigned to it, or the one asked for; and the budget."""
    policy = rules.policies[assigned.policy] if assigned else rules.policies.get(asked)
    if policy is None:
        return None
    by = Reason(f"policy '{asked}'", policy.place)
    if assigned:
        by = Reason(f"policy '{assigned.policy}', for experiments '{assigned.pattern.text}'", assigned.pattern.place)
    budget = (rules.budget,) if rules.budget else ()
    return policy._replace(picked=by, lines=(*policy.lines, *budget))


def keep_one_of_each(verdict: Verdict, groups: Mapping[Reason, Sequence[str]]) -> Verdict:
    """Let one of each group stay, the last, where all would go."""
    kept = {names[-1]: (why,) for why, names in groups.items() if names and verdict.remove.keys() >= set(names)}
    remove = {name: why for name, why in verdict.remove.items() if name not in kept}
    saves = {name: lines for name, lines in verdict.saves.items() if name not in kept}
    return verdict._replace(keep={**verdict.keep, **kept}, remove=remove, saves=saves) if kept else verdict


def with_line(policy: Policy, key: str, value: int, *others: str) -> Policy:
    """Return the policy with a line in place of those of its key and of some others: what an option asks for."""
    lines = tuple(line for line in policy.lines if line.key not in (key, *others))
    return policy._replace(lines=(PolicyLine(key, value, None), *lines))


def by_tree(policy: Policy) -> tuple[PolicyLine, ...]:
    """Return the lines of a policy that go by all directories together."""
    return tuple(line for line in policy.lines if LINES[line.key].by_tree(line.value))


def reads_files(policy: Policy) -> bool:
    """Say whether a policy goes by times or sizes of files, which may change while no name does."""
    return any(LINES[line.key].by_files for line in policy.lines)


def holds_until(policy: Policy, times_ns: Iterable[int], now_ns: int) -> int | None:
    """Return when the first file gets older than a line that goes by the clock allows; None where that cannot be.

    A time that lies ahead holds until it is there.
    """
    lasts = [LINES[line.key].lasts(line.value) for line in policy.lines]
    limits = [limit for limit in lasts if limit is not None]
    times = list(times_ns) if limits or reads_files(policy) else []
    ends = [time + limit for time in times for limit in limits if time + limit >= now_ns]
    return min([*ends, *(time - SKEW_NS - 1 for time in times if is_misdated(time, now_ns) and time > 0)], default=None)


# --- a whole run ------------------------------------------------------------------------------------------------------


class Excess(NamedTuple):
    """That a run would delete more than it may: so many of so many checkpoints; ``limit`` is what it goes beyond."""

    deletions: int
    checkpoints: int
    allowed: int
    limit: str
    place: Location | None

    def __str__(self) -> str:
        what = f"{self.deletions} of {self.checkpoints} checkpoints would go"
        return f"{what}, {self.deletions - self.allowed} more than max_delete allows ({self.limit})"


def too_many(limit: MaxDelete, plans: Iterable[Plan]) -> Excess | None:
    """Say whether plans together delete more than one run may."""
    deletions = checkpoints = 0
    for plan in plans:
        goes = sum(action.kind == "trash" for action in plan.actions)
        deletions, checkpoints = deletions + goes, checkpoints + goes + plan.remaining
    allowed = {}
    if limit.checkpoints is not None:
        allowed[f"count: {limit.checkpoints}"] = limit.checkpoints
    if limit.percent is not None:
        allowed[f"percent: {limit.percent}"] = checkpoints * limit.percent // 100
    least = min(allowed, key=lambda text: allowed[text])
    return Excess(deletions, checkpoints, allowed[least], least, limit.place) if deletions > allowed[least] else None


# --- inside -----------------------------------------------------------------------------------------------------------

_Said = Iterable[tuple[PolicyLine, Judged]]


def _kept(said: _Said) -> set[str]:
    return {name for _, judged in said for name, one in judged.items() if one.keeps}


def _reasons(name: str, said: _Said, *, keeps: bool) -> tuple[Reason, ...]:
    return tuple(
        Reason(judged[name].why, line.place) for line, judged in said if name in judged and judged[name].keeps == keeps
    )


def _saves(name: str, said: _Said) -> tuple[PolicyLine, ...]:
    return tuple(
        line._replace(value=judged[name].would)
        for line, judged in said
        if name in judged and judged[name].would is not None
    )


def _notes(
    policy: Policy, checkpoints: Sequence[Checkpoint], said: _Said, stays: Others, now_ns: int
) -> Iterator[Reason]:
    told = {Reason(one.note, line.place) for line, judged in said for one in judged.values() if one.note}
    yield from sorted(told, key=str)
    yield from _all_or_none(said, checkpoints, policy)
    yield from _time_notes(policy, checkpoints, now_ns)
    must = taken(stays.size, stays.shared)
    for line in policy.lines:
        if LINES[line.key].is_exceeded(line.value, must):
            yield Reason(f"what must stay takes {human_size(must)}, more than {line}", line.place)


def _time_notes(policy: Policy, checkpoints: Sequence[Checkpoint], now_ns: int) -> Iterator[Reason]:
    """Tell which file times do not count, where a line would go by them."""
    found = sorted(misdated_of(checkpoints, now_ns), key=lambda checkpoint: checkpoint.entry.name)
    ranking = (line for line in policy.lines if LINES[line.key].by_files and getattr(line.value, "from_newest", True))
    if found and (line := next(ranking, None)):
        entry, more = found[0].entry, len(found) - 1
        ahead = (entry.mtime_ns - now_ns) // NS
        when = f"{human_time(ahead)} ahead" if ahead > 0 else "before 1970"
        others = f", like {more} more" if more else ""
        yield Reason(f"{entry.name} is dated {when}{others}: such a time does not count", line.place)


def _all_or_none(said: _Said, checkpoints: Sequence[Checkpoint], policy: Policy) -> Iterator[Reason]:
    """Tell of lines that tell nothing apart, where that is news."""
    for line, judged in said:
        fates = {judged[c.entry.name].keeps for c in checkpoints if c.entry.name in judged}
        if len(checkpoints) < SERIES or len(judged) < len(checkpoints) or len(fates) > 1 or line.key not in LINES:
            continue
        keeps_all = fates.pop()
        if (news := LINES[line.key].all_or_none(line.value, checkpoints, keeps_all)) is not None:
            how_many = "all" if keeps_all else "none"
            yield Reason(f"{line} keeps {how_many} of {len(checkpoints)}{news}", line.place or policy.place)
