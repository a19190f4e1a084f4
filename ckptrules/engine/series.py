"""Pure: a policy is applied to each series of a directory: the checkpoints of one run, by one kind of number.

What two packs know is never of one run: two programs saved it. Nor do files with two endings stand for each other:
weights in ``epoch_12.safetensors`` are no state to go on from, as in ``epoch_10.pt``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from ckptrules.engine.checkpoints import Checkpoint, Evidence, order_of, series_by
from ckptrules.engine.conflicts import Known
from ckptrules.engine.judging import Around, Others
from ckptrules.engine.lines.keep_best import as_float
from ckptrules.engine.metrics import mode_of
from ckptrules.engine.retention import Verdict, apply_policy
from ckptrules.engine.ruleset import Policy, Reason
from ckptrules.engine.sorting import Sorted
from ckptrules.engine.words import ENDING

Series = tuple[str, ...]  # the run, the kind of number, the pack, what a policy splits by, and the ending
TOLD = frozenset(
    "epoch step number run part parts version metric value metrics timestamp datetime date time".split()
)  # fields that may differ among checkpoints of one epoch and step without being a series of their own
SHOWN = 3
FEW = 3  # fewer runs of one checkpoint each are nothing odd
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORD_AT_END = re.compile(r"\.[A-Za-z]+\Z")


def judge(
    policy: Policy, sound: Sequence[Checkpoint], found: Sorted, evidence: Evidence, known: Known, lost: Collection[str]
) -> Verdict:
    """Let the policy decide in each series; conflicting checkpoints remain, as nobody may touch them.

    ``sound`` are the candidates. What is ``lost`` goes in any case, what is linked stays. What is busy is not whole: it
    takes room and does not count as remaining, as nobody knows whether it will be whole.
    """
    names = {c.entry.name for c in sound}
    staying = [c for c in found.checkpoints if c.entry.name not in names and c.entry.name not in lost]
    by_series: dict[Series, list[Checkpoint]] = defaultdict(list)
    for one in sound:
        by_series[series_of(one, policy)].append(one)
    every = {*by_series, *(series_of(one, policy) for one in staying)}
    said = []
    for series, candidates in by_series.items():
        shields = [one for one in found.protected if counts_in(one, series, every, policy)]
        disputed = [one for one in staying if series_of(one, policy) == series]
        ranked = {one.entry.name: one.named_by for one in shields if is_ranked(one, series, known.busy)}
        others = others_of([one for one in shields if one.entry.name not in ranked], disputed, known.busy)
        own = [*candidates, *(one for one in shields if one.entry.name in ranked)]
        around = Around(evidence.now_ns, others, evidence.zone, evidence.tree)
        verdict = apply_policy(policy, own, around, {**known.linked, **ranked})
        said.append(verified_only(verdict, others, series, evidence.verified))
    return joined(said)


def series_of(checkpoint: Checkpoint, policy: Policy | None) -> Series:
    """Return the series of a checkpoint, split further by the fields that the policy names."""
    run, kind, *per = series_by(checkpoint.fields, policy.per if policy else ())
    return run, kind, checkpoint.rule.pack if checkpoint.rule else "", *per, _ending(checkpoint)


def _ending(checkpoint: Checkpoint) -> str:
    """Return the ending of a checkpoint, as it is to be called; nothing where its parts have several."""
    names = [part.target for part in checkpoint.parts] or [checkpoint.target or checkpoint.entry.name]
    endings = {found[0] if (found := ENDING.search(name) or _WORD_AT_END.search(name)) else "" for name in names}
    return endings.pop() if len(endings) == 1 else ""


def called(series: Series, every: Collection[Series]) -> str:
    """Return what tells a series from the others of its directory, for a sentence; nothing where it is the only one."""
    run, kind, pack, *per, ending = series
    if len(every) == 1:
        return ""
    kinds = {other[1] for other in every if (other[0], *other[2:]) == (run, *series[2:])}
    packs = {other[2] for other in every}
    endings = {other[-1] for other in every if other[:-1] == series[:-1]}
    names = ", ".join(filter(None, (run, pack * (len(packs) > 1), *per, ending * (len(endings) > 1))))
    tells = len(kinds) > 1 or not names
    return f" of {names}" * bool(names) + f" named by {kind or 'neither epoch nor step'}" * tells


def counts_in(shield: Checkpoint, series: Series, every: Collection[Series], policy: Policy) -> bool:
    """Say whether a protected name counts in a series: in that of its run; if it tells none, in the only one."""
    run, kind = shield.series
    if len(every) == 1:
        return run in ("", series[0])
    if not run:
        return False
    return series_of(shield, policy) == series if kind else [one for one in every if one[0] == run] == [series]


def is_ranked(shield: Checkpoint, series: Series, busy: Collection[str]) -> bool:
    """Say whether a protected name takes its rank in a series by the number that it tells."""
    if shield.rule is None or shield.entry.name in busy:
        return False
    return bool(series[1]) and series_of(shield, None) == (*series[:3], series[-1])


def others_of(shields: Sequence[Checkpoint], disputed: Sequence[Checkpoint], busy: Collection[str]) -> Others:
    """Return what stays beside the candidates; what is not whole takes room and does not count."""
    whole = sorted((c.entry for c in shields if c.entry.name not in busy), key=lambda e: (-e.mtime_ns, e.name))
    others = Others(
        names=tuple(entry.name for entry in whole), disputed=tuple(c for c in disputed if c.entry.name not in busy)
    )
    return others.and_also([one.entry for one in (*shields, *disputed)])


def verified_only(verdict: Verdict, others: Others, series: Series, verified: frozenset[str] | None) -> Verdict:
    """Where deletion depends on it, let nothing go if none of those that stay is verified; else rest on one that is."""
    if verified is None or not verdict.remove:
        return verdict
    staying = [*others.names, *(one.entry.name for one in others.disputed), *verdict.keep]
    if proved := next((name for name in reversed(staying) if name in verified), ""):
        return verdict._replace(rests_on=(*verdict.rests_on, proved))
    where = f" of {series[0]}" if series[0] else ""
    text = f"loses nothing{where} ({len(verdict.remove)} could go): no checkpoint that stays is verified"
    reason = Reason("no checkpoint that stays is verified (verified=1)")
    keep = {**verdict.keep, **dict.fromkeys(verdict.remove, (reason,))}
    return verdict._replace(keep=keep, remove={}, saves={}, withheld=(text,))


def joined(verdicts: Iterable[Verdict]) -> Verdict:
    """Join what was decided in the series of one directory."""
    found = list(verdicts)
    return Verdict(
        {name: why for verdict in found for name, why in verdict.keep.items()},
        {name: why for verdict in found for name, why in verdict.remove.items()},
        {name: lines for verdict in found for name, lines in verdict.saves.items()},
        tuple(dict.fromkeys(note for verdict in found for note in verdict.notes)),
        tuple(name for verdict in found for name in verdict.rests_on),
        tuple(text for verdict in found for text in verdict.withheld),
        sum((Counter(verdict.keeps) for verdict in found), Counter()),
    )


def fields_that_differ(checkpoints: Iterable[Checkpoint], policy: Policy | None) -> Iterator[Reason]:
    """Tell of fields with several values among checkpoints of one series, epoch and step: these may be runs."""
    alike: dict[tuple[object, ...], list[Checkpoint]] = defaultdict(list)
    for one in checkpoints:
        if one.rule and one.fields.keys() - TOLD:
            alike[one.rule.id, series_of(one, policy), order_of(one.fields)].append(one)
    values: dict[str, set[str]] = defaultdict(set)
    places = {}
    for several in alike.values():
        for field in {field for one in several for field in one.fields} - TOLD - set(policy.per if policy else ()):
            differing = {one.fields.get(field, "") for one in several}
            if len(differing) > 1 and not (mode_of(field) or all(map(_is_fraction, differing - {""}))):
                values[field] |= differing
                places[field] = several[0].rule and several[0].rule.place
    for field, differing in sorted(values.items()):
        some = ", ".join(sorted(differing)[:SHOWN]) + (" …" if len(differing) > SHOWN else "")
        text = f"{field} has {len(differing)} values among checkpoints of one epoch and step ({some})"
        yield Reason(f"{text}: per: [{field}] in the policy makes each a series of its own", places[field])


def runs_of_one(checkpoints: Iterable[Checkpoint]) -> Iterator[Reason]:
    """Tell of runs of one checkpoint each that only numbers tell apart: these may be a metric, as ``test_86``."""
    alike: dict[tuple[str, ...], list[Checkpoint]] = defaultdict(list)
    for one in checkpoints:
        run, kind = one.series
        if kind and one.rule and (text := _NUMBER.sub("0", run)) != run:
            alike[one.rule.id, text, kind].append(one)
    for several in alike.values():
        runs = sorted({one.series[0] for one in several})
        if len(several) >= FEW and len(several) == len(runs) == len({order_of(one.fields) for one in several}):
            some = ", ".join(run.strip("-_. ") for run in runs[:SHOWN]) + " …" * (len(runs) > SHOWN)
            text = f"each of {len(runs)} checkpoints is a run of its own ({some}), so none goes for another"
            hint = "if these are no runs, a format of yours can read the number as a metric"
            yield Reason(f"{text}: {hint}", several[0].rule and several[0].rule.place)


def _is_fraction(text: str) -> bool:  # of a metric, whatever it is called
    return not text.isdigit() and as_float(text) is not None
