"""What is wrong with names and contents, and what the parts of a checkpoint come to."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence

from ckptrules.engine.actions import Problem
from ckptrules.engine.checkpoints import Checkpoint, Part
from ckptrules.engine.companions import suffix_of
from ckptrules.engine.comparing import compare
from ckptrules.engine.entries import Listing
from ckptrules.engine.ruleset import Reason
from ckptrules.engine.sorting import Sorted
from ckptrules.formats.content import FileContent, together
from ckptrules.verify.memory import CheckResult
from ckptrules.verify.portion import Checked


def not_whole(checkpoint: Checkpoint, why: Reason) -> Problem:
    """Tell of a checkpoint that lacks something; its content is not looked at."""
    hint = "wait until the training has written it; if nothing will, bring back what it lacks, or remove it"
    return Problem("not_whole", checkpoint.names, why.text, hint)


def unlike_others(
    rows: Iterable[Checked], faults: Iterable[Problem], checkpoints: Iterable[Checkpoint]
) -> Iterator[Problem]:
    """Yield the faults of what is in no known format, where others of its series are: its beginning was overwritten."""
    kinds = {
        part.entry.name: (one.series, part.text, os.path.splitext(part.entry.name)[1])
        for one in checkpoints
        for part in one.parts or (Part(one.entry, "", ""),)
    }
    understood = {kinds[row.name] for row in rows if row.known and row.name in kinds}
    yield from (one for one in faults if one.id == "unknown_format" and kinds.get(one.names[0]) in understood)


def told_once(faults: Sequence[Problem], checkpoints: Iterable[Checkpoint]) -> list[Problem]:
    """Make one problem of what is wrong in the same way with several parts of a checkpoint."""
    heads = {name: one.entry.name for one in checkpoints for name in one.names}
    alike: dict[tuple[str, ...], list[Problem]] = {}
    for fault in faults:
        alike.setdefault((heads.get(fault.names[0], fault.names[0]), *fault[:1], *fault[2:4]), []).append(fault)
    return [same[0]._replace(names=tuple(name for one in same for name in one.names)) for same in alike.values()]


def joined(rows: Sequence[Checked], checkpoints: Iterable[Checkpoint]) -> list[Checked]:
    """Make one row of the parts of a checkpoint; it is sound only where all of them are."""
    of_parts = {one.entry.name: one for one in checkpoints if one.parts}
    heads = {name: head for head, one in of_parts.items() for name in one.names}
    groups: dict[str, list[Checked]] = {}
    for row in rows:
        groups.setdefault(heads.get(row.name, row.name), []).append(row)
    return sorted(_one_of(of_parts[head], group) if head in of_parts else group[0] for head, group in groups.items())


def _one_of(checkpoint: Checkpoint, rows: Sequence[Checked]) -> Checked:
    names, known = checkpoint.names, None
    parts = [row.known for row in sorted(rows, key=lambda row: names.index(row.name)) if row.known]
    if len(parts) == len(names):
        kind = ", ".join(dict.fromkeys(part.facts.kind for part in parts))
        done = frozenset.intersection(*(part.done for part in parts))
        known = CheckResult(together(kind, (part.facts for part in parts)), done)
    return Checked(
        names[0],
        checkpoint.entry.size,
        known,
        any(row.read for row in rows),
        names[1:],
        all(row.whole for row in rows),
        any(row.unread for row in rows),
    )


def name_problems(
    found: Sorted, listing: Listing, sidecars: tuple[str, ...], known: Collection[str]
) -> Iterator[Problem]:
    """Tell of names that are neither protected nor as they should be, and of sidecars that belong to nothing.

    Of those that are ``known``, all has been said.
    """
    for checkpoint in found.checkpoints:
        name = checkpoint.entry.name
        if checkpoint.target != name and name not in known:
            hint = f"'doit migrate' renames it to {checkpoint.target}"
            yield Problem("not_migrated", checkpoint.names, "has an old name", hint)
    owners = [entry.name for entry in listing.entries if not entry.name.endswith(sidecars)]
    stems = {stem for name in owners for stem in (name, os.path.splitext(name)[0])}
    for name in (row.name for row in found.skipped if row.kind == "unrecognised" and row.name not in known):
        suffix = suffix_of(name, sidecars)
        if not suffix:
            hint = "add its format, or list it under 'protected' or 'ignored'"
            yield Problem("unrecognised", (name,), "is in no format that the rules know", hint)
        elif name.removesuffix(suffix) not in stems:
            hint = "rename it as its checkpoint was, or remove it"
            yield Problem("lost_sidecar", (name,), "belongs to no checkpoint that is here", hint)


def content_problems(rows: Sequence[tuple[Checkpoint, str, FileContent]]) -> list[Problem]:
    """Compare epoch and step inside the checkpoints of a directory, or parts of them, with what their names say.

    Each row has a checkpoint, the name of its part, and what stands in that. Where all hold one more than they say,
    that is how their program counts (facebookresearch/dino 7c446df5, main_dino.py).
    """
    compared = compare((one.fields, facts.inside) for one, _, facts in rows)
    several = len({one.entry.name for one, _, facts in rows if compare([(one.fields, facts.inside)]).opened}) > 1
    if several and compared.one_less == compared.opened:
        return []
    return [problem for row in rows for problem in _unlike_its_name(*row)]


def _unlike_its_name(checkpoint: Checkpoint, name: str, facts: FileContent) -> Iterator[Problem]:
    more = 1 if facts.counts_from_1 else 0
    for what, said, inside in (("epoch", checkpoint.epoch, facts.epoch), ("step", checkpoint.step, facts.step)):
        if said is not None and inside is not None and not said <= inside <= said + more:
            hint = "somebody renamed or overwrote it: find out which of the two is right"
            yield Problem("other_content", (name,), f"holds {what} {inside}, not {said}", hint)
