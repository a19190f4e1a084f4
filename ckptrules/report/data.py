"""Writes plans and runs as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any
from zlib import compress, decompress

from ckptrules.engine.actions import Action, Plan, Skipped
from ckptrules.engine.entries import Entry
from ckptrules.engine.names.drafting import drafts
from ckptrules.report.checkpoints import Details, line_as_data, reason_as_data

SCHEMA_VERSION = 2


def plan_as_data(
    plan: Plan, state: str, entries: Iterable[Entry] = (), details: Details | None = None
) -> dict[str, Any]:
    """Return one plan in the JSON form that ``docs/json.md`` describes.

    Args:
        plan: what is to happen, or did.
        state: ``planned``, ``done``, ``problems`` or ``up to date``.
        entries: what is in the directory, if it was read.
        details: its checkpoints, if they were read.
    """
    details = details or Details((), plan.kept)
    return {
        "experiment": plan.experiment,
        "directory": plan.directory,
        "state": state,
        "actions": [_action_as_data(action, plan.directory) for action in plan.actions],
        "checkpoints": list(details.rows),
        "stays": [
            {
                "name": row.name,
                "with_it": list(row.with_it),
                "bytes": row.size,
                "reasons": [*map(reason_as_data, row.reasons)],
            }
            for row in details.stays
        ],
        "skipped": [*_skipped_as_data(plan.skipped, {entry.name: entry for entry in entries})],
        "problems": [{**problem._asdict(), "hint": problem.hint or None} for problem in plan.problems],
        "notes": [*map(reason_as_data, plan.notes)],
        "policy": reason_as_data(plan.policy) if plan.policy else None,
        "metric": {"name": details.metric[0], "mode": details.metric[1]} if details.metric else None,
        "best_goes": list(plan.best_goes),
        "number": details.number or None,
    }


def _action_as_data(action: Action, directory: str) -> dict[str, Any]:
    return {
        "action": action.kind,
        "name": action.name,
        "to": action.to or None,
        "directory": action.directory or directory,
        "with_it": [{"name": name, "to": to or None} for name, to in action.with_it],
        "parts": action.parts,
        "bytes": action.size,
        "reasons": [*map(reason_as_data, action.reasons)],
        "leaves_link": action.leaves_link,
        "saves": [*map(line_as_data, action.saves)],
    }


def _skipped_as_data(skipped: Sequence[Skipped], there: Mapping[str, Entry]) -> Iterator[dict[str, Any]]:
    unread = [there[row.name] for row in skipped if row.kind == "unrecognised" and row.name in there]
    drafted = drafts((entry.name, entry.kind == "directory") for entry in unread)
    for row in skipped:
        entry = there.get(row.name)
        yield {
            "name": row.name,
            "kind": row.kind,
            "bytes": entry and entry.size,
            "time_ns": entry and entry.mtime_ns,
            "draft": "\n".join(drafted.get(row.name, ())) or None,
            "reasons": [reason_as_data(row.reason)],
        }


class Experiments:
    """Directories in the JSON form, by path. They are held compressed: 1,000,000 checkpoints would take 3 GB."""

    def __init__(self) -> None:
        self._packed: list[tuple[str, bytes]] = []

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for _, packed in sorted(self._packed, key=itemgetter(0)):
            yield json.loads(decompress(packed))

    def add(self, experiment: Mapping[str, Any]) -> None:
        """Add a directory."""
        self._packed.append((str(experiment["directory"]), compress(json.dumps(experiment).encode(), 1)))
