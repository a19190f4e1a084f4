"""Finds the problems of names and contents, and combines the results of parts into one for their checkpoint."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence

from ckptrules.engine.actions import Problem
from ckptrules.engine.checkpoints import Checkpoint, Part
from ckptrules.engine.entries import Listing
from ckptrules.engine.names.companions import suffix_of
from ckptrules.engine.names.comparing import compare
from ckptrules.engine.names.sorting import Sorted
from ckptrules.engine.ruleset import Reason
from ckptrules.formats.content import FileContent, combine
from ckptrules.verify.memory import CheckResult
from ckptrules.verify.portion import ReportRow

OLD_NAME = "not_migrated"  # says nothing of the content


def not_whole(checkpoint: Checkpoint, why: Reason) -> Problem:
    """Make the problem of a checkpoint that is not whole; it is not read."""
    hint = "wait until the training has written it; if nothing will, bring back what it lacks, or remove it"
    return Problem("not_whole", checkpoint.names, why.text, hint)


def unlike_others(
    rows: Iterable[ReportRow], faults: Iterable[Problem], checkpoints: Iterable[Checkpoint]
) -> Iterator[Problem]:
    """Yield faults of unknown format in a series with known formats: something has overwritten these files."""
    kinds = {
        part.entry.name: (one.series, part.text, os.path.splitext(part.entry.name)[1])
        for one in checkpoints
        for part in one.parts or (Part(one.entry, "", ""),)
    }
    understood = {kinds[row.name] for row in rows if row.result and row.name in kinds}
    yield from (one for one in faults if one.id == "unknown_format" and kinds.get(one.names[0]) in understood)


def merge_alike(faults: Sequence[Problem], checkpoints: Iterable[Checkpoint]) -> list[Problem]:
    """Merge the problems that are the same for several parts of one checkpoint."""
    heads = {name: one.entry.name for one in checkpoints for name in one.names}
    alike: dict[tuple[str, ...], list[Problem]] = {}
    for fault in faults:
        alike.setdefault((heads.get(fault.names[0], fault.names[0]), *fault[:1], *fault[2:4]), []).append(fault)
    return [same[0]._replace(names=tuple(name for one in same for name in one.names)) for same in alike.values()]


def join_parts(rows: Sequence[ReportRow], checkpoints: Iterable[Checkpoint]) -> list[ReportRow]:
    """Combine the rows of the parts of each checkpoint; the new row has a result only if all of them have."""
    of_parts = {one.entry.name: one for one in checkpoints if one.parts}
    heads = {name: head for head, one in of_parts.items() for name in one.names}
    groups: dict[str, list[ReportRow]] = {}
    for row in rows:
        groups.setdefault(heads.get(row.name, row.name), []).append(row)
    return sorted(_join(of_parts[head], group) if head in of_parts else group[0] for head, group in groups.items())


def _join(checkpoint: Checkpoint, rows: Sequence[ReportRow]) -> ReportRow:
    names, result = checkpoint.names, None
    parts = [row.result for row in sorted(rows, key=lambda row: names.index(row.name)) if row.result]
    if len(parts) == len(names):
        kind = ", ".join(dict.fromkeys(part.content.kind for part in parts))
        done = frozenset.intersection(*(part.done for part in parts))
        result = CheckResult(combine(kind, (part.content for part in parts)), done)
    return ReportRow(
        names[0],
        checkpoint.entry.size,
        result,
        read=any(row.read for row in rows),
        other_names=names[1:],
        whole=all(row.whole for row in rows),
        unread=any(row.unread for row in rows),
    )


def name_problems(
    found: Sorted, listing: Listing, sidecars: tuple[str, ...], passed_over: Collection[str]
) -> Iterator[Problem]:
    """Yield the problems of old and unknown names, and of sidecars without a checkpoint; none of ``passed_over``."""
    for checkpoint in found.checkpoints:
        name = checkpoint.entry.name
        if checkpoint.target != name and name not in passed_over:
            hint = f"'doit migrate' renames it to {checkpoint.target}"
            yield Problem(OLD_NAME, checkpoint.names, "has an old name", hint)
    owners = [entry.name for entry in listing.entries if not entry.name.endswith(sidecars)]
    stems = {stem for name in owners for stem in (name, os.path.splitext(name)[0])}
    for name in (row.name for row in found.skipped if row.kind == "unrecognised" and row.name not in passed_over):
        suffix = suffix_of(name, sidecars)
        if not suffix:
            hint = "add its format, or list it under 'protected' or 'ignored'"
            yield Problem("unrecognised", (name,), "is in no format that the rules know", hint)
        elif name.removesuffix(suffix) not in stems:
            hint = "rename it as its checkpoint was, or remove it"
            yield Problem("lost_sidecar", (name,), "belongs to no checkpoint that is here", hint)


def content_problems(rows: Sequence[tuple[Checkpoint, str, FileContent]]) -> list[Problem]:
    """Compare epoch and step inside the checkpoints of a directory, or their parts, with the names.

    Each row has a checkpoint, the name of a part, and its content. If all hold one more than their names, their
    program counts so (facebookresearch/dino 7c446df5, main_dino.py), and there is no problem.
    """
    compared = compare((one.fields, content.inside) for one, _, content in rows)
    several = len({one.entry.name for one, _, content in rows if compare([(one.fields, content.inside)]).opened}) > 1
    if several and compared.one_less == compared.opened:
        return []
    return [problem for row in rows for problem in _other_content(*row)]


def _other_content(checkpoint: Checkpoint, name: str, content: FileContent) -> Iterator[Problem]:
    more = 1 if content.counts_from_1 else 0
    for what, named, inside in (("epoch", checkpoint.epoch, content.epoch), ("step", checkpoint.step, content.step)):
        if named is not None and inside is not None and not named <= inside <= named + more:
            hint = "somebody renamed or overwrote it: find out which of the two is right"
            yield Problem("other_content", (name,), f"holds {what} {inside}, not {named}", hint)
