"""A checkpoint of several files is one: what is known of a part, or of a sidecar, is known of it."""

from __future__ import annotations

from collections.abc import Iterable

from ckptrules.engine.checkpoints import Checkpoint, Evidence
from ckptrules.engine.sorting import Sorted


def by_heads(evidence: Evidence, found: Sorted) -> Evidence:
    """Let what is known of one part be known of the whole checkpoint, under the name that it goes by."""
    if not found.has_parts:
        return evidence
    whole = {name: one for one in (*found.checkpoints, *found.protected) if one.parts for name in one.names}
    in_use = {name: why for name, why in evidence.in_use.items() if name not in whole}
    metrics = {name: told for name, told in evidence.metrics.items() if name not in whole}
    verified = evidence.verified
    for head, one in {one.entry.name: one for one in whole.values()}.items():
        if used := next((name for name in one.names if name in evidence.in_use), ""):
            in_use[head] = evidence.in_use[used] + f" ({used})" * (used != head)
        metrics[head] = {key: text for name in one.names for key, text in evidence.metrics.get(name, {}).items()}
        if verified is not None and not verified.issuperset(one.names):
            verified -= {head}
    same = {name: number for name, number in evidence.same.items() if name not in whole}
    return evidence._replace(in_use=in_use, metrics=metrics, verified=verified, same=same)


def with_metrics(checkpoint: Checkpoint, evidence: Evidence) -> Checkpoint:
    """Add what the sidecars of a checkpoint tell."""
    told = evidence.metrics.get(checkpoint.entry.name)
    return checkpoint._replace(metrics=told) if told else checkpoint


def all_names(found: Sorted, heads: Iterable[str]) -> tuple[str, ...]:
    """Return all names of some checkpoints."""
    whole = {one.entry.name: one.names for one in (*found.checkpoints, *found.protected) if one.parts}
    return tuple(dict.fromkeys(name for head in heads for name in whole.get(head, (head,))))
