"""Apply a policy to checkpoints: which stay, with the reason that each line gives. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from ckptrules.engine.actions import Plan
from ckptrules.engine.checkpoints import Checkpoint
from ckptrules.engine.measures import NS, human_size, human_time, taken
from ckptrules.engine.policy.judging import (
    SKEW_NS,
    Around,
    Judged,
    Opinion,
    Others,
    both_ranks,
    is_misdated,
    misdated_of,
    yes,
)
from ckptrules.engine.policy.lines import LINES
from ckptrules.engine.ruleset import Assignment, Fault, Location, MaxDelete, Policy, PolicyLine, Reason, RuleSet

SERIES = 3  # the least number of checkpoints for a note that a line keeps all or none


class Verdict(NamedTuple):
    """The decision of a policy: every name is either in ``keep`` or in ``remove``, with at least one reason.

    ``saves`` are, for each removed name, the lines that would each keep it. ``notes`` are on the whole directory.
    ``rests_on`` are names that stay and let others go: without one of them, another would stay. ``withheld`` are texts
    that nothing goes, as nothing that stays is verified. ``keeps`` is how many names each line keeps.
    """

    keep: Mapping[str, tuple[Reason, ...]]
    remove: Mapping[str, tuple[Reason, ...]]
    saves: Mapping[str, tuple[PolicyLine, ...]] = {}
    notes: tuple[Reason, ...] = ()
    rests_on: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    keeps: Mapping[PolicyLine, int] = {}

    def but_keep(self, why: Mapping[str, Reason]) -> Verdict:
        """Return the verdict with these names kept that it would remove, each for a reason."""
        remove = {name: reasons for name, reasons in self.remove.items() if name not in why}
        keep = {**self.keep, **{name: (reason,) for name, reason in why.items()}}
        return self._replace(keep=keep, remove=remove, saves={name: self.saves[name] for name in remove})


NOTHING = Verdict({}, {})


def floor(count: int, checkpoints: Sequence[Checkpoint], others: Others, now_ns: int = 0) -> Judged:
    """Keep the newest by their numbers, so that ``count`` remain together with the others that have no rank.

    A checkpoint in conflict takes only its own rank: else an old one would cost the newest. Checkpoints that differ in
    nothing but their names share the best of their ranks, since a rename must not change which of them stay. One that
    is the same file as a protected name is none more that remains.
    """
    newest = yes(f"keep_at_least: {count} (nothing newer remains)")
    ranked = [*checkpoints, *others.disputed]
    order = {c.entry.name: (*c.age_order[:-1], c.time) for c in ranked}
    best: dict[tuple[int | None, ...], int] = {}
    ranks = sorted(both_ranks(ranked, now_ns)[0].items(), key=itemgetter(1))
    for name, rank in ranks:
        best.setdefault(order[name], rank)
    needed = count - len(others.names)
    untwinned = [rank for name, rank in ranks if name not in others.twins][: max(needed, 0)]
    last = max([needed, *untwinned])
    names = [checkpoint.entry.name for checkpoint in checkpoints]
    return {name: newest for name in names if best[order[name]] <= last}


# --- a whole policy ---------------------------------------------------------------------------------------------------


def apply_policy(
    policy: Policy,
    checkpoints: Sequence[Checkpoint],
    around: Around,
    held: Mapping[str, Reason] = {},
) -> Verdict:
    """Decide which checkpoints stay: those that any line keeps, the newest up to the floor, and then what fits.

    ``checkpoints`` come in any order and have distinct names. Those that are ``held`` stay in any case, and are ranked
    among the others.
    """
    others, now_ns = around.stays, around.now_ns
    first = [line for line in policy.lines if not LINES[line.key].is_last]
    judgements = [(line, LINES[line.key].judge(line.value, checkpoints, around)) for line in first]
    kept = _kept(judgements)
    lowest = floor(policy.keep_at_least, checkpoints, others, now_ns)
    ranked = [LINES[line.key].ranked(line.value, judged, checkpoints, now_ns) for line, judged in judgements]
    rests_on = {*lowest, *held, *(name for names in ranked for name in names)}
    floor_line = PolicyLine("keep_at_least", policy.keep_at_least, policy.floor_place)
    judgements.append((floor_line, {name: lowest[name] for name in lowest if name not in kept}))
    kept = _kept(judgements) | held.keys()
    stays = others.and_also([c.entry for c in checkpoints if c.entry.name in kept])
    for line in [line for line in policy.lines if LINES[line.key].is_last]:  # the budget comes after all of the policy
        rest = [c for c in checkpoints if c.entry.name not in kept]
        judgements.append((line, LINES[line.key].judge(line.value, rest, around._replace(stays=stays))))
        kept |= _kept(judgements)
    stay = [c.entry.name for c in checkpoints if c.entry.name in kept]
    go = [c.entry.name for c in checkpoints if c.entry.name not in kept]
    ranking = both_ranks([c for c in checkpoints if c.entry.name in rests_on])[0]
    return Verdict(
        {name: (held[name],) if name in held else _reasons(name, judgements, keeps=True) for name in stay},
        {name: _reasons(name, judgements, keeps=False) for name in go},
        {name: _saves(name, judgements) for name in go},
        tuple(_notes(policy, checkpoints, judgements, stays, now_ns)),
        (*others.names[: policy.keep_at_least], *(c.entry.name for c in others.disputed), *ranking),
        keeps={
            **{line: sum(opinion.keeps for opinion in judged.values()) for line, judged in judgements},
            floor_line: len(lowest),
        },
    )


def assignment(rules: RuleSet, experiment: str) -> Assignment | None:
    """Return the first row of ``experiments`` that fits an experiment; None where no row does."""
    return next((one for one in rules.experiments if one.pattern.fits(experiment)), None)


def pick_policy(rules: RuleSet, assigned: Assignment | None, asked: str) -> Policy | None:
    """Return the policy of an experiment with the budget as its last line: the assigned one, or else the one asked for.

    None where no policy is assigned, and none has the name that was asked for.
    """
    policy = rules.policies[assigned.policy] if assigned else rules.policies.get(asked)
    if policy is None:
        return None
    by = Reason(f"policy '{asked}'", policy.place)
    if assigned:
        by = Reason(f"policy '{assigned.policy}', for experiments '{assigned.pattern.text}'", assigned.pattern.place)
    budget = (rules.budget,) if rules.budget else ()
    return policy._replace(picked=by, lines=(*policy.lines, *budget))


def keep_one_of_each(verdict: Verdict, groups: Mapping[Reason, Sequence[str]]) -> Verdict:
    """Return the verdict with the last name of each group kept, where it would remove all names of the group."""
    return verdict.but_keep(
        {names[-1]: why for why, names in groups.items() if names and verdict.remove.keys() >= set(names)}
    )


def with_line(policy: Policy, key: str, value: int, *others: str) -> Policy:
    """Return the policy with one line instead of those with its key or one of the others, as an option asks for."""
    lines = tuple(line for line in policy.lines if line.key not in (key, *others))
    return policy._replace(lines=(PolicyLine(key, value, None), *lines))


def by_tree(policy: Policy) -> tuple[PolicyLine, ...]:
    """Return the lines of a policy that apply to all directories together."""
    return tuple(line for line in policy.lines if LINES[line.key].by_tree(line.value))


def budget_last(lines: Iterable[PolicyLine]) -> list[PolicyLine]:
    """Return lines for the whole tree in the order in which they decide: the budget depends on the others."""
    return sorted(lines, key=lambda line: line.key == "budget")


def without_budget(policy: Policy) -> Policy:
    """Return a policy without the budget, which so deletes all that no other line keeps."""
    return policy._replace(lines=tuple(line for line in policy.lines if line.key != "budget"))


def reads_files(policy: Policy) -> bool:
    """Return whether a policy depends on times or sizes of files, which may change while no name does."""
    return any(LINES[line.key].by_files for line in policy.lines)


def holds_until(policy: Policy, times_ns: Iterable[int], now_ns: int) -> int | None:
    """Return when a verdict may change with the clock alone, in nanoseconds since 1970; None where it cannot.

    That is when the first file gets older than a line allows, or when an impossible time ahead becomes possible.
    """
    lasts = [LINES[line.key].lasts(line.value) for line in policy.lines]
    limits = [limit for limit in lasts if limit is not None]
    times = list(times_ns) if limits or reads_files(policy) else []
    ends = [time + limit for time in times for limit in limits if time + limit >= now_ns]
    return min([*ends, *(time - SKEW_NS - 1 for time in times if is_misdated(time, now_ns) and time > 0)], default=None)


# --- a whole run ------------------------------------------------------------------------------------------------------


def too_many(limit: MaxDelete, plans: Iterable[Plan]) -> Fault | None:
    """Return by how much plans together delete more than one run may; None where they do not."""
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
    if deletions <= allowed[least]:
        return None
    more = f"{deletions - allowed[least]} more than max_delete allows ({least})"
    hint = f"max_delete={deletions} allows this run, and without delete_old=1 it only renames"
    return Fault(
        limit.place or Location("command line"),
        f"{deletions} of {checkpoints} checkpoints would go, {more}",
        f"look at 'doit plan delete_old=1'; {hint}",
    )


# --- inside -----------------------------------------------------------------------------------------------------------

_Judgements = Iterable[tuple[PolicyLine, Judged]]


def _kept(judgements: _Judgements) -> set[str]:
    return {name for _, judged in judgements for name, opinion in judged.items() if opinion.keeps}


def _opinions(name: str, judgements: _Judgements) -> Iterator[tuple[PolicyLine, Opinion]]:
    yield from ((line, judged[name]) for line, judged in judgements if name in judged)


def _reasons(name: str, judgements: _Judgements, *, keeps: bool) -> tuple[Reason, ...]:
    opinions = _opinions(name, judgements)
    return tuple(Reason(opinion.why, line.place) for line, opinion in opinions if opinion.keeps == keeps)


def _saves(name: str, judgements: _Judgements) -> tuple[PolicyLine, ...]:
    opinions = _opinions(name, judgements)
    return tuple(line._replace(value=opinion.would) for line, opinion in opinions if opinion.would is not None)


def _notes(
    policy: Policy, checkpoints: Sequence[Checkpoint], judgements: _Judgements, stays: Others, now_ns: int
) -> Iterator[Reason]:
    notes = {Reason(one.note, line.place) for line, judged in judgements for one in judged.values() if one.note}
    yield from sorted(notes, key=str)
    yield from _all_or_none(judgements, checkpoints, policy)
    yield from _time_notes(policy, checkpoints, now_ns)
    must = taken(stays.size, stays.shared)
    for line in policy.lines:
        if LINES[line.key].is_exceeded(line.value, must):
            yield Reason(f"what must stay takes {human_size(must)}, more than {line}", line.place)


def _time_notes(policy: Policy, checkpoints: Sequence[Checkpoint], now_ns: int) -> Iterator[Reason]:
    """Yield a note on impossible file times, where a line would use them."""
    misdated = sorted(misdated_of(checkpoints, now_ns), key=lambda checkpoint: checkpoint.entry.name)
    ranking = (line for line in policy.lines if LINES[line.key].by_files and getattr(line.value, "from_newest", True))
    if misdated and (line := next(ranking, None)):
        entry, more = misdated[0].entry, len(misdated) - 1
        ahead = (entry.mtime_ns - now_ns) // NS
        when = f"{human_time(ahead)} ahead" if ahead > 0 else "before 1970"
        others = f", like {more} more" if more else ""
        yield Reason(f"{entry.name} is dated {when}{others}: such a time does not count", line.place)


def _all_or_none(judgements: _Judgements, checkpoints: Sequence[Checkpoint], policy: Policy) -> Iterator[Reason]:
    """Yield a note on each line that keeps all checkpoints or none, where the line itself does not mean that."""
    for line, judged in judgements:
        fates = {judged[c.entry.name].keeps for c in checkpoints if c.entry.name in judged}
        if len(checkpoints) < SERIES or len(judged) < len(checkpoints) or len(fates) > 1 or line.key not in LINES:
            continue
        keeps_all = fates.pop()
        if (addition := LINES[line.key].all_or_none(line.value, checkpoints, keeps_all)) is not None:
            how_many = "all" if keeps_all else "none"
            yield Reason(f"{line} keeps {how_many} of {len(checkpoints)}{addition}", line.place or policy.place)
