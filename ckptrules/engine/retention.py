"""Pure: a table of policy lines; each says of every checkpoint whether it keeps it, and why, never just yes or no."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from ckptrules.engine.measures import human_size, human_time, taken
from ckptrules.engine.values import (
    Assignment,
    Best,
    Bytes,
    Checkpoint,
    HardLinks,
    MaxDelete,
    Place,
    Plan,
    Policy,
    PolicyLine,
    Reason,
    RuleSet,
    Within,
)

NS = 1_000_000_000
SIZE_LINE = "max_total_size"
SKEW_NS = 60 * NS  # what the clocks of two machines may differ by
READ_FILES = ("keep_last", "keep_within", SIZE_LINE)  # the lines that go by times or sizes of files
BOTH_ENDS = "file times disagree with epoch and step, as where two runs share a directory: the newest by either stays"


class Said(NamedTuple):
    """What a line says of one checkpoint; ``would`` is the value with which it would keep it.

    ``note`` is what people are told also where they do not ask for reasons.
    """

    keeps: bool
    why: str
    would: Any = None
    note: str = ""


class Others(NamedTuple):
    """How many other whole checkpoints stay in any case (protected ones, say).

    ``size`` is the bytes of all that stays, ``shared`` the files with several names among it; ``names`` are those that
    are counted, the newest first.
    """

    number: int
    size: int = 0
    shared: tuple[HardLinks, ...] = ()
    names: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """What a policy decides: every name stands in exactly one of the first two, with at least one reason.

    ``saves`` are, for a name that goes, the lines each of which would keep it; ``notes`` are for the whole directory.
    ``rests_on`` are names that stay, each of which has others go: were it not there, one of these would stay.
    """

    keep: Mapping[str, tuple[Reason, ...]]
    remove: Mapping[str, tuple[Reason, ...]]
    saves: Mapping[str, tuple[PolicyLine, ...]] = {}
    notes: tuple[Reason, ...] = ()
    rests_on: tuple[str, ...] = ()


Judged = Mapping[str, Said]
Judge = Callable[[Any, Sequence[Checkpoint], int], Judged]


# --- the lines: value, checkpoints, now (nanoseconds since 1970) → what is said of each name --------------------------


def keep(word: str, checkpoints: Sequence[Checkpoint], _: int) -> Judged:
    """Keep all, or none but the protected; these never come here."""
    said = _yes("the policy keeps all") if word == "all" else _no("not protected")
    return {checkpoint.entry.name: said for checkpoint in checkpoints}


def min_epoch(limit: int, checkpoints: Sequence[Checkpoint], _: int) -> Judged:
    """Keep what has reached the epoch; a name without an epoch is kept, since nobody knows how old it is."""

    def say(epoch: int | None) -> Said:
        if epoch is None:
            return _yes("no epoch in its name")
        return _yes(f"epoch >= {limit}") if epoch >= limit else _no(f"epoch < {limit}", epoch)

    return {checkpoint.entry.name: say(checkpoint.epoch) for checkpoint in checkpoints}


def keep_last(count: int, checkpoints: Sequence[Checkpoint], now_ns: int) -> Judged:
    """Keep the newest by epoch and step and, where file times disagree, the newest by these as well."""
    field = "epoch" if any(checkpoint.epoch is not None for checkpoint in checkpoints) else "step"
    by_order, by_time = both_ranks([c for c in checkpoints if getattr(c, field) is not None], now_ns)

    def say(name: str) -> Said:
        if name not in by_order:
            return _yes(f"no {field} in its name")
        if by_order[name] <= count:
            return _yes(f"newest {_of(by_order[name], count)}")
        if by_time[name] <= count:
            return _yes(f"newest {_of(by_time[name], count)} by file time", note=BOTH_ENDS)
        return _no(f"not of the newest {count}", min(by_order[name], by_time[name]))

    return {checkpoint.entry.name: say(checkpoint.entry.name) for checkpoint in checkpoints}


def keep_every(field: Literal["epoch", "step"]) -> Judge:
    """Make the line that keeps multiples of a number (of 10: epoch 0, 10, 20 and so on)."""

    def say(count: int, reached: int | None) -> Said:
        if reached is None:
            return _yes(f"no {field} in its name")
        if reached % count:
            return _no(f"{field} {reached} is no multiple of {count}")
        return _yes(f"{field} {reached} is a multiple of {count}")

    return lambda count, checkpoints, _: {c.entry.name: say(count, getattr(c, field)) for c in checkpoints}


def keep_best(best: Best, checkpoints: Sequence[Checkpoint], _: int) -> Judged:
    """Keep the best by a metric; of equal ones the newer. NaN is never best; what tells no number is kept."""
    texts = {checkpoint.entry.name: metric_of(checkpoint, best.metric) for checkpoint in checkpoints}
    values = {name: as_float(text) for name, text in texts.items()}
    sign = 1 if best.mode == "max" else -1
    rated = [(sign * value, c) for c in checkpoints if (value := values[c.entry.name]) is not None and value == value]  # noqa: PLR0124
    rated.sort(key=lambda pair: (pair[0], pair[1].age_order), reverse=True)
    places = {checkpoint.entry.name: place for place, (_, checkpoint) in enumerate(rated, start=1)}

    def say(name: str) -> Said:
        if values[name] is None:
            lack = f"no {best.metric} in its name or a sidecar"
            return _yes(
                lack if texts[name] is None else f"its {best.metric} is no number",
                note=f"what tells no {best.metric} stays, since nobody knows how good it is",
            )
        if name not in places:
            return _no(f"{best.metric} is nan, never the best")
        what = f"{best.metric} {texts[name]} is"
        if places[name] <= best.top:
            return _yes(f"{what} best {_of(places[name], best.top)}")
        return _no(f"{what} not of the best {best.top}", best._replace(top=places[name]))

    return {name: say(name) for name in texts}


def keep_within(within: Within, checkpoints: Sequence[Checkpoint], now_ns: int) -> Judged:
    """Keep what was written within a time before now, or before the newest of them was.

    A time that cannot be is no newest, and says nothing of the age: such a checkpoint stays.
    """
    end = newest_time(checkpoints, now_ns) if within.from_newest else now_ns
    old = "older than the newest" if within.from_newest else "old"

    def say(age_ns: int) -> Said:
        age = human_time(age_ns // NS)
        if age_ns <= within.seconds * NS:
            return _yes(f"{age} {old}, within {within.time} ({human_time(within.seconds - age_ns // NS)} left)")
        needed = -(-age_ns // NS)
        would = within._replace(seconds=needed, time=human_time(needed, up=True))
        return _no(f"{age} {old}, not within {within.time}", would)

    unknown = {c.entry.name for c in checkpoints if c.entry.mtime_ns < 0} if now_ns else ()
    return {
        name: _yes("its time is before 1970") if name in unknown else say(max(end - mtime_ns, 0))
        for name, mtime_ns in ((c.entry.name, c.entry.mtime_ns) for c in checkpoints)
    }


KEEP_LINES: Mapping[str, Judge] = {
    "keep": keep,
    "min_epoch": min_epoch,
    "keep_last": keep_last,
    "keep_every_epochs": keep_every("epoch"),
    "keep_every_steps": keep_every("step"),
    "keep_best": keep_best,
    "keep_within": keep_within,
}


def max_total_size(limit: Bytes, checkpoints: Sequence[Checkpoint], stays: Others, now_ns: int = 0) -> Judged:
    """Keep the newest of what may go, as long as it fits beside what must stay, each file counted once."""
    by_order, by_time = both_ranks(checkpoints, now_ns)
    names = sorted(by_order, key=lambda name: (min(by_order[name], by_time[name]), by_order[name]))
    entries = {checkpoint.entry.name: checkpoint.entry for checkpoint in checkpoints}
    used = taken(stays.size, stays.shared)
    counted = {link[:2] for link in stays.shared}
    staying = set(counted)
    said = {}
    for name in names:
        size, shared = entries[name].size, entries[name].shared
        used += taken(size, shared) - sum(link.size for link in shared if link[:2] in counted)
        counted.update(link[:2] for link in shared)
        if used <= limit.size:
            said[name] = _yes(f"fits in {limit} ({human_size(limit.size - used)} left)")
            staying.update(link[:2] for link in shared)
        elif size and size == sum(link.size * link.here for link in shared if link[:2] in staying):
            said[name] = _yes("takes no room: its bytes have another name that stays")
        else:
            said[name] = _no(f"does not fit in {limit}", Bytes(used, human_size(used).replace(" ", "")))
    return said


def floor(count: int, checkpoints: Sequence[Checkpoint], others: Others, now_ns: int = 0) -> Judged:
    """Keep the newest by epoch and step, so many that with the others there are ``count``."""
    newest = _yes(f"keep_at_least: {count} (nothing newer remains)")
    ranks = both_ranks(checkpoints, now_ns)[0]
    return {name: newest for name, rank in ranks.items() if rank <= count - others.number}


# --- a whole policy ---------------------------------------------------------------------------------------------------


def apply_policy(policy: Policy, checkpoints: Sequence[Checkpoint], others: Others, now_ns: int = 0) -> Verdict:
    """Decide which checkpoints stay: those that any line keeps, the newest up to the floor, and then what fits.

    Args:
        policy: the lines and the floor (``keep_at_least``).
        checkpoints: the candidates, in any order, with distinct names.
        others: what stays besides them.
        now_ns: the time by which ages are measured, in nanoseconds since 1970; 0 makes everything young.
    """
    said = [
        (line, KEEP_LINES[line.key](line.value, checkpoints, now_ns)) for line in policy.lines if line.key in KEEP_LINES
    ]
    kept = _kept(said)
    lowest = floor(policy.keep_at_least, checkpoints, others, now_ns)
    rests_on = {*lowest, *_ranked(said, checkpoints, now_ns)}
    floor_line = PolicyLine("keep_at_least", policy.keep_at_least, policy.floor_place)
    said.append((floor_line, {name: lowest[name] for name in lowest if name not in kept}))
    kept = _kept(said)
    stays = _with(others, [c for c in checkpoints if c.entry.name in kept])
    limits = [line for line in policy.lines if line.key == SIZE_LINE]
    rest = [c for c in checkpoints if c.entry.name not in kept]
    said += [(line, max_total_size(line.value, rest, stays, now_ns)) for line in limits]
    kept = _kept(said)
    must = taken(stays.size, stays.shared)
    names = [checkpoint.entry.name for checkpoint in checkpoints]
    return Verdict(
        {name: _reasons(name, said, keeps=True) for name in names if name in kept},
        {name: _reasons(name, said, keeps=False) for name in names if name not in kept},
        {name: _saves(name, said) for name in names if name not in kept},
        (
            *_notes(said),
            *_misdated_notes(policy, checkpoints, now_ns),
            *(_too_big(line, must) for line in limits if must > line.value.size),
        ),
        (*others.names[: policy.keep_at_least], *(name for name in both_ranks(checkpoints)[0] if name in rests_on)),
    )


def assignment(rules: RuleSet, experiment: str) -> Assignment | None:
    """Find the first pattern in ``experiments`` that fits an experiment."""
    return next((one for one in rules.experiments if fnmatchcase(experiment, one.pattern.text)), None)


def pick_policy(rules: RuleSet, assigned: Assignment | None, asked: str) -> Policy | None:
    """Find the policy of an experiment: the one that is assigned to it, or the one asked for."""
    if assigned:
        by = Reason(f"policy '{assigned.policy}', for experiments '{assigned.pattern.text}'", assigned.pattern.place)
        return rules.policies[assigned.policy]._replace(picked=by)
    policy = rules.policies.get(asked)
    return policy and policy._replace(picked=Reason(f"policy '{asked}'", policy.place))


def unless_verified(verdict: Verdict, staying: Collection[str], verified: Collection[str]) -> Verdict:
    """Let nothing go where none of the checkpoints that stay is verified.

    Args:
        verdict: what the policy decided.
        staying: all sound checkpoints of the experiment that stay by it, whoever keeps them.
        verified: the names of those that were verified, whether they stay or not.
    """
    if not verdict.remove or not set(staying).isdisjoint(verified):
        return verdict
    reason = Reason("no checkpoint that stays is verified (verified=1)")
    return verdict._replace(keep={**verdict.keep, **dict.fromkeys(verdict.remove, (reason,))}, remove={}, saves={})


def with_min_epoch(policy: Policy, limit: int) -> Policy:
    """Return the policy with its ``min_epoch`` line set, or added: what ``keep_min_epoch=`` asks for."""
    lines = tuple(line for line in policy.lines if line.key != "min_epoch")
    return policy._replace(lines=(PolicyLine("min_epoch", limit, None), *lines))


def reads_files(policy: Policy) -> bool:
    """Say whether a policy goes by times or sizes of files, which may change while no name does."""
    return any(line.key in READ_FILES for line in policy.lines)


def holds_until(policy: Policy, times_ns: Iterable[int], now_ns: int) -> int | None:
    """Return when the first file gets older than a line that goes by the clock allows; None where that cannot be.

    A time that lies ahead holds until it is there.
    """
    limits = [
        line.value.seconds * NS for line in policy.lines if line.key == "keep_within" and not line.value.from_newest
    ]
    times = list(times_ns) if limits or reads_files(policy) else []
    ends = [time + limit for time in times for limit in limits if time + limit >= now_ns]
    return min([*ends, *(time - SKEW_NS - 1 for time in times if is_misdated(time, now_ns) and time > 0)], default=None)


def is_misdated(time_ns: int, now_ns: int) -> bool:
    """Say whether a file time cannot be: it lies ahead, or before 1970. Where no time is known, any can be."""
    return now_ns > 0 and not 0 <= time_ns <= now_ns + SKEW_NS


def misdated_of(checkpoints: Iterable[Checkpoint], now_ns: int) -> list[Checkpoint]:
    """Return those whose file time cannot be."""
    return [checkpoint for checkpoint in checkpoints if is_misdated(checkpoint.entry.mtime_ns, now_ns)]


def newest_time(checkpoints: Iterable[Checkpoint], now_ns: int) -> int:
    """Return the newest file time that can be, or now where none can."""
    times = [checkpoint.entry.mtime_ns for checkpoint in checkpoints]
    return max((time for time in times if not is_misdated(time, now_ns)), default=now_ns)


def metric_of(checkpoint: Checkpoint, metric: str) -> str | None:
    """Return a metric as its name has it: a group of that name, or the pair of groups ``metric`` and ``value``.

    What a name does not tell, a sidecar may.
    """
    fields = checkpoint.fields
    by_name = fields.get(metric, fields.get("value") if fields.get("metric") == metric else None)
    return checkpoint.metrics.get(metric) if by_name is None else by_name


def both_ranks(checkpoints: Sequence[Checkpoint], now_ns: int = 0) -> tuple[dict[str, int], dict[str, int]]:
    """Rank the checkpoints, the newest first: by epoch and step, and by file time.

    What has a time that cannot be takes no rank from the others: they are ranked as if it were not so new.
    """
    by_order = sorted(checkpoints, key=lambda c: c.age_order, reverse=True)
    by_time = sorted(by_order, key=lambda c: c.entry.mtime_ns, reverse=True)
    misdated = {checkpoint.entry.name for checkpoint in misdated_of(checkpoints, now_ns)}
    if not misdated:
        return _numbered(by_order), _numbered(by_time)
    doubtful_last = sorted(by_order, key=lambda c: (*c.age_order[:2], c.entry.name not in misdated), reverse=True)
    sure = [checkpoint for checkpoint in by_time if checkpoint.entry.name not in misdated]
    return _better(_numbered(by_order), _numbered(doubtful_last)), _better(_numbered(by_time), _numbered(sure))


def _better(ranks: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return {name: min(rank, others.get(name, rank)) for name, rank in ranks.items()}


# --- a whole run ------------------------------------------------------------------------------------------------------


class Excess(NamedTuple):
    """That a run would delete more than it may: so many of so many checkpoints; ``limit`` is what it goes beyond."""

    deletions: int
    checkpoints: int
    allowed: int
    limit: str
    place: Place | None

    def __str__(self) -> str:
        what = f"{self.deletions} of {self.checkpoints} checkpoints would go"
        return f"{what}, {self.deletions - self.allowed} more than max_delete allows ({self.limit})"


def too_many(limit: MaxDelete, plans: Iterable[Plan]) -> Excess | None:
    """Say whether plans together delete more than one run may."""
    deletions = checkpoints = 0
    for plan in plans:
        goes = sum(action.kind == "trash" for action in plan.actions)
        stays = sum(action.kind == "rename" for action in plan.actions) + sum(row.size > 0 for row in plan.kept)
        deletions, checkpoints = deletions + goes, checkpoints + goes + stays
    allowed = {}
    if limit.checkpoints is not None:
        allowed[f"count: {limit.checkpoints}"] = limit.checkpoints
    if limit.percent is not None:
        allowed[f"percent: {limit.percent}"] = checkpoints * limit.percent // 100
    least = min(allowed, key=lambda text: allowed[text])
    return Excess(deletions, checkpoints, allowed[least], least, limit.place) if deletions > allowed[least] else None


# --- inside -----------------------------------------------------------------------------------------------------------

_Said = Iterable[tuple[PolicyLine, Judged]]


def _yes(why: str, note: str = "") -> Said:
    return Said(keeps=True, why=why, note=note)


def _no(why: str, would: Any = None) -> Said:
    return Said(keeps=False, why=why, would=would)


def _of(place: int, count: int) -> str:
    return f"{place} of {count} ({count - place} left)"


def _numbered(checkpoints: Iterable[Checkpoint]) -> dict[str, int]:
    return {checkpoint.entry.name: number for number, checkpoint in enumerate(checkpoints, start=1)}


def as_float(text: str | None) -> float | None:
    """Read a metric; ``nan`` and ``inf`` are numbers too, ``1_000`` is none."""
    try:
        return float(text) if text and text.isascii() and "_" not in text else None
    except ValueError:
        return None


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


def _ranked(said: _Said, checkpoints: Sequence[Checkpoint], now_ns: int) -> Iterator[str]:
    """Yield what stays because of its rank among all: it takes the place of another."""
    for line, judged in said:
        if line.key in ("keep_last", "keep_best"):
            yield from (name for name, one in judged.items() if one.keeps)
        elif line.key == "keep_within" and line.value.from_newest:
            newest = newest_time(checkpoints, now_ns)
            yield from (c.entry.name for c in checkpoints if c.entry.mtime_ns == newest)


def _with(others: Others, checkpoints: Sequence[Checkpoint]) -> Others:
    return others._replace(
        size=others.size + sum(checkpoint.entry.size for checkpoint in checkpoints),
        shared=(*others.shared, *(link for checkpoint in checkpoints for link in checkpoint.entry.shared)),
    )


def _misdated_notes(policy: Policy, checkpoints: Sequence[Checkpoint], now_ns: int) -> Iterator[Reason]:
    """Tell which file times do not count, where a line would go by them."""
    found = sorted(misdated_of(checkpoints, now_ns), key=lambda checkpoint: checkpoint.entry.name)
    ranking = (line for line in policy.lines if line.key in READ_FILES and getattr(line.value, "from_newest", True))
    if found and (line := next(ranking, None)):
        entry, more = found[0].entry, len(found) - 1
        ahead = (entry.mtime_ns - now_ns) // NS
        when = f"{human_time(ahead)} ahead" if ahead > 0 else "before 1970"
        others = f", like {more} more" if more else ""
        yield Reason(f"{entry.name} is dated {when}{others}: such a time does not count", line.place)


def _notes(said: _Said) -> tuple[Reason, ...]:
    notes = [Reason(one.note, line.place) for line, judged in said for one in judged.values() if one.note]
    return tuple(sorted(set(notes), key=str))


def _too_big(line: PolicyLine, taken: int) -> Reason:
    return Reason(f"what must stay takes {human_size(taken)}, more than {line}", line.place)
