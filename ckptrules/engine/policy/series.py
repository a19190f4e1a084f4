"""Apply a policy to each series of a directory: checkpoints of one run, kind of number, pack and file ending. Pure.

Two packs never share a run: two programs saved the checkpoints. Nor do files with different endings replace each other:
a training cannot go on from weights in ``epoch_12.safetensors`` as from a state in ``epoch_10.pt``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from ckptrules.engine.checkpoints import Checkpoint, Part, order_of, series_by
from ckptrules.engine.names.case import Case
from ckptrules.engine.names.lookalikes import ends_as_weights
from ckptrules.engine.names.metrics import mode_of
from ckptrules.engine.names.words import MADE_OF_IT, ending_of
from ckptrules.engine.policy.judging import Around, Others
from ckptrules.engine.policy.lines.keep_best import as_float
from ckptrules.engine.policy.retention import Verdict, apply_policy
from ckptrules.engine.ruleset import Policy, Reason

Series = tuple[str, ...]  # the run, the kind of number, the pack, the values of the fields in ``per``, and the ending
EXPECTED = frozenset(
    "epoch step number run part parts version metric value metrics timestamp datetime date time".split()
)  # fields that may differ within one epoch and step of a series: any other field may tell runs apart
SHOWN = 3  # values of a field that a note shows
FEW = 3  # fewer runs of one checkpoint each are nothing odd
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORD = re.compile(r"[a-z]+")
_NO_MODEL = MADE_OF_IT.union("optim optims optimizer opt sched scheduler scaler".split())
"""Words in the names of files that hold no model."""
_WORD_AT_END = re.compile(r"[A-Za-z]+[-_.]?\Z")


def judge(case: Case, policy: Policy, sound: Sequence[Checkpoint], lost: Collection[str]) -> Verdict:
    """Apply the policy to each series, and join the verdicts.

    ``sound`` are the candidates. ``lost`` are names that a conflict deletes. All other checkpoints stay: those in
    conflict count as remaining, while busy ones only take room, as nobody knows if they will be whole.
    """
    evidence, busy = case.evidence, case.busy
    names = {c.entry.name for c in sound}
    staying = [c for c in case.found.checkpoints if c.entry.name not in names and c.entry.name not in lost]
    by_series: dict[Series, list[Checkpoint]] = defaultdict(list)
    for one in sound:
        by_series[series_of(one, policy)].append(one)
    every = {*by_series, *(series_of(one, policy) for one in staying)}
    verdicts = []
    for series, candidates in by_series.items():
        shields = [one for one in case.found.protected if counts_in(one, series, every, policy)]
        disputed = [one for one in staying if series_of(one, policy) == series]
        ranked = {one.entry.name: one.named_by for one in shields if is_ranked(one, series, busy)}
        others = others_of([one for one in shields if one.entry.name not in ranked], candidates, disputed, busy)
        own = [*candidates, *(one for one in shields if one.entry.name in ranked)]
        around = Around(evidence.now_ns, others, evidence.zone, evidence.tree)
        verdict = apply_policy(policy, own, around, {**case.held, **ranked})
        verdicts.append(verified_only(verdict, others, series, evidence.verified))
    return joined(verdicts)


def series_of(checkpoint: Checkpoint, policy: Policy | None) -> Series:
    """Return the series of a checkpoint, split further by the fields in ``per`` of the policy."""
    run, kind, *per = series_by(checkpoint.fields, policy.per if policy else ())
    return run, kind, checkpoint.rule.pack if checkpoint.rule else "", *per, _ending(checkpoint)


def _ending(checkpoint: Checkpoint) -> str:
    """Return the ending of the new name of a checkpoint; empty where its parts have different ones."""
    names = [part.target for part in checkpoint.parts] or [checkpoint.target or checkpoint.entry.name]
    endings = set(map(ending_of, names))
    return endings.pop() if len(endings) == 1 else ""


def called(series: Series, every: Collection[Series]) -> str:
    """Return how a sentence names a series among those of its directory: `` of RUN named by step``; empty for one."""
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
    """Return whether a protected checkpoint counts in a series: that of its run, or the only one if it names no run."""
    run, kind = shield.series
    if len(every) == 1:
        return run in ("", series[0])
    if not run:
        return False
    return series_of(shield, policy) == series if kind else [one for one in every if one[0] == run] == [series]


def is_ranked(shield: Checkpoint, series: Series, busy: Collection[str]) -> bool:
    """Return whether a protected checkpoint is ranked in a series by the number in its name."""
    if shield.rule is None or shield.entry.name in busy:
        return False
    return bool(series[1]) and series_of(shield, None) == (*series[:3], series[-1])


def others_of(
    shields: Sequence[Checkpoint],
    candidates: Sequence[Checkpoint],
    disputed: Sequence[Checkpoint],
    busy: Collection[str],
) -> Others:
    """Return what stays beside the candidates; what is busy takes room and does not count."""
    whole = sorted((c for c in shields if c.entry.name not in busy), key=lambda c: (c.entry.mtime_ns, c.entry.name))
    remain = {_file_of(one): one.entry.name for one in that_remain(whole, candidates)}
    others = Others(
        names=tuple(reversed(remain.values())),
        twins=frozenset(one.entry.name for one in candidates if _file_of(one) in remain),
        disputed=tuple(c for c in disputed if c.entry.name not in busy),
    )
    return others.and_also([one.entry for one in (*shields, *disputed)])


def _file_of(one: Checkpoint) -> tuple[int, int] | str:
    """Return device and inode of a file with several names; else the name."""
    entry = one.entry
    return entry.shared[0][:2] if entry.kind == "file" and entry.shared and not one.parts else entry.name


def that_remain(shields: Iterable[Checkpoint], candidates: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Return the protected checkpoints without a number that are whole, by one of their files each.

    Files are of one checkpoint if their names differ only in what candidates have as parts: ``last-shard0.pt``. It is
    whole if it has each part that all candidates have. A name without a part may hold all of them.
    """
    every = list(candidates)
    pieces = [{_piece(part) for part in one.parts} for one in every]
    needed, known = set.intersection(*pieces), sorted(set().union(*pieces) - {""}, key=len, reverse=True)
    find = re.compile("|".join(map(_whole_words, known)) or r"(?!)").search
    endings = {ending_of(name) for one in every for name in one.names}
    found: dict[str, dict[str, Checkpoint]] = defaultdict(dict)
    for one in shields:
        part = None if one.parts else find(one.entry.name)
        if part or may_be_checkpoint(one, endings):
            found[one.entry.name.replace(part[0], "", 1) if part else one.entry.name][part[0] if part else ""] = one
    return [
        [*parts.values()][-1]
        for parts in found.values()
        if parts.keys() >= needed or (parts.keys() == {""} and ("" not in needed or parts[""].parts))
    ]


def may_be_checkpoint(shield: Checkpoint, endings: Collection[str]) -> bool:
    """Return whether a protected name may be a checkpoint: ``best.toml``, ``best_optimizer.pt`` and the like are none.

    A name that no format reads ends as weights do, or as the candidates: ``endings``.
    """
    name = shield.entry.name
    if shield.rule or shield.parts or shield.entry.kind == "directory":
        return True
    return (ends_as_weights(name) or ending_of(name) in endings) and _NO_MODEL.isdisjoint(_WORD.findall(name.lower()))


def _piece(part: Part) -> str:
    """Return the part as it stands in its name, with the word before it if it begins with a digit: ``rank0``."""
    starts_with_digit = part.text[:1].isdigit()
    word = _WORD_AT_END.search(part.entry.name.rpartition(part.text)[0]) if starts_with_digit else None
    return (word[0] if word else "") + part.text


def _whole_words(text: str) -> str:
    """Return a pattern for a text that no letter or digit goes on from."""
    return r"(?<![^\W_])" * text[0].isalnum() + re.escape(text) + r"(?![^\W_])" * text[-1].isalnum()


def verified_only(verdict: Verdict, others: Others, series: Series, verified: frozenset[str] | None) -> Verdict:
    """Withhold all deletions of a series if no checkpoint that stays is verified; else rest on the newest verified one.

    ``verified`` is None where deletion does not depend on it.
    """
    if verified is None or not verdict.remove:
        return verdict
    staying = [*others.names, *(one.entry.name for one in others.disputed), *verdict.keep]
    if proved := next((name for name in reversed(staying) if name in verified), ""):
        return verdict._replace(rests_on=(*verdict.rests_on, proved))
    where = f" of {series[0]}" if series[0] else ""
    text = f"loses nothing{where} ({len(verdict.remove)} could go): no checkpoint that stays is verified"
    reason = Reason("no checkpoint that stays is verified (verified=1)")
    return verdict.but_keep(dict.fromkeys(verdict.remove, reason))._replace(withheld=(text,))


def joined(verdicts: Iterable[Verdict]) -> Verdict:
    """Join the verdicts on the series of one directory."""
    every = list(verdicts)
    return Verdict(
        {name: why for verdict in every for name, why in verdict.keep.items()},
        {name: why for verdict in every for name, why in verdict.remove.items()},
        {name: lines for verdict in every for name, lines in verdict.saves.items()},
        tuple(dict.fromkeys(note for verdict in every for note in verdict.notes)),
        tuple(name for verdict in every for name in verdict.rests_on),
        tuple(text for verdict in every for text in verdict.withheld),
        sum((Counter(verdict.keeps) for verdict in every), Counter()),
    )


def fields_that_differ(checkpoints: Iterable[Checkpoint], policy: Policy | None) -> Iterator[Reason]:
    """Yield a note on each field with several values in one series, epoch and step: its values may be separate runs."""
    alike: dict[tuple[object, ...], list[Checkpoint]] = defaultdict(list)
    for one in checkpoints:
        if one.rule and one.fields.keys() - EXPECTED:
            alike[one.rule.id, series_of(one, policy), order_of(one.fields)].append(one)
    values: dict[str, set[str]] = defaultdict(set)
    places = {}
    for several in alike.values():
        for field in {field for one in several for field in one.fields} - EXPECTED - set(policy.per if policy else ()):
            differing = {one.fields.get(field, "") for one in several}
            if len(differing) > 1 and not (mode_of(field) or all(map(_is_fraction, differing - {""}))):
                values[field] |= differing
                places[field] = several[0].rule and several[0].rule.place
    for field, differing in sorted(values.items()):
        some = ", ".join(sorted(differing)[:SHOWN]) + (" …" if len(differing) > SHOWN else "")
        text = f"{field} has {len(differing)} values among checkpoints of one epoch and step ({some})"
        yield Reason(f"{text}: per: [{field}] in the policy makes each a series of its own", places[field])


def runs_of_one(checkpoints: Iterable[Checkpoint]) -> Iterator[Reason]:
    """Yield a note on runs of one checkpoint each that differ only in a number: it may be a metric (``test_86``)."""
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


def _is_fraction(text: str) -> bool:  # likely a metric, whatever the field is called
    return not text.isdigit() and as_float(text) is not None
